"""Trials entered into Optuna's tables several at a time, as its ``add_trial`` enters each.

``add_trial`` looks for the trial again before each of its fifty statements. Here the rows of many
trials go in by one statement a table. It is for Optuna's tables as this module knows them: where
an Optuna has others, ``are_known`` says so, and trials are added one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import func, insert, inspect, select

# Attribute of a row, by table: all there are.
KNOWN = {
    "TrialModel": {
        "trial_id",
        "number",
        "study_id",
        "state",
        "_datetime_start_utc",
        "_datetime_complete_utc",
    },
    "TrialValueModel": {"trial_value_id", "trial_id", "objective", "value", "value_type"},
    "TrialParamModel": {"param_id", "trial_id", "param_name", "param_value", "distribution_json"},
    "TrialUserAttributeModel": {"trial_user_attribute_id", "trial_id", "key", "value_json"},
    "TrialSystemAttributeModel": {"trial_system_attribute_id", "trial_id", "key", "value_json"},
}
Text = Callable[[BaseDistribution], str]


def _models() -> Any:
    from optuna.storages._rdb import models

    return models


@cache
def are_known() -> bool:
    """Whether Optuna's tables of trials are those that this module writes."""
    try:
        models = _models()
        return all(
            {column.key for column in inspect(getattr(models, name)).column_attrs} == attributes
            for name, attributes in KNOWN.items()
        )
    except (ImportError, AttributeError):
        return False


def add_trials(storage: RDBStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
    """Add trials to a study in one transaction, in their order, as its next ones.

    Args:
        storage: Where Optuna keeps it.
        study_id: Its key there.
        trials: With the numbers that they will have, and no intermediate values.

    Raises:
        ValueError: The study has another number of trials than were before these.
    """
    models = _models()
    rows = [_row(models, study_id, trial) for trial in trials]
    text = _texts()
    with storage.scoped_session() as session, session.begin():
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        row = models.TrialModel
        there = session.scalar(select(func.count()).where(row.study_id == study_id))
        if there != trials[0].number:
            raise ValueError(f"Optuna's study has {there} trials where {trials[0].number} were put")
        session.add_all(rows)
        session.flush()
        keyed = [(one.trial_id, trial) for one, trial in zip(rows, trials, strict=True)]
        for model, found in (
            (models.TrialValueModel, _values(models, keyed)),
            (models.TrialParamModel, _parameters(keyed, text)),
            (models.TrialUserAttributeModel, _attributes(keyed, "user_attrs")),
            (models.TrialSystemAttributeModel, _attributes(keyed, "system_attrs")),
        ):
            if listed := list(found):
                session.execute(insert(model), listed)


def _row(models: Any, study_id: int, trial: FrozenTrial) -> Any:
    return models.TrialModel(
        study_id=study_id,
        number=trial.number,
        state=trial.state,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
    )


Keyed = Sequence[tuple[int, FrozenTrial]]
Rows = Iterator[dict[str, Any]]


def _values(models: Any, keyed: Keyed) -> Rows:
    for key, trial in keyed:
        for objective, value in enumerate(trial.values or ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            yield {"trial_id": key, "objective": objective, "value": stored, "value_type": kind}


def _parameters(keyed: Keyed, text: Text) -> Rows:
    for key, trial in keyed:
        for name, distribution in trial.distributions.items():
            yield {
                "trial_id": key,
                "param_name": name,
                "param_value": distribution.to_internal_repr(trial.params[name]),
                "distribution_json": text(distribution),
            }


def _attributes(keyed: Keyed, which: str) -> Rows:
    for key, trial in keyed:
        for name, value in getattr(trial, which).items():
            yield {"trial_id": key, "key": name, "value_json": json.dumps(value)}


def _texts() -> Text:
    """The JSON of a distribution, made once; trials of a study share theirs."""
    made: dict[int, tuple[BaseDistribution, str]] = {}

    def text(distribution: BaseDistribution) -> str:
        if id(distribution) not in made:
            made[id(distribution)] = (distribution, distribution_to_json(distribution))
        return made[id(distribution)][1]

    return text
