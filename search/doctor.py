"""What of this machine works: one line a check, with the cure where it does not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import ToolError
from search.database import file_of, is_sqlite, open_for_reading, shown, storage_url
from search.datasets import DataSource, load_data, look, names, source_of
from search.devices import usable_cores
from search.mounts import names_warning, network_warning
from search.packages import name_clashes
from search.provenance import cpu_name, versions
from search.published import compare
from search.reading import read_studies

OK, WARNING, BROKEN = "ok", "warning", "broken"
READ_BYTES = 256 * 1024**2
LOW_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, how it is, and the cure where it is not well."""

    what: str
    state: str
    detail: str
    cure: str = ""


def _python() -> Iterator[Finding]:
    yield Finding("python", OK, f"{sys.version.split()[0]}")
    clashes = name_clashes()
    if clashes:
        cure = "install this tool in an environment of its own"
        yield Finding("package names", BROKEN, "; ".join(clashes), cure)
    else:
        yield Finding("package names", OK, "blocks, spaces, search and reports are this tool's")


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:
        cure = "install torch and torchvision as one pair: pip install -U torch torchvision"
        yield Finding("torch", BROKEN, str(error).splitlines()[0], cure)
        return
    yield Finding("torch", OK, f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    yield Finding("processor", OK, f"{cpu_name()}, {usable_cores()} usable cores")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Finding(f"gpu {index}", OK, torch.cuda.get_device_name(index))
    else:
        yield Finding("gpu", OK, "none that CUDA can use; trials train on the processor")


def _packages() -> Iterator[Finding]:
    found = versions()
    for package in ("timm", "optuna", "ray", "sqlalchemy", "scikit-learn"):
        missing = found[package] == "not installed"
        state = BROKEN if missing else OK
        cure = "pip install attention-search installs it" if missing else ""
        yield Finding(package, state, found[package], cure)


def _data() -> Iterator[Finding]:
    for name in names():
        yield _state_of(source_of(name))


def _state_of(source: DataSource) -> Finding:
    """How a data set is, without reading gigabytes: nobody has to have them all."""
    what = f"data {source.name}"
    try:
        if source.embedded:
            facts = load_data(source.name).facts
            return Finding(what, OK, f"{sum(facts.sizes):,} images, {source.title}")
        if not source.layouts:
            return Finding(what, OK, f"{source.title}; {source.cure or 'reads its own folder'}")
        found = look(source)
        if found is None:
            return Finding(what, OK, f"not on this machine; {source.title}")
        if sum(path.stat().st_size for path in found.files) <= READ_BYTES:
            load_data(source.name)
        published, note = compare(source.name, source.torchvision, found.files)
    except (ToolError, OSError, ImportError) as error:
        return Finding(what, WARNING, str(error).splitlines()[0], source.title)
    how = "the published files" if published else note.removeprefix(f"{source.name}: ")
    return Finding(what, OK, f"in {found.folder}: {how}; {source.title}")


def _storage(text: str) -> Iterator[Finding]:
    url = storage_url(text)
    if is_sqlite(url) and not file_of(url).is_file():
        yield Finding("database", OK, f"{shown(url)} is not there yet; the first run makes it")
    else:
        try:
            engine = open_for_reading(url)
            studies = read_studies(engine)
            engine.dispose()
        except ToolError as error:
            yield Finding("database", BROKEN, str(error), "name another one with --storage")
        else:
            yield Finding("database", OK, f"{shown(url)} holds {len(studies)} studies")
    for warn in (network_warning, names_warning) if is_sqlite(url) else ():
        if warning := warn(file_of(url)):
            where, _, cure = warning.partition(". ")
            yield Finding("database's disk", WARNING, where, cure)
    folder = file_of(url).absolute().parent if is_sqlite(url) else Path.cwd()
    free = shutil.disk_usage(folder if folder.is_dir() else Path.cwd()).free
    state = WARNING if free < LOW_DISK_BYTES else OK
    cure = "make room, or keep results elsewhere with --storage" if state == WARNING else ""
    yield Finding("disk", state, f"{free / 1024**3:.1f} GiB free", cure)


def examine(storage: str) -> list[Finding]:
    """Check everything.

    Args:
        storage: The database that would be used.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _torch,
        _packages,
        _data,
        lambda: _storage(storage),
    )
    return [finding for check in checks for finding in check()]
