"""The names of timm's models, kept in the user's cache folder: timm is imported once a version."""

from __future__ import annotations

import importlib
import json
import os
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from blocks.own_networks import OWN_NETWORKS


@cache
def known_names() -> frozenset[str]:
    """The names of all models of the timm that is installed."""
    kept = _cache_file()
    try:
        return frozenset(map(str, json.loads(kept.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        pass
    ours = {row.timm_name for row in OWN_NETWORKS}
    names = sorted(set(importlib.import_module("timm").list_models()) - ours)
    _keep(kept, names)
    return frozenset(names)


def _cache_file() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("attention-search") / f"timm-{version('timm')}-models.json"


def _keep(path: Path, names: list[str]) -> None:
    """Write the names beside their place and move them there; a read-only cache is no error."""
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(names), encoding="utf-8")
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
