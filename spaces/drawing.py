"""From suggestions to canonical candidates.

``propose`` asks for one value after another, each only where it matters (a reduction where the
type squeezes, a placement where there is attention), whoever answers: an Optuna trial, a random
generator, or the exhaustive walk of ``enumerate_proposals``. ``draw`` turns the answers into a
candidate whose options are what takes effect at each site.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blocks import registry
from blocks.architecture import IDENTITY_WORDS, Architecture, Placement, resolve
from blocks.backbone import PLAIN, site_table
from blocks.errors import BackboneError, SiteError, SpaceError
from blocks.options import OptionValue
from blocks.site import IN_BLOCK, STANDARD, STEM, SiteTable
from spaces.candidate import Candidate, DataFacts
from spaces.document import ALL_STAGES, JOIN, read_yaml
from spaces.parameters import Choice, Choose, Domain, fixed
from spaces.space import Space
from spaces.training import Training

LISTED, DRAWN = 2000, 500  # candidates, where a few stand for a space
ENUMERATION_LIMIT = 50_000
OF_ATTENTION = ("attention_learning_rate",)  # training settings without a say where there is none


@dataclass(frozen=True)
class Proposal:
    """Answers for every setting that matters, not yet canonical.

    Args:
        values: The searched settings alone: parameter -> value.
        architecture: With groups of sites and nominal options.
        training: Resolved training settings.
        label: A short name for people.
    """

    values: Mapping[str, OptionValue]
    architecture: Architecture
    training: Training
    label: str


class _Answers:
    """Asks for values; keeps those that were a choice."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.values: dict[str, OptionValue] = {}

    def ask(self, name: str, domain: Domain) -> OptionValue:
        if domain.is_fixed:
            return domain.default
        if name in self.values:
            return self.values[name]
        value = self.values[name] = self.choose(name, domain)
        return value


def propose(space: Space, choose: Choose, data: DataFacts) -> Proposal:
    """Ask for one candidate's settings.

    Args:
        space: What may vary.
        choose: Answers (parameter's name, its domain) with a value; asked about choices alone.
        data: The data set; the number of stages depends on its input shape.
    """
    answers = _Answers(choose)
    name = str(answers.ask("backbone", space.backbones))
    side = int(answers.ask("input_size", space.training["input_size"]))
    decisions = tuple(_decisions(space, answers, sites_of(name, data.at(side))))
    placements = tuple(placement for decision in decisions for placement in decision.placements)
    training = _training(space, answers, name, attention=bool(placements))
    label = _label(space, name, decisions_label(decisions), answers.values)
    return Proposal(answers.values, Architecture(name, placements), training, label)


def _label(space: Space, backbone: str, decisions: str, settings: Mapping[str, OptionValue]) -> str:
    """A label that says the backbone and how it is trained, each where the space has several."""
    names = [name for name, domain in space.training.items() if not domain.is_fixed]
    trained = ", ".join(_shown(name, settings[name]) for name in names if name in settings)
    words = decisions if space.backbones.is_fixed else f"{backbone} {decisions}"
    return f"{words} [{trained}]" if trained else words


def _shown(name: str, value: OptionValue) -> str:
    """A training setting in a label: ``freeze=backbone``."""
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, float):
        return f"{name}={value:.3g}"
    return f"{name}={Path(value).name if isinstance(value, str) else value}"


@dataclass(frozen=True)
class Decision:
    """One block for a number of sites.

    Args:
        block: Its short name.
        where: The sites, in words.
        groups: The sites, as placements name them.
        options: Its nominal options.
        identity_start: Whether it starts as the identity.
    """

    block: str
    where: str
    groups: tuple[str, ...]
    options: tuple[tuple[str, OptionValue], ...]
    identity_start: bool

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The block at each group of sites."""
        return tuple(
            Placement(group, self.block, self.options, self.identity_start) for group in self.groups
        )

    def __str__(self) -> str:
        options = sorted(self.options)
        words = [f"{_SHORT.get(name, f'{name}=')}{value}" for name, value in options]
        words += [IDENTITY_WORDS] * self.identity_start
        return " ".join([self.block, self.where, *words])


def _decisions(space: Space, answers: _Answers, sites: SiteTable) -> Iterator[Decision]:
    attention = space.attention
    if not (attention.per_stage or attention.per_unit):
        yield from _decision(space, answers, "", attention.placements)
        return
    if STEM in attention.placements.values:
        yield from _decision(space, answers, f"{STEM}.", Choice((STEM,)))
    inside = Choice(tuple(p for p in attention.placements.values if p != STEM))
    for prefix in inner_prefixes(space, sites) if inside.values else ():
        yield from _decision(space, answers, prefix, inside)


def inner_prefixes(space: Space, sites: SiteTable) -> Iterator[str]:
    """What the names of parameters start with, for every stage or unit that decides for itself."""
    for stage in range(1, sites.stages + 1):
        if not space.attention.per_unit:
            yield f"stage{stage}."
            continue
        for unit in range(1, sites.units(stage) + 1):
            yield f"stage{stage}.unit{unit}."


def _decision(space: Space, answers: _Answers, prefix: str, places: Choice) -> Iterator[Decision]:
    attention = space.attention
    block = str(answers.ask(f"{prefix}type", attention.blocks))
    if block == registry.NONE:
        return
    place = str(answers.ask(f"{prefix}placement", places))
    options = {
        name.rpartition(".")[2]: answers.ask(f"{prefix}{name}", choice)
        for name, choice in attention.options(block)
    }
    parts = place.split(JOIN)
    position, stages = STANDARD, ALL_STAGES
    if IN_BLOCK in parts:
        position = str(answers.ask(f"{prefix}position", attention.positions))
    if parts != [STEM] and not prefix:
        stages = str(answers.ask("stages", attention.stages))
    identity_start = bool(answers.ask(f"{prefix}identity_start", attention.identity_start))
    where = place if position == STANDARD else place.replace(IN_BLOCK, f"{IN_BLOCK}.{position}")
    inside = prefix if prefix != f"{STEM}." else ""
    groups = tuple(
        f"{stage}{part}"
        for part in where.split(JOIN)
        for stage in (_stage_prefixes(stages) if part != STEM else ("",))
    )
    yield Decision(
        block,
        f"{inside}{where}" if stages == ALL_STAGES else f"{where} {stages.replace(' ', '')}",
        tuple(f"{inside}{group}" for group in groups),
        tuple(options.items()),
        identity_start,
    )


def _stage_prefixes(stages: str) -> tuple[str, ...]:
    if stages == ALL_STAGES:
        return ("",)
    return tuple(f"stage{number}." for number in stages.split(JOIN))


def _training(space: Space, answers: _Answers, backbone: str, *, attention: bool) -> Training:
    matters = {n: d for n, d in space.training.items() if attention or n not in OF_ATTENTION}
    settings = {name: answers.ask(name, domain) for name, domain in matters.items()}
    return space.training_of(backbone, settings)


def decisions_label(decisions: Iterable[Decision]) -> str:
    """A short name: ``se in-block r=16``; ``none`` without attention."""
    return JOIN.join(str(decision) for decision in decisions) or registry.NONE


_SHORT = {
    "reduction": "r=",
    "frequency": "",
    "kernel_size": "k=",
    "energy_lambda": "lambda=",
    "blocks": "",
}


def sites_of(backbone: str, data: DataFacts) -> SiteTable:
    """The sites of a backbone for a data set's images."""
    return site_table(backbone, data.input_shape, data.classes)


def draw(proposal: Proposal, data: DataFacts) -> Candidate:
    """The canonical candidate of a proposal.

    Raises:
        SiteError: A block cannot stand at one of its sites, or the backbone has no such site.
    """
    data = data.at(proposal.training.input_size)
    sites = sites_of(proposal.architecture.backbone, data)
    try:
        architecture = resolve(proposal.architecture, sites)
    except BackboneError as error:  # no such stage or position in this one of the backbones
        raise SiteError(str(error)) from None
    training = proposal.training.of(architecture)
    return Candidate(architecture, training, data, proposal.label)


def baseline_candidates(space: Space, data: DataFacts) -> list[tuple[Candidate, dict[str, Any]]]:
    """No attention, once per backbone, with the parameters that say so.

    Searched settings stand at their declared default, else the first choice or the middle.
    """
    settings = {name: domain.default for name, domain in space.training.items()}
    result = []
    sized = data.at(int(settings["input_size"]))
    for name in space.backbones.values:
        sites = sites_of(str(name), sized)
        architecture = resolve(Architecture(str(name)), sites)
        matters = {n: value for n, value in settings.items() if n not in OF_ATTENTION}
        label = _label(space, str(name), registry.NONE, matters)
        training = space.training_of(str(name), settings).of(architecture)
        candidate = Candidate(architecture, training, sized, label)
        result.append((candidate, _baseline_values(space, str(name), data)))
    return result


def _baseline_values(space: Space, backbone: str, data: DataFacts) -> dict[str, Any]:
    """The proposal that means no attention, where the space has one; else no parameters."""
    if registry.NONE not in space.attention.blocks.values:
        return {}

    def choose(name: str, domain: Domain) -> OptionValue:
        if name == "backbone":
            return backbone
        return registry.NONE if name.rpartition(".")[2] == "type" else domain.default

    return dict(propose(space, choose, data).values)


def enumerate_proposals(space: Space, data: DataFacts) -> Iterator[Proposal]:
    """Every proposal of a space, each once, in a fixed order.

    Raises:
        SpaceError: The space has a range of numbers.
    """
    script: list[tuple[int, int]] = []  # (answer given, answers there are), one per question
    while True:
        asked = 0

        def choose(name: str, domain: Domain) -> OptionValue:
            nonlocal asked
            if not isinstance(domain, Choice):
                raise SpaceError(
                    f"{space.source}: {name} is a range, so the space cannot be enumerated; give a"
                    " list of values, or choose a sampler other than grid"
                )
            if asked == len(script):
                script.append((0, len(domain.values)))
            asked += 1
            return domain.values[script[asked - 1][0]]

        yield propose(space, choose, data)
        while script and script[-1][0] + 1 == script[-1][1]:
            script.pop()
        if not script:
            return
        script[-1] = (script[-1][0] + 1, script[-1][1])


def distinct_candidates(
    space: Space, data: DataFacts, *, limit: int = ENUMERATION_LIMIT
) -> dict[str, tuple[Candidate, Proposal]] | None:
    """Every distinct candidate that can be built, by digest; None where they cannot be listed."""
    if any(not isinstance(domain, Choice) for domain in space.training.values()):
        return None
    found: dict[str, tuple[Candidate, Proposal]] = {}
    for count, proposal in enumerate(enumerate_proposals(space, data)):
        if count >= limit:
            return None
        try:
            candidate = draw(proposal, data)
        except SiteError:
            continue
        found.setdefault(candidate.digest, (candidate, proposal))
    return found


def usual_candidates(space: Space, data: DataFacts, *, limit: int = LISTED) -> Iterator[Candidate]:
    """The space's distinct candidates; some hundred at random where they cannot be listed soon."""
    listed = distinct_candidates(space, data, limit=limit)
    if listed is not None:
        yield from (candidate for candidate, _ in listed.values())
        return
    chance = random.Random(0)

    def choose(name: str, domain: Domain) -> Any:
        return chance.choice(domain.values) if isinstance(domain, Choice) else domain.high

    for _ in range(DRAWN):
        with suppress(SiteError):
            yield draw(propose(space, choose, data), data)


def check_possible(space: Space, data: DataFacts) -> None:
    """Refuse values that no site of the space can take.

    Raises:
        SpaceError: Named values never give a network, or nothing does; with a reason for each.
    """
    _refuse_own_attention(space, data.at(int(space.training["input_size"].default)))
    # Training settings have no say in it, but for the size of the images; without them ranges are
    # no obstacle.
    settings: dict[str, Domain] = {
        name: fixed(domain.default) for name, domain in space.training.items()
    }
    settings |= {"pretrained": fixed(False), "input_size": space.training["input_size"]}
    space = replace(space, training=settings)
    works: set[tuple[str, OptionValue]] = set()
    refused: dict[tuple[str, OptionValue], str] = {}
    drawn, reason = False, ""
    for count, proposal in enumerate(enumerate_proposals(space, data)):
        if count >= ENUMERATION_LIMIT:
            return
        # A value that one stage cannot take may be there for another.
        items = [(_STAGE.sub("", name), value) for name, value in proposal.values.items()]
        try:
            draw(proposal, data)
        except SiteError as error:
            reason = reason or str(error)
            for item in items:
                refused.setdefault(item, str(error))
        else:
            drawn = True
            works.update(items)
    never = {item: why for item, why in refused.items() if item not in works}
    if never:
        # Values that go with an impossible one are impossible for its reason: it alone is named.
        first = {why: item for item, why in reversed(never.items())}
        lines = [
            f"{space.source}:{_line(space, name)}: no site can take {name} {value!r}: {why};"
            " take it out"
            for why, (name, value) in first.items()
        ]
        raise SpaceError("\n".join(lines))
    if not drawn:
        raise SpaceError(f"{space.source}: no network of this space can be built: {reason}")


def _refuse_own_attention(space: Space, data: DataFacts) -> None:
    """Refuse backbones that have attention where the baseline is to have none.

    Raises:
        SpaceError: Some have; each is named with what to write instead.
    """
    line = read_yaml(space.text).line(("backbone",))
    found = {str(name): sites_of(str(name), data).own_attention for name in space.backbones.values}
    lines = [
        f"{space.source}:{line}: {name} has attention of its own ({modules} modules), so that it is"
        f" no baseline without attention; {_without_own(name, data)}"
        for name, modules in found.items()
        if modules
    ]
    if lines:
        raise SpaceError("\n".join(lines))


def _without_own(name: str, data: DataFacts) -> str:
    """What to write instead of a backbone that has attention of its own."""
    try:
        sites_of(name + PLAIN, data)
    except BackboneError as error:
        return str(error)
    return (
        f"write {name}{PLAIN}, which is {name} without, and 'position: own' to put blocks where its"
        " own stood"
    )


def _line(space: Space, parameter: str) -> int:
    """The line of the file that gives an attention parameter its values."""
    yaml = read_yaml(space.text)
    if parameter in space.training:
        return yaml.line(("training", parameter))
    block, _, option = parameter.rpartition(".")
    own = ("attention", "type", block, option)
    return yaml.line(own if own in yaml.lines else ("attention", option))


_STAGE = re.compile(rf"^({STEM}|stage\d+)\.(unit\d+\.)?")
