"""The statements that every trial needs, made once: to make one anew costs more than SQLite does.

Names in ``bindparam`` must not be those of columns that are set.
"""

from __future__ import annotations

from sqlalchemy import bindparam, func, insert, select, update

from search import tables
from search.outcome import COMPLETE

_trial, _attempt, _proposal = tables.trials.c, tables.attempts.c, tables.proposals.c

ADD_PROPOSALS = insert(tables.proposals)
ADD_TRIAL = insert(tables.trials)
ADD_MEASUREMENTS = insert(tables.measurements)

FIND_TRIAL = select(_trial.id).where(
    _trial.study_id == bindparam("study"), _trial.number == bindparam("wanted")
)
FIND_FINISHED = (
    select(_trial.id)
    .where(
        _trial.candidate_digest == bindparam("wanted"),
        _trial.seed == bindparam("wanted_seed"),
        _trial.state == COMPLETE,
        _trial.study_id != bindparam("study"),
    )
    .order_by(_trial.number)
)
CHANGE_TRIAL = update(tables.trials).where(_trial.id == bindparam("trial"))
TELL_PROPOSAL = update(tables.proposals).where(
    _proposal.study_id == bindparam("study"), _proposal.number == bindparam("proposal")
)
CHANGE_STUDY = update(tables.studies).where(tables.studies.c.id == bindparam("study"))

COUNT_ATTEMPTS = select(func.count()).where(_attempt.trial_id == bindparam("trial"))
START_ATTEMPT = (
    insert(tables.attempts)
    .values(
        trial_id=bindparam("trial"),
        number=COUNT_ATTEMPTS.scalar_subquery() + 1,
        owner=bindparam("whose"),
        started=bindparam("moment"),
        cause="",
        traceback="",
    )
    .returning(_attempt.number)
)
END_ATTEMPT = update(tables.attempts).where(
    _attempt.trial_id == bindparam("trial"), _attempt.finished.is_(None)
)
