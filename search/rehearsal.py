"""The first proposals of a run, by rehearsing it: the same engine, on a copy in memory, untrained.

What is stored is copied into a database in memory, and the study is opened there and driven as a
run would drive it, with results that are made up. It is driven several times, each time with other
results and once with none: what all of them propose at first does not depend on results, and is
what the run will propose.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Engine, create_engine, insert, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from search import tables
from search.database import open_if_there
from search.engine import Study
from search.outcome import COMPLETE, FINISHED, EpochResult, Outcome
from search.plan import StudyPlan
from search.reading import read_studies, read_trials
from search.records import TrialRecord
from search.store import Store
from search.study import open_study
from spaces.metrics import COST, METRICS

# Of a trial these are not looked at when a study goes on, and they are most of a database.
LEFT_OUT = (tables.curves, tables.epochs, tables.answers, tables.classes)
MADE_BY = {"versions": {}, "device": "none"}


@dataclass(frozen=True)
class FirstTrials:
    """What a run will do first.

    Args:
        trials: Of each of the first candidates its first trial that is not finished.
        settled: Whether as many were asked for; else the next depend on results.
        ended: Why there are no more, where the study has an end before.
    """

    trials: tuple[TrialRecord, ...]
    settled: bool
    ended: str


def first_trials(plan: StudyPlan, count: int) -> FirstTrials:
    """The first trials of the next run of a plan.

    Args:
        plan: A study that goes on with another space goes on as with ``--extend``.
        count: How many candidates are asked for.

    Raises:
        StudyError: The study cannot be opened.
    """
    runs = [_rehearsed(plan, count, made_up) for made_up in MADE_UP]
    shared = 0
    for trials in zip(*(trials for trials, _ in runs), strict=False):
        if len({(trial.digest, trial.number) for trial in trials}) > 1:
            break
        shared += 1
    first, note = runs[0]
    ends = shared == len(first) < count
    return FirstTrials(tuple(first[:shared]), shared >= count or ends, note if ends else "")


def _of_digest(digest: str) -> float:
    return int(hashlib.sha256(digest.encode()).hexdigest()[:8], 16) / 16**8


# Accuracies that a rehearsal makes up: none, one for all, by chance, and the other way round.
MADE_UP: tuple[Callable[[str], float] | None, ...] = (
    None,
    lambda digest: 0.5,
    _of_digest,
    lambda digest: 1 - _of_digest(digest),
)


def _rehearsed(
    plan: StudyPlan, count: int, made_up: Callable[[str], float] | None
) -> tuple[list[TrialRecord], str]:
    """(the first trials of the first candidates, why there are no more)."""
    engine = copied(plan.storage)
    nowhere = Path(tempfile.gettempdir()) / f"attention-search-no-folder-{os.getpid()}"
    place = URL.create("sqlite", database=str(nowhere / "none.db"))
    try:
        done = _finished(engine, plan.study)
        study, _ = open_study(replace(plan, storage=place, extend=True), Store(engine))
        while len(_new(study, done, count)) < count:
            assignment = study.next_assignment()
            if assignment is None:
                break
            if made_up is not None:
                accuracy = made_up(study.trials[assignment.trial].digest)
                study.on_finish(assignment.trial, _outcome(accuracy), MADE_BY)
        return _new(study, done, count), study.note
    finally:
        engine.dispose()


def _finished(engine: Engine, study: str) -> set[int]:
    """The numbers of a study's finished trials, as they are stored."""
    records = [record for record in read_studies(engine) if record.name == study]
    trials = [trial for record in records for trial in read_trials(engine, record.id)]
    return {trial.number for trial in trials if trial.state in FINISHED}


def _new(study: Study, done: set[int], count: int) -> list[TrialRecord]:
    """The first trial of each of the first candidates that a run has still to do with."""
    found: dict[str, TrialRecord] = {}
    for number in sorted(study.trials.keys() - done):
        trial = study.trials[number]
        found.setdefault(trial.digest, trial)
    return list(found.values())[:count]


def _outcome(accuracy: float) -> Outcome:
    epoch = EpochResult(1, 0.5, accuracy, 0.5, accuracy, 0.1, 0.01)
    measured = [
        (metric.split, metric.name, accuracy)
        for metric in METRICS.values()
        if not metric.is_cost and not metric.instead and metric.split != COST
    ]
    return Outcome(COMPLETE, (epoch,), (*measured, ("test", "accuracy", accuracy)), 0.01)


def copied(url: URL) -> Engine:
    """A database in memory with what is stored, as far as a study that goes on looks at it."""
    memory = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    with memory.begin() as connection:
        tables.metadata.create_all(connection)
    stored = open_if_there(url)
    if stored is None:
        with memory.begin() as connection:
            connection.execute(insert(tables.schema).values(version=tables.SCHEMA_VERSION))
        return memory
    try:
        with stored.connect() as source, memory.begin() as target:
            known = inspect(source)
            for table in tables.metadata.sorted_tables:
                if table in LEFT_OUT or not known.has_table(table.name):
                    continue
                there = {column["name"] for column in known.get_columns(table.name)}
                columns = [column for column in table.c if column.name in there]
                rows = [dict(row._mapping) for row in source.execute(select(*columns))]
                if rows:
                    target.execute(insert(table), rows)
    finally:
        stored.dispose()
    return memory
