"""What is kept of studies, as records: studies, trials, proposals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from search.outcome import SUCCEEDED
from spaces.metrics import COST, METRICS, SPEED

ACCEPTED, REPEATED, OVER_CAP, IMPOSSIBLE = "accepted", "repeated", "rejected", "impossible"
REPLICATED = "replicated"  # repeated, and so another seed of its candidate
OPEN = "open"  # the state of a proposal whose candidate has not ended


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class StudyRecord:
    """A stored study, without its trials.

    Args:
        id: Its key in the database.
        name: Its name.
        status: running, finished, exhausted, interrupted.
        objectives: Metric -> "max" or "min".
        constraints: Metric -> cap as written.
        identity: data (facts), epochs and seed: what may not change.
        settings: trials, seeds, sampler, pruner: what may.
        space_text: The space file as written.
        space_content: Its data after ``--set``.
        space_source: Where it was read from.
        sampler_state: Optuna's attributes of the study.
        owner: Process that runs it, or ran it last.
        note: Why it ended, where that needs saying.
        created: When.
        changed: When it last began or ended.
    """

    id: int
    name: str
    status: str
    objectives: dict[str, str]
    constraints: dict[str, str]
    identity: dict[str, Any]
    settings: dict[str, Any]
    space_text: str
    space_content: dict[str, Any]
    space_source: str
    sampler_state: dict[str, Any]
    owner: dict[str, Any]
    note: str
    created: str
    changed: str


@dataclass
class TrialRecord:
    """A stored trial, its candidate's costs and its measurements."""

    id: int
    number: int
    state: str
    seed: int
    label: str
    baseline: bool
    digest: str
    architecture_digest: str
    architecture: dict[str, Any]
    training: dict[str, Any]
    params: int
    trainable_params: int
    macs: int
    flops: int
    parameters: dict[str, Any]
    distributions: dict[str, str]
    proposal: int | None
    epochs: int
    error: str
    seconds: float
    created: str
    finished: str | None
    origin: str | None = None
    measurements: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy at the last epoch."""
        return self.measurements.get(("validation", "accuracy"))

    @property
    def test_accuracy(self) -> float | None:
        """Test accuracy at the end of a complete trial."""
        return self.measurements.get(("test", "accuracy"))

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error on validation, where it was measured."""
        return self.measurements.get(("validation", "calibration_error"))

    @property
    def curve_area(self) -> float | None:
        """Mean height of its validation curve."""
        return self.measurements.get(("validation", "curve_area"))

    @property
    def images_per_second(self) -> float | None:
        """Training images a second, the median of its epochs, where that was measured."""
        return self.measurements.get(("train", "images_per_second"))

    @property
    def peak_memory_bytes(self) -> float | None:
        """The most memory in use at one moment of its training, where that was measured."""
        return self.measurements.get(("train", "peak_memory_bytes"))

    @property
    def memory(self) -> float | None:
        """Bytes of maps that its training keeps of each image, where a space asked for it."""
        return self.measurements.get((COST, "memory"))

    @property
    def latency_ratio(self) -> float | None:
        """Time of one image as a multiple of the baseline's, where it was measured."""
        return self.measurements.get((SPEED, "latency_ratio"))

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds of one image, where they were measured."""
        return self.measurements.get((SPEED, "latency_ms"))

    @property
    def throughput(self) -> float | None:
        """Images a second, where that was measured."""
        return self.measurements.get((SPEED, "throughput"))

    @property
    def speed(self) -> dict[str, float]:
        """All that was measured of its latency."""
        return {name: v for (split, name), v in self.measurements.items() if split == SPEED}

    @property
    def latency_flags(self) -> list[str]:
        """Why its latency is to be taken with care: "busy", "wide"."""
        return [flag for flag in ("busy", "wide") if self.speed.get(flag)]

    def metric(self, name: str) -> float | None:
        """An objective's value: a cost, or a measurement."""
        metric = METRICS[name]
        if metric.is_cost:
            return float(getattr(self, name))
        return self.measurements.get((metric.split, name))


@dataclass(frozen=True)
class ProposalRow:
    """A suggestion of the sampler, as it is kept and replayed.

    Args:
        number: The n-th proposal of the study, from 0.
        parameters: Parameter -> value.
        distributions: Parameter -> Optuna's distribution as JSON.
        system_attributes: The sampler's own notes on it.
        digest: Its candidate; None where it fits no site.
        label: Its candidate's short name.
        verdict: accepted, repeated (and replaced), replicated, rejected or impossible.
        reason: Why it became no trial.
        state: open, or as it was told: complete, pruned, failed.
        values: The objectives' values that the sampler was told.
    """

    number: int
    parameters: dict[str, Any]
    distributions: dict[str, str]
    system_attributes: dict[str, Any]
    digest: str | None
    label: str
    verdict: str
    reason: str
    state: str
    values: list[float] | None = None


@dataclass(frozen=True)
class NewTrial:
    """A trial to be kept from the moment at which it is decided on.

    With an ``origin`` it is reused, at once or, where it is ``unmeasured``, once it has been timed.
    ``known`` are measurements, (split, metric) -> value, that it has before it is evaluated.
    ``begun_by`` is who evaluates it at once; empty where it waits.
    """

    number: int
    digest: str
    seed: int
    label: str
    parameters: dict[str, Any]
    distributions: dict[str, str]
    proposal: int | None
    baseline: bool
    origin: TrialRecord | None = None
    unmeasured: bool = False
    known: Mapping[tuple[str, str], float] = field(default_factory=dict)
    begun_by: str = ""


def is_success(trial: TrialRecord) -> bool:
    """Whether a trial has its final measurements."""
    return trial.state in SUCCEEDED
