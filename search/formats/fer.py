"""FER2013: one table with the columns emotion, pixels and Usage, a line for each face.

``fer2013.csv`` and ``icml_face_data.csv`` hold the same; the second has its columns in another
order, with a space before two of their names. ``train.csv`` and ``test.csv`` of the challenge are
not enough: the test faces have no labels there.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from search.data import Parts
from search.formats.checks import broken

SIDE = 48
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
PARTS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
COLUMNS = ("emotion", "pixels", "Usage")
LEVELS = {str(level): level for level in range(256)}
NEEDED = "FER2013's table has the columns emotion, pixels and Usage, once each"


def read_fer(files: Sequence[Path]) -> Parts:
    """Read the table; its three parts are the split.

    Raises:
        DataError: The file is not as it should be; in which line.
    """
    (path,) = files
    images: dict[str, bytearray] = {}
    labels: dict[str, list[int]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for part, label, pixels in _faces(path, file):
            images.setdefault(part, bytearray()).extend(pixels)
            labels.setdefault(part, []).append(label)
    for usage, part in PARTS.items():
        if part not in labels:
            raise broken(path, f"it has no line of the Usage {usage}", NEEDED)
    return Parts(
        {part: np.array(values, dtype=np.int64) for part, values in labels.items()},
        CLASSES,
        {
            part: np.frombuffer(bytes(values), dtype=np.uint8).reshape(-1, 1, SIDE, SIDE)
            for part, values in images.items()
        },
    )


def _faces(path: Path, file: Iterator[str]) -> Iterator[tuple[str, int, bytes]]:
    """(part, class, pixels) of every line."""
    rows = csv.reader(file)
    head = [name.strip() for name in next(rows, [])]
    if sorted(head) != sorted(COLUMNS):
        raise broken(path, f"its columns are {', '.join(head) or 'none'}", NEEDED)
    emotion, pixels, usage = (head.index(name) for name in COLUMNS)
    for row in rows:
        where = f"line {rows.line_num}"
        if len(row) != len(COLUMNS):
            raise broken(path, f"{where} has {len(row)} columns", NEEDED)
        if row[emotion].strip() not in tuple("0123456"):
            found = f"{where}: the emotion is {row[emotion][:20]!r}"
            raise broken(path, found, "emotions are 0 to 6")
        if row[usage].strip() not in PARTS:
            found = f"{where}: the Usage is {row[usage][:20]!r}"
            raise broken(path, found, f"it is one of {', '.join(PARTS)}")
        yield PARTS[row[usage].strip()], int(row[emotion]), _pixels(path, where, row[pixels])


def _pixels(path: Path, where: str, text: str) -> bytes:
    with warnings.catch_warnings(action="error"), suppress(DeprecationWarning, ValueError):
        # Much faster than word by word; what is irregular is read again, to name it.
        numbers = np.fromstring(text, dtype=np.int64, sep=" ")
        if len(numbers) == SIDE * SIDE and numbers.min() >= 0 and numbers.max() <= 255:
            return numbers.astype(np.uint8).tobytes()
    try:
        levels = bytes(map(LEVELS.__getitem__, text.split()))
    except KeyError as error:
        raise broken(path, f"{where}: a pixel is {error}", "pixels are 0 to 255") from None
    if len(levels) != SIDE * SIDE:
        needed = f"{SIDE} x {SIDE} = {SIDE * SIDE:,} are needed"
        raise broken(path, f"{where} has {len(levels):,} pixels", needed)
    return levels
