"""Which candidates are worth another seed when the sampler proposes them again.

A candidate is, if it is on the front over means, or would be with its measured objectives at the
good ends of their intervals. The noise of one measurement is pooled over all candidates that have
several seeds; while none has, an accuracy's is that of so many validation images drawn at random
(the binomial standard error), and other measurements count as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from search.front import non_dominated, objective_values
from search.outcome import SUCCEEDED
from search.records import TrialRecord
from spaces.metrics import METRICS

LEVEL = 0.95
NORMAL = 1.96  # the same level without degrees of freedom to lose
ACCURACY = "accuracy"

Values = Sequence[Sequence[float]]  # one row per seed, one column per objective


@dataclass(frozen=True)
class Noise:
    """How far single measurements of one objective scatter.

    Args:
        deviation: The standard deviation of one of them.
        factor: By which a standard error becomes half an interval.
    """

    deviation: float
    factor: float

    def half(self, seeds: int) -> float:
        """Half of the interval of a mean over so many seeds."""
        return self.factor * self.deviation / math.sqrt(seeds)


def is_worth_repeating(
    digest: str, trials: Iterable[TrialRecord], objectives: Mapping[str, str], images: int
) -> bool:
    """Whether another seed of a candidate could change what the front over means is.

    Args:
        digest: The candidate's.
        trials: All of the study.
        objectives: Metric -> "max" or "min".
        images: In the validation split.
    """
    measured: dict[str, list[list[float]]] = {}
    for trial in trials:
        values = objective_values(trial, objectives) if trial.state in SUCCEEDED else None
        if values is not None:
            measured.setdefault(trial.digest, []).append(values)
    if digest not in measured:
        return False
    means = {d: [fmean(c) for c in zip(*rows, strict=True)] for d, rows in measured.items()}
    hopeful = _at_best(means[digest], measured[digest], measured.values(), objectives, images)
    others = [point for other, point in means.items() if other != digest]
    return non_dominated([hopeful, *others], objectives)[0]


def _at_best(
    mean: Sequence[float],
    rows: Values,
    groups: Iterable[Values],
    objectives: Mapping[str, str],
    images: int,
) -> list[float]:
    """A candidate's objectives, those that are measured at the good ends of their intervals."""
    groups = list(groups)
    point = []
    for column, (name, direction) in enumerate(objectives.items()):
        half = 0.0
        if not METRICS[name].is_cost:
            noise = _noise([[row[column] for row in group] for group in groups])
            if noise is None:
                share = min(max(mean[column], 0.0), 1.0)
                error = math.sqrt(share * (1 - share) / images) if name == ACCURACY else 0.0
                noise = Noise(error, NORMAL)
            half = noise.half(len(rows))
        point.append(mean[column] + (half if direction == "max" else -half))
    return point


def _noise(groups: Iterable[Sequence[float]]) -> Noise | None:
    """The scatter around the means of groups, pooled; None where none has two members."""
    squares, freedom = 0.0, 0
    for group in groups:
        middle = fmean(group)
        squares += sum((value - middle) ** 2 for value in group)
        freedom += len(group) - 1
    if not freedom:
        return None
    from scipy.stats import t

    return Noise(math.sqrt(squares / freedom), float(t.ppf((1 + LEVEL) / 2, freedom)))
