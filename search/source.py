"""A database that studies are taken from: opened so that nothing in it can change, seen at once.

All is read within one transaction, so that a study that is being run meanwhile is seen as it stood
at one moment. Tables and columns that an earlier version did not write are simply not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, inspect, select
from sqlalchemy.engine import URL

from blocks.errors import StudyError
from search import tables
from search.database import file_of, home_of, is_sqlite, open_for_reading, shown, storage_url

CHUNK = 500  # keys in one question

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """An open database of somebody else's results.

    Args:
        name: It, for people.
        home: The folder to which its files' paths are relative.
        connection: Within the one transaction.
        columns: Table -> the columns that it has there.
    """

    name: str
    home: Path
    connection: Connection
    columns: Mapping[str, frozenset[str]]

    def rows(self, table: Table, *conditions: Any) -> list[Row]:
        """The rows of a table as plain data, by its key; none where there is no such table."""
        columns = [c for c in table.c if c.name in self.columns.get(table.name, ())]
        if not columns:
            return []
        query = select(*columns).where(*conditions).order_by(*table.primary_key.columns)
        return [dict(row._mapping) for row in self.connection.execute(query)]

    def rows_of(self, table: Table, column: str, keys: Iterable[Any]) -> list[Row]:
        """The rows whose column holds one of these keys."""
        return [row for some in chunks(keys) for row in self.rows(table, table.c[column].in_(some))]

    def studies(self) -> list[Row]:
        """Its studies with their space's content; one that others took results from comes first."""
        contents = {row["digest"]: row["content"] for row in self.rows(tables.spaces)}
        found = self.rows(tables.studies)
        order = self._by_origin([row["id"] for row in found])
        by_key = {row["id"]: row for row in found}
        return [{**by_key[k], "content": contents[by_key[k]["space_digest"]]} for k in order]

    def _by_origin(self, studies: list[int]) -> list[int]:
        """Keys of studies, each after those that its reused trials are from, as far as can be."""
        trial = tables.trials
        origin = trial.alias("origin")
        query = (
            select(trial.c.study_id, origin.c.study_id)
            .join(origin, origin.c.id == trial.c.origin_trial_id)
            .distinct()
        )
        needs: dict[int, list[int]] = {}
        for study, other in self.connection.execute(query):
            needs.setdefault(study, []).append(other)
        order: list[int] = []
        seen: set[int] = set()

        def visit(study: int) -> None:
            if study not in seen:
                seen.add(study)
                for other in sorted(needs.get(study, ())):
                    visit(other)
                order.append(study)

        for study in studies:
            visit(study)
        return order

    def accuracies(self, trials: Iterable[int]) -> dict[int, float]:
        """Key of a trial -> its validation accuracy, where it has one."""
        measured = self.rows_of(tables.measurements, "trial_id", trials)
        return {
            row["trial_id"]: row["value"]
            for row in measured
            if (row["split"], row["metric"]) == ("validation", "accuracy")
        }


def chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """Keys in parts that one question to a database can hold."""
    listed = list(keys)
    for start in range(0, len(listed), CHUNK):
        yield listed[start : start + CHUNK]


def source_url(given: str) -> URL:
    """Where a database is that was given as a file or as a URL.

    Raises:
        StudyError: There is no such file, or it is no database URL.
    """
    url = storage_url(given) if "://" in given else URL.create("sqlite", database=given)
    if is_sqlite(url) and not file_of(url).is_file():
        raise StudyError(
            f"{given}: there is no such file; name a database of this tool, such as other.db"
        )
    return url


def refuse_itself(source: URL, target: URL) -> None:
    """Refuse to merge a database into itself.

    Raises:
        StudyError: The two are one.
    """
    if is_sqlite(source) and is_sqlite(target):
        there = file_of(target).exists()
        same = there and file_of(source).samefile(file_of(target))  # by whatever name
    else:
        same = source == target
    if same:
        raise StudyError(
            f"{shown(source)} is the database that is merged into; name another one, or another"
            " --storage"
        )


@contextmanager
def open_source(url: URL) -> Iterator[Source]:
    """Open a database to take studies from.

    Raises:
        StudyError: It cannot be read, holds no studies of this tool, or is of a newer version.
    """
    engine = open_for_reading(url)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            yield _source(url, connection)
    finally:
        engine.dispose()


def _source(url: URL, connection: Connection) -> Source:
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    columns = {
        name: frozenset(column["name"] for column in inspector.get_columns(name))
        for name in tables.metadata.tables
        if name in there
    }
    name = str(file_of(url)) if is_sqlite(url) else shown(url)
    return Source(name, home_of(url), connection, columns)
