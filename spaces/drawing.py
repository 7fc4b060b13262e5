"""From suggestions to canonical candidates.

``propose`` asks for one value after another, each only where it matters (a reduction where the
type squeezes, a placement where there is attention), whoever answers: an Optuna trial, a random
generator, or the exhaustive walk of ``enumerate_proposals``. ``draw`` turns the answers into a
candidate whose options are what takes effect at each site.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from blocks import registry
from blocks.architecture import IDENTITY_WORDS, Architecture, Placement, resolve
from blocks.backbone import PLAIN, site_table
from blocks.errors import BackboneError, ForbiddenError, SiteError, SpaceError
from blocks.options import OptionValue
from blocks.site import IN_BLOCK, STANDARD, STEM, SiteTable
from spaces.candidate import Candidate, DataFacts
from spaces.parameters import Choice, Choose, Domain, fixed
from spaces.places import ALL_STAGES, JOIN
from spaces.rules import BACKBONE, INPUT_SIZE, TRAINING, Rules
from spaces.space import Space
from spaces.training import Training

LISTED, DRAWN = 2000, 500  # candidates, where a few stand for a space
ENUMERATION_LIMIT = 50_000
Known = Callable[[str, Domain], OptionValue | None]
Resolve = Callable[[Architecture, SiteTable], Architecture]
OF_ATTENTION = ("attention_learning_rate",)  # training settings without a say where there is none


@dataclass(frozen=True)
class Proposal:
    """Answers for every setting that matters, not yet canonical.

    Args:
        values: The searched settings alone: parameter -> value.
        architecture: With groups of sites and nominal options.
        training: Resolved training settings.
        label: A short name for people.
        forbidden: The rule of the space that it falls under, in words; empty where none.
    """

    values: Mapping[str, OptionValue]
    architecture: Architecture
    training: Training
    label: str
    forbidden: str = ""


class Answers:
    """Asks for values where the rules leave a choice; keeps the answers, and all settings.

    Args:
        rules: The space's.
        choose: Who answers.
    """

    def __init__(self, rules: Rules, choose: Choose) -> None:
        self.rules = rules
        self.choose = choose
        self.values: dict[str, OptionValue] = {}  # parameters that were a choice
        self.shared: dict[str, OptionValue] = {}  # backbone and training, as rules name them
        self.decisions: list[dict[str, OptionValue]] = []  # the attention of each decision

    def ask_shared(self, setting: str, name: str, domain: Domain) -> OptionValue:
        """A setting of the whole candidate, once; ``name`` is its parameter's."""
        if setting not in self.shared:
            domain = self.rules.narrowed(setting, domain, self.shared, self.decisions)
            self.shared[setting] = self._ask(name, domain)
        return self.shared[setting]

    def ask_here(self, setting: str, name: str, domain: Domain) -> OptionValue:
        """A setting of the last decision; options are settings of any block by their bare name."""
        settings = self.decisions[-1]
        domain = self.rules.narrowed(setting, domain, self.shared, [settings])
        value = settings[setting] = self._ask(name, domain)
        settings[setting.rpartition(".")[2]] = value
        return value

    def _ask(self, name: str, domain: Domain) -> OptionValue:
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
    answers = Answers(space.rules, choose)
    name = str(answers.ask_shared(BACKBONE, "backbone", space.backbones))
    side = int(answers.ask_shared(INPUT_SIZE, "input_size", space.training["input_size"]))
    decisions = tuple(_decisions(space, answers, sites_of(name, data.at(side))))
    placements = tuple(placement for decision in decisions for placement in decision.placements)
    settings = training_settings(space, answers, attention=bool(placements))
    label = _label(space, name, decisions_label(decisions), answers.values)
    return Proposal(
        answers.values,
        Architecture(name, placements),
        space.training_of(name, settings),
        label,
        space.rules.broken(answers.shared, answers.decisions),
    )


def _label(space: Space, backbone: str, decisions: str, settings: Mapping[str, OptionValue]) -> str:
    """A label that says the backbone and how it is trained, each where the space has several."""
    open_ones = (name for name in space.training if name not in space.fixed_training)
    trained = ", ".join(_shown(name, settings[name]) for name in open_ones if name in settings)
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


def _decisions(space: Space, answers: Answers, sites: SiteTable) -> Iterator[Decision]:
    attention = space.attention
    ways = [("", attention.placements)]
    if attention.per_stage or attention.per_unit:
        inside = Choice(tuple(p for p in attention.placements.values if p != STEM))
        ways = [(f"{STEM}.", Choice((STEM,)))] if STEM in attention.placements.values else []
        ways += [(prefix, inside) for prefix in inner_prefixes(space, sites) if inside.values]
    for prefix, places in ways:
        decision = decide(space, answers, prefix, places)
        if decision is not None:
            yield decision


def inner_prefixes(space: Space, sites: SiteTable) -> Iterator[str]:
    """What the names of parameters start with, for every stage or unit that decides for itself."""
    for stage in range(1, sites.stages + 1):
        if not space.attention.per_unit:
            yield f"stage{stage}."
            continue
        for unit in range(1, sites.units(stage) + 1):
            yield f"stage{stage}.unit{unit}."


def decide(space: Space, answers: Answers, prefix: str, places: Choice) -> Decision | None:
    """Ask for one decision: the network's, or one stage's or unit's; None: no attention there.

    Args:
        space: What may vary.
        answers: Who is asked.
        prefix: What the names of its parameters start with; empty for the network's.
        places: The placements to choose from.
    """
    attention = space.attention
    answers.decisions.append({})

    def ask(setting: str, domain: Choice) -> OptionValue:
        return answers.ask_here(setting, f"{prefix}{setting}", domain)

    block = str(ask("type", attention.blocks))
    if block == registry.NONE:
        return None
    place = str(ask("placement", places))
    options = {
        name.rpartition(".")[2]: ask(name, choice) for name, choice in attention.options(block)
    }
    parts = place.split(JOIN)
    position, stages = STANDARD, ALL_STAGES
    if IN_BLOCK in parts:
        position = str(ask("position", attention.positions))
    if parts != [STEM] and not prefix:
        stages = str(ask("stages", attention.stages))
    identity_start = bool(ask("identity_start", attention.identity_start))
    where = place if position == STANDARD else place.replace(IN_BLOCK, f"{IN_BLOCK}.{position}")
    inside = prefix if prefix != f"{STEM}." else ""
    groups = tuple(
        f"{stage}{part}"
        for part in where.split(JOIN)
        for stage in (_stage_prefixes(stages) if part != STEM else ("",))
    )
    return Decision(
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


def training_settings(space: Space, answers: Answers, *, attention: bool) -> dict[str, OptionValue]:
    """Ask for the training settings that matter; the rules' deciders before what they decide of."""
    matter = [name for name in space.training if attention or name not in OF_ATTENTION]
    if space.rules.is_empty:  # nothing asks what the others are
        fixed_ones = space.fixed_training
        return {
            name: fixed_ones[name]
            if name in fixed_ones
            else answers.ask_shared(f"{TRAINING}{name}", name, space.training[name])
            for name in matter
        }
    return {
        name: answers.ask_shared(f"{TRAINING}{name}", name, space.training[name])
        for name in space.rules.in_order(matter)
    }


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


def draw(proposal: Proposal, data: DataFacts, *, resolve: Resolve = resolve) -> Candidate:
    """The canonical candidate of a proposal.

    Args:
        proposal: The answers.
        data: The data set.
        resolve: Gives the canonical architecture; one that remembers is as good.

    Raises:
        SiteError: A block cannot stand at one of its sites, or the backbone has no such site.
        ForbiddenError: The space's rules exclude it; which one.
    """
    if proposal.forbidden:
        raise ForbiddenError(f"the space forbids it ({proposal.forbidden})")
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
    return [plain_candidate(space, data, str(name), {}) for name in space.backbones.values]


def plain_candidate(
    space: Space, data: DataFacts, backbone: str, settings: Mapping[str, OptionValue]
) -> tuple[Candidate, dict[str, Any]]:
    """No attention in a backbone at given training settings, with the parameters that say so.

    Args:
        space: What may vary.
        data: The data set.
        backbone: Its name.
        settings: Values of searched settings; those that are not given are the baseline's.

    Returns:
        The candidate; and the proposal that means it where the space has one, else nothing.
    """
    choose = _plainly(backbone, settings)
    answers, trained = _plain_answers(space, choose, backbone)
    sized = data.at(int(trained["input_size"]))
    architecture = resolve(Architecture(backbone), sites_of(backbone, sized))
    label = _label(space, backbone, registry.NONE, answers.values)
    training = space.training_of(backbone, trained).of(architecture)
    has_none = registry.NONE in space.attention.blocks.values
    values = dict(propose(space, choose, data).values) if has_none else {}
    return Candidate(architecture, training, sized, label), values


def every_plain(space: Space, data: DataFacts) -> Iterator[Candidate]:
    """No attention at all settings of training that the space allows; these must be lists."""
    for name in map(str, space.backbones.values):

        def ask(choose: Choose, name: str = name) -> Answers:
            return _plain_answers(space, choose, name)[0]

        for answers in every(ask, space.source):
            if not space.rules.broken(answers.shared, answers.decisions):
                yield plain_candidate(space, data, name, answers.values)[0]


def is_plain_allowed(space: Space, backbone: str, settings: Mapping[str, OptionValue]) -> bool:
    """Whether no rule of the space forbids no attention at these settings of training."""
    answers, _ = _plain_answers(space, _plainly(backbone, settings), backbone)
    return not space.rules.broken(answers.shared, answers.decisions)


def _plainly(backbone: str, settings: Mapping[str, OptionValue]) -> Choose:
    """Answers for no attention; settings that are not given are the baseline's."""

    def choose(name: str, domain: Domain) -> OptionValue:
        if name == "backbone":
            return backbone
        if name.rpartition(".")[2] == "type":
            return registry.NONE
        return settings.get(name, domain.default)

    return choose


def _plain_answers(
    space: Space, choose: Choose, backbone: str
) -> tuple[Answers, dict[str, OptionValue]]:
    """What is asked of no attention, and its settings of training."""
    answers = Answers(space.rules, choose)
    answers.ask_shared(BACKBONE, "backbone", fixed(backbone))
    answers.decisions.append({"type": registry.NONE})
    return answers, training_settings(space, answers, attention=False)


T = TypeVar("T")


def every(ask: Callable[[Choose], T], source: str) -> Iterator[T]:
    """What asking comes to with every answer that can be given, each once, in a fixed order.

    Args:
        ask: Asks, and returns something of the answers.
        source: Of the space, for messages.

    Raises:
        SpaceError: A range of numbers is asked about.
    """
    script: list[tuple[int, int]] = []  # (answer given, answers there are), one per question
    while True:
        asked = 0

        def choose(name: str, domain: Domain) -> OptionValue:
            nonlocal asked
            if not isinstance(domain, Choice):
                raise SpaceError(
                    f"{source}: {name} is a range, so the space cannot be enumerated; give a"
                    " list of values, or choose a sampler other than grid"
                )
            if asked == len(script):
                script.append((0, len(domain.values)))
            asked += 1
            return domain.values[script[asked - 1][0]]

        yield ask(choose)
        while script and script[-1][0] + 1 == script[-1][1]:
            script.pop()
        if not script:
            return
        script[-1] = (script[-1][0] + 1, script[-1][1])


def enumerate_proposals(
    space: Space, data: DataFacts, *, known: Known = lambda name, domain: None
) -> Iterator[Proposal]:
    """Every proposal of a space that its rules allow, each once, in a fixed order.

    Args:
        space: What may vary.
        data: The data set.
        known: Gives the answers to questions that are not to be walked through; None to others.

    Raises:
        SpaceError: The space has a range of numbers.
    """

    def proposed(choose: Choose) -> Proposal:
        def answer(name: str, domain: Domain) -> OptionValue:
            given = known(name, domain)
            return choose(name, domain) if given is None else given

        return propose(space, answer, data)

    return (one for one in every(proposed, space.source) if not one.forbidden)


def _all_proposals(space: Space, data: DataFacts) -> Iterator[Proposal]:
    return every(lambda choose: propose(space, choose, data), space.source)


def distinct_candidates(
    space: Space, data: DataFacts, *, limit: int = ENUMERATION_LIMIT
) -> dict[str, tuple[Candidate, Proposal]] | None:
    """Every distinct candidate that can be built, by digest; None where they cannot be listed."""
    if any(not isinstance(domain, Choice) for domain in space.training.values()):
        return None
    found: dict[str, tuple[Candidate, Proposal]] = {}
    for count, proposal in enumerate(_all_proposals(space, data)):
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

    def largest(name: str, domain: Domain) -> Any:
        return chance.choice(domain.values) if isinstance(domain, Choice) else domain.high

    def usual(name: str, domain: Domain) -> Any:
        return chance.choice(domain.values) if isinstance(domain, Choice) else domain.default

    for _ in range(DRAWN):
        for choose in (largest, usual):  # the rules may forbid the largest of a range
            with suppress(SiteError):
                yield draw(propose(space, choose, data), data)
                break


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
    space = replace(space, training=settings, rules=space.rules.of_networks())
    works: set[tuple[str, OptionValue]] = set()
    refused: dict[tuple[str, OptionValue], str] = {}
    drawn, reason = False, ""
    for count, proposal in enumerate(_all_proposals(space, data)):
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
            f"{_place(space, name)}: no site can take {name} {value!r}: {why}; take it out"
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
    where = space.place(("backbone",))
    found = {str(name): sites_of(str(name), data).own_attention for name in space.backbones.values}
    lines = [
        f"{where}: {name} has attention of its own ({modules} modules), so that it is"
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


def _place(space: Space, parameter: str) -> str:
    """Where the file gives a parameter its values."""
    if parameter in space.training:
        return space.place(("training", parameter))
    block, _, option = parameter.rpartition(".")
    return space.place(("attention", "type", block, option), ("attention", option))


_STAGE = re.compile(rf"^({STEM}|stage\d+)\.(unit\d+\.)?")
