"""Joining databases: studies, trials and files of others into one, by digest and without doubles.

Each study is one transaction: a kill in the middle leaves it as it was, or merged whole. The other
databases are opened for reading alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from sqlalchemy.engine import URL

from blocks.errors import StudyError, listing, suggestion
from search import output
from search.caps import above_caps
from search.copying import copy_files, drop_checkpoints, write_joining
from search.database import (
    DEFAULT_STORAGE,
    artefacts_of,
    checkpoint,
    explained,
    open_for_writing,
    storage_url,
)
from search.holding import held_from_all
from search.joining import Joining, plan_joining
from search.reading import read_study, read_trials
from search.records import TrialRecord
from search.source import Row, Source, open_source, refuse_itself, source_url
from search.store import Store
from spaces.candidate import DataFacts
from spaces.document import NAME
from spaces.space import Constraint

TAKEN, ADDED, UNCHANGED, REFUSED = "taken over", "added to", "already there", "refused"


@dataclass(frozen=True)
class Joined:
    """What became of one study of another database.

    Args:
        source: The other database.
        study: The study's name there.
        into: Its name here.
        outcome: taken over, added to, already there or refused.
        added: Trials that came.
        completed: Trials that waited here and have their result now.
        there: Trials that were here already.
        files: Files that came.
        why: Why it was refused.
        problems: What could not be brought, and what went wrong beside it.
    """

    source: str
    study: str
    into: str
    outcome: str
    added: int = 0
    completed: int = 0
    there: int = 0
    files: int = 0
    why: str = ""
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**self.__dict__, "problems": list(self.problems)}


def merge(
    others: Sequence[str],
    *,
    storage: str = DEFAULT_STORAGE,
    study: str | None = None,
    name: str | None = None,
) -> list[Joined]:
    """Take the studies of other databases over into one.

    Args:
        others: Files of this tool, or URLs of databases.
        storage: The URL of the database that they come into; made where there is none.
        study: The one study that is wanted; None: all.
        name: The name that it gets here; None: the one that it has there.

    Returns:
        A row per study of every database; those that were refused say why.

    Raises:
        StudyError: A database cannot be read or written, or there is no such study.
    """
    target = storage_url(storage)
    urls = [source_url(given) for given in others]
    for url in urls:
        refuse_itself(url, target)
    with ExitStack() as stack:
        sources = [stack.enter_context(open_source(url)) for url in urls]
        chosen = _chosen(sources, study, name)
        engine = open_for_writing(target)
        try:
            store = Store(engine)
            return [_join(*one, name or one[1]["name"], store, target) for one in chosen]
        finally:
            checkpoint(engine)
            engine.dispose()


def _chosen(
    sources: Sequence[Source], study: str | None, name: str | None
) -> list[tuple[Source, Row]]:
    """The studies that are wanted, in the order in which they are taken.

    Raises:
        StudyError: There is none of that name, or a new name does not say whose.
    """
    there = [(source, record) for source in sources for record in source.studies()]
    names = list(dict.fromkeys(record["name"] for _, record in there))
    if study is not None and study not in names:
        where = listing(source.name for source in sources)
        raise StudyError(
            f"{where}: there is no study {study!r}.{suggestion(study, names)} Studies:"
            f" {listing(names)}"
        )
    if name is not None and not NAME.fullmatch(name):
        raise StudyError(
            f"--as {name!r} is no name; allowed: 1 to 64 letters, digits, '.', '_' and '-'"
        )
    if name is not None and study is None and len(names) > 1:
        raise StudyError(
            f"--as {name} names one study, and there are {len(names)} ({listing(names)}); say which"
            " (--study NAME)"
        )
    return [(source, record) for source, record in there if study in (None, record["name"])]


def _join(source: Source, record: Row, name: str, store: Store, target: URL) -> Joined:
    """Take one study over, whole or what the target lacks of it."""
    try:
        if not NAME.fullmatch(name):
            raise StudyError(
                f"{source.name}: its study {name!r} has no name that a study may have; give it one"
                " (--as NAME)"
            )
        with explained(target), held_from_all(artefacts_of(target), name, store):
            joining = plan_joining(source, record, name, store.engine, target)
            if joining.is_idle:
                return Joined(source.name, record["name"], name, UNCHANGED, there=joining.there)
            return _write(joining, store, target)
    except StudyError as error:
        return Joined(source.name, record["name"], name, REFUSED, why=str(error))


def _write(joining: Joining, store: Store, target: URL) -> Joined:
    files = copy_files(joining, target)
    with store.transaction() as connection:
        write_joining(connection, joining, files)
    drop_checkpoints(joining, target)
    problems = files.problems
    if problem := _mirror(joining.name, store, target):
        problems.append(f"Optuna's mirror: {problem}; the next run of the study brings it up")
    completed = sum(trial.fills is not None for trial in joining.trials)
    return Joined(
        joining.source.name,
        joining.record["name"],
        joining.name,
        TAKEN if joining.into is None else ADDED,
        len(joining.trials) - completed,
        completed,
        joining.there,
        files.count,
        problems=tuple(problems),
    )


def _mirror(name: str, store: Store, target: URL) -> str:
    """Make Optuna's tables of a study anew; what went wrong, if anything."""
    from search.mirror import Mirror
    from search.samplers import mirrored_distributions

    record = read_study(store.engine, name)
    trials = read_trials(store.engine, record.id)
    constraints = [Constraint(metric, text) for metric, text in record.constraints.items()]
    data = _facts(record.identity["data"])

    def caps(trial: TrialRecord) -> dict[str, float]:
        return above_caps(trial, constraints, data)

    mirror = Mirror(
        target,
        name,
        record.objectives,
        caps=caps,
        distributions=mirrored_distributions({}, [trial.distributions for trial in trials]),
        lock=store.lock,
        trials=lambda: trials,
    )
    mirror.start(rebuild=True)
    mirror.changed()
    mirror.close()
    return mirror.problem


def _facts(data: dict[str, Any]) -> DataFacts:
    """A data set's facts as a study's identity has them."""
    channels, height, width = data["input_shape"]
    first, second, third = data["sizes"]
    return DataFacts(
        data["name"],
        (channels, height, width),
        data["classes"],
        data["split_digest"],
        (first, second, third),
    )


def refusals(rows: Sequence[Joined]) -> str:
    """Why studies were refused, in full; empty where none was."""
    return "\n".join(row.why for row in rows if row.outcome == REFUSED)


def joined_table(rows: Sequence[Joined]) -> Table:
    """What became of every study, for people."""
    shown = [
        (
            row.source,
            row.study if row.into == row.study else f"{row.study} as {row.into}",
            row.outcome,
            row.added,
            row.completed,
            row.there,
            row.files,
            row.why.splitlines()[0] if row.why else "; ".join(row.problems),
        )
        for row in rows
    ]
    columns = ("from", "study", "what", "added", "completed", "already there", "files", "notes")
    return output.table("", columns, shown)
