"""Stored failures: read, and put back to be tried again."""

from __future__ import annotations

from sqlalchemy import Engine, delete, select, update

from search import tables
from search.failures import cause_of
from search.outcome import COMPLETE, FAILED, PRUNED, WAITING
from search.store import Store

OPEN = "open"


def read_causes(engine: Engine, study_id: int) -> list[tuple[int, str]]:
    """(trial, cause) of every attempt of a study that has not succeeded, in their order."""
    attempt, trial = tables.attempts.c, tables.trials.c
    query = (
        select(trial.number, attempt.cause, attempt.ending)
        .join(tables.attempts, attempt.trial_id == trial.id)
        .where(trial.study_id == study_id)
        .where(attempt.ending.is_not(None), attempt.ending.not_in((COMPLETE, PRUNED)))
        .order_by(attempt.id)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [(row.number, cause_of(row.cause, row.ending)) for row in rows]


def retry_failed(store: Store, study_id: int) -> list[int]:
    """Let the failed trials of a study wait for another attempt; their numbers.

    What their last attempts said stays with the attempts. The sampler was told of a failure where
    no replicate had succeeded: it waits for the new result.
    """
    trial, proposal = tables.trials, tables.proposals
    failed = select(trial.c.id, trial.c.number, trial.c.proposal).where(
        trial.c.study_id == study_id, trial.c.state == FAILED
    )
    with store.transaction() as connection:
        rows = connection.execute(failed.order_by(trial.c.number)).all()
        keys = [row.id for row in rows]
        for table in (tables.curves, tables.epochs):
            connection.execute(delete(table).where(table.c.trial_id.in_(keys)))
        connection.execute(
            update(trial)
            .where(trial.c.id.in_(keys))
            .values(state=WAITING, epochs=0, error="", seconds=0.0, finished=None)
        )
        connection.execute(
            update(proposal)
            .where(proposal.c.study_id == study_id, proposal.c.state == FAILED)
            .where(proposal.c.number.in_([r.proposal for r in rows if r.proposal is not None]))
            .values(state=OPEN, objective_values=None)
        )
    return [row.number for row in rows]
