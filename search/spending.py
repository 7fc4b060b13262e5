"""How long a study was run and its attempts held devices: of earlier processes, and of this one.

Each process that runs a study has a row: when it began, how long it was heard of, and how many
devices an attempt of its takes. A process that is killed was last heard of when it last wrote.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, insert, inspect, select, update

from search import tables
from search.records import now
from search.store import Store

BEAT_SECONDS = 10.0
OLD_CUT = "the parent process ended"  # earlier versions ended such attempts at the next start


@dataclass(frozen=True)
class Run:
    """One process that ran a study.

    Args:
        id: Its key.
        owner: Host and process.
        started: When it began, in seconds.
        ended: When it was last heard of.
        devices: That one attempt of its takes.
    """

    id: int
    owner: str
    started: float
    ended: float
    devices: float


@dataclass(frozen=True)
class Span:
    """One attempt at a trial.

    Args:
        trial: Its number.
        owner: The process that started it.
        started: When, in seconds.
        ended: When; None while it runs, or where it was cut off with its process.
        known: Whether that is when it ended, and not when somebody noticed.
    """

    trial: int
    owner: str
    started: float
    ended: float | None
    known: bool


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def read_spans(engine: Engine, study_id: int) -> list[Span]:
    """All attempts of a study, in the order in which they were started."""
    attempt, trial = tables.attempts.c, tables.trials.c
    query = (
        select(trial.number, attempt.owner, attempt.started, attempt.finished, attempt.cause)
        .join(tables.trials, trial.id == attempt.trial_id)
        .where(trial.study_id == study_id)
        .order_by(attempt.id)
    )
    with engine.connect() as connection:
        return [
            Span(
                row.number,
                row.owner,
                _seconds(row.started),
                _seconds(row.finished) if row.finished else None,
                row.cause != OLD_CUT,
            )
            for row in connection.execute(query)
        ]


def read_runs(engine: Engine, study_id: int, spans: Iterable[Span]) -> list[Run]:
    """The processes that ran a study, each to when it last wrote anything."""
    runs = tables.runs
    query = select(runs).where(runs.c.study_id == study_id).order_by(runs.c.id)
    with engine.connect() as connection:
        if not inspect(connection).has_table(runs.name):
            return []  # written by a version that had none
        rows = connection.execute(query).all()
    found = [
        Run(row.id, row.owner, begun := _seconds(row.started), begun + row.seconds, row.devices)
        for row in rows
    ]
    heard = {run.id: run.ended for run in found}
    for span in spans:
        run = run_of(found, span.owner, span.started)
        if run is not None:
            written = span.ended if span.ended is not None and span.known else span.started
            heard[run.id] = max(heard[run.id], written)
    return [Run(r.id, r.owner, r.started, heard[r.id], r.devices) for r in found]


def run_of(runs: Sequence[Run], owner: str, started: float) -> Run | None:
    """The process that started an attempt; process numbers come back, so the last before it."""
    own = [run for run in runs if run.owner == owner and run.started <= started]
    return own[-1] if own else None


def last_heard(runs: Sequence[Run], spans: Sequence[Span], owner: str, started: float) -> float:
    """When the process of an attempt that was cut off with it was last heard of."""
    run = run_of(runs, owner, started)
    if run is not None:
        return max(run.ended, started)
    written = [max(s.started, s.ended or 0.0) for s in spans if s.owner == owner and s.known]
    return max([started, *written])


def wall_seconds(runs: Iterable[Run], spans: Iterable[Span]) -> float:
    """The time in which a study was run: where several ran it at once, it counts once."""
    parts = [(run.started, run.ended) for run in runs]
    parts += [(s.started, s.ended) for s in spans if s.ended is not None and s.known]
    total, until = 0.0, 0.0
    for start, end in sorted(parts):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def device_seconds(runs: Sequence[Run], spans: Iterable[Span]) -> float:
    """The time of all attempts that have ended, times the devices of each."""
    total = 0.0
    for span in spans:
        if span.ended is not None and span.known:
            run = run_of(runs, span.owner, span.started)
            total += (span.ended - span.started) * (run.devices if run else 1.0)
    return total


def running_seconds(runs: Sequence[Run], spans: Sequence[Span]) -> float:
    """The time of attempts that have not ended, times the devices of each.

    Each until its process was last heard of: whether that one still lives is not known.
    """
    total = 0.0
    for span in spans:
        if span.ended is None:
            run = run_of(runs, span.owner, span.started)
            heard = last_heard(runs, spans, span.owner, span.started)
            total += (heard - span.started) * (run.devices if run else 1.0)
    return total


class Meter:
    """What a study has spent, in the hands of a parent that runs it.

    Args:
        store: The writing side of the database.
        study_id: The study.
        owner: This process.
        devices: That one attempt takes: of this process.
    """

    def __init__(self, store: Store, study_id: int, owner: str, devices: float) -> None:
        self.store = store
        self.study_id = study_id
        self.owner = owner
        self.spans = read_spans(store.engine, study_id)
        self.runs = read_runs(store.engine, study_id, self.spans)
        self.devices = devices
        self._began = self._written = time.monotonic()
        self._since = now()
        self._row: int | None = None
        self._looked = -math.inf
        self._before = wall_seconds(self.runs, self.spans)
        self._held = device_seconds(self.runs, self.spans)
        self._own = 0.0  # of attempts of this process that have ended
        self._running: dict[int, float] = {}

    def cut_off(self, trial: int) -> tuple[str, str]:
        """Count the attempt of a trial that ended with its process.

        Returns:
            That process, and when it was last heard of.
        """
        span = [s for s in self.spans if s.trial == trial][-1]
        ended = last_heard(self.runs, self.spans, span.owner, span.started)
        run = run_of(self.runs, span.owner, span.started)
        self._held += (ended - span.started) * (run.devices if run else 1.0)
        when = datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds")
        return span.owner, when

    def started(self, trial: int) -> None:
        """An attempt begins; with the first one, this process is one that ran the study."""
        self._running[trial] = time.monotonic()
        if self._row is None:
            self._row = self.store.outlast(self._add)

    def ended(self, trial: int) -> None:
        """An attempt has ended, in whatever way."""
        begun = self._running.pop(trial, None)
        if begun is not None:
            self._own += (time.monotonic() - begun) * self.devices

    @property
    def seconds(self) -> float:
        """Of wall time; a process that starts no trial does not count."""
        return self._before + self._run_for

    @property
    def _run_for(self) -> float:
        return time.monotonic() - self._began if self._row is not None else 0.0

    @property
    def device_seconds(self) -> float:
        """Of devices, those of running attempts included."""
        clock = time.monotonic()
        running = sum(clock - begun for begun in self._running.values())
        return self._held + self._own + running * self.devices

    def look(self) -> None:
        """Count, now and then, what other processes have spent on the study meanwhile."""
        clock = time.monotonic()
        if clock - self._looked < BEAT_SECONDS:
            return
        self._looked = clock
        engine, since = self.store.engine, _seconds(self._since)
        spans = [
            span
            for span in read_spans(engine, self.study_id)
            if span.owner != self.owner or span.started < since
        ]
        runs = [run for run in read_runs(engine, self.study_id, spans) if run.id != self._row]
        own = Run(0, self.owner, since, since + self._run_for, self.devices)
        self._before = wall_seconds([*runs, own], spans) - self._run_for
        self._held = device_seconds(runs, spans) + running_seconds(runs, spans)

    def beat(self, *, at_once: bool = False) -> None:
        """Write how long this process has run, now and then."""
        clock = time.monotonic()
        if self._row is None or (not at_once and clock - self._written < BEAT_SECONDS):
            return
        self._written = clock
        self.store.outlast(self._write)

    def _write(self) -> None:
        with self.store.transaction() as connection:
            connection.execute(
                update(tables.runs)
                .where(tables.runs.c.id == self._row)
                .values(seconds=self._written - self._began)
            )

    def _add(self) -> int:
        with self.store.transaction() as connection:
            key = connection.execute(
                insert(tables.runs).values(
                    study_id=self.study_id,
                    owner=self.owner,
                    started=self._since,
                    seconds=time.monotonic() - self._began,
                    devices=self.devices,
                )
            ).inserted_primary_key
        assert key is not None  # an insert of one row has a key
        return int(key[0])
