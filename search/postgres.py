"""What PostgreSQL needs beside what SQLAlchemy does: one maker of tables, wide whole numbers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, Engine, create_engine, func, inspect, select, text
from sqlalchemy.engine import URL

from search import tables

# Of a connection, where the URL says nothing else: a server that is silent is not waited for
# without end (libpq's names; the last in milliseconds).
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
SCHEMA_KEY = 0x61747465_6E74696F  # of the lock under which tables are made


def is_postgres(url: URL) -> bool:
    """Whether a database is PostgreSQL's."""
    return url.get_backend_name() == "postgresql"


def with_driver(url: URL) -> URL:
    """The URL with the driver that this tool is tested with, where it names none."""
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def engine_of(url: URL, *, reading: bool = False) -> Engine:
    """An engine that notices a connection which the server has closed.

    Args:
        url: The database.
        reading: Whether nothing may change through it, and all of a transaction is of one moment.
    """
    engine = create_engine(url, pool_pre_ping=True, connect_args=patience_of(url))
    if reading:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return engine.execution_options(**options)
    return engine


def patience_of(url: URL) -> dict[str, int]:
    """How long a connection waits for its server, where the URL does not say and its driver can."""
    if not url.drivername.startswith("postgresql+psycopg"):
        return {}
    return {name: value for name, value in PATIENCE.items() if name not in url.query}


def await_turn(connection: Connection) -> None:
    """Let one process at a time make tables, until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_KEY)))


def widen(connection: Connection) -> None:
    """Make columns wide that an earlier version made too narrow for large counts."""
    inspector = inspect(connection)
    for table in tables.metadata.sorted_tables:
        wide = {c.name for c in table.c if isinstance(c.type, BigInteger)}
        if not wide:
            continue
        for column in inspector.get_columns(table.name):
            if column["name"] in wide and not isinstance(column["type"], BigInteger):
                name = f"ALTER TABLE {table.name} ALTER COLUMN {column['name']} TYPE BIGINT"
                connection.execute(text(name))
