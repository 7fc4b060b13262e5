"""The names of timm's models, kept in the user's cache folder: timm is imported once a version."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import version

from blocks.cached import read_cached, write_cached
from blocks.own_networks import OWN_NETWORKS


@cache
def known_names() -> frozenset[str]:
    """The names of all models of the timm that is installed."""
    file = f"timm-{version('timm')}-models.json"
    kept = read_cached(file)
    if isinstance(kept, list):
        return frozenset(map(str, kept))
    ours = {row.timm_name for row in OWN_NETWORKS}
    names = sorted(set(importlib.import_module("timm").list_models()) - ours)
    write_cached(file, names)
    return frozenset(names)
