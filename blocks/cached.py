"""The user's cache folder: JSON files of what takes long to find out and can be found out again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

UNTOUCHED = "ATTENTION_SEARCH_UNTOUCHED"

_remembered: dict[str, str] = {}  # what would have been written, as JSON


@contextmanager
def untouched() -> Iterator[None]:
    """Inside, and in processes that are started inside, no file is written.

    What would be cached is remembered by the process that found it out.
    """
    before = os.environ.get(UNTOUCHED)
    os.environ[UNTOUCHED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[UNTOUCHED]
            _remembered.clear()


def is_untouched() -> bool:
    """Whether no file is to be written now."""
    return bool(os.environ.get(UNTOUCHED))


def read_cached(name: str) -> Any:
    """The content of a file of the cache folder; None where there is none or it is not JSON.

    Args:
        name: Path within the folder.
    """
    if name in _remembered:
        return json.loads(_remembered[name])
    try:
        return json.loads(_path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_cached(name: str, content: Any) -> None:
    """Write a file whole, beside its place first; a cache that cannot be written is no error.

    Args:
        name: Path within the folder.
        content: What JSON can hold.
    """
    if is_untouched():
        _remembered[name] = json.dumps(content)
        return
    path = _path(name)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(content), encoding="utf-8")
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _path(name: str) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("attention-search") / name
