"""How far accuracies differ by chance alone: from stored studies, else from a stated assumption."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from search.database import open_if_there
from search.plan import StudyPlan
from search.reading import read_studies, read_trials
from search.records import StudyRecord, TrialRecord

STORED, ASSUMED = "stored", "assumed"
SEED_SD = 0.005  # of one accuracy between seeds, beside the binomial error
ACCURACY = 0.9  # where nothing says which is to be expected
LEAST_FREEDOM = 2


@dataclass(frozen=True)
class Noise:
    """The noise of a paired difference of two accuracies.

    Args:
        sd: Its standard deviation between seeds, a share of 1.
        source: "stored" or "assumed".
        words: Where it comes from.
    """

    sd: float
    source: str
    words: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"sd": self.sd, "source": self.source, "from": self.words}


def noise_of(plan: StudyPlan) -> Noise:
    """The noise that a study's comparisons will have."""
    stored = list(_stored(plan))
    differences = [group for _, trials in stored for group in paired_differences(trials)]
    freedom = sum(len(group) - 1 for group in differences)
    sd = pooled_sd(differences)
    if freedom >= LEAST_FREEDOM and sd > 0:
        epochs = sorted({record.identity["epochs"] for record, _ in stored})
        words = (
            f"{len(differences)} candidates beside the baseline at {freedom + len(differences)}"
            f" seeds in all, of stored studies on {plan.data.name}"
            f" ({', '.join(map(str, epochs))} epochs)"
        )
        return Noise(sd, STORED, words)
    seen = [t.accuracy for _, trials in stored for t in trials if t.accuracy is not None]
    return assumed(fmean(seen) if seen else ACCURACY, plan.data.sizes[1], bool(seen))


def assumed(accuracy: float, images: int, seen: bool) -> Noise:
    """The noise that is assumed where none was measured.

    Args:
        accuracy: To be expected.
        images: Of the validation split.
        seen: Whether stored studies have that accuracy.
    """
    sd = math.sqrt(2 * (accuracy * (1 - accuracy) / images + SEED_SD**2))
    whence = "the mean of stored trials" if seen else "assumed"
    words = (
        f"no stored study has seeds to tell: the binomial error of {images:,} validation images at"
        f" an accuracy of {100 * accuracy:.1f} % ({whence}), and {100 * SEED_SD:g} points between"
        " seeds (assumed)"
    )
    return Noise(sd, ASSUMED, words)


def _stored(plan: StudyPlan) -> Iterator[tuple[StudyRecord, list[TrialRecord]]]:
    """The studies on the same data and split, with their trials."""
    engine = open_if_there(plan.storage)
    if engine is None:
        return
    try:
        for record in read_studies(engine):
            data = record.identity["data"]
            if data["split_digest"] == plan.data.split_digest:
                yield record, read_trials(engine, record.id)
    finally:
        engine.dispose()


def paired_differences(trials: Sequence[TrialRecord]) -> list[list[float]]:
    """Of each candidate with two seeds or more, its differences from the baseline at each."""
    by_candidate: dict[str, dict[int, TrialRecord]] = {}
    for trial in trials:
        if trial.accuracy is not None and math.isfinite(trial.accuracy):
            by_candidate.setdefault(trial.digest, {})[trial.seed] = trial
    baselines = {
        next(iter(group.values())).architecture["backbone"]: group
        for group in by_candidate.values()
        if next(iter(group.values())).baseline
    }
    return [
        differences
        for group in by_candidate.values()
        if len(differences := _differences(group, baselines)) > 1
    ]


def _differences(
    group: Mapping[int, TrialRecord], baselines: Mapping[str, Mapping[int, TrialRecord]]
) -> list[float]:
    first = next(iter(group.values()))
    if first.baseline:
        return []
    beside = baselines.get(first.architecture["backbone"], {})
    return [
        trial.accuracy - beside[seed].accuracy  # type: ignore[operator]
        for seed, trial in group.items()
        if seed in beside
    ]


def pooled_sd(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups; 0 where none has two numbers."""
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum((x - fmean(group)) ** 2 for group in groups for x in group)
    return math.sqrt(squares / freedom) if freedom else 0.0
