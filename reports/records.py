"""Everything that is kept of one study, read once, and what a trial's architecture says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from blocks import registry
from blocks.errors import BlockError
from blocks.frequency import frequency_name
from blocks.site import IN_BLOCK, STANDARD
from search.database import open_for_reading, storage_url
from search.even_tuning import was_tuned
from search.front import front_numbers
from search.insight.store import Insight, read_insights
from search.learnt import Learnt, learnt_by_trials
from search.outcome import EpochResult
from search.reading import (
    AttemptRecord,
    RejectedRecord,
    read_attempts,
    read_curves,
    read_findings,
    read_proposals,
    read_rejected,
    read_study,
    read_trials,
)
from search.records import ProposalRow, StudyRecord, TrialRecord, is_success

MIXED = "mixed"
NONE = registry.NONE


@dataclass(frozen=True)
class Traits:
    """What a trial's architecture and parameters say, as far as it is one value.

    Args:
        type: The block's short name; "none" without attention, "mixed" where there are several.
        placement: "stem", "stage", "in-block", or several joined by " + "; empty without attention.
        reduction: As it was proposed, else the one that takes effect everywhere.
        frequency: As it was proposed, else the one that takes effect everywhere, by its name.
        backbone: The backbone's name.
    """

    type: str
    placement: str
    reduction: int | None
    frequency: str | None
    backbone: str


def traits(trial: TrialRecord) -> Traits:
    """Which attention a trial has, and where."""
    placements = trial.architecture.get("placements", [])
    frequency = _setting(trial.parameters, placements, "frequency")
    reduction = _setting(trial.parameters, placements, "reduction")
    return Traits(
        type=_block_type([str(placement["block"]) for placement in placements]),
        placement=" + ".join(dict.fromkeys(site_group(str(p["site"])) for p in placements)),
        reduction=reduction if isinstance(reduction, int) else None,
        frequency=None if frequency is None else _frequency_words(str(frequency)),
        backbone=str(trial.architecture.get("backbone", "")),
    )


def _frequency_words(text: str) -> str:
    try:
        return frequency_name(text)
    except BlockError:  # stored by a version that knew more names
        return text


def _block_type(blocks: Sequence[str]) -> str:
    distinct = set(blocks)
    if not distinct:
        return NONE
    return blocks[0] if len(distinct) == 1 else MIXED


def site_group(site: str) -> str:
    """The placement that a site belongs to: "stem", "stage", "in-block" or "in-block.pre"."""
    _, in_unit, rest = site.partition(".unit")
    if in_unit:
        position = rest.partition(".")[2]
        return IN_BLOCK if position == STANDARD else f"{IN_BLOCK}.{position}"
    return "stage" if site.startswith("stage") else site


def _setting(
    parameters: Mapping[str, Any], placements: Iterable[Mapping[str, Any]], name: str
) -> Any:
    """A block's option: what was proposed, else the one value at all sites, else None."""
    proposed = {v for k, v in parameters.items() if k.rpartition(".")[2] == name}
    used = {p["options"][name] for p in placements if name in p.get("options", {})}
    values = proposed or used
    return values.pop() if len(values) == 1 else None


@dataclass(frozen=True)
class Baseline:
    """A backbone without attention: its exact costs, and its accuracy averaged over its seeds."""

    backbone: str
    accuracy: float
    seeds: int
    params: int
    macs: int
    flops: int
    number: int
    latency_ratio: float = 1.0  # by definition


@dataclass(frozen=True)
class StudyRecords:
    """All rows of one study."""

    study: StudyRecord
    trials: list[TrialRecord]
    curves: dict[int, list[EpochResult]]
    attempts: list[AttemptRecord]
    proposals: list[ProposalRow]
    rejected: list[RejectedRecord]
    insights: dict[int, dict[str, Insight]] = field(default_factory=dict)
    learnt: list[Learnt] = field(default_factory=list)

    @cached_property
    def successes(self) -> list[TrialRecord]:
        """The trials with a final validation accuracy."""
        return [t for t in self.trials if is_success(t) and t.accuracy is not None]

    def with_value(self, metric: str) -> list[TrialRecord]:
        """The trials with a final accuracy that have a cost or latency too."""
        return [t for t in self.successes if getattr(t, metric) is not None]

    @cached_property
    def timed(self) -> bool:
        """Whether any of them has a latency."""
        return bool(self.with_value("latency_ratio"))

    @cached_property
    def front(self) -> frozenset[int]:
        """Numbers of the non-dominated complete trials over all objectives, ties included."""
        return frozenset(front_numbers(self.trials, self.study.objectives))

    @cached_property
    def traits(self) -> dict[int, Traits]:
        """Trial number -> what its architecture says."""
        return {trial.number: traits(trial) for trial in self.trials}

    @cached_property
    def baselines(self) -> dict[str, Baseline]:
        """Backbone -> its complete baseline, averaged over its seeds.

        Where no attention is tuned as the blocks are, it is the best of its settings.
        """
        groups: dict[str, dict[str, list[TrialRecord]]] = {}
        for trial in self.successes:
            plain = self.tuned and not trial.architecture.get("placements")
            if trial.baseline or plain:
                of_backbone = groups.setdefault(self.traits[trial.number].backbone, {})
                of_backbone.setdefault(trial.digest if self.tuned else "", []).append(trial)
        return {
            backbone: max(
                (_baseline(backbone, group) for group in settings.values()),
                key=lambda one: one.accuracy,
            )
            for backbone, settings in groups.items()
        }

    @cached_property
    def references(self) -> frozenset[str]:
        """The digests of what candidates are compared with."""
        numbers = {baseline.number for baseline in self.baselines.values()}
        return frozenset(trial.digest for trial in self.trials if trial.number in numbers)

    @property
    def tuned(self) -> bool:
        """Whether no attention was tried at as many settings as the blocks."""
        return was_tuned(self.study.settings)

    def baseline_of(self, trial: TrialRecord) -> Baseline | None:
        """The baseline with the same backbone, where it is complete."""
        return self.baselines.get(self.traits[trial.number].backbone)

    @cached_property
    def sizes(self) -> tuple[int, int, int] | None:
        """Images in train, validation and test, where the study says so."""
        data = self.study.identity.get("data")
        sizes = data.get("sizes") if isinstance(data, dict) else None
        if not isinstance(sizes, list) or len(sizes) != 3:
            return None
        return int(sizes[0]), int(sizes[1]), int(sizes[2])

    @cached_property
    def types(self) -> list[str]:
        """The block types of the trials: none first, then the registry's order, then others."""
        present = {found.type for found in self.traits.values()}
        known = [name for name in registry.names() if name in present]
        return known + sorted(present - set(known))


def _baseline(backbone: str, trials: Sequence[TrialRecord]) -> Baseline:
    first = trials[0]
    accuracy = fmean(t.accuracy for t in trials if t.accuracy is not None)
    return Baseline(
        backbone, accuracy, len(trials), first.params, first.macs, first.flops, first.number
    )


def read_records(storage: str, study: str | None) -> StudyRecords:
    """Read all that is kept of a study; without a name, of the one that was run last.

    Raises:
        StudyError: The database cannot be read, or has no such study.
    """
    engine = open_for_reading(storage_url(storage))
    try:
        record = read_study(engine, study)
        trials = read_trials(engine, record.id)
        return StudyRecords(
            record,
            trials,
            read_curves(engine, record.id),
            read_attempts(engine, record.id),
            read_proposals(engine, record.id),
            read_rejected(engine, record.id),
            read_insights(engine, record.id),
            learnt_by_trials(read_findings(engine, record.id), trials),
        )
    finally:
        engine.dispose()
