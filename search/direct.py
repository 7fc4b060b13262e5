"""One transaction; on SQLite its frequent statements go straight to the driver.

SQLAlchemy describes the tables and speaks to every database. For the dozen statements that each
trial needs its way to SQLite costs several times what SQLite itself does: so each is compiled
once, and run on the driver's own connection from then on. Everything else goes through
``Transaction.connection``, which is of the same transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import JSON, Connection, Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import Select

from blocks.plain import Settled

Statement = UpdateBase | Select[Any]
Values = Mapping[str, Any]
BEGIN = "BEGIN IMMEDIATE"


class Transaction:
    """One that is open on any database.

    Rows that ``execute`` gives are as the driver has them: it is for keys and numbers.

    Args:
        connection: SQLAlchemy's.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def execute(self, statement: Statement, values: Values) -> Sequence[Sequence[Any]]:
        """Run a statement with the values of its parameters; its rows, if it gives any."""
        result = self.connection.execute(statement, values)
        return result.all() if result.returns_rows else ()

    def execute_all(self, statement: Statement, rows: Sequence[Values]) -> None:
        """Run a statement for each of several rows."""
        if rows:
            self.connection.execute(statement, rows)

    def add(self, statement: Statement, values: Values) -> int:
        """Insert one row; its key."""
        key = self.connection.execute(statement, values).inserted_primary_key
        assert key is not None  # an insert of one row has a key
        return int(key[0])


class DirectTransaction(Transaction):
    """One that is open on SQLite.

    Args:
        engine: Of the database.
        pooled: The driver's connection, as the pool gives it.
    """

    def __init__(self, engine: Engine, pooled: PoolProxiedConnection) -> None:
        self.engine = engine
        self.pooled = pooled
        driver = pooled.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # SQLite's only driver here
        self.driver = driver

    @cached_property
    def connection(self) -> Connection:  # type: ignore[override]
        """SQLAlchemy's, which is made when it is asked for, and joins the transaction."""
        return Connection(self.engine, connection=self.pooled)

    def execute(self, statement: Statement, values: Values) -> Sequence[Sequence[Any]]:
        """Run a statement with the values of its parameters; its rows, if it gives any."""
        ready = _prepared(self.engine.dialect, statement, values)
        return self.run(ready.sql, ready.bound(values)).fetchall()

    def execute_all(self, statement: Statement, rows: Sequence[Values]) -> None:
        """Run a statement for each of several rows."""
        if rows:
            ready = _prepared(self.engine.dialect, statement, rows[0])
            self.run(ready.sql, [ready.bound(row) for row in rows], several=True)

    def add(self, statement: Statement, values: Values) -> int:
        """Insert one row; its key."""
        ready = _prepared(self.engine.dialect, statement, values)
        return int(self.run(ready.sql, ready.bound(values)).lastrowid or 0)

    def run(self, sql: str, values: Sequence[Any] = (), *, several: bool = False) -> sqlite3.Cursor:
        """Run SQL; the driver's errors come as SQLAlchemy's, as from everywhere else."""
        try:
            if several:
                return self.driver.executemany(sql, values)
            return self.driver.execute(sql, values)
        except sqlite3.Error as error:
            raise _as_sqlalchemys(sql, values, error) from error

    def commit(self) -> None:
        """Keep it."""
        if "connection" in vars(self):
            self.connection.commit()
        if self.driver.in_transaction:
            self.run("COMMIT")

    def rollback(self) -> None:
        """Take it back."""
        if "connection" in vars(self):
            self.connection.rollback()
        if self.driver.in_transaction:
            self.driver.rollback()


@contextmanager
def begun(engine: Engine) -> Iterator[Transaction]:
    """All or nothing; kept once the block is left."""
    if engine.dialect.driver != "pysqlite":
        with engine.begin() as connection:
            yield Transaction(connection)
        return
    pooled = engine.raw_connection()
    try:
        transaction = DirectTransaction(engine, pooled)
        transaction.run(BEGIN)
        try:
            yield transaction
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
    finally:
        pooled.close()  # back to the pool


def _as_sqlalchemys(sql: str, values: Any, error: sqlite3.Error) -> BaseException:
    return DBAPIError.instance(sql, values, error, sqlite3.Error)


# Statements, compiled once. ----------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A statement as the driver takes it.

    Args:
        sql: Its text.
        fields: Of each parameter in the text's order: its name, what makes of a value what the
            database keeps, and the value that it has where none is given.
    """

    sql: str
    fields: tuple[tuple[str, Callable[[Any], Any] | None, Any], ...]

    def bound(self, values: Values) -> list[Any]:
        """The values in the text's order."""
        row = [values.get(name, otherwise) for name, _, otherwise in self.fields]
        for index, make in self._made:
            row[index] = make(row[index])
        return row

    @cached_property
    def _made(self) -> list[tuple[int, Callable[[Any], Any]]]:
        """Where a value is kept as something else."""
        return [(index, make) for index, (_, make, _) in enumerate(self.fields) if make is not None]


_KNOWN: dict[tuple[Statement, tuple[str, ...]], Prepared] = {}


def _prepared(dialect: Dialect, statement: Statement, values: Values) -> Prepared:
    """A statement with parameters of these names, for SQLite."""
    key = (statement, tuple(values))
    found = _KNOWN.get(key)
    if found is None:
        found = _KNOWN[key] = _compiled(dialect, statement, values)
    return found


def _compiled(dialect: Dialect, statement: Statement, values: Values) -> Prepared:
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(values))
    fields = []
    for name in compiled.positiontup:
        kind = compiled.binds[name].type
        make = _text if isinstance(kind, JSON) else _processor(kind, dialect)
        fields.append((name, make, compiled.params[name]))
    return Prepared(str(compiled), tuple(fields))


def _processor(kind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    made: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return made


def _text(value: Any) -> str:
    """Data as JSON; None is null there too, as SQLAlchemy keeps it."""
    return value.text if type(value) is Settled else json.dumps(value)
