"""The Pareto front of a study's trials, by moocore (exact, in C)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from search.records import TrialRecord, is_success


def objective_values(trial: TrialRecord, objectives: Mapping[str, str]) -> list[float] | None:
    """The values of a trial's objectives, or None where one is missing or not finite."""
    values = [trial.metric(name) for name in objectives]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return finite if len(finite) == len(values) else None


def non_dominated(points: Sequence[Sequence[float]], objectives: Mapping[str, str]) -> list[bool]:
    """Which points no other dominates; equal points are all kept.

    Args:
        points: One row per point, one column per objective.
        objectives: Metric -> "max" or "min", in the order of the columns.
    """
    import moocore
    import numpy as np

    if not points:
        return []
    maximise = [direction == "max" for direction in objectives.values()]
    kept: Any = moocore.is_nondominated(
        np.asarray(points, dtype=float), maximise=maximise, keep_weakly=True
    )
    return [bool(flag) for flag in kept]


def front_numbers(trials: Sequence[TrialRecord], objectives: Mapping[str, str]) -> list[int]:
    """Numbers of the non-dominated complete trials, ties included."""
    scored = [
        (trial.number, values)
        for trial in trials
        if is_success(trial) and (values := objective_values(trial, objectives)) is not None
    ]
    kept = non_dominated([values for _, values in scored], objectives)
    return [number for (number, _), keep in zip(scored, kept, strict=True) if keep]


def front_means(
    trials: Sequence[TrialRecord], objectives: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The front over candidates, each at the mean of its replicates.

    Returns:
        One entry per candidate on it: its digest, its trials' numbers and the mean of every
        objective. Empty where no candidate has more than one seed.
    """
    by_candidate: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if is_success(trial) and objective_values(trial, objectives) is not None:
            by_candidate.setdefault(trial.digest, []).append(trial)
    if not any(len(group) > 1 for group in by_candidate.values()):
        return []
    rows = []
    for digest, group in by_candidate.items():
        columns = zip(*(objective_values(t, objectives) or [] for t in group), strict=True)
        rows.append((digest, group, [fmean(column) for column in columns]))
    kept = non_dominated([means for _, _, means in rows], objectives)
    return [
        {
            "digest": digest,
            "label": group[0].label,
            "trials": [trial.number for trial in group],
            **dict(zip(objectives, means, strict=True)),
        }
        for (digest, group, means), keep in zip(rows, kept, strict=True)
        if keep
    ]
