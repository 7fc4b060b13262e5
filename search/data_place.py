"""Where a study's data are, and which split it goes on with: settled once, before any trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from blocks.errors import StudyError
from search.data import Data
from search.database import open_for_reading
from search.datasets import FOLDER, download, load_data
from search.kept_split import StoredSplit, read_split
from search.records import StudyRecord
from spaces.candidate import DataFacts
from spaces.space import Space


@dataclass(frozen=True)
class DataPlace:
    """What beside its facts a run must know of a data set; none of it is a study's identity.

    Args:
        folder: Where the files are; empty for embedded data.
        size: Pixels of the side to which images of a folder are brought; 0: as they are.
        split: The stored split, where another one would be cut today; empty: none.
        kept: The split, as it is stored.
        published: Whether the files are the published ones; None where that is not known.
        notes: What a user should know of the files.
    """

    folder: str = ""
    size: int = 0
    split: str = ""
    kept: StoredSplit | None = None
    published: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What of it a stored study goes on with."""
        return {"data_dir": self.folder} if self.folder else {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What of it is kept with every result."""
        if not self.folder or self.kept is None:
            return {}
        made = {"folder": self.folder, "sha256": self.kept.checksum, "published": self.published}
        return {"data": made}


def settle_data(
    name: str,
    data_dir: str | None,
    *,
    fetch: bool,
    space: Space,
    url: URL,
    stored: StudyRecord | None,
) -> tuple[DataFacts, DataPlace]:
    """Find and load a study's data.

    Args:
        name: Of the data set.
        data_dir: As given; None: where a stored study last had them, or the usual places.
        fetch: Whether files that are not there are downloaded.
        space: Says the size of images of a folder.
        url: The database.
        stored: The stored study, where there is one.

    Raises:
        DataError: The data are not there, or not as they should be.
    """
    same = stored if stored is not None and stored.identity["data"]["name"] == name else None
    folder = data_dir if data_dir is not None else _last_folder(same)
    if fetch:
        download(name, folder)
    size = input_size(space) if name == FOLDER else 0
    side = (size, size) if size else None
    data = load_data(name, folder, size=side)
    split = _stored_split(data, url, same)
    if split:
        data = load_data(name, folder, size=side, split=split)
    kept = StoredSplit(data.facts.split_digest, name, data.checksum, data.split)
    place = DataPlace(data.folder, size, split, kept, data.published, data.notes)
    return data.facts, place


def data_of(study: StudyRecord, url: URL) -> Data:
    """The data of a stored study, as its trials saw them.

    Raises:
        DataError: The data are not there, or not as they should be.
        StudyError: They have changed since.
    """
    facts = study.identity["data"]
    _, height, width = facts["input_shape"]
    side = (height, width) if facts["name"] == FOLDER else None
    folder = _last_folder(study)
    data = load_data(facts["name"], folder, size=side)
    split = _stored_split(data, url, study)
    if split:
        data = load_data(facts["name"], folder, size=side, split=split)
    if data.facts.split_digest != facts["split_digest"]:
        raise StudyError(
            f"data set {facts['name']!r} has changed since study {study.name!r} was run (split"
            f" {data.facts.split_digest[:8]}, then {facts['split_digest'][:8]}); its networks would"
            " be shown other images"
        )
    return data


def _last_folder(stored: StudyRecord | None) -> str:
    folder = str(stored.settings.get("data_dir", "")) if stored else ""
    return folder if folder and Path(folder).is_dir() else ""


def _stored_split(data: Data, url: URL, stored: StudyRecord | None) -> str:
    """The split that a stored study has, where these images would be cut otherwise today."""
    digest = stored.identity["data"]["split_digest"] if stored else ""
    if not digest or digest == data.facts.split_digest:
        return ""
    engine = open_for_reading(url)
    try:
        kept = read_split(engine, digest)
    finally:
        engine.dispose()
    return kept.packed if kept is not None and kept.checksum == data.checksum else ""


def input_size(space: Space) -> int:
    """The side to which a space brings images, the first where it has several; 0: it has none."""
    return int(space.training["input_size"].default)
