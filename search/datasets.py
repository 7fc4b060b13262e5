"""The data sets: images as 8-bit arrays, labels, and a fixed split into three parts.

A split has the data set's own fixed seed and never the study's, so that every trial of every study
sees the same images in training, validation and test. Selection uses validation alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blocks.errors import DataError, listing, suggestion
from spaces.candidate import DataFacts

SPLITS = ("train", "validation", "test")

Images = NDArray[np.uint8]  # (N, C, H, W)
Labels = NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Data:
    """A loaded data set.

    Args:
        facts: Name, shapes, classes, identity.
        images: Split -> 8-bit images (N, C, H, W).
        labels: Split -> class numbers (N,).
        checksum: SHA-256 of the raw images and labels.
    """

    facts: DataFacts
    images: dict[str, Images]
    labels: dict[str, Labels]
    checksum: str


@dataclass(frozen=True)
class DataSource:
    """One row of the table of data sets.

    Args:
        name: The name that ``--data`` takes.
        title: One line for the catalogue.
        load: Reads and splits it.
    """

    name: str
    title: str
    load: Callable[[], Data]


def _resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize grey images (N, H, W) bilinearly to (N, side, side)."""
    from PIL import Image

    resized = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        for image in images
    ]
    return np.stack(resized)


def split_indices(labels: Labels, *, seed: int, test: int, validation: int) -> dict[str, Any]:
    """Cut images into train, validation and test, every class in its proportion.

    Args:
        labels: Class numbers (N,).
        seed: Of the split; a data set has its own.
        test: Images in the test part.
        validation: Images in the validation part.

    Returns:
        Split -> sorted indices.
    """
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(labels))
    rest, test_part = train_test_split(
        everything, test_size=test, stratify=labels, random_state=seed
    )
    train_part, validation_part = train_test_split(
        rest, test_size=validation, stratify=labels[rest], random_state=seed
    )
    parts = (train_part, validation_part, test_part)
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}


DIGITS_SIDE = 14
DIGITS_HELD_OUT = 360
DIGITS_SPLIT_SEED = 0


def _digits() -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels of 17 levels, resized to 14 x 14.

    At 14 x 14 the maps of a three-stage network are 14, 7 and 4 pixels wide, so that DCT
    frequencies differ; at 8 x 8 most of them would coincide.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = np.rint(raw.images * (255 / 16)).astype(np.uint8)
    labels = raw.target.astype(np.int64)
    indices = split_indices(
        labels, seed=DIGITS_SPLIT_SEED, test=DIGITS_HELD_OUT, validation=DIGITS_HELD_OUT
    )
    images = _resized(grey, DIGITS_SIDE)[:, None]
    return _data("digits", images, labels, indices, raw=grey, classes=10)


def _data(
    name: str,
    images: Images,
    labels: Labels,
    indices: dict[str, Any],
    *,
    raw: NDArray[np.uint8],
    classes: int,
) -> Data:
    checksum = hashlib.sha256(raw.tobytes() + labels.tobytes()).hexdigest()
    content = hashlib.sha256(checksum.encode())
    for split in SPLITS:
        content.update(split.encode())
        content.update(indices[split].astype("<i8").tobytes())
    channels, height, width = images.shape[1:]
    train, validation, test = (len(indices[split]) for split in SPLITS)
    facts = DataFacts(
        name,
        (channels, height, width),
        classes,
        content.hexdigest()[:32],
        (train, validation, test),
    )
    return Data(
        facts,
        {split: images[indices[split]] for split in SPLITS},
        {split: labels[indices[split]] for split in SPLITS},
        checksum,
    )


DATASETS: dict[str, DataSource] = {
    source.name: source
    for source in (
        DataSource(
            "digits",
            "1,797 handwritten digits from scikit-learn, grey, resized to 14 x 14; embedded",
            _digits,
        ),
    )
}


@cache
def load_data(name: str) -> Data:
    """Load a data set once per process.

    Raises:
        DataError: There is no such data set.
    """
    if name not in DATASETS:
        near = suggestion(name, DATASETS)
        raise DataError(f"unknown data set {name!r}.{near} Data sets: {listing(DATASETS)}")
    return DATASETS[name].load()
