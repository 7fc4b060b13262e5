"""A block put to the conformance suite: finding it by name or class, and saying what came out."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from types import ModuleType
from typing import Any

from blocks import registry
from blocks.conformance import FAILED, OK, SKIPPED, Finding, examine
from blocks.errors import BlockError, listing, suggestion
from blocks.subject import Subject, subject_of, subject_of_class
from search.include import include
from search.output import clean

NAME_WIDTH = max(map(len, (OK, SKIPPED, FAILED)))
CHECK_WIDTH = 14


def find_subject(target: str, includes: Iterable[str] = (), channels: int | None = None) -> Subject:
    """The block that a user means.

    Args:
        target: A block's name, or "module:Class" with a module of the current folder, of an
            installed package, or by the name of an included file.
        includes: Python files to run first.
        channels: Channels of all maps; None: those of the suite.

    Raises:
        BlockError: There is no such block, module or class, or the class is no block.
    """
    with redirect_stdout(sys.stderr):
        included = {_stem(path): include(path) for path in includes}
        module, _, name = target.rpartition(":")
        if not module or _is_known(target):
            return subject_of(target, channels)
        return subject_of_class(
            _class_of(included.get(module) or _imported(module), name), channels
        )


def _stem(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].removesuffix(".py")


def _is_known(target: str) -> bool:
    try:
        registry.spec(target)
    except BlockError:
        return False
    return True


def _imported(name: str) -> ModuleType:
    """Import a module as ``python -m`` would, the current folder first."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or (name != error.name and not name.startswith(f"{error.name}.")):
            raise BlockError(f"module {name!r}: ModuleNotFoundError: {error}") from error
        raise BlockError(
            f"there is no module {name!r}; run from the folder that holds it, or give its file"
            f" with --include PATH"
        ) from error
    except Exception as error:
        raise BlockError(f"module {name!r}: {type(error).__name__}: {error}") from error


def _class_of(module: ModuleType, name: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    classes = [key for key, value in vars(module).items() if isinstance(value, type)]
    raise BlockError(
        f"module {module.__name__!r} has no class {name!r}.{suggestion(name, classes)} Its classes:"
        f" {listing(classes) or 'none'}"
    )


def findings(subject: Subject, *, slow: bool = False) -> Iterator[Finding]:
    """What each check finds; what the block prints goes to standard error."""
    coming = examine(subject, slow=slow)
    while True:
        with redirect_stdout(sys.stderr):
            finding = next(coming, None)
        if finding is None:
            return
        yield finding


def verdict_data(subject: Subject, found: Sequence[Finding]) -> dict[str, Any]:
    """All findings of a block as plain data."""
    return {
        "block": subject.row.name,
        "title": subject.row.title,
        "options": {option.name: option.default for option in subject.row.options},
        "channels": subject.channels,
        "passed": all(finding.state != FAILED for finding in found),
        "checks": [asdict(finding) for finding in found],
    }


def finding_line(finding: Finding) -> str:
    """A finding for people, with its cure on a line of its own."""
    detail = finding.detail or finding.proves
    line = f"{finding.state:<{NAME_WIDTH}}  {finding.check:<{CHECK_WIDTH}}  {clean(detail)}"
    if not finding.cure:
        return line
    return f"{line}\n{'':{NAME_WIDTH + CHECK_WIDTH + 4}}cure: {clean(finding.cure)}"


def summary_line(verdict: dict[str, Any]) -> str:
    """How it went, in one line."""
    states = Counter(check["state"] for check in verdict["checks"])
    counts = ", ".join(f"{states[state]} {state}" for state in (OK, SKIPPED, FAILED))
    return f"{verdict['block']}: {counts}"
