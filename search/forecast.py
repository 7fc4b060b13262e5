"""How long a run will take: three candidates timed on the device, the others between them.

The smallest, the median and the largest candidate by FLOPs are trained and evaluated for a moment,
in as many worker processes at once as the study will have on a device. Seconds per image lie on
straight lines between the three; a trial takes what its epochs, validations and the test take at
that pace. How far the median lies from the line between the two others says how far the forecast
may be off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from blocks.formulas import Cost
from search.concurrency import Crowd, assignment_of
from search.costing import by_flops
from search.devices import CUDA
from search.plan import StudyPlan
from spaces.candidate import Candidate

SECONDS = 1.0  # of training, for each of the three
AT_ONCE = 8  # processes that are timed together, at most
LEAST_FACTOR = 1.3  # the forecast is not better than this: an hour is not like the next
WHICH = ("smallest", "median", "largest")

Counted = Sequence[tuple[Candidate, Cost]]


@dataclass(frozen=True)
class Timed:
    """What was measured of one candidate.

    Args:
        which: "smallest", "median" or "largest".
        candidate: The candidate.
        flops: Of one image.
        training: Seconds per image.
        evaluation: Seconds per image.
        ready: Seconds until its network was built.
    """

    which: str
    candidate: Candidate
    flops: int
    training: float
    evaluation: float
    ready: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "which": self.which,
            "label": self.candidate.label,
            "digest": self.candidate.digest,
            "flops": self.flops,
            "images_per_second": 1 / self.training,
            "evaluated_per_second": 1 / self.evaluation,
        }


@dataclass(frozen=True)
class Span:
    """A forecast number with its range."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """As plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Forecast:
    """How long trials and the run will take.

    Args:
        timed: The candidates that were timed.
        at_once: In how many processes at once.
        start: Seconds until a worker is ready for its first trial.
        seconds: Of every candidate that may become a trial, the seconds of a trial.
        factor: By which a trial may be longer or shorter than forecast.
        workers: Trials that train at once.
        devices: GPUs, or on a processor cores, that are busy.
        unit: "gpu" or "cpu".
        trials: That are left to train.
    """

    timed: tuple[Timed, ...]
    at_once: int
    start: float
    seconds: tuple[float, ...]
    factor: float
    workers: int
    devices: int
    unit: str
    trials: int

    def trial(self, trials: int) -> Span:
        """Mean seconds of so many trials: which candidates they will be is chance as well."""
        mean = fmean(self.seconds)
        spread = 2 * pstdev(self.seconds) / math.sqrt(max(1, trials)) / mean
        low = max(min(self.seconds), mean * (1 - spread)) / self.factor
        return Span(mean, low, min(max(self.seconds), mean * (1 + spread)) * self.factor)

    @property
    def wall(self) -> Span:
        """Seconds until the run ends."""
        if not self.trials:
            return Span(0.0, 0.0, 0.0)
        rounds = max(1.0, self.trials / self.workers)
        each = self.trial(self.trials)
        return Span(*(self.start + rounds * s for s in (each.value, each.low, each.high)))

    @property
    def device_hours(self) -> Span:
        """Hours of all devices together."""
        wall = self.wall
        return Span(*(self.devices * s / 3600 for s in (wall.value, wall.low, wall.high)))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "timed": [timed.to_json() for timed in self.timed],
            "processes": self.at_once,
            "workers": self.workers,
            "devices": self.devices,
            "unit": self.unit,
            "trials": self.trials,
            "start_seconds": self.start,
            "trial_seconds": self.trial(self.trials).to_json(),
            "wall_seconds": self.wall.to_json(),
            "device_hours": self.device_hours.to_json(),
            "factor": self.factor,
        }


def chosen(counted: Counted) -> list[tuple[str, Candidate, int]]:
    """The candidates to time: (which, candidate, FLOPs); fewer where there are fewer."""
    flops = {candidate.digest: cost.flops for candidate, cost in counted}
    found = by_flops(counted, len(WHICH))
    names = {1: WHICH[:1], 2: (WHICH[0], WHICH[2])}.get(len(found), WHICH)
    return [(w, c, flops[c.digest]) for w, c in zip(names, found, strict=True)]


def at_once(plan: StudyPlan) -> int:
    """How many processes one device will have, as far as they are timed."""
    devices = max(1, len(plan.gpus)) if plan.device == CUDA else 1
    return min(AT_ONCE, -(-plan.workers // devices))


def crowd_of(plan: StudyPlan, candidate: Candidate) -> Crowd:
    """Processes like the study's workers, to time candidates in."""
    assignment = assignment_of(plan, candidate)
    return Crowd(plan, assignment, seconds=SECONDS, threads=plan.threads)


def time_candidates(plan: StudyPlan, crowd: Crowd, counted: Counted) -> tuple[Timed, ...]:
    """Train the smallest, median and largest candidate for a moment.

    Raises:
        ProbeError: A process has ended, or does not answer.
    """
    found = []
    for which, candidate, flops in chosen(counted):
        assignment = assignment_of(plan, candidate)
        assignment = replace(assignment, label=f"{which}: {candidate.digest}")
        answers = crowd.timing(assignment, at_once(plan))
        training = fmean(answer["seconds"] / answer["images"] for answer in answers)
        looked = fmean(answer["evaluation"] / answer["evaluated"] for answer in answers)
        ready = fmean(answer["ready"] for answer in answers)
        found.append(Timed(which, candidate, flops, training, looked, ready))
    return tuple(found)


def forecast(
    plan: StudyPlan, timed: Sequence[Timed], counted: Counted, *, start: float, trials: int
) -> Forecast:
    """How long the trials that are left will take.

    Args:
        plan: With its number of workers.
        timed: The candidates that were timed.
        counted: All that may become trials, with their costs.
        start: Seconds until a worker is ready.
        trials: How many are left.
    """
    cuda = plan.device == CUDA
    return Forecast(
        tuple(timed),
        at_once(plan),
        start,
        tuple(trial_seconds(plan, timed, candidate, cost.flops) for candidate, cost in counted),
        max(LEAST_FACTOR, 1 + bend(timed)),
        plan.workers,
        max(1, len(plan.gpus)) if cuda else plan.workers * plan.threads,
        "gpu" if cuda else "cpu",
        trials,
    )


def trial_seconds(
    plan: StudyPlan,
    timed: Sequence[Timed],
    candidate: Candidate,
    flops: int,
    epochs: int | None = None,
) -> float:
    """Seconds of one trial: its epochs with their validations, and validation and test at the end.

    Args:
        plan: With the data's sizes.
        timed: The candidates that were timed.
        candidate: Which is trained.
        flops: Of one image.
        epochs: Other than the candidate's own.
    """
    train, validation, test = plan.data.sizes
    batch = candidate.training.batch_size
    images = train // batch * batch
    paces = [[getattr(one, name) for one in timed] for name in ("training", "evaluation", "ready")]
    training, looking, ready = (between(flops, [t.flops for t in timed], row) for row in paces)
    epoch = images * training + validation * looking
    return ready + (epochs or candidate.training.epochs) * epoch + (validation + test) * looking


def between(place: float, places: Sequence[float], values: Sequence[float]) -> float:
    """The value at a place, on straight lines between those that are known."""
    order = np.argsort(places, kind="stable")
    return float(np.interp(place, np.asarray(places)[order], np.asarray(values)[order]))


def bend(timed: Sequence[Timed]) -> float:
    """How far the median's pace is from the line between the others', as a share; 0 for two."""
    if len(timed) < len(WHICH):
        return 0.0
    low, middle, high = timed
    line = between(middle.flops, [low.flops, high.flops], [low.training, high.training])
    return max(line / middle.training, middle.training / line) - 1
