"""Trials that wait while another study in the database has their result by now: it is theirs too.

A trial is looked up among all studies when it is decided on (``Study._add_trial``). One that was
cut off and waits may have been finished by another study since, so it is looked up again when its
study is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, update

from search import tables
from search.outcome import REUSED, WAITING
from search.records import TrialRecord, now
from search.store import Store

if TYPE_CHECKING:
    from search.engine import Study


def adopt_finished(study: Study) -> None:
    """Give the trials of a study that wait what others have come to; they are trained no more."""
    for number in list(study.waiting):
        trial = study.trials[number]
        origin = None if trial.origin else study._origin(trial.digest, trial.seed)
        if origin is None or trial.accuracy is not None:
            continue
        to_be_timed = study.plan.latency and origin.latency_ratio is None
        _keep(study.store, study.id, trial, origin, WAITING if to_be_timed else REUSED)
        study._take_over(trial, origin)
        study.drop_checkpoint(number)
        if not to_be_timed:
            study.waiting.remove(number)
            trial.state, trial.finished = REUSED, now()
            study._told_of(trial)


def _keep(store: Store, study_id: int, trial: TrialRecord, origin: TrialRecord, state: str) -> None:
    """In one transaction; what a cut-off training had noted gives way to what the origin has."""
    own = tables.trials.c
    new = {k: value for k, value in origin.measurements.items() if k not in trial.measurements}
    with store.transaction() as connection:
        for table in (tables.curves, tables.epochs):
            connection.execute(delete(table).where(table.c.trial_id == trial.id))
        store.add_measurements(study_id, {trial.number: new})
        connection.execute(
            update(tables.trials)
            .where(own.id == trial.id)
            .values(
                state=state,
                epochs=origin.epochs,
                origin_trial_id=origin.id,
                finished=now() if state == REUSED else None,
            )
        )
