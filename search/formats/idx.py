"""The idx format of MNIST and Fashion-MNIST, plain and compressed (.gz).

Four bytes of magic (two zeros, 8 for unsigned bytes, the number of dimensions), the dimensions as
big-endian 32-bit numbers, the bytes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.data import Parts
from search.formats.checks import broken, checked_labels

UNSIGNED_BYTES = 8
IMAGES, LABELS = 3, 1  # dimensions


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read one file.

    Args:
        path: Of the file; ``.gz`` is unpacked.
        dimensions: 3 for images, 1 for labels.

    Raises:
        DataError: It is not an idx file of so many dimensions, or not whole.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise broken(
            path, f"it cannot be unpacked ({error})", "a whole gzip file is needed"
        ) from None
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, UNSIGNED_BYTES, dimensions))
    if content[:4] != magic or len(content) < start:
        found = f"it begins with the bytes {content[:4].hex(' ') or 'of nothing'}"
        what = "images" if dimensions == IMAGES else "labels"
        raise broken(path, found, f"an idx file of {what} begins with {magic.hex(' ')}")
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4"))
    wanted = int(np.prod(shape, dtype=object))
    if len(content) - start != wanted:
        found = f"it holds {len(content) - start:,} bytes after its head"
        raise broken(path, found, f"its head promises {' x '.join(map(str, shape))} = {wanted:,}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_pairs(files: Sequence[Path], *, classes: Sequence[str]) -> Parts:
    """Read MNIST's four files.

    Args:
        files: Training images and labels, test images and labels.
        classes: Names of the classes.

    Raises:
        DataError: A file is not as it should be; which.
    """
    images, labels = {}, {}
    for part, (pictures, numbers) in {"train": files[:2], "test": files[2:]}.items():
        images[part] = read_idx(pictures, IMAGES)[:, None]
        found = read_idx(numbers, LABELS)
        count = len(images[part])
        labels[part] = checked_labels(numbers, found, images=count, classes=len(classes))
    sizes = {part: array.shape[2:] for part, array in images.items()}
    if sizes["train"] != sizes["test"]:
        found_size = " x ".join(map(str, sizes["test"]))
        needed = f"those of {files[0].name} are {' x '.join(map(str, sizes['train']))}"
        raise broken(files[2], f"its images are {found_size} pixels", needed)
    return Parts(labels, tuple(classes), images)
