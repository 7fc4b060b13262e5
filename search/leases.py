"""Leases: who evaluates which trial of a study, where several parents share it on PostgreSQL.

A lease says that a parent has something until a time by the database's own clock: a trial that it
evaluates, Optuna's mirror, or its place among the parents. A parent renews its leases while it
lives; one that has expired may be taken by another. What a parent records of a trial is recorded
in the transaction that gives the lease up, and only there: who has lost the lease records nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from blocks.errors import StudyError
from search import tables

TRIAL, PARENT, MIRROR = "trial", "parent", "mirror"
SECONDS = 60.0
SETTING = "ATTENTION_SEARCH_LEASE_SECONDS"
RENEWALS = 4  # within the time of one lease


class LeaseTakenError(Exception):
    """A trial was taken by another parent a moment ago."""


class LeaseLostError(Exception):
    """A lease ran out, and another parent has what it was for."""


def lease_seconds() -> float:
    """How long a lease is good without being renewed.

    Raises:
        StudyError: The environment gives something else than a number above 0.
    """
    given = os.environ.get(SETTING, str(SECONDS))
    with suppress(ValueError):
        if 0 < float(given) < float("inf"):
            return float(given)
    raise StudyError(f"{SETTING}={given!r} is no number of seconds above 0, such as 60")


def is_shareable(engine: Engine) -> bool:
    """Whether several parents can share a study of this database."""
    return engine.dialect.name == "postgresql"


@contextmanager
def one_at_a_time(engine: Engine, study: str, seconds: float) -> Iterator[None]:
    """Be the only one who decides about a study, among all who ask here.

    A process that is stopped in here is shut out by the database after a while; what it then
    writes of numbers that others have taken meanwhile, the tables refuse.

    Args:
        engine: Of the database.
        study: The study's name.
        seconds: How long it may take.
    """
    digest = hashlib.sha256(f"attention-search {study}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    connection = engine.connect()
    try:
        limit = max(1, round(seconds * 1000))
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {limit}"))
        connection.execute(select(func.pg_advisory_xact_lock(key)))
        yield
    finally:
        try:
            connection.rollback()
        except DBAPIError:
            connection.invalidate()
        connection.close()


def _clock() -> ColumnElement[datetime]:
    """The time by the database's clock."""
    return func.clock_timestamp(type_=DateTime(timezone=True))


@dataclass
class Leases:
    """What one parent has of one study.

    Args:
        engine: Of the database.
        study_id: The study.
        seconds: How long a lease is good without being renewed.
        owner: This parent, as no other is called.
        evaluates: Numbers of the trials that it evaluates.
        lost: Numbers of those whose leases it has lost.
        attempts: Number of a trial -> which attempt at it was this parent's last.
        patient_until: Until when the leases of others count although they have run out: the
            database was away, and they could not renew them either.
    """

    engine: Engine
    study_id: int
    seconds: float = field(default_factory=lease_seconds)
    owner: str = field(
        default_factory=lambda: f"{platform.node()} pid {os.getpid()} {secrets.token_hex(4)}"
    )
    evaluates: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    patient_until: float = 0.0

    def take(self, connection: Connection, kind: str, number: int, attempt: int = 0) -> bool:
        """Take a lease, or renew one's own; False where another parent has it."""
        table = tables.leases
        expires = _clock() + timedelta(seconds=self.seconds)
        place = {"study_id": self.study_id, "kind": kind, "number": number}
        values = {"owner": self.owner, "attempt": attempt, "expires": expires}
        free = (table.c.expires < _clock()) | (table.c.owner == self.owner)
        row = connection.execute(
            insert(table)
            .values(**place, **values)
            .on_conflict_do_update(index_elements=list(place), set_=values, where=free)
            .returning(table.c.number)
        ).first()
        return row is not None

    def take_trial(self, connection: Connection, number: int, attempt: int) -> None:
        """Take the lease of a trial that is to be evaluated.

        Raises:
            LeaseTakenError: Another parent has it.
        """
        if not self.take(connection, TRIAL, number, attempt):
            raise LeaseTakenError(f"trial {number}")
        self.lost.discard(number)
        self.attempts[number] = attempt

    def give_up(self, connection: Connection, kind: str, number: int) -> None:
        """Give a lease up, in the transaction of what was done under it.

        Raises:
            LeaseLostError: Another parent has it, or had it.
        """
        row = tables.leases.c
        mine = self._mine() & (row.kind == kind) & (row.number == number)
        if connection.execute(delete(tables.leases).where(mine)).rowcount != 1:
            self.lost |= {number} if kind == TRIAL else set()
            raise LeaseLostError(
                f"its lease of {self.seconds:g} s ran out, and another parent has taken it over;"
                " what was trained here is dropped"
            )

    def _mine(self) -> ColumnElement[bool]:
        row = tables.leases.c
        return (row.study_id == self.study_id) & (row.owner == self.owner)

    def renew(self) -> None:
        """Renew all that it has, and note the trials that it has no longer."""
        row = tables.leases.c
        until = _clock() + timedelta(seconds=self.seconds)
        renewed = update(tables.leases).where(self._mine()).values(expires=until)
        with self.engine.begin() as connection:
            rows = connection.execute(renewed.returning(row.kind, row.number)).all()
        self.lost |= self.evaluates - {number for kind, number in rows if kind == TRIAL}

    def keep_only(self, numbers: Collection[int]) -> None:
        """Give up the trials that it has and does not evaluate.

        Where the answer to a commit was lost, a trial may have been taken that nobody began.
        """
        row = tables.leases.c
        idle = self._mine() & (row.kind == TRIAL) & row.number.not_in(list(numbers))
        with self.engine.begin() as connection:
            connection.execute(delete(tables.leases).where(idle))

    def held_trials(self) -> set[int]:
        """Numbers of the trials that somebody evaluates."""
        row = tables.leases.c
        query = select(row.number).where(row.study_id == self.study_id, row.kind == TRIAL)
        if time.monotonic() >= self.patient_until:
            query = query.where(row.expires >= _clock())
        with self.engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def be_patient(self) -> None:
        """The database was away: leave others the time of a lease to renew theirs."""
        self.patient_until = time.monotonic() + self.seconds

    def leave(self) -> None:
        """Give up all that it has."""
        with self.engine.begin() as connection:
            connection.execute(delete(tables.leases).where(self._mine()))


def living_parents(engine: Engine, study_id: int) -> list[str]:
    """The parents that run a study now."""
    row = tables.leases.c
    query = select(row.owner).where(
        row.study_id == study_id, row.kind == PARENT, row.expires >= _clock()
    )
    with engine.connect() as connection:
        return list(connection.execute(query.order_by(row.owner)).scalars())


class Heartbeat:
    """Renews a parent's leases in a thread of its own, until it is closed.

    Args:
        leases: What it renews.
    """

    def __init__(self, leases: Leases) -> None:
        self.leases = leases
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._closing.wait(self.leases.seconds / RENEWALS):
            try:
                self.leases.renew()
            except SQLAlchemyError:  # the next time; meanwhile the lease may run out
                self.leases.be_patient()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        self._thread.join()
