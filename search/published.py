"""Which files of a data set are the published ones, and fetching them when that is asked for.

Addresses and MD5 sums are torchvision's own definitions, read from the installed package.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.errors import DataError, listing

# torchvision states the compressed files' sums alone. Compressed anew, as Debian has them, files
# have others; these are the unpacked ones'.
UNPACKED = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
ARCHIVES = (".tar.gz", ".tgz")


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    Args:
        addresses: Where it is to be had; the first that answers is taken.
        name: Of the file.
        md5: Of the file.
    """

    addresses: tuple[str, ...]
    name: str
    md5: str


def _definition(name: str) -> Any:
    import torchvision.datasets

    return getattr(torchvision.datasets, name)


def downloads(definition: str) -> tuple[Download, ...]:
    """What torchvision fetches for one of its data sets."""
    source = _definition(definition)
    if hasattr(source, "resources"):
        return tuple(
            Download(tuple(f"{mirror}{name}" for mirror in source.mirrors), name, md5)
            for name, md5 in source.resources
        )
    if hasattr(source, "split_list"):
        rows = (source.split_list[part] for part in ("train", "test"))
        return tuple(Download((address,), name, md5) for address, name, md5 in rows)
    return (Download((source.url,), source.filename, source.tgz_md5),)


def checksums(definition: str) -> dict[str, str]:
    """File name -> MD5 of the published file, as far as torchvision states them."""
    source = _definition(definition)
    known = dict(UNPACKED.get(definition, {}))
    if hasattr(source, "resources"):
        known |= dict(source.resources)
    elif hasattr(source, "split_list"):
        known |= {name: md5 for _, name, md5 in source.split_list.values()}
    elif hasattr(source, "train_list"):
        known |= dict((*source.train_list, *source.test_list))
    else:
        known |= dict(source._RESOURCES.values())
    return known


def compare(name: str, definition: str, files: Sequence[Path]) -> tuple[bool | None, str]:
    """Whether files are the published ones, and what to say where they are not.

    Args:
        name: Of the data set.
        definition: Its class in torchvision.
        files: That were found.

    Returns:
        (True, False, or None where no checksum of such a file is known; a line, or nothing).
    """
    known = checksums(definition)
    verdicts = {path: _is_published(path, known) for path in files}
    for verdict, what in ((False, "is not the published file"), (None, "has no known checksum")):
        rest = [path for path, is_one in verdicts.items() if is_one is verdict]
        if rest:
            more = f" (and {len(rest) - 1} more)" if len(rest) > 1 else ""
            line = (
                f"{name}: {rest[0].name}{more} {what} (MD5 {md5_of(rest[0])}); results compare"
                " only with studies on the same files"
            )
            return verdict, line
    return True, ""


def _is_published(path: Path, known: Mapping[str, str]) -> bool | None:
    """Whether a file, or what it unpacks to, is the published one; None where no sum is known."""
    name = path.name.replace(".idx", "-idx")  # Kaggle's spelling
    stem = name.removesuffix(".gz")
    if name not in known and stem not in known:
        return None
    if name in known and md5_of(path) == known[name]:
        return True
    if name == stem or stem not in known:
        return False
    with gzip.open(path) as file:
        return _md5(file) == known[stem]


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return _md5(file)


def _md5(file: Any) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def fetch(name: str, definition: str, folder: Path) -> None:
    """Download a data set's files into a folder, checked by their checksums; unpack archives.

    Raises:
        DataError: A file cannot be had, or is not the published one; what to place where.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"--download: {folder} cannot be made ({error}); name another with --data-dir"
        ) from None
    wanted = downloads(definition)
    for one in wanted:
        reason = _fetched(one, folder)
        if reason:
            raise DataError(
                f"--download: {one.name} of {name} could not be had from"
                f" {listing(one.addresses)} ({reason}); fetch it elsewhere and place it in"
                f" {folder}: {listing(w.name for w in wanted)}"
            )
        if one.name.endswith(ARCHIVES):
            _unpack(folder / one.name, folder)


def _fetched(one: Download, folder: Path) -> str:
    """Fetch one file from the first address that answers; empty, or why none did."""
    from torchvision.datasets.utils import download_url

    reason = ""
    for address in one.addresses:
        try:
            download_url(address, str(folder), filename=one.name, md5=one.md5)
        except (OSError, RuntimeError, ValueError) as error:  # URLError is an OSError
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        else:
            return ""
    return reason


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{archive}: it cannot be unpacked ({error}); remove it and fetch it again"
        ) from None
