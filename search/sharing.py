"""Several parents on one study: what each learns of the others, and when it may decide.

The engine of a study (``search.engine``) holds what the database holds. A parent that is alone
keeps the two equal by itself (``Alone``); one of several (``Shared``) decides and records while no
other does, and learns before what the others have done since.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from blocks.errors import StudyError
from search import tables
from search.enqueued import still_to_come
from search.leases import (
    MIRROR,
    PARENT,
    SETTING,
    Heartbeat,
    LeaseLostError,
    Leases,
    LeaseTakenError,
    is_shareable,
    lease_seconds,
    living_parents,
    one_at_a_time,
)
from search.outcome import FINISHED, RUNNING, SUCCEEDED, WAITING
from search.reading import proposals_where, read_findings, trials_where
from search.records import OPEN, OVER_CAP, REPLICATED, TrialRecord
from search.store import Store

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from search.engine import Study

TRIES = 20  # a parent that was slow may find its number taken
LOOKS = 60  # within the time of one lease, at most one a second
OPENING_SECONDS = 60.0

T = TypeVar("T")


class Alone:
    """The one parent of its study.

    Args:
        store: The writing side of the database.
    """

    is_shared = False
    elsewhere = False  # whether others evaluate trials that this parent is to wait for

    def __init__(self, store: Store) -> None:
        self.store = store
        self.study: Study | None = None

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Nothing to wait for: the study is held already."""
        yield

    def others(self, study_id: int) -> list[str]:
        """Nobody."""
        return []

    def enter(self, study: Study) -> None:
        """Remember it."""
        self.study = study

    def next(self, decide: Callable[[], T | None]) -> T | None:
        """Decide."""
        return decide()

    def recorded(self, number: int, record: Callable[[], T]) -> T:
        """Record."""
        return record()

    def is_lost(self, number: int) -> bool:
        """Never."""
        return False

    def may_mirror(self) -> bool:
        """Always."""
        return True

    def end_mirror(self) -> None:
        """Nobody waits for it."""

    def fall_silent(self) -> None:
        """There is nothing to renew."""

    def leave(self, status: str, note: str) -> None:
        """Say how the study stands."""
        if self.study is not None:
            self.store.update_study(self.study.id, status=status, note=note)


class Shared:
    """One of several parents of a study, on PostgreSQL.

    Args:
        store: The writing side of the database.
        name: The study's name.
    """

    is_shared = True

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.seconds = lease_seconds()
        self.elsewhere = False
        self.study: Study | None = None
        self._leases: Leases | None = None
        self._heartbeat: Heartbeat | None = None
        self._look_again = 0.0
        self._is_stale = False  # what the study holds may differ from what the database holds

    @property
    def leases(self) -> Leases:
        """What this parent has."""
        assert self._leases is not None  # a study is entered before it is run
        return self._leases

    def opening(self) -> AbstractContextManager[None]:
        """Alone for a moment: others neither make the study nor decide in it."""
        return one_at_a_time(self.store.engine, self.name, max(self.seconds, OPENING_SECONDS))

    def others(self, study_id: int) -> list[str]:
        """The other parents that run a study."""
        return living_parents(self.store.engine, study_id)

    def enter(self, study: Study) -> None:
        """Be a parent of a study that has been opened, and say so to the others."""
        self.study = study
        self._leases = Leases(self.store.engine, study.id, self.seconds)
        place = 0
        with self.store.transaction() as connection:
            while not self._leases.take(connection, PARENT, place):
                place += 1
        self.store.leases = self._leases
        self._heartbeat = Heartbeat(self._leases)

    def next(self, decide: Callable[[], T | None]) -> T | None:
        """Decide what to evaluate next, after what the others have done.

        Raises:
            StudyError: Others were quicker again and again.
        """
        if time.monotonic() < self._look_again:
            return None
        return self.store.outlast(lambda: self._decided(decide))

    def _decided(self, decide: Callable[[], T | None]) -> T | None:
        for _ in range(TRIES):
            with self._serialised() as study:
                try:
                    decided = decide()
                except (IntegrityError, LeaseTakenError):
                    study.reload()  # another was quicker: what was decided here is forgotten
                    continue
            if decided is None:
                self._look_again = time.monotonic() + min(1.0, self.seconds / LOOKS)
            self.leases.evaluates |= study.running
            return decided
        raise StudyError(
            f"study {self.name!r}: {TRIES} times in a row others were quicker; run again, with a"
            f" larger {SETTING}"
        )

    def recorded(self, number: int, record: Callable[[], T]) -> T:
        """Record how a trial went, if it is still this parent's.

        Raises:
            LeaseLostError: It is another's; nothing was recorded.
        """
        self._look_again = 0.0
        try:
            return self.store.outlast(lambda: self._recorded(number, record))
        finally:
            self.leases.evaluates.discard(number)

    def _recorded(self, number: int, record: Callable[[], T]) -> T:
        with self._serialised() as study:
            try:
                return record()
            except LeaseLostError:
                study.running.discard(number)
                study.reload()
                raise

    @contextmanager
    def _serialised(self) -> Iterator[Study]:
        """The study as the database holds it, while no other parent decides or records.

        Where the database goes away in here, all of it is done again: what was held is forgotten,
        and what the others have done meanwhile is learnt.
        """
        assert self.study is not None  # entered before
        with one_at_a_time(self.store.engine, self.name, self.seconds):
            stale, self._is_stale = self._is_stale, True
            if stale:
                self.study.reload()
                self.leases.keep_only(self.study.running)
            learn(self.study, self.leases, self.store)
            self.elsewhere = is_elsewhere(self.study)
            yield self.study
            self._is_stale = False

    def is_lost(self, number: int) -> bool:
        """Whether a trial that is evaluated here has been taken over by another parent."""
        return number in self.leases.lost

    def may_mirror(self) -> bool:
        """Whether this parent keeps Optuna's tables: one of all does."""
        with self.store.transaction() as connection:
            return self.leases.take(connection, MIRROR, 0)

    def end_mirror(self) -> None:
        """Let another parent keep Optuna's tables."""
        with suppress(LeaseLostError), self.store.transaction() as connection:
            self.leases.give_up(connection, MIRROR, 0)

    def leave(self, status: str, note: str) -> None:
        """Give everything up; the last parent, or one that sees the end, says how it stands."""
        self.fall_silent()
        if self._leases is not None and self.study is not None:
            self.store.outlast(lambda: self._leave(status, note))

    def _leave(self, status: str, note: str) -> None:
        assert self.study is not None  # entered before
        with self.opening():
            self.leases.leave()
            if self.study.is_done or not self.others(self.study.id):
                self.store.update_study(self.study.id, status=status, note=note)

    def fall_silent(self) -> None:
        """Renew nothing any longer: others may take over what this parent has."""
        if self._heartbeat is not None:
            self._heartbeat.close()


def sharing_of(store: Store, name: str) -> Alone | Shared:
    """How the study of this name is shared in this database."""
    return Shared(store, name) if is_shareable(store.engine) else Alone(store)


# Learning what others have done. -----------------------------------------------------------------


def learn(study: Study, leases: Leases, store: Store) -> None:
    """Bring what is held in memory up to what the database holds, and see what is free."""
    _learn_proposals(study, store.snapshot)
    fresh = _learn_trials(study, store.snapshot)
    if fresh:
        found = read_findings(store.snapshot, study.id)
        for number in fresh:
            if number in found:
                study._expect(number, found[number])
        study.changed()
    if study.plan.budgets.any:
        study.meter.look()
    held = leases.held_trials()
    for number, trial in study.trials.items():
        if trial.state == RUNNING and number not in held | study.running:
            trial.state = WAITING  # its parent has died, or is about to record it
    study.waiting = deque(
        number
        for number, trial in sorted(study.trials.items())
        if trial.state == WAITING and number not in held | study.running
    )


def _learn_proposals(study: Study, engine: Engine) -> None:
    proposer, row = study.proposer, tables.proposals.c
    known = row.number.in_(list(study.open_proposals)) & (row.state != OPEN)
    rows = proposals_where(engine, study.id, (row.number >= proposer.count) | known)
    new = [each for each in rows if each.number >= proposer.count]
    if new:
        state = select(tables.studies.c.sampler_state).where(tables.studies.c.id == study.id)
        with engine.connect() as connection:
            sampler_state = connection.execute(state).scalar_one()
        proposer.replay(new, sampler_state, study.domains())
        study.notes = sampler_state
        study.given = deque(still_to_come(study.given, new))
    for each in rows:
        if each.number in study.open_proposals:
            study._tell(each.number, each.state, each.values)
        elif each.state == OPEN and each.digest:
            study.open_proposals[each.number] = each.digest
            if each.verdict == REPLICATED:
                study.repeats[each.number] = each.digest
        if each.verdict == OVER_CAP and each.digest:
            study.rejected[each.digest] = each.reason


def _learn_trials(study: Study, engine: Engine) -> list[int]:
    """Take in new trials and how others have ended; the numbers of those that have."""
    row = tables.trials.c
    open_ = [n for n, t in study.trials.items() if t.state not in FINISHED]
    ask = row.number.in_([n for n in open_ if n not in study.running])
    fresh = []
    for trial in trials_where(engine, study.id, (row.number >= len(study.trials)) | ask):
        have = study.trials.get(trial.number)
        if have is not None and _is_to_be_timed(have, trial):
            continue
        if have is None:
            study._know(trial)
            if study.plan.seeds > 1 and trial.digest not in study.short:
                study.short.append(trial.digest)
        else:
            study.trials[trial.number] = trial
        if trial.state in FINISHED:
            fresh.append(trial.number)
    return fresh


def _is_to_be_timed(have: TrialRecord, stored: TrialRecord) -> bool:
    """Whether a trial that waits here to be timed is stored as it was: nobody has timed it."""
    timed = stored.finished != have.finished
    return have.state == WAITING and stored.state in SUCCEEDED and not timed


def is_elsewhere(study: Study) -> bool:
    """Whether others evaluate trials of this parent's total."""
    return any(
        trial.state not in FINISHED and number not in study.running
        for number, trial in study.trials.items()
        if number < study.plan.trials
    )


__all__ = ["Alone", "Shared", "learn", "sharing_of"]
