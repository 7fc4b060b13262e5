"""Opening the database: for the one parent that writes, or for readers that change nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from blocks.cached import is_untouched
from blocks.errors import StudyError
from search import tables
from search.direct import BEGIN
from search.faults import fault_of
from search.postgres import await_turn, engine_of, is_postgres, widen, with_driver

BUSY_SECONDS = 10
# How long SQLite's log may grow before a commit of a trial brings it into the file, which takes
# milliseconds: 32 MB. The mirror's commits, of another thread, do so from 4 MB on; trials that end
# at once outrun it.
LOG_PAGES = 8000
DEFAULT_STORAGE = "sqlite:///studies.db"
INSERTS: dict[str, Callable[[Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
DRIVERS = {"psycopg": "'attention-search[postgres]'"}  # module -> what pip installs it by


def storage_url(text: str) -> URL:
    """Read a storage URL.

    Raises:
        StudyError: It is no SQLAlchemy URL, or names a database that keeps nothing.
    """
    try:
        url = with_driver(make_url(text))
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        raise StudyError(
            f"--storage {shown(make_url(text))}: its driver {error.name!r} is not installed; pip"
            f" install {DRIVERS.get(str(error.name), error.name)}"
        ) from None
    except (ArgumentError, NoSuchModuleError, ImportError):
        raise StudyError(
            f"--storage {text!r} is no database URL; write sqlite:///FILE.db"
            " or postgresql+psycopg://user@host/name"
        ) from None
    if is_sqlite(url) and url.database in (None, "", ":memory:"):
        raise StudyError(f"--storage {text} keeps nothing; name a file: sqlite:///studies.db")
    return url


def is_sqlite(url: URL) -> bool:
    """Whether the database is a SQLite file."""
    return url.get_backend_name() == "sqlite"


def shown(url: URL) -> str:
    """The URL for people, its password hidden."""
    return url.render_as_string(hide_password=True)


def file_of(url: URL) -> Path:
    """The file of a SQLite database."""
    return Path(str(url.database))


def home_of(url: URL) -> Path:
    """The folder of the database; for one that is no file, the current one."""
    return file_of(url).parent if is_sqlite(url) else Path()


def artefacts_of(url: URL) -> Path:
    """The folder beside the database for what is too big for it."""
    if is_sqlite(url):
        return file_of(url).with_suffix(".artefacts")
    return Path("studies.artefacts")


def open_for_writing(url: URL) -> Engine:
    """Open the database, making file and tables where there are none.

    Raises:
        StudyError: It cannot be written, or its schema is newer than this version knows.
    """
    if is_sqlite(url):
        folder = file_of(url).absolute().parent
        if not folder.is_dir():
            raise StudyError(f"{shown(url)}: there is no folder {folder}; make it first")
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    else:
        engine = engine_of(url) if is_postgres(url) else create_engine(url)
    with explained(url, engine), engine.begin() as connection:
        if is_postgres(url):
            await_turn(connection)
        tables.metadata.create_all(connection)
        if is_postgres(url):
            widen(connection)
        if connection.execute(select(tables.schema.c.version)).first() is None:
            connection.execute(insert(tables.schema).values(version=tables.SCHEMA_VERSION))
        _check_version(connection, url)
    return engine


def open_for_reading(url: URL) -> Engine:
    """Open the database so that nothing in it can change.

    Raises:
        StudyError: There is no database yet, it cannot be read, or holds no study of this tool.
    """
    if is_sqlite(url):
        file = file_of(url)
        if not file.is_file():
            raise StudyError(
                f"there are no results yet: no file {file}. Run a study first (search run --space"
                " attention), or name another database (--storage sqlite:///FILE.db)"
            )
        engine = _read_only_sqlite(url)
    else:
        engine = engine_of(url, reading=True) if is_postgres(url) else create_engine(url)
    event.listen(engine, "handle_error", _Reading(url), retval=True)
    with explained(url, engine), engine.connect() as connection:
        if not inspect(connection).has_table(tables.studies.name):
            raise StudyError(f"{shown(url)} holds no studies of this tool; name another --storage")
        _check_version(connection, url)
    return engine


class _Reading:
    """Makes a fault that a reader meets one line, wherever it is met.

    Args:
        url: The database.
    """

    def __init__(self, url: URL) -> None:
        self.url = url

    def __call__(self, context: ExceptionContext) -> StudyError | None:
        """The error to raise instead; None: the one there is."""
        error = context.sqlalchemy_exception
        if context.is_pre_ping or not isinstance(error, DBAPIError) or fault_of(error) is None:
            return None
        return StudyError(_refusal(self.url, error, "read"))


def open_if_there(url: URL) -> Engine | None:
    """Open the database as ``open_for_reading``; None where no study is kept in it yet.

    Raises:
        StudyError: It cannot be read.
    """
    if is_sqlite(url) and not file_of(url).is_file():
        return None
    try:
        return open_for_reading(url)
    except StudyError as error:
        if "holds no studies" in str(error):
            return None
        raise


def _read_only_sqlite(url: URL) -> Engine:
    """Read-only; where the folder cannot be written (WAL needs that), as an immutable file.

    A reader of a WAL file leaves files beside it: where nothing is to be touched, a file without a
    log is read as an immutable one first.
    """
    path = file_of(url).absolute().as_posix().replace("?", "%3f").replace("#", "%23")
    modes = ["mode=ro", "mode=ro&immutable=1"]
    if is_untouched() and not _has_log(url):
        modes.reverse()
    for mode in modes:
        engine = create_engine(
            f"sqlite:///file:{path}?{mode}&uri=true", connect_args={"timeout": BUSY_SECONDS}
        )
        with explained(url, engine):
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql("SELECT name FROM sqlite_master").first()
            except OperationalError:
                engine.dispose()
                continue
        break
    return engine


def _has_log(url: URL) -> bool:
    """Whether a file has a write-ahead log with something in it."""
    log = Path(f"{file_of(url)}-wal")
    return log.is_file() and log.stat().st_size > 0


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_immediate
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    if driver is None or not driver.in_transaction:  # else search.direct has begun it
        connection.exec_driver_sql(BEGIN)


def _check_version(connection: Connection, url: URL) -> None:
    version = connection.execute(select(tables.schema.c.version)).scalar_one()
    if version > tables.SCHEMA_VERSION:
        raise StudyError(
            f"{shown(url)} was written by a newer version of this tool (schema {version}; this one"
            f" knows {tables.SCHEMA_VERSION}); update the tool: pip install -U attention-search"
        )


@contextmanager
def explained(url: URL, engine: Engine | None = None) -> Iterator[None]:
    """Turn a database's refusal into one line; nothing of the engine stays open after one.

    Raises:
        StudyError: Instead of a database's own error.
    """
    try:
        yield
    except DBAPIError as error:
        if engine is not None:
            engine.dispose()
        raise StudyError(_refusal(url, error)) from None
    except StudyError:
        if engine is not None:
            engine.dispose()
        raise


def _refusal(url: URL, error: DBAPIError, what: str = "opened") -> str:
    reason = str(error.orig).splitlines()[0] if error.orig else str(error)
    fault = fault_of(error)
    if fault is None:
        cure = "that the file and its folder can be written"
        if not is_sqlite(url):
            cure = "that its server runs and lets this user in"
        return f"{shown(url)} cannot be {what}: {reason}. Check that it is a database, and {cure}"
    return f"{shown(url)} cannot be {what}: {fault.words} ({reason}); {fault.cure}"


@cache
def insert_missing(dialect: str, table: Table) -> Any:
    """The statement that inserts a row but where its key is there; None where there is no such."""
    return INSERTS[dialect](table).on_conflict_do_nothing() if dialect in INSERTS else None


def add_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows but for those whose key is there already, whoever has put it there."""
    if not rows:
        return
    statement = insert_missing(connection.dialect.name, table)
    if statement is not None:
        connection.execute(statement, list(rows))
        return
    keys = list(table.primary_key.columns)
    for row in rows:
        same = select(keys[0]).where(*(key == row[key.name] for key in keys))
        if connection.execute(same).first() is None:
            connection.execute(insert(table).values(**row))


def tidy(url: URL) -> None:
    """Take away the empty log files that readers leave beside a SQLite file, if nobody uses it."""
    if is_sqlite(url):
        engine = open_for_writing(url)
        checkpoint(engine)
        engine.dispose()


def checkpoint(engine: Engine) -> None:
    """Move the write-ahead log into the one file, so that copying that file is safe.

    Where a fault keeps it from that, the log stays beside the file, with all that was written.
    """
    if engine.dialect.name != "sqlite":
        return
    with suppress(OperationalError, sqlite3.OperationalError), engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None  # a fresh connection has one
        driver.execute("COMMIT") if driver.in_transaction else None
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
