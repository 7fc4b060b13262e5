"""A space as a product of independent parts: stem, stages or units, and training.

Where every stage or unit decides for itself a space has far more candidates than can be listed, and
still an exact number: that of the choices of each part, multiplied. What a part holds is found by
walking through its questions alone while all others stand still; whether parts are independent is
not believed but tried, on random candidates in both directions.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from blocks import registry
from blocks.architecture import Architecture, Placement, label
from blocks.errors import SiteError
from blocks.options import OptionValue
from spaces.candidate import Candidate, DataFacts
from spaces.drawing import Proposal, draw, enumerate_proposals, propose
from spaces.parameters import Choice, Domain
from spaces.space import Space
from spaces.training import Training

PART_LIMIT = 20_000  # ways through one part's questions
TRIES = 300  # in each direction, of whether parts are independent
WHOLE = ""
CONTEXT = ("backbone", "input_size")

Answers = Mapping[str, OptionValue]
Content = tuple[Placement, ...]

_PREFIX = re.compile(r"(stem|stage\d+)(?:\.|$)(unit\d+\.)?")


class NoProductError(Exception):
    """A part cannot be listed, or holds nothing."""


@dataclass(frozen=True)
class Part:
    """What may stand at the sites of one part, whatever stands elsewhere.

    Args:
        name: The start of its parameters' names; empty where nothing decides for itself.
        ways: Every way to answer its questions, with what it comes to; None: it fits no site.
        reasons: Why some do not fit.
    """

    name: str
    ways: tuple[tuple[Answers, Content | None], ...]
    reasons: Mapping[str, int]

    @cached_property
    def contents(self) -> tuple[Content, ...]:
        """What its ways come to, each once."""
        return tuple(dict.fromkeys(content for _, content in self.ways if content is not None))

    def count(self, *, fitting: bool = False, empty: bool = False) -> int:
        """How many ways there are, of those that fit, or those without a block, alone."""
        return sum(
            (content is not None or not fitting) and (content == () or not empty)
            for _, content in self.ways
        )


@dataclass(frozen=True)
class Region:
    """All candidates of one backbone at one size of images, as a product of parts.

    Args:
        given: The backbone and the size, where the space has several.
        data: The data set at that size.
        backbone: Its name.
        parts: Of the attention.
        trained: (ways to answer the training's questions, distinct trainings) with attention.
        bare: The same without.
    """

    given: Answers
    data: DataFacts
    backbone: str
    parts: tuple[Part, ...]
    trained: tuple[tuple[Answers, ...], tuple[Training, ...]]
    bare: tuple[tuple[Answers, ...], tuple[Training, ...]]

    def proposals(self, *, fitting: bool = False) -> int:
        """Ways through all questions; those alone that give a network."""
        every = prod(part.count(fitting=fitting) for part in self.parts)
        empty = prod(part.count(empty=True) for part in self.parts)
        return (every - empty) * len(self.trained[0]) + empty * len(self.bare[0])

    @property
    def architectures(self) -> int:
        """Distinct networks."""
        return prod(len(part.contents) for part in self.parts)

    @property
    def _has_bare(self) -> bool:
        return all(() in part.contents for part in self.parts)

    @property
    def candidates(self) -> int:
        """Distinct networks with distinct trainings."""
        bare = len(self.bare[1]) * self._has_bare
        return (self.architectures - self._has_bare) * len(self.trained[1]) + bare

    def drawn(self, chance: random.Random) -> Candidate:
        """One of its candidates, each as likely as any other."""
        bare = len(self.bare[1]) * self._has_bare
        if chance.randrange(self.candidates) < bare:
            return self._candidate((), chance.choice(self.bare[1]))
        while True:
            content = _joined([chance.choice(part.contents) for part in self.parts])
            if content:
                return self._candidate(content, chance.choice(self.trained[1]))

    def _candidate(self, content: Content, training: Training) -> Candidate:
        _, height, width = self.data.input_shape
        architecture = Architecture(self.backbone, content, (height, width))
        words = label(architecture).removeprefix(f"{self.backbone} + ")
        return Candidate(architecture, training, self.data, words)


def regions_of(space: Space, data: DataFacts, *, seed: int = 0) -> tuple[Region, ...] | None:
    """A space without ranges as a product; None where it is none, or a part is too large.

    Args:
        space: Its training settings are choices.
        data: The data set.
        seed: Of the tries whether its parts are independent.
    """
    chance = random.Random(seed)
    try:
        regions = tuple(_regions(space, data, chance))
    except NoProductError:
        return None
    return regions if _independent(space, data, regions, chance) else None


def _regions(space: Space, data: DataFacts, chance: random.Random) -> Iterator[Region]:
    for backbone in space.backbones.values:
        for side in space.training["input_size"].values:  # type: ignore[union-attr]
            given = {"backbone": backbone, "input_size": side}
            names = _part_names(space, data, given, chance)
            parts = tuple(_part(space, data, given, name, names) for name in names)
            if not all(part.contents for part in parts):
                raise NoProductError
            full = _with_attention(parts)
            yield Region(
                given,
                data.at(int(side)),
                str(backbone),
                parts,
                _trainings(space, data, given, full) if full is not None else ((), ()),
                _trainings(space, data, given, None),
            )


def _joined(contents: Sequence[Content]) -> Content:
    return tuple(placement for content in contents for placement in content)


def _owner(name: str) -> str:
    """The part that a parameter, or a group of sites, belongs to by its name."""
    found = _PREFIX.match(name)
    return f"{found[1]}.{found[2] or ''}" if found else WHOLE


def _part_names(
    space: Space, data: DataFacts, given: Answers, chance: random.Random
) -> tuple[str, ...]:
    """The parts whose questions are asked, and one for what is not asked about."""
    asked: dict[str, None] = {}

    def choose(name: str, domain: Domain) -> OptionValue:
        if name not in (*CONTEXT, *space.training):
            asked[_owner(name)] = None
        return given[name] if name in given else _any(domain, chance)

    for _ in range(TRIES // 10):
        propose(space, choose, data)
    return (WHOLE,) if WHOLE in asked else (*asked, WHOLE)


def _any(domain: Domain, chance: random.Random) -> OptionValue:
    return chance.choice(domain.values) if isinstance(domain, Choice) else domain.default


def _still(name: str, domain: Domain) -> OptionValue:
    """The answer to a question that is not the one looked at: no attention where that is one."""
    bare = name.rpartition(".")[2] == "type" and registry.NONE in domain.values  # type: ignore[union-attr]
    return registry.NONE if bare else domain.default


def _part(space: Space, data: DataFacts, given: Answers, name: str, names: tuple[str, ...]) -> Part:
    def known(parameter: str, domain: Domain) -> OptionValue | None:
        if parameter in given:
            return given[parameter]
        asked = parameter not in space.training and (len(names) == 1 or _owner(parameter) == name)
        return None if asked else _still(parameter, domain)

    def mine(group: str) -> bool:
        owner = _owner(group)
        return len(names) == 1 or (owner if owner in names else WHOLE) == name

    ways: list[tuple[Answers, Content | None]] = []
    reasons: Counter[str] = Counter()
    for proposal in enumerate_proposals(space, data, known=known):
        if len(ways) == PART_LIMIT:
            raise NoProductError
        answers = _attention_answers(proposal.values, space, name, alone=len(names) == 1)
        content = None
        try:
            content = _content(proposal, data, mine)
        except SiteError as error:
            reasons[str(error)] += 1
        ways.append((answers, content))
    return Part(name, tuple(ways), reasons)


def _content(proposal: Proposal, data: DataFacts, mine: Callable[[str], bool]) -> Content:
    """What stands at a part's sites.

    Raises:
        SiteError: It fits no site.
    """
    architecture = proposal.architecture
    own = tuple(p for p in architecture.placements if mine(p.site))
    alone = replace(proposal, architecture=replace(architecture, placements=own))
    return draw(alone, data).architecture.placements


def _with_attention(parts: tuple[Part, ...]) -> Answers | None:
    """Answers that give a network with attention; None where there are none."""
    for part in parts:
        full = next((answers for answers, content in part.ways if content), None)
        if full is not None:
            others = (other.ways for other in parts if other is not part)
            fitting = [next(answers for answers, c in ways if c is not None) for ways in others]
            return {name: value for answers in (*fitting, full) for name, value in answers.items()}
    return None


def _trainings(
    space: Space, data: DataFacts, given: Answers, attention: Answers | None
) -> tuple[tuple[Answers, ...], tuple[Training, ...]]:
    """Ways through the training's questions beside one attention, and the distinct trainings.

    Args:
        space: What may vary.
        data: The data set.
        given: Backbone and size.
        attention: Answers to the other questions; None: no attention.
    """

    def known(name: str, domain: Domain) -> OptionValue | None:
        if name in given:
            return given[name]
        if name in space.training:
            return None
        return attention[name] if attention and name in attention else _still(name, domain)

    ways: list[Answers] = []
    found: dict[str, Training] = {}
    for proposal in enumerate_proposals(space, data, known=known):
        if len(ways) == PART_LIMIT:
            raise NoProductError
        ways.append(_training_answers(proposal.values, space))
        if attention is None:
            bare = Architecture(proposal.architecture.backbone)
            proposal = replace(proposal, architecture=bare)
        training = draw(proposal, data).training
        found.setdefault(json.dumps(training.identity(), sort_keys=True), training)
    return tuple(ways), tuple(found.values())


def _training_answers(values: Answers, space: Space) -> Answers:
    return {n: v for n, v in values.items() if n in space.training and n not in CONTEXT}


def _attention_answers(values: Answers, space: Space, name: str, *, alone: bool) -> Answers:
    """The answers of one part; of all attention where there is but one."""
    return {
        parameter: value
        for parameter, value in values.items()
        if parameter not in (*CONTEXT, *space.training) and (alone or _owner(parameter) == name)
    }


# Whether it is a product. ------------------------------------------------------------------------


def _independent(
    space: Space, data: DataFacts, regions: tuple[Region, ...], chance: random.Random
) -> bool:
    """Whether parts put together at random are proposals, and random proposals such parts."""
    return bool(regions) and all(
        _is_proposal(space, data, chance.choice(regions), chance)
        and _is_product(space, data, chance.choice(regions), chance)
        for _ in range(TRIES)
    )


def _is_proposal(space: Space, data: DataFacts, region: Region, chance: random.Random) -> bool:
    """Whether what the parts come to is what the questions come to, on one random choice."""
    chosen = [chance.choice(part.ways) for part in region.parts]
    contents = [content for _, content in chosen]
    answers = {name: value for part, _ in chosen for name, value in part.items()}
    ways = (region.trained if any(content != () for content in contents) else region.bare)[0]
    if not ways:
        return False
    answers |= chance.choice(ways)
    try:
        proposal = propose(space, lambda name, domain: {**answers, **region.given}[name], data)
    except KeyError:
        return False
    if set(proposal.values) - set(CONTEXT) != set(answers):
        return False
    try:
        drawn = draw(proposal, data).architecture.placements
    except SiteError:
        return None in contents
    expected = Architecture(region.backbone, _joined([c for c in contents if c is not None]))
    return None not in contents and drawn == expected.placements


def _is_product(space: Space, data: DataFacts, region: Region, chance: random.Random) -> bool:
    """Whether one random proposal is put together from answers of the parts."""

    def choose(name: str, domain: Domain) -> OptionValue:
        return region.given[name] if name in region.given else _any(domain, chance)

    proposal = propose(space, choose, data)
    if proposal.forbidden:
        return True  # it is none that is counted
    values = proposal.values
    alone = len(region.parts) == 1
    for part in region.parts:
        own = _attention_answers(values, space, part.name, alone=alone)
        if not any(answers == own for answers, _ in part.ways):
            return False
    training = _training_answers(values, space)
    return training in region.trained[0] or training in region.bare[0]
