"""How far stored trials are above the caps of their space."""

from __future__ import annotations

from collections.abc import Iterable

from blocks.architecture import Architecture
from search.records import TrialRecord
from spaces.candidate import DataFacts
from spaces.caps import cap_of
from spaces.space import Constraint


def above_caps(
    trial: TrialRecord, constraints: Iterable[Constraint], data: DataFacts
) -> dict[str, float]:
    """How far each capped cost is above its cap; 0 or below is allowed.

    What became a trial was allowed then: the baseline always is, and a cap may have been
    tightened since. Optuna's best trials must be our front, so no trial is above 0.
    """
    architecture = Architecture.from_json(trial.architecture)
    sized = data.of_size(architecture.input_size)
    above = {}
    for constraint in constraints:
        value = trial.metric(constraint.metric)
        cap = cap_of(constraint, architecture.backbone, sized)
        above[constraint.metric] = min(0.0, value - cap) if value is not None else 0.0
    return above
