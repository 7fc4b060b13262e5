"""Proposals that a user gives: read, checked against the space, and which are still to come.

They are taken right after the baselines, in their order, once each. What a proposal leaves out is
chosen by the sampler. That one was taken is seen by its mark in the stored proposals, so that a
study that goes on knows it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from blocks.errors import BlockError, SiteError, StudyError, listing, suggestion
from blocks.frequency import sorted_frequency
from blocks.options import OptionValue
from search.records import ProposalRow
from spaces.candidate import DataFacts
from spaces.document import YamlRefusal, read_yaml
from spaces.drawing import Proposal, baseline_candidates, draw, propose
from spaces.flat import flat_domains
from spaces.parameters import Choice, Domain, Range
from spaces.space import Space

Given = dict[str, OptionValue]
MARK = "given"  # noted on a stored proposal, with what was given of it
COMPLETIONS = 500  # at random, in search of one in which all that is given matters
NEXT_SETTING = re.compile(r",(?=\s*[A-Za-z][\w.]*\s*=)")


def read_given(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """One proposal as the flag has it, ``type=se,reduction=16``, or as a mapping.

    Raises:
        StudyError: It is neither.
    """
    if not isinstance(given, str):
        return dict(given)
    settings: dict[str, Any] = {}
    for part in NEXT_SETTING.split(given):
        name, equals, text = part.partition("=")
        if not equals or not name.strip() or not text.strip():
            raise StudyError(
                f"--enqueue {given!r}: {part.strip()!r} is no setting; write NAME=VALUE with commas"
                " between, such as type=se,reduction=16"
            )
        if name.strip() in settings:
            raise StudyError(f"--enqueue {given!r}: {name.strip()} is given twice; give it once")
        try:
            settings[name.strip()] = read_yaml(text).data
        except YamlRefusal as problem:
            raise StudyError(f"--enqueue {given!r}: {problem.text}") from None
    return settings


def words(given: Mapping[str, Any]) -> str:
    """A given proposal for people: ``type=se, reduction=16``."""
    return ", ".join(f"{name}={value}" for name, value in given.items())


def settle_given(
    before: Sequence[Mapping[str, Any]],
    flags: Iterable[str | Mapping[str, Any]],
    space: Space,
    data: DataFacts,
    *,
    stored: bool,
) -> tuple[tuple[Given, ...], tuple[str, ...]]:
    """Check all given proposals against a space, before anything starts.

    Args:
        before: Those of the space file, or of the stored study.
        flags: Those of the command line, which come after them.
        space: What may vary.
        data: The data set.
        stored: Whether ``before`` are the stored study's; what no longer fits is then left out.

    Returns:
        Those to be taken, in order, and remarks on those that are not.

    Raises:
        StudyError: One does not fit the space; which, why, and what is nearest.
    """
    checker = _Checker(space, data)
    for item, given in enumerate(before, start=1):
        try:
            checker.add(given, f"{space.source}: study.enqueue, item {item}")
        except StudyError as error:
            if not stored:
                raise
            checker.remarks.append(f"{error}; it is left out")
    for flag in flags:
        given = read_given(flag)
        checker.add(given, f"--enqueue {words(given)!r}", again=stored)
    return tuple(checker.taken), tuple(checker.remarks)


class _Checker:
    """Goes through given proposals and knows those before."""

    def __init__(self, space: Space, data: DataFacts) -> None:
        self.space = space
        self.data = data
        self.domains = flat_domains(space, data, fixed=True)
        self.taken: list[Given] = []
        self.remarks: list[str] = []
        self.known: dict[str, str] = {}

    def add(self, given: Mapping[str, Any], where: str, *, again: bool = False) -> None:
        """Take one, or remark that it is there already.

        Args:
            given: The proposal.
            where: It was given, for messages.
            again: Whether the same was to be expected: the command of a study that goes on.
        """
        if not self.known:
            baselines = baseline_candidates(self.space, self.data)
            self.known = {c.digest: "the baseline, which is always there" for c, _ in baselines}
        full = {self._full_name(name, given): value for name, value in given.items()}
        values = {name: self._value(name, value, where) for name, value in full.items()}
        values = {name: v for name, v in values.items() if not self.domains[name].is_fixed}
        digest = self._completed(values, where)
        same = f"the same as {words(values)} before it" if values in self.taken else ""
        same = same or self.known.get(digest, "")
        if again and values in self.taken:
            return
        if same:
            self.remarks.append(f"{where} is {same}; it is left out")
            return
        if digest:
            self.known[digest] = f"the same candidate as {words(values)} before it"
        self.taken.append(values)

    def _full_name(self, name: str, given: Mapping[str, Any]) -> str:
        """An option by the name that it has here: that of the given block, where it is its own."""
        place, dot, option = name.rpartition(".")
        own = f"{place}{dot}{given.get(f'{place}{dot}type')}.{option}"
        return own if name not in self.domains and own in self.domains else name

    def _value(self, name: str, given: Any, where: str) -> OptionValue:
        if name not in self.domains:
            searched = [n for n, domain in self.domains.items() if not domain.is_fixed]
            near = suggestion(name, self.domains)
            raise StudyError(
                f"{where}: unknown setting {name!r}.{near} Settings of this space:"
                f" {listing(searched)}"
            )
        value = _nearest_form(name, given, self.domains[name])
        if value is None:
            allowed, near = _allowed(given, self.domains[name])
            raise StudyError(f"{where}: {name} is {given!r}; the space has {allowed}.{near}")
        return value

    def _completed(self, given: Given, where: str) -> str:
        """The digest of the candidate that this is; empty where something is left open.

        Raises:
            StudyError: In no completion does all that is given matter, or none can be built.
        """
        reason = ""
        for proposal, is_open in _completions(given, self.space, self.data):
            idle = [name for name in given if name not in proposal.values]
            if idle:
                rest = words({n: v for n, v in given.items() if n not in idle})
                reason = reason or f"{idle[0]} changes nothing beside {rest or 'the rest'}"
            else:
                try:
                    candidate = draw(proposal, self.data)
                except SiteError as error:
                    reason = str(error)
                else:
                    return "" if is_open else candidate.digest
            if not is_open:
                break
        raise StudyError(f"{where}: {reason}; leave it out or change it")


def _completions(given: Given, space: Space, data: DataFacts) -> Iterator[tuple[Proposal, bool]]:
    """Proposals with what is given, the rest by chance, each with whether there is such a rest."""
    chance = random.Random(0)
    for _ in range(COMPLETIONS):
        asked: list[str] = []

        def choose(name: str, domain: Domain, asked: list[str] = asked) -> OptionValue:
            if name in given:
                return given[name]
            asked.append(name)
            return chance.choice(domain.values) if isinstance(domain, Choice) else domain.default

        proposal = propose(space, choose, data)
        yield proposal, bool(asked)


def _nearest_form(name: str, given: Any, domain: Domain) -> OptionValue | None:
    """The domain's value that is meant, whatever its spaces or the order of its frequencies."""
    if isinstance(domain, Range):
        number = isinstance(given, (int, float)) and not isinstance(given, bool)
        whole = not domain.is_integer or isinstance(given, int)
        inside = number and whole and domain.low <= given <= domain.high
        return (int if domain.is_integer else float)(given) if inside else None
    form = _form(name, given)
    return next((value for value in domain.values if _form(name, value) == form), None)


def _form(name: str, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(float(value))
    text = "".join(str(value).split())
    if name.endswith("frequency"):
        with suppress(BlockError):
            return sorted_frequency(text)
    return text


def _allowed(given: Any, domain: Domain) -> tuple[str, str]:
    """What a domain allows, and what of it is nearest, in words."""
    if isinstance(domain, Range):
        kind = "whole numbers" if domain.is_integer else "numbers"
        allowed = f"{kind} from {domain.low} to {domain.high}"
        if isinstance(given, (int, float)):
            return allowed, f" The nearest is {min(max(given, domain.low), domain.high):g}"
        return allowed, ""
    numbers = [v for v in domain.values if isinstance(v, (int, float))]
    if isinstance(given, (int, float)) and numbers:
        near = f" The nearest is {min(numbers, key=lambda value: abs(value - given))}"
    else:
        near = suggestion(given, [str(value) for value in domain.values])
    return listing(domain.values), near


def still_to_come(given: Iterable[Given], rows: Iterable[ProposalRow]) -> Iterator[Given]:
    """The given proposals that the stored ones do not hold yet."""
    taken = [row.system_attributes[MARK] for row in rows if MARK in row.system_attributes]
    return (one for one in given if one not in taken)


def is_settled(given: Given, proposal: Proposal, space: Space, *, capped: bool) -> bool:
    """Whether no other draw with what is given would fare better than a proposal that is no trial.

    Args:
        given: What every draw of it has.
        proposal: One of them.
        space: What may vary.
        capped: Whether a cap rejected it: then only what makes another network may help.
    """
    left = set(proposal.values) - set(given)
    return not left or (capped and left <= space.training.keys() - {"input_size"})
