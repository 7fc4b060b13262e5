"""Keeping the split of a data set with the study.

Should another version of a library cut differently, what is stored wins.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, inspect, select

from search import tables
from search.database import add_missing


@dataclass(frozen=True)
class StoredSplit:
    """A split as it is kept.

    Args:
        digest: Identity of content and split.
        name: Of the data set.
        checksum: Of its content.
        packed: Which image is in which part.
    """

    digest: str
    name: str
    checksum: str
    packed: str


def read_split(engine: Engine, digest: str) -> StoredSplit | None:
    """The stored split of this identity; None where there is none."""
    split = tables.splits
    with engine.connect() as connection:
        if not inspect(connection).has_table(split.name):
            return None  # written by a version that had none
        row = connection.execute(select(split).where(split.c.split_digest == digest)).first()
    if row is None:
        return None
    packed = base64.b64encode(row.parts).decode()
    return StoredSplit(row.split_digest, row.data, row.checksum, packed)


def keep_split(connection: Connection, kept: StoredSplit, sizes: Sequence[int]) -> None:
    """Store a split, once."""
    split = tables.splits
    known = select(split.c.split_digest).where(split.c.split_digest == kept.digest)
    if connection.execute(known).first() is None:
        content: dict[str, Any] = {
            "split_digest": kept.digest,
            "data": kept.name,
            "checksum": kept.checksum,
            "sizes": list(sizes),
            "parts": base64.b64decode(kept.packed),
        }
        add_missing(connection, split, [content])
