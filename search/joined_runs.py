"""What a study has spent in another database comes along: the processes that ran it there.

A process is known by its name and the moment at which it began: one that was seen before, while it
still ran, is brought up to when it was last heard of. Wall time in which processes of both
databases ran counts once, and the time of devices adds up (``search.spending``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from search import tables
from search.source import Row, Source


def runs_there(source: Source, study: int) -> list[Row]:
    """The processes that ran a study of another database."""
    return source.rows(tables.runs, tables.runs.c.study_id == study)


def runs_here(connection: Connection, study: int) -> list[Row]:
    """The processes that ran a study of the target."""
    query = select(tables.runs).where(tables.runs.c.study_id == study).order_by(tables.runs.c.id)
    return [dict(row._mapping) for row in connection.execute(query)]


def add_runs(connection: Connection, study: int, rows: Iterable[Row]) -> None:
    """Add processes to a study; one that is there already was heard of as late as either says."""
    known = {(row["owner"], row["started"]): row for row in runs_here(connection, study)}
    for row in rows:
        have = known.get((row["owner"], row["started"]))
        if have is None:
            values = {name: value for name, value in row.items() if name != "id"}
            connection.execute(insert(tables.runs).values(**{**values, "study_id": study}))
        elif row["seconds"] > have["seconds"]:
            longer = update(tables.runs).where(tables.runs.c.id == have["id"])
            connection.execute(longer.values(seconds=row["seconds"]))


def last_heard(runs: Iterable[Row], attempt: Mapping[str, Any]) -> str:
    """When the process of an attempt that has no end was last heard of."""
    own = [
        datetime.fromisoformat(run["started"]) + timedelta(seconds=run["seconds"])
        for run in runs
        if run["owner"] == attempt["owner"] and run["started"] <= attempt["started"]
    ]
    begun = datetime.fromisoformat(attempt["started"])
    return max([begun, *own[-1:]]).astimezone(UTC).isoformat(timespec="milliseconds")
