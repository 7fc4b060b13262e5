"""The final weights of trials: files beside the database, and their rows in it.

A file lies in ``studies.artefacts/weights/STUDY-NUMBER.safetensors``; its row says path (relative
to the database's folder, so that both travel together), SHA-256 and size. The worker writes the
file, the parent its row with the outcome in one transaction. A row goes before its file does, and
``Keeper.tidy`` takes away what a kill left between the two: no row is ever without its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.engine import URL

from blocks.errors import CheckpointError
from search import tables
from search.database import DEFAULT_STORAGE, artefacts_of, home_of, open_for_reading, storage_url
from search.outcome import Outcome
from search.provenance import checksum
from search.reading import find_trial, read_study
from search.records import TrialRecord
from search.store import Store
from spaces.document import FRONT, NONE

if TYPE_CHECKING:
    from torch import nn

KIND = "weights"


@dataclass(frozen=True)
class KeptFile:
    """A file of weights as its row describes it.

    Args:
        trial_id: The key of the trial that was trained.
        path: Relative to the database's folder.
        sha256: Of the whole file.
        bytes: Its size.
    """

    trial_id: int
    path: str
    sha256: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """As ``search show`` says it."""
        return {"path": self.path, "bytes": self.bytes, "sha256": self.sha256}


def read_kept(engine: Engine, study_id: int) -> dict[int, KeptFile]:
    """Trial number -> its file of weights; a reused trial has that of its origin."""
    trial, kept = tables.trials, tables.artefacts
    source = func.coalesce(trial.c.origin_trial_id, trial.c.id)
    query = (
        select(trial.c.number, kept)
        .join(kept, (kept.c.trial_id == source) & (kept.c.kind == KIND))
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number)
    )
    with engine.connect() as connection:
        return {
            row.number: KeptFile(row.trial_id, row.path, row.sha256, row.bytes)
            for row in connection.execute(query)
        }


class Keeper:
    """Which weights of one study are kept, in the hands of the one parent that runs it.

    Args:
        store: The writing side of the database.
        storage: The database.
        study_id: The study.
        name: Its name.
        keep: "all", "front" (the front's and the baseline's) or "none" (of those to come).
        shared: Whether other parents have files of their own, which are not in this folder.
    """

    def __init__(
        self,
        store: Store,
        storage: URL,
        study_id: int,
        name: str,
        keep: str,
        *,
        shared: bool = False,
    ) -> None:
        self.store = store
        self.keep = keep
        self.name = name
        self.home = home_of(storage)
        self.folder = artefacts_of(storage) / KIND
        self._absolute = str(self.folder.absolute())
        self.files = {
            number: file
            for number, file in read_kept(store.engine, study_id).items()
            if Path(file.path).name == self._name(number)  # a reused trial's is its origin's
            and (not shared or self._is_here(file))
        }

    def _name(self, number: int) -> str:
        return f"{self.name}-{number}.safetensors"

    def _is_here(self, file: KeptFile) -> bool:
        """Whether a file lies in this folder as its row describes it."""
        path = self.home / file.path
        there = path.is_file() and path.stat().st_size == file.bytes
        return there and checksum(path) == file.sha256

    def place(self, number: int) -> str:
        """The file that a worker is to write; empty where nothing is kept."""
        if self.keep == NONE:
            return ""
        return f"{self._absolute}/{self._name(number)}"

    def rows(self, number: int, outcome: Outcome) -> list[dict[str, Any]]:
        """What an outcome's transaction says of the file that the worker wrote, if it did."""
        if outcome.kept is None:
            return []
        path = (self.folder / self._name(number)).relative_to(self.home).as_posix()
        return [{"kind": KIND, "path": path, **outcome.kept}]

    def note(self, number: int, trial_id: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Learn what was written of a trial."""
        for row in rows:
            self.files[number] = KeptFile(trial_id, row["path"], row["sha256"], row["bytes"])

    def tidy(self) -> None:
        """Make rows and files one again: after a kill, or where files were taken away."""
        lost = [n for n, file in self.files.items() if not (self.home / file.path).is_file()]
        self._forget(lost)
        known = {Path(file.path).name for file in self.files.values()}
        pattern = re.compile(rf"{re.escape(self.name)}-\d+\.safetensors(\.part)?")
        for path in self.folder.glob(f"{self.name}-*") if self.folder.is_dir() else ():
            if pattern.fullmatch(path.name) and path.name not in known:
                path.unlink(missing_ok=True)

    def settle(self, trials: Iterable[TrialRecord], front: Callable[[], Iterable[int]]) -> None:
        """Take away what is kept and is not to be: no baseline's, and no longer on the front.

        What another study's trial was reused from stays: it is that trial's too.

        Args:
            trials: All of the study.
            front: Gives the numbers of those on the front.
        """
        if self.keep != FRONT or not self.files:
            return
        wanted = {*front(), *(trial.number for trial in trials if trial.baseline)}
        others = [number for number in self.files if number not in wanted]
        if others:
            origins = self.store.outlast(self._origins)
            self._remove([n for n in others if self.files[n].trial_id not in origins])

    def _origins(self) -> set[int]:
        column = tables.trials.c.origin_trial_id
        with self.store.engine.connect() as connection:
            found = connection.execute(select(column).where(column.is_not(None)).distinct())
            return set(found.scalars())

    def _remove(self, numbers: Collection[int]) -> None:
        """Take away rows, then files: a kill between leaves files that ``tidy`` finds."""
        paths = [self.home / self.files[number].path for number in numbers]
        self._forget(numbers)
        for path in paths:
            path.unlink(missing_ok=True)

    def _forget(self, numbers: Collection[int]) -> None:
        keys = [self.files[number].trial_id for number in numbers]
        if not keys:
            return

        def forgotten() -> None:
            kept = tables.artefacts
            with self.store.transaction() as connection:
                connection.execute(
                    delete(kept).where(kept.c.kind == KIND, kept.c.trial_id.in_(keys))
                )

        self.store.outlast(forgotten)
        for number in list(numbers):
            del self.files[number]

    def close(self) -> None:
        """Leave what is kept alone: no unfinished file, no empty folder."""
        self.tidy()
        with suppress(OSError):
            self.folder.rmdir()


def kept_data(kept: Iterable[KeptFile]) -> dict[str, Any]:
    """How much is kept and where; a file that several trials share counts once."""
    files = {file.path: file.bytes for file in kept}
    folders = sorted({Path(path).parent.as_posix() for path in files})
    return {"files": len(files), "bytes": sum(files.values()), "folders": folders}


def kept_words(kept: Mapping[str, Any]) -> str:
    """The same for people: ``4 files, 4.4 MB in studies.artefacts/weights``; empty for nothing."""
    if not kept["files"]:
        return ""
    count = "1 file" if kept["files"] == 1 else f"{kept['files']} files"
    return f"{count}, {size_words(kept['bytes'])} in {', '.join(kept['folders'])}"


def size_words(size: float) -> str:
    """A size for people, in decimal units: ``1.1 MB``."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"


# Loading. ----------------------------------------------------------------------------------------


def load_trained(study: str | None, number: int, *, storage: str = DEFAULT_STORAGE) -> nn.Module:
    """The network of a trial as it was evaluated, in evaluation mode, on the processor.

    Args:
        study: The study's name; None: the one that was run last.
        number: The trial.
        storage: The database's URL.

    Raises:
        StudyError: There is no such study or trial.
        CheckpointError: Its weights are not kept, gone, changed, or not this network's.
    """
    url = storage_url(storage)
    engine = open_for_reading(url)
    try:
        record = read_study(engine, study)
        trial = find_trial(engine, record, number)
        file = read_kept(engine, record.id).get(number)
        data = record.identity["data"]
        keep = str(record.settings.get("keep_weights", NONE))
    finally:
        engine.dispose()
    if file is None:
        raise CheckpointError(_not_kept(record.name, trial, keep))
    return _load(home_of(url) / file.path, file, trial, data)


def _not_kept(study: str, trial: TrialRecord, keep: str) -> str:
    whose = f"trial {trial.number} of study {study!r}"
    if trial.origin:
        whose += f" (reused from {trial.origin})"
    if trial.accuracy is None or trial.state not in ("complete", "reused"):
        return f"{whose} is {trial.state}: the weights of complete trials alone are kept"
    return (
        f"weights of {whose} are not kept (the study keeps: {keep}); `search run"
        " --keep-weights all` keeps those of every trial that it trains: run the study with it in"
        " a database of its own (--storage sqlite:///FILE.db), since a trained trial is not"
        " trained again"
    )


def _load(path: Path, file: KeptFile, trial: TrialRecord, data: Mapping[str, Any]) -> nn.Module:
    """Build a trial's network and give it the tensors of a file, once that is what it was."""
    import torch

    from blocks.build import build_network
    from blocks.checkpoint import check_names
    from blocks.weight_file import read_state

    if not path.is_file():
        raise CheckpointError(
            f"{path}: the weights of trial {trial.number} are not there any more; put the file"
            " back (it travels with the database, in its .artefacts folder)"
        )
    found = checksum(path)
    if found != file.sha256:
        raise CheckpointError(
            f"{path}: not what was kept for trial {trial.number}: its checksum is {found[:12]}...,"
            f" and was {file.sha256[:12]}...; put the former file back"
        )
    network = build_network(
        trial.architecture,
        num_classes=data["classes"],
        in_channels=data["input_shape"][0],
        seed=trial.seed,
    )
    state = read_state(path)
    check_names({n: tuple(t.shape) for n, t in network.state_dict().items()}, state, {})
    network.load_state_dict(state, strict=True)
    network = network.to(memory_format=torch.channels_last)
    return network.eval()
