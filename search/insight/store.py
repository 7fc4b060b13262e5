"""What is kept of ``search explain``: one row per trial and kind, small enough for the database.

Sizes are bounded whatever the network: ``examine`` says how. Needs no torch.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, delete, insert, inspect, select

from search import tables
from search.records import now

GRADCAM, GATES, FREQUENCY, MAPS = "gradcam", "gates", "frequency", "maps"
KINDS = (GRADCAM, GATES, FREQUENCY, MAPS)


@dataclass(frozen=True)
class Insight:
    """What was seen of one kind in one network.

    Args:
        content: Numbers and texts, as JSON has them; no number is infinite or missing (null).
        arrays: Small arrays by name.
        created: When it was stored; empty before.
    """

    content: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    created: str = ""


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of a compressed npz file; the same arrays give the same bytes."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    """What ``packed`` wrote; nothing in it is run."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write_insights(engine: Engine, trial_id: int, insights: Mapping[str, Insight]) -> int:
    """Keep what was seen of a trial, in the place of what was kept before.

    Args:
        engine: Open for writing.
        trial_id: The trial's key.
        insights: Kind -> what was seen.

    Returns:
        The bytes that it takes.
    """
    table = tables.insights
    rows: list[dict[str, Any]] = [
        {
            "trial_id": trial_id,
            "kind": kind,
            "content": insight.content,
            "images": packed(insight.arrays),
            "created": now(),
        }
        for kind, insight in insights.items()
    ]
    with engine.begin() as connection:
        connection.execute(delete(table).where(table.c.trial_id == trial_id))
        connection.execute(insert(table), rows)
    return sum(len(row["images"]) + len(json.dumps(row["content"])) for row in rows)


def read_insights(
    engine: Engine, study_id: int, trial: int | None = None
) -> dict[int, dict[str, Insight]]:
    """Trial number -> kind -> what was seen; of one trial where it is named.

    A database of a version that kept none has none.
    """
    row, of = tables.insights, tables.trials
    query = (
        select(of.c.number, row)
        .join(of, of.c.id == row.c.trial_id)
        .where(of.c.study_id == study_id)
        .order_by(of.c.number, row.c.kind)
    )
    if trial is not None:
        query = query.where(of.c.number == trial)
    found: dict[int, dict[str, Insight]] = {}
    with engine.connect() as connection:
        if not inspect(connection).has_table(row.name):
            return {}
        for each in connection.execute(query):
            kept = Insight(each.content, unpacked(each.images), each.created)
            found.setdefault(each.number, {})[each.kind] = kept
    return found
