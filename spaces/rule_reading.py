"""From what a file says under ``when`` and ``forbid`` to rules, and whether they make sense.

A rule must name settings and values that the space has, and must change something: one that
forbids nothing, or everything, is a mistake. What it comes to is found by asking for every
combination of the settings that some rule names, as a proposal would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from typing import Any

from blocks import registry
from blocks.errors import BlockError, listing, suggestion
from blocks.frequency import SINGLES, sorted_frequency
from blocks.options import OptionValue
from blocks.site import STEM
from spaces.drawing import ENUMERATION_LIMIT, Answers, decide, every, training_settings
from spaces.parameters import Choice, Choose, Domain, Range, fixed
from spaces.places import placement_words, stage_mask
from spaces.rules import (
    BACKBONE,
    ELSE,
    INPUT_SIZE,
    TRAINING,
    TYPE,
    Bounds,
    Condition,
    Rule,
    Rules,
    Settings,
    When,
    among,
)
from spaces.space import AttentionSpace, Space
from spaces.values import is_number

Where = tuple[str | int, ...]
Found = tuple[Where, str]  # a mistake: where it is, and what is wrong
SAME_FOR_ALL = ("epochs", "reference_batch")
LAST = 1000  # rank of training settings, which are asked about when all else is known


def read_rules(
    space: Space,
    when: Mapping[str, Mapping[str, Any]],
    forbid: list[Mapping[str, Any]],
    *,
    lenient: bool = False,
) -> tuple[Rules, list[Found]]:
    """The rules of a space, and what is wrong with them.

    Args:
        space: Without its rules.
        when: As checked against the schema.
        forbid: The same.
        lenient: Whether rules may name what the space no longer has (``--set`` narrows it).
    """
    reader = _Reader(space)
    whens = {setting: reader.when(setting, given) for setting, given in when.items()}
    forbidden = tuple(
        reader.rule(given, ("forbid", index), f"forbid, item {index + 1}")
        for index, given in enumerate(forbid)
    )
    rules = Rules({name: one for name, one in whens.items() if one is not None}, forbidden)
    if lenient:
        reader.found.clear()
    if not reader.found:
        reader.found += _circles(rules)
    if not reader.found:
        reader.found += _Outcome(replace(space, rules=rules)).problems(lenient=lenient)
    return rules, reader.found


# Names and values. -------------------------------------------------------------------------------


class _Reader:
    """Reads rules against the settings that a space has; collects what is wrong."""

    def __init__(self, space: Space) -> None:
        self.domains = _domains(space)
        self.ranks = _ranks(space.attention)
        own = {name for options in space.attention.own.values() for name in options}
        self.of_any = own - set(space.attention.shared)  # in conditions alone: of any block
        self.found: list[Found] = []

    def rule(self, given: Mapping[str, Any], path: Where, where: str) -> Rule:
        conditions = [
            self._condition(setting, value, (*path, setting), where)
            for setting, value in given.items()
        ]
        return Rule(tuple(conditions), path)

    def when(self, setting: str, given: Mapping[str, Any]) -> When | None:
        path, where = ("when", setting), f"when.{setting}"
        rule = self.rule({k: v for k, v in given.items() if k != ELSE}, path, where)
        asked = [name for name in self.domains if name not in self.of_any]
        if setting == BACKBONE:
            self.found.append((path, f"{where}: backbone is asked first, so nothing decides of it"))
        elif setting not in asked:
            near = suggestion(setting, asked)
            text = f"{where}: the space has no setting {setting!r}.{near} It has: {listing(asked)}"
            self.found.append((path, text))
        elif self.domains[setting].is_fixed:
            self.found.append((path, f"{where} changes nothing: the space has one value of it"))
        else:
            self._check_order(setting, rule, where)
            return When(setting, rule, self._otherwise(setting, given, where))
        return None

    def _otherwise(self, setting: str, given: Mapping[str, Any], where: str) -> OptionValue:
        """The value where it is left out: its ``else``, or the baseline's."""
        domain, path = self.domains[setting], ("when", setting, ELSE)
        if ELSE not in given:
            return domain.default
        value = given[ELSE]
        one = () if isinstance(value, (list, Bounds)) else self._normal(setting, value, path, where)
        if len(one) == 1 and _has(domain, one[0]):
            return one[0]
        text = f"{where}.{ELSE} must be one of the values of {setting}: {_shown(domain)}"
        self.found.append((path, text))
        return domain.default

    def _check_order(self, setting: str, rule: Rule, where: str) -> None:
        if not rule.conditions:
            text = f"{where} gives no condition; write where {setting} is asked about"
            self.found.append((rule.path, text))
        for condition in rule.conditions:
            name = condition.setting
            turn, own_turn = self._turn(name), self._turn(setting)
            late = turn >= own_turn and not turn == own_turn == LAST
            if name == setting or (late and name in self.domains):
                text = (
                    f"{where}: {name} is decided with or after {setting}, so it cannot decide of"
                    " it; turn the condition round, or use forbid"
                )
                self.found.append(((*rule.path, name), text))

    def _turn(self, setting: str) -> int:
        return self.ranks.get(setting, LAST)

    def _condition(self, setting: str, given: Any, path: Where, where: str) -> Condition:
        domain = self.domains.get(setting)
        if domain is None:
            self._unknown(setting, path, where)
            return Condition(setting, ("",))
        if isinstance(given, Bounds):
            return self._bounds(setting, domain, given, path, where)
        values: list[OptionValue] = []
        for index, value in enumerate(given if isinstance(given, list) else [given]):
            here = (*path, index) if isinstance(given, list) else path
            for one in self._normal(setting, value, here, where):
                self._check_value(setting, domain, one, here, where)
                values.append(one)
        return Condition(setting, tuple(values) or ("",))

    def _unknown(self, setting: str, path: Where, where: str) -> None:
        if setting.removeprefix(TRAINING) in SAME_FOR_ALL:
            text = f"{where}: {setting} is the same for all candidates"
        else:
            bare = [name for name in self.domains if name == TRAINING + setting]
            near = f" Did you mean {bare[0]!r}?" if bare else suggestion(setting, self.domains)
            has = listing(name for name in self.domains if not name.startswith(TRAINING))
            text = (
                f"{where}: the space has no setting {setting!r}.{near} It has: {has}, and"
                f" {TRAINING}NAME for settings of training"
            )
        self.found.append((path, text))

    def _bounds(
        self, setting: str, domain: Domain, given: Bounds, path: Where, where: str
    ) -> Condition:
        if given.above is None and given.below is None:
            text = f"{where}: {setting} has an empty range; write {{above: 0.01}}, {{below: 0.1}}"
            self.found.append((path, f"{text} or both"))
        low = -math.inf if given.above is None else float(given.above)
        high = math.inf if given.below is None else float(given.below)
        condition = Condition(setting, above=low, below=high)
        if isinstance(domain, Range):
            some = max(low, domain.low) < min(high, domain.high)
        else:
            some = any(condition.accepts(value) for value in domain.values)
        if not some:
            text = f"{where}: the space has no value of {condition}; it has {_shown(domain)}"
            self.found.append((path, text))
        return condition

    def _check_value(
        self, setting: str, domain: Domain, value: OptionValue, path: Where, where: str
    ) -> None:
        if isinstance(domain, Range):
            text = f"{where}: {setting} is a range; write {{above: ...}}, {{below: ...}} or both"
            self.found.append((path, text))
        elif not among(value, domain.values):
            near = suggestion(value, map(str, domain.values))
            text = f"{where}: the space has no {setting} {value!r}.{near} It has: {_shown(domain)}"
            self.found.append((path, text))

    def _normal(self, setting: str, value: Any, path: Where, where: str) -> tuple[OptionValue, ...]:
        """A value in the space's spelling; several for a word that means several."""
        option = "" if setting.startswith(TRAINING) else setting.rpartition(".")[2]
        try:
            if option == "placement":
                return (placement_words(value),)
            if option == "stages":
                return (stage_mask(value),)
            if option == "frequency":
                return SINGLES if value == "singles" else (sorted_frequency(str(value)),)
        except (ValueError, BlockError) as error:
            self.found.append((path, f"{where}: {error}"))
            return ()
        return (value,)


def _has(domain: Domain, value: OptionValue) -> bool:
    if isinstance(domain, Range):
        return is_number(value) and domain.low <= float(value) <= domain.high
    return among(value, domain.values)


def _shown(domain: Domain) -> str:
    if isinstance(domain, Range):
        return f"{domain.low:g} to {domain.high:g}"
    return listing(domain.values)


def _domains(space: Space) -> dict[str, Domain]:
    """Every setting that a rule can name, with its values."""
    attention = space.attention
    found: dict[str, Domain] = {
        BACKBONE: space.backbones,
        TYPE: attention.blocks,
        "placement": attention.placements,
        **attention.shared,
        **_own_options(attention),
        "position": attention.positions,
        "stages": attention.stages,
        "identity_start": attention.identity_start,
    }
    trained = {n: d for n, d in space.training.items() if n not in SAME_FOR_ALL}
    return found | {TRAINING + name: domain for name, domain in trained.items()}


def _own_options(attention: AttentionSpace) -> dict[str, Choice]:
    """Options of single blocks: ``se.reduction``, and ``reduction`` for any block that has it."""
    own = {
        f"{block}.{name}": choice
        for block, options in attention.own.items()
        for name, choice in options.items()
    }
    bare: dict[str, Choice] = {}
    for name, choice in own.items():
        option = name.rpartition(".")[2]
        before = bare[option].values if option in bare else ()
        bare[option] = Choice(tuple(dict.fromkeys((*before, *choice.values))))
    return {**own, **{n: c for n, c in bare.items() if n not in attention.shared}}


def _ranks(attention: AttentionSpace) -> dict[str, int]:
    """Setting -> its turn in a proposal; training settings but the size of images come last."""
    own = [f"{block}.{name}" for block, options in attention.own.items() for name in options]
    order = [BACKBONE, INPUT_SIZE, TYPE, "placement", *own, *attention.shared]
    order += ["position", "stages", "identity_start"]
    ranks = {name: turn for turn, name in enumerate(order)}
    bare = {name.rpartition(".")[2]: ranks[name] for name in own}
    return bare | ranks


def _circles(rules: Rules) -> Iterator[Found]:
    """Training settings that decide of each other."""
    for name, when in rules.whens.items():
        reached, new = {name}, {name}
        while new:
            deciders = {
                condition.setting
                for one in new
                if one in rules.whens
                for condition in rules.whens[one].rule.shared
            }
            if name in deciders:
                yield when.rule.path, f"when.{name}: its conditions come back to {name} itself"
                break
            new = deciders - reached
            reached |= new


# What they come to. ------------------------------------------------------------------------------


class _Outcome:
    """What rules do to the combinations of the settings that they name."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.rules = space.rules
        self.fired = [False] * len(self.rules.forbidden)
        self.spared = [False] * len(self.rules.forbidden)  # a combination with attention
        self.held = dict.fromkeys(self.rules.whens, False)
        self.left_out = dict.fromkeys(self.rules.whens, False)
        self.anything, self.tried = False, False
        listed = list(islice(_combinations(space), ENUMERATION_LIMIT))
        self.complete = len(listed) < ENUMERATION_LIMIT
        for shared, decisions in listed:
            self._note(shared, decisions)

    def _note(self, shared: Settings, decisions: list[dict[str, OptionValue]]) -> None:
        attention = any(settings[TYPE] != registry.NONE for settings in decisions)
        forbidden = [rule.holds(shared, decisions) for rule in self.rules.forbidden]
        for index, holds in enumerate(forbidden):
            self.fired[index] |= holds
            self.spared[index] |= attention and not holds
        self.tried |= attention
        self.anything |= attention and not any(forbidden)
        for name, when in self.rules.whens.items():
            if name in shared or any(name in settings for settings in decisions):
                holds = when.rule.holds(shared, decisions)
                self.held[name] |= holds
                self.left_out[name] |= not holds

    def problems(self, *, lenient: bool) -> Iterator[Found]:
        """Rules that change nothing, leave nothing, or forbid the baseline."""
        if self.complete and not lenient:
            yield from self._idle()
        if self.complete and self.tried and not self.anything:
            yield from self._nothing_left()
        yield from self._baselines()

    def _idle(self) -> Iterator[Found]:
        for index, rule in enumerate(self.rules.forbidden):
            if not self.fired[index]:
                text = f"forbid, item {index + 1} forbids nothing: no candidate has {rule}"
                yield rule.path, f"{text}; take it out, or correct it"
        for name, when in self.rules.whens.items():
            if not self.left_out[name]:
                text = f"when.{name} changes nothing: {when.rule} holds wherever {name} matters"
                yield when.rule.path, f"{text}; take it out"
            elif not self.held[name]:
                text = f"when.{name}: {when.rule} holds nowhere, so that {name} is never asked"
                yield when.rule.path, f"{text} about; correct it, or fix {name}"

    def _nothing_left(self) -> Iterator[Found]:
        alone = [
            rule for rule, some in zip(self.rules.forbidden, self.spared, strict=True) if not some
        ]
        for rule in alone:
            text = f"forbid, item {int(rule.path[-1]) + 1} forbids everything but no attention"
            yield rule.path, f"{text}: every candidate has {rule}"
        if not alone:
            yield ("forbid",), "forbid: together its items leave nothing but no attention"

    def _baselines(self) -> Iterator[Found]:
        for name in self.space.backbones.values:
            answers = Answers(self.rules, lambda _, domain: domain.default)
            answers.ask_shared(BACKBONE, BACKBONE, fixed(name))
            answers.decisions.append({TYPE: registry.NONE})
            training_settings(self.space, answers, attention=False)
            for index, rule in enumerate(self.rules.forbidden):
                if rule.holds(answers.shared, answers.decisions):
                    yield (
                        rule.path,
                        f"forbid, item {index + 1} forbids the baseline ({name}, no attention,"
                        f" searched settings at their first or middle values): {rule}; it is what"
                        " all else is compared with, so name attention in the rule",
                    )
                    return


def _combinations(space: Space) -> Iterator[tuple[Settings, list[dict[str, OptionValue]]]]:
    """(backbone and training, decisions) of every combination of settings that rules name."""
    space = _scoped(space)
    inside = Choice(tuple(p for p in space.attention.placements.values if p != STEM))
    ways = [("", space.attention.placements)]
    if space.attention.per_stage or space.attention.per_unit:
        ways = [("stage1.", inside)] if inside.values else []
        if STEM in space.attention.placements.values:
            ways.append((f"{STEM}.", Choice((STEM,))))

    def ask(prefix: str, places: Choice, choose: Choose) -> Answers:
        answers = Answers(space.rules, choose)
        answers.ask_shared(BACKBONE, BACKBONE, space.backbones)
        answers.ask_shared(INPUT_SIZE, "input_size", space.training["input_size"])
        decision = decide(space, answers, prefix, places)
        training_settings(space, answers, attention=decision is not None)
        return answers

    for prefix, places in ways:
        for answers in every(partial(ask, prefix, places), space.source):
            yield answers.shared, answers.decisions


def _scoped(space: Space) -> Space:
    """The space with one value of every setting that no rule names, but type and placement."""
    rules, attention = space.rules, space.attention
    named = set(rules.settings())

    def scoped(setting: str, domain: Choice) -> Choice:
        bare = setting.rpartition(".")[2]
        return domain if {setting, bare} & named else fixed(domain.default)

    training: dict[str, Domain] = {
        name: _points(domain, _edges(rules, TRAINING + name))
        if TRAINING + name in named
        else fixed(domain.default)
        for name, domain in space.training.items()
    }
    own = {
        block: {name: scoped(f"{block}.{name}", choice) for name, choice in options.items()}
        for block, options in attention.own.items()
    }
    scope = replace(
        attention,
        own=own,
        shared={name: scoped(name, choice) for name, choice in attention.shared.items()},
        positions=scoped("position", attention.positions),
        stages=scoped("stages", attention.stages),
        identity_start=scoped("identity_start", attention.identity_start),
    )
    backbones = space.backbones if BACKBONE in named else fixed(space.backbones.default)
    return replace(space, backbones=backbones, attention=scope, training=training)


def _edges(rules: Rules, setting: str) -> set[float]:
    """The bounds that rules set to a setting."""
    every_rule = [*rules.forbidden, *(when.rule for when in rules.whens.values())]
    conditions = [one for rule in every_rule for one in rule.conditions if one.setting == setting]
    return {edge for one in conditions for edge in (one.above, one.below) if math.isfinite(edge)}


def _points(domain: Domain, edges: set[float]) -> Choice:
    """Values that stand for a range: one between any two bounds of rules, and the bounds."""
    if isinstance(domain, Choice):
        return domain
    marks = sorted({domain.low, domain.high, *(e for e in edges if domain.low < e < domain.high)})
    between = [(one + other) / 2 for one, other in pairwise(marks)]
    points = sorted({*marks, *between, domain.default})
    if domain.is_integer:
        whole = {f(point) for point in points for f in (math.floor, math.ceil)}
        points = sorted(point for point in whole if domain.low <= point <= domain.high)
    return Choice(tuple(points))
