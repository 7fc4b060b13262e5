"""Saying things: tables for people, JSON and CSV for programs.

With ``json`` or ``csv`` standard output carries data alone; progress and remarks go to standard
error.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

FORMATS = ("table", "json", "csv")

PIPE_WIDTH = 160
SHORT_CELL = 24  # characters; longer cells may wrap

remarks = Console(stderr=True, highlight=False)
results = Console(highlight=False)
for _console in (remarks, results):
    if not _console.is_terminal and "COLUMNS" not in os.environ:
        _console.width = PIPE_WIDTH  # a log or a pipe has no width that tables must be cut to


def clean(text: object) -> str:
    """Text without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))


def percent(share: float | None) -> str:
    """An accuracy for people: ``98.6 %``."""
    return "" if share is None else f"{100 * share:.1f} %"


def count(number: float | None) -> str:
    """A large count for people: ``17.10 M``."""
    if number is None:
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:#.4g}".rstrip(".") + f" {unit}"
    return f"{number:.4g}"


def several(number: int, noun: str) -> str:
    """A number of things: ``1 trial``, ``1,200 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time for people: ``3 min 20 s``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    droppable: Sequence[str] = (),
) -> Table:
    """A table for the terminal; columns that hold numbers are set right.

    Args:
        title: Above it; may be empty.
        columns: Names of the columns.
        rows: One cell per column.
        droppable: Columns that are left out, in this order, where the terminal is too narrow.
    """
    kept = _fitting(columns, rows, droppable)
    drawn = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index in kept:
        cells = [row[index] for row in rows]
        longest = max((len(str(cell)) for cell in cells), default=0)
        drawn.add_column(
            columns[index],
            justify="right" if cells and all(map(_looks_numeric, cells)) else "left",
            no_wrap=longest <= SHORT_CELL,
            min_width=min(longest, SHORT_CELL),
            overflow="fold",
        )
    for row in rows:
        cells = [row[index] for index in kept]
        drawn.add_row(*(c if isinstance(c, Text) else Text(clean(c)) for c in cells))
    return drawn


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[object]], droppable: Sequence[str]
) -> list[int]:
    """Which columns fit, when the droppable ones are given up one after another."""
    kept = list(range(len(columns)))

    def width() -> int:
        cells = ([columns[i], *(str(row[i]) for row in rows)] for i in kept)
        return sum(min(max(map(len, column)), SHORT_CELL) + 3 for column in cells)

    for name in droppable:
        if width() <= results.width:
            break
        kept = [index for index in kept if columns[index] != name]
    return kept


def _looks_numeric(cell: object) -> bool:
    text = str(cell)
    return not text or text[0] in "+-0123456789"


def json_text(data: Any) -> str:
    """JSON of plain data; what is not a finite number is null."""
    return json.dumps(_finite(data), indent=2, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV of rows with the same keys; nested values as JSON, text that a sheet would run quoted."""
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(_finite(value))
    if isinstance(value, str) and value[:1] in tuple("=+-@\t\r"):
        return f"'{value}"
    return value


def emit(text: str) -> None:
    """Write data to standard output, untouched."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
