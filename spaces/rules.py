"""What holds between the settings of a space: ``when`` and ``forbid``.

The registry knows which options a block has and where it can stand; a space's own rules say the
rest. ``when`` leaves a setting out where its conditions do not hold: it is not asked about and has
its ``else`` there, or its first value. ``forbid`` takes combinations out: a proposal that falls
under one is no candidate and costs no trial.

A rule names settings as the sampler does (``type``, ``placement``, ``se.reduction``), training
settings with ``training.`` before them. What it says of attention must hold of one decision: the
network's, or one stage's or unit's where those decide for themselves. Rules are part of the space's
identity and never of a candidate's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from blocks.options import OptionValue
from spaces.parameters import Domain, fixed
from spaces.values import SCALARS, End, Scalar, Section, distinct, is_number, scalar

TRAINING = "training."
BACKBONE = "backbone"
INPUT_SIZE = f"{TRAINING}input_size"
ELSE = "else"
TYPE = "type"

Settings = Mapping[str, OptionValue]


# As a file gives them. ---------------------------------------------------------------------------


class Bounds(Section):
    """Numbers above one, below another, or between them; neither is among them."""

    above: End = None
    below: End = None


def _listed_value(value: Any) -> Any:
    """A value in a list; placements, stages and blocks at once may be a list themselves."""
    together = isinstance(value, list) and len(value) > 1
    return " + ".join(str(scalar(one)) for one in value) if together else scalar(value)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "range" if isinstance(value, (dict, Bounds)) else "value"


_SEVERAL = {"type": "array", "items": SCALARS, "minItems": 2}
_Item: Any = Annotated[
    Any, PlainValidator(_listed_value), WithJsonSchema({"anyOf": [SCALARS, _SEVERAL]})
]
Given: Any = Annotated[
    Annotated[list[_Item], Field(min_length=1), AfterValidator(distinct), Tag("list")]
    | Annotated[Bounds, Tag("range")]
    | Annotated[Scalar, Tag("value")],
    Discriminator(_kind),
]
Conditions: Any = Annotated[dict[str, Given], Field(min_length=1)]


# As they hold. -----------------------------------------------------------------------------------


def among(value: OptionValue, values: Sequence[OptionValue]) -> bool:
    """Whether a value is one of several; true is not the number 1."""
    return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)


@dataclass(frozen=True)
class Condition:
    """One setting, and the values with which the condition holds.

    Args:
        setting: Its name, a training setting's with "training." before it.
        values: The values; empty where bounds are given.
        above: Numbers above this one, where there are no values.
        below: And below this one.
    """

    setting: str
    values: tuple[OptionValue, ...] = ()
    above: float = -math.inf
    below: float = math.inf

    @property
    def is_shared(self) -> bool:
        """Whether it is about the candidate as a whole and not about one decision."""
        return self.setting == BACKBONE or self.setting.startswith(TRAINING)

    def accepts(self, value: OptionValue) -> bool:
        """Whether it holds with this value."""
        if self.values:
            return among(value, self.values)
        return is_number(value) and self.above < float(value) < self.below

    def holds(self, settings: Settings) -> bool:
        """Whether the setting matters there and has such a value."""
        return self.setting in settings and self.accepts(settings[self.setting])

    def __str__(self) -> str:
        words = [" or ".join(map(str, self.values))] if self.values else []
        words += [f"above {self.above:g}"] if self.above > -math.inf else []
        words += [f"below {self.below:g}"] if self.below < math.inf else []
        return f"{self.setting} {' and '.join(words)}"


@dataclass(frozen=True)
class Rule:
    """Conditions that hold together.

    Args:
        conditions: All of them.
        path: Where the file has it.
    """

    conditions: tuple[Condition, ...]
    path: tuple[str | int, ...]

    @cached_property
    def shared(self) -> tuple[Condition, ...]:
        """Those about backbone and training."""
        return tuple(one for one in self.conditions if one.is_shared)

    @cached_property
    def own(self) -> tuple[Condition, ...]:
        """Those about one decision."""
        return tuple(one for one in self.conditions if not one.is_shared)

    def holds(self, shared: Settings, decisions: Iterable[Settings]) -> bool:
        """Whether a candidate fulfils it.

        Args:
            shared: Its backbone and training settings.
            decisions: The attention settings of each decision.
        """
        if not all(one.holds(shared) for one in self.shared):
            return False
        if not self.own:
            return True
        return any(all(one.holds(settings) for one in self.own) for settings in decisions)

    def __str__(self) -> str:
        return ", ".join(map(str, self.conditions))


@dataclass(frozen=True)
class When:
    """A setting that is asked about only where a rule holds.

    Args:
        setting: Its name.
        rule: Where it is asked about.
        otherwise: Its value elsewhere.
    """

    setting: str
    rule: Rule
    otherwise: OptionValue


@dataclass(frozen=True)
class Rules:
    """All rules of a space.

    Args:
        whens: Setting -> where it is asked about.
        forbidden: What is no candidate.
    """

    whens: Mapping[str, When] = field(default_factory=dict)
    forbidden: tuple[Rule, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return not self.whens and not self.forbidden

    def narrowed(
        self, setting: str, domain: Domain, shared: Settings, decisions: Iterable[Settings]
    ) -> Domain:
        """The values to ask about, as far as the settings are known: one value where left out."""
        when = self.whens.get(setting)
        if when is None or when.rule.holds(shared, decisions):
            return domain
        return fixed(when.otherwise)

    def broken(self, shared: Settings, decisions: Sequence[Settings]) -> str:
        """The rule of ``forbid`` that a candidate falls under, in words; empty where none."""
        rule = next((one for one in self.forbidden if one.holds(shared, decisions)), None)
        return "" if rule is None else str(rule)

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Training settings, each behind those that decide about it, else in their order."""
        left, ordered = list(names), []
        if not self.whens:
            return left
        while left:
            # The reader has refused circles, so that one of them is always ready.
            ready = (name for name in left if not (self._deciders(name) & set(left) - {name}))
            ordered.append(next(ready, left[0]))
            left.remove(ordered[-1])
        return ordered

    def _deciders(self, name: str) -> set[str]:
        when = self.whens.get(TRAINING + name)
        conditions = when.rule.shared if when is not None else ()
        return {one.setting.removeprefix(TRAINING) for one in conditions}

    def of_networks(self) -> Rules:
        """Those that say nothing of training, but for the size of images."""

        def untrained(rule: Rule) -> bool:
            return all(one.setting in (BACKBONE, INPUT_SIZE) for one in rule.shared)

        return Rules(self.whens, tuple(rule for rule in self.forbidden if untrained(rule)))

    def settings(self) -> Iterator[str]:
        """Every setting that some rule names."""
        yield from self.whens
        for rule in [*self.forbidden, *(when.rule for when in self.whens.values())]:
            yield from (one.setting for one in rule.conditions)
