"""Cutting a data set into train, validation and test.

A split has the data set's own fixed seed and never the study's. Packed, it is one number (0 train,
1 validation, 2 test) for every image in the order of the files; ``search.kept_split`` stores it.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blocks.errors import DataError

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 10  # one of so many
HELD_OUT_IMAGES = 5000
HELD_OUT_OF_A_CLASS = 10

Labels = NDArray[np.int64]  # (N,)
Indices = dict[str, NDArray[np.int64]]  # split -> places in the order of the files, ascending


def validation_size(images: int, classes: int) -> int:
    """Images to cut from so many for validation.

    A tenth, and not more than 5,000, or than ten of each class where classes are many.
    """
    return min(images // HELD_OUT_SHARE, max(HELD_OUT_IMAGES, HELD_OUT_OF_A_CLASS * classes))


def cut(
    labels: Labels, held: int, *, seed: int, names: Sequence[str], what: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out images, every class in its proportion and with one image or more on both sides.

    scikit-learn's split leaves a small class out of the smaller part, and does not promise to stay
    as it is; the streams of ``RandomState`` are frozen.

    Args:
        labels: Class numbers (N,).
        held: Images to hold out; a few more where there are more classes.
        seed: Of the order within each class.
        names: The classes.
        what: What is cut, for the message: "cifar10, its training images".

    Returns:
        (indices that stay, indices held out), both ascending.

    Raises:
        DataError: A class has a single image.
    """
    present, counts = np.unique(labels, return_counts=True)
    if len(present) and counts.min() < 2:
        name = names[int(present[counts.argmin()])]
        raise DataError(
            f"{what}: class {name!r} has 1 image; 2 or more of every class are needed, since one"
            " is held out"
        )
    state = np.random.RandomState(seed)
    groups = [
        state.permutation(np.flatnonzero(labels == number))[:share]
        for number, share in zip(present, _shares(counts, held), strict=True)
    ]
    held_out = np.sort(np.concatenate(groups)) if groups else np.zeros(0, np.int64)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _shares(counts: NDArray[np.int64], held: int) -> NDArray[np.int64]:
    """How many of each class to hold out: in proportion, by largest remainders, 1 or more."""
    total = int(counts.sum())
    shares = np.clip(counts * held // total, 1, counts - 1)
    by_remainder = np.argsort(-(counts * held % total), kind="stable")
    for index in by_remainder[: max(0, held - int(shares.sum()))]:
        shares[index] += shares[index] < counts[index] - 1
    return np.asarray(shares)


def pack(indices: Indices) -> str:
    """A split as text: one byte an image, compressed, in base 64 (ASCII)."""
    parts = np.zeros(sum(map(len, indices.values())), dtype=np.uint8)
    for number, split in enumerate(SPLITS):
        parts[indices[split]] = number
    return base64.b64encode(zlib.compress(parts.tobytes(), 9)).decode()


def unpack(text: str) -> Indices:
    """Read what ``pack`` wrote.

    Raises:
        DataError: It is damaged.
    """
    try:
        parts = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    except (zlib.error, binascii.Error) as error:
        raise DataError(f"a stored split is damaged: {error}; name a new study") from None
    return {split: np.flatnonzero(parts == number) for number, split in enumerate(SPLITS)}
