"""The finer records of trials: further numbers of every epoch, which images were right, classes.

Each has a table of its own; in a database of a version that had none, all read as empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Table, func, insert, inspect, select

from search import tables
from search.direct import Transaction
from search.outcome import Answers, EpochResult

ADD_CURVE, ADD_FURTHER = insert(tables.curves), insert(tables.epochs)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EPOCH_COLUMNS = tuple(column.name for column in tables.curves.c if column.name != "trial_id")
FURTHER = tuple(f.name for f in fields(EpochResult) if f.name not in EPOCH_COLUMNS)


# Writing, within an outcome's transaction. --------------------------------------------------------


def keep_curve(writing: Transaction, trial_id: int, epochs: Iterable[EpochResult]) -> None:
    """Keep a learning curve: a row per epoch, and one per further number of it that there is."""
    epochs = list(epochs)
    rows = [{name: getattr(e, name) for name in EPOCH_COLUMNS} for e in epochs]
    writing.execute_all(ADD_CURVE, [{"trial_id": trial_id, **row} for row in rows])
    further = [
        {"trial_id": trial_id, "epoch": epoch.epoch, "metric": name, "value": value}
        for epoch in epochs
        for name in FURTHER
        if (value := getattr(epoch, name)) is not None
    ]
    writing.execute_all(ADD_FURTHER, further)


def keep_answers(connection: Connection, trial_id: int, answers: Sequence[Answers]) -> None:
    """Keep which images were right, and the classes' figures."""
    bits = [
        {"trial_id": trial_id, "split": part.split, "images": part.images, "right": part.right}
        for part in answers
    ]
    connection.execute(insert(tables.answers), bits)
    rows = [
        {
            "trial_id": trial_id,
            "split": part.split,
            "number": number,
            "images": images,
            "right": right,
            "predicted": predicted,
        }
        for part in answers
        for number, (images, right, predicted) in enumerate(part.classes)
    ]
    connection.execute(insert(tables.classes), rows)


# Reading. A reused trial has what its origin has. -------------------------------------------------


def _rows(engine: Engine, table: Table, study_id: int, number: int | None = None) -> Sequence[Any]:
    """The rows of a study's trials, or of one of them, each with its trial's number."""
    trial = tables.trials
    source = func.coalesce(trial.c.origin_trial_id, trial.c.id)
    keys = list(table.primary_key.columns)[1:]
    query = (
        select(trial.c.number.label("trial"), *(c for c in table.c if c.name != "trial_id"))
        .join(table, table.c.trial_id == source)
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number, *keys)
    )
    if number is not None:
        query = query.where(trial.c.number == number)
    with engine.connect() as connection:
        if not inspect(connection).has_table(table.name):
            return []  # written by a version that had none
        return connection.execute(query).all()


def read_further(engine: Engine, study_id: int) -> dict[tuple[int, int], dict[str, float]]:
    """(trial number, epoch) -> the further numbers of that epoch."""
    found: dict[tuple[int, int], dict[str, float]] = {}
    for row in _rows(engine, tables.epochs, study_id):
        found.setdefault((row.trial, row.epoch), {})[row.metric] = row.value
    return found


def read_answers(engine: Engine, study_id: int) -> dict[int, dict[str, NDArray[np.bool_]]]:
    """Trial number -> split -> whether each image was right, in the stored order of the split."""
    import numpy as np

    found: dict[int, dict[str, NDArray[np.bool_]]] = {}
    for row in _rows(engine, tables.answers, study_id):
        packed = np.frombuffer(row.right, dtype=np.uint8)
        bits = np.unpackbits(packed, count=row.images).astype(np.bool_)
        found.setdefault(row.trial, {})[row.split] = bits
    return found


def read_classes(
    engine: Engine, study_id: int, number: int | None = None
) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Trial number -> split -> one entry per class, in their order.

    Args:
        engine: Of the database.
        study_id: The study.
        number: Of the one trial that is wanted; None: all.

    Returns:
        Entries with ``class`` (its number), ``images``, ``right``, ``predicted``, ``recall`` (right
        of its images) and ``precision`` (right of those taken for it); a share of nothing is None.
    """
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for row in _rows(engine, tables.classes, study_id, number):
        found.setdefault(row.trial, {}).setdefault(row.split, []).append(_figures(row._mapping))
    return found


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    images, right, predicted = row["images"], row["right"], row["predicted"]
    return {
        "class": row["number"],
        "images": images,
        "right": right,
        "predicted": predicted,
        "recall": right / images if images else None,
        "precision": right / predicted if predicted else None,
    }
