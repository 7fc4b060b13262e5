"""Whether our four import packages are ours: their names are common words."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FOLDERS = ("blocks", "spaces", "search", "reports")


def name_clashes() -> list[str]:
    """Those of our packages that another distribution has taken, with where from."""
    ours = Path(__file__).resolve().parent.parent
    clashes = []
    for folder in FOLDERS:
        found = importlib.util.find_spec(folder)
        origin = Path(found.origin).resolve() if found and found.origin else None
        if origin is None or origin.parent.parent != ours:
            clashes.append(f"{folder} is {origin or 'missing'}")
    return clashes
