"""What a sampler is told of a candidate, once all its trials have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from search.front import objective_values
from search.outcome import COMPLETE, FAILED, FINISHED, PRUNED, SUCCEEDED
from search.records import TrialRecord


def candidate_verdict(
    group: Sequence[TrialRecord], proposal: int | None, objectives: Mapping[str, str], enough: int
) -> tuple[str, list[float] | None] | None:
    """How a proposed candidate ended, with its objectives' means; None while that is open.

    Args:
        group: All trials of the candidate.
        proposal: The proposal that is told of; the trials of others count for those.
        objectives: Metric -> "max" or "min".
        enough: How many trials the candidate has before anything is told: as many as the study
            has seeds, or one where the proposal is one more seed of a candidate.
    """
    if len(group) < enough:
        return None
    group = [trial for trial in group if trial.proposal == proposal]
    if not group or any(trial.state not in FINISHED for trial in group):
        return None
    scored = [
        values
        for trial in group
        if trial.state in SUCCEEDED and (values := objective_values(trial, objectives)) is not None
    ]
    if scored:
        return COMPLETE, [fmean(column) for column in zip(*scored, strict=True)]
    pruned = any(trial.state == PRUNED for trial in group)
    return PRUNED if pruned else FAILED, None
