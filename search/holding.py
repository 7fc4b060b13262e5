"""Holding a study: one process at a time runs it, or changes it, on SQLite."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy.engine import URL

from blocks.errors import StudyError, listing
from search.database import artefacts_of, file_of, is_sqlite
from search.leases import is_shareable, living_parents, one_at_a_time
from search.reading import find_study
from search.store import Store

CHANGING_SECONDS = 3600.0
NEW_NAME = ", stop it, or name a new study (--study NAME)"


@contextmanager
def held(folder: Path, study: str, store: Store, *, cure: str = NEW_NAME) -> Iterator[None]:
    """Hold a study for this process; the operating system lets go when the process ends.

    Args:
        folder: Beside the database, for what is too big for it; the lock's file lies there.
        study: Its name.
        store: Says who holds it.
        cure: What can be done but to wait for that process.

    Raises:
        StudyError: Another process holds it; which. Or its folder cannot be written.
    """
    place = _lock_folder(folder, store.engine.url)
    with ExitStack() as stack:
        try:
            for each in (folder, place):
                each.mkdir(parents=True, exist_ok=True)
            lock = FileLock(place / f"{study}.lock")
            lock.acquire(timeout=0)
            stack.callback(lock.release)
            stack.enter_context(_only_one(store.engine.url, study))
        except Timeout:
            record = find_study(store.engine, study)
            owner = record.owner if record else {}
            who = f"process {owner.get('pid', '?')} on {owner.get('host', 'this machine')}"
            raise StudyError(
                f"study {study!r} is being run by {who} since {owner.get('since', '?')}; wait for"
                f" it{cure}"
            ) from None
        except OSError as error:
            raise StudyError(
                f"{folder} cannot be written: {error.strerror or error}. Make the folder writable,"
                " or keep results elsewhere (--storage)"
            ) from None
        yield


def _lock_folder(folder: Path, url: URL) -> Path:
    """Where the lock's file lies: beside the database itself, also where its name is a link."""
    if not is_sqlite(url) or not file_of(url).is_symlink():
        return folder
    return artefacts_of(url.set(database=str(file_of(url).resolve())))


@contextmanager
def _only_one(url: URL, study: str) -> Iterator[None]:
    """Hold the database's file by whatever name it was opened, where the system can (Linux).

    The lock's file says nothing to who opens the database by a second name (a hard link, a mount of
    the file alone), or where somebody has taken that file away.

    Raises:
        Timeout: Another process holds it.
    """
    with ExitStack() as stack:
        if is_sqlite(url) and sys.platform == "linux":
            facts = file_of(url).stat()
            words = f"{facts.st_dev} {facts.st_ino} {study}"
            name = f"\0attention-search {hashlib.sha256(words.encode()).hexdigest()}"
            held = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                held.bind(name)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise Timeout(os.fspath(file_of(url))) from None
        yield


@contextmanager
def held_from_all(folder: Path, study: str, store: Store) -> Iterator[None]:
    """Hold a study that is to be changed while nobody runs it, here or elsewhere.

    Args:
        folder: Beside the database, as for ``held``.
        study: Its name.
        store: The writing side of the database.

    Raises:
        StudyError: It is being run; by whom.
    """
    with held(folder, study, store, cure=", or stop it"):
        if not is_shareable(store.engine):
            yield
            return
        with one_at_a_time(store.engine, study, CHANGING_SECONDS):
            record = find_study(store.engine, study)
            parents = living_parents(store.engine, record.id) if record else []
            if parents:
                raise StudyError(
                    f"study {study!r} is being run by {listing(parents)}; wait until they have"
                    " ended, or stop them"
                )
            yield
