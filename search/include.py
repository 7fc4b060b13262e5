"""Bringing in a user's own blocks, named on the command line and never in a space file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from blocks.errors import BlockError

PREFIX = "included_"


def include(path: str) -> ModuleType:
    """Run a Python file, once, whose ``register`` calls add blocks to the table.

    Raises:
        BlockError: The file is not there, or fails; with its own words.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise BlockError(f"--include {path}: there is no such file; give a Python file")
    name = f"{PREFIX}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise BlockError(f"--include {path}: not a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BlockError(f"--include {path}: {type(error).__name__}: {error}") from error
    return module


def included(stem: str) -> ModuleType | None:
    """The file of this name, without its folder and ending, that was brought in last."""
    found = [name for name in sys.modules if name.startswith(f"{PREFIX}{stem}_")]
    return sys.modules[found[-1]] if found else None
