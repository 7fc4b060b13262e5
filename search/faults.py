"""What can keep a database from being written, and how a running study outlasts it.

A study that runs has a result in hand that took long to come by: it waits for the fault to be
mended, says so, and writes it then. A study that has not begun is refused at once.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from blocks.errors import StorageFault
from search.output import duration

WAIT_SECONDS = 600.0
RETRY_SECONDS = 2.0

Written = TypeVar("Written")


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Args:
        words: What is wrong with the database.
        cure: What is to be done.
        passes: Whether waiting can be of use.
    """

    words: str
    cure: str
    passes: bool = True


FULL = Fault("its disk is full", "make room there")
LOCKED = Fault(
    "another program keeps it locked",
    "end what has it open for writing, such as a database browser with unsaved changes",
)
FIXED = Fault(
    "it can only be read",
    "make the file and its folder writable (chmod u+w), or keep results elsewhere (--storage)",
)
UNREADABLE = Fault(
    "its disk cannot be read or written",
    "check that the disk has room and works, its quota, and that it is no network disk that has"
    " gone",
)
GONE = Fault(
    "its server cannot be reached",
    "check that its server runs and lets this user in, and the network to it",
)

DAMAGED = Fault(
    "it is damaged, or no database",
    "name another one (--storage), put a copy back, or save what can be read of it: sqlite3 FILE"
    " .recover | sqlite3 NEW",
    passes=False,
)

# By the beginning of SQLite's name of the error.
FAULTS = {
    "SQLITE_FULL": FULL,
    "SQLITE_BUSY": LOCKED,
    "SQLITE_READONLY": FIXED,
    "SQLITE_CANTOPEN": Fault(
        "it cannot be opened",
        "check that its folder is there and can be written, or keep results elsewhere (--storage)",
    ),
    "SQLITE_IOERR": UNREADABLE,
    "SQLITE_CORRUPT": DAMAGED,
    "SQLITE_NOTADB": DAMAGED,
}
# By the beginning of PostgreSQL's code of the error (SQLSTATE), the first that fits; one of a
# connection that breaks has none.
SERVER_FAULTS = {
    "08": GONE,
    "57P": GONE,  # it is shut down, or starts
    "25P03": GONE,  # it has closed a connection that was idle for too long
    "53100": FULL,
    "53": Fault(
        "its server has no connection or memory left",
        "end some of the programs that use it, or raise its max_connections",
    ),
    "25006": Fault(
        "it can only be read", "write to the primary server, not to a standby or one set read-only"
    ),
    "40": LOCKED,
    "55P03": LOCKED,
    "57014": LOCKED,  # a statement was cancelled, as by a time limit of the server's
    "58": UNREADABLE,
}


def fault_of(error: DBAPIError) -> Fault | None:
    """The fault behind a database's error; None where it is of another kind."""
    known, name = FAULTS, getattr(error.orig, "sqlite_errorname", "")
    if not isinstance(error.orig, sqlite3.Error):
        known, name = SERVER_FAULTS, getattr(error.orig, "sqlstate", "")
        if not name and _is_of_connection(error):
            return GONE
    return next((fault for start, fault in known.items() if (name or "").startswith(start)), None)


def _is_of_connection(error: DBAPIError) -> bool:
    """Whether an error without a code says that a server cannot be spoken with."""
    of_postgres = hasattr(error.orig, "sqlstate")
    refused = of_postgres and isinstance(error, (OperationalError, InterfaceError))
    return error.connection_invalidated or refused


class Outlast:
    """Repeats a write that a fault has kept from being made, for a while.

    A write is one transaction: what failed has left nothing behind. Until ``arm`` is called,
    errors pass as they are. A write within another is repeated with that one.

    Args:
        place: The database, for people.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.given_up = False
        self._armed = False
        self._within = False
        self._say: Callable[[str], None] = lambda words: None
        self._stopped: Callable[[], bool] = lambda: False

    def arm(self, say: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        """From now on wait.

        Args:
            say: Told what is waited for.
            stopped: Whether somebody wants the study to end, so that waiting has none either.
        """
        self._say, self._stopped, self._armed = say, stopped, True

    def __call__(self, write: Callable[[], Written]) -> Written:
        """Write, and again after a fault.

        Raises:
            StorageFault: The fault has lasted too long.
        """
        if self._within:
            return write()
        until: float | None = None
        while True:
            try:
                result = self._whole(write)
            except DBAPIError as error:
                fault = fault_of(error)
                if fault is None or not self._armed:
                    raise
                until = self._wait(fault, until)
                continue
            if until is not None:
                self._say(f"{self.place} can be written again")
            return result

    def _whole(self, write: Callable[[], Written]) -> Written:
        self._within = True
        try:
            return write()
        finally:
            self._within = False

    def _wait(self, fault: Fault, until: float | None) -> float:
        clock = time.monotonic()
        if not fault.passes:
            self.given_up = True
            raise storage_fault(self.place, fault)
        if until is None and not self.given_up:
            self._say(
                f"{self.place}: {fault.words}; {fault.cure}. Trying again for"
                f" {duration(WAIT_SECONDS)}"
            )
        end = clock + WAIT_SECONDS if until is None else until
        if self.given_up or self._stopped() or clock >= end:
            self.given_up = True
            raise storage_fault(self.place, fault)
        time.sleep(RETRY_SECONDS)
        return end


@contextmanager
def ending_cleanly(outlast: Outlast) -> Iterator[None]:
    """Inside, an error that nobody has waited for ends the study as one that lasted too long.

    Raises:
        StorageFault: Instead of the database's own error, where that is a fault.
    """
    try:
        yield
    except DBAPIError as error:
        fault = fault_of(error)
        if fault is None:
            raise
        outlast.given_up = True
        raise storage_fault(outlast.place, fault) from error


def storage_fault(place: str, fault: Fault) -> StorageFault:
    """The error that says it."""
    return StorageFault(f"{place}: {fault.words}. What had finished is kept; {fault.cure}")
