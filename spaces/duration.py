"""Durations as people write them: 90s, 30m, 2h, 1d, 1h30m."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from spaces.values import needed

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
DURATION = re.compile(r"\s*".join(f"(?:({NUMBER}){unit})?" for unit in UNITS))
# For the JSON Schema; that something must be given is left to the reader of the file.
PATTERN = "^" + r" *".join(f"({NUMBER}{unit})?" for unit in UNITS) + "$"
LONGEST = 3e9  # seconds, some hundred years
EXAMPLES = "90s, 30m, 2h, 1d or 1h30m"


def read_duration(text: str) -> float:
    """The seconds of a duration.

    Raises:
        ValueError: It is none; what is wrong with it, and what would be right.
    """
    found = DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        cure = f"write {EXAMPLES}"
        if re.fullmatch(NUMBER, text.strip()):
            number = text.strip()
            cure = f"it has no unit: write {number}s, {number}m or {number}h"
        raise ValueError(f"{text!r} is no duration; {cure}")
    seconds = sum(
        float(number) * unit
        for number, unit in zip(found.groups(), UNITS.values(), strict=True)
        if number
    )
    if not seconds:
        raise ValueError(f"{text!r} is no time at all; write {EXAMPLES}")
    if seconds > LONGEST:
        raise ValueError(f"{text[:20]!r} is longer than any study; write {EXAMPLES}")
    return seconds


def duration_text(seconds: float) -> str:
    """Seconds as a duration that ``read_duration`` takes: 5400 is 1h30m."""
    parts = []
    for unit, size in UNITS.items():
        count, seconds = divmod(seconds, size) if size > 1 else (seconds, 0.0)
        if count:
            parts.append(f"{count:g}{unit}")
    return "".join(parts)


def _checked(value: Any) -> str:
    if not isinstance(value, str):
        raise needed(f"a duration such as {EXAMPLES} is needed")
    read_duration(value)
    return value


DurationText: Any = Annotated[
    str, PlainValidator(_checked), WithJsonSchema({"type": "string", "pattern": PATTERN})
]
