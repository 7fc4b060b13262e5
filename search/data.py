"""A loaded data set: 8-bit images in three parts, their statistics, and other sizes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blocks.errors import DataError
from search.splits import SPLITS, Indices, Labels, cut, pack, unpack, validation_size
from spaces.candidate import DataFacts

Images = NDArray[np.uint8]  # (N, C, H, W)
Size = tuple[int, int]  # height, width

SPLIT_SEED = 0
TEST_SHARE = 5  # one of so many, where a data set has no test part
SAMPLED_IMAGES = 2000
PIXELS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Parts:
    """What a reader has found, in the order of its files.

    Args:
        labels: Part -> class numbers (N,); "train", and the others where the files have them.
        classes: Names of the classes.
        images: Part -> 8-bit images (N, C, H, W); empty where they are too large for memory.
        files: Part -> paths of its images, where every image is a file.
        input_shape: (C, H, W), where it cannot be read off ``images``.
        checksum: Of the content, where it is not that of the arrays.
    """

    labels: dict[str, Labels]
    classes: tuple[str, ...]
    images: dict[str, Images] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    input_shape: tuple[int, int, int] | None = None
    checksum: str = ""


@dataclass(frozen=True, eq=False)
class Data:
    """A loaded data set.

    Args:
        facts: Name, shapes, classes, identity.
        images: Split -> 8-bit images (N, C, H, W); empty where the data set ``streams``.
        labels: Split -> class numbers (N,).
        checksum: SHA-256 of the images and labels; of a large tree's names, sizes and labels.
        split: Which image is in which part, as ``search.splits.pack`` writes it.
        classes: Names of the classes.
        files: Split -> paths of the images, where every image is a file.
        folder: Where the files lie; empty for embedded data.
        published: Whether these are the published files; None where that is not known.
        notes: What a user should know of the files.
    """

    facts: DataFacts
    images: dict[str, Images]
    labels: dict[str, Labels]
    checksum: str
    split: str = ""
    classes: tuple[str, ...] = ()
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folder: str = ""
    published: bool | None = None
    notes: tuple[str, ...] = ()
    _sizes: dict[Size, Data] = field(default_factory=dict, repr=False)

    @property
    def streams(self) -> bool:
        """Whether the images are too large for memory, and are read while training."""
        return not self.images

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self._sample() if self.streams else self.images["train"])

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel of the training part, where 255 is 1.

        Of a data set that streams: of 2,000 training images, evenly taken.
        """
        return self._statistics[0]

    @property
    def deviation(self) -> tuple[float, ...]:
        """Standard deviation of each channel of the training part (of N - 1), where 255 is 1."""
        return self._statistics[1]

    def _sample(self) -> Images:
        from search.formats.folders import decode_all

        paths = self.files["train"]
        step = max(1, len(paths) // SAMPLED_IMAGES)
        _, height, width = self.facts.input_shape
        return decode_all(paths[::step][:SAMPLED_IMAGES], (height, width))

    def resized(self, size: Size) -> Data:
        """The same images at another size, made once.

        Images that are files are read again; others are resized bilinearly, with antialiasing.

        Args:
            size: (height, width) in pixels.
        """
        channels, *now = self.facts.input_shape
        if tuple(now) == tuple(size):
            return self
        if size not in self._sizes:
            facts = replace(self.facts, input_shape=(channels, *size))
            self._sizes[size] = replace(self, facts=facts, images=self._at(size), _sizes={})
        return self._sizes[size]

    def rows(self, split: str, rows: Sequence[int]) -> Images:
        """Some images of a split, 8-bit (n, C, H, W); read where they stream."""
        if not self.streams:
            return self.images[split][list(rows)]
        from search.formats.folders import decode_all

        _, height, width = self.facts.input_shape
        return decode_all([self.files[split][row] for row in rows], (height, width))

    def _at(self, size: Size) -> dict[str, Images]:
        if not self.files:
            return {split: resize(images, size) for split, images in self.images.items()}
        from search.formats.folders import decode_all, fits_memory

        if not fits_memory(sum(self.facts.sizes), size):
            return {}
        return {split: decode_all(paths, size) for split, paths in self.files.items()}


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (of N - 1) of each channel, where 255 is 1; exact sums.

    Args:
        images: 8-bit images (N, C, H, W).
    """
    means, deviations = [], []
    values = np.arange(256)
    step = max(1, PIXELS_AT_ONCE // max(1, images[:1, 0].size))
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), step):
            part = images[start : start + step, channel]
            counts += np.bincount(part.ravel(), minlength=256)
        number, total = int(counts.sum()), int(counts @ values)
        squares = int(counts @ values**2)
        means.append(total / number / 255)
        spread = (squares * number - total * total) / (number * max(1, number - 1))
        deviations.append(float(np.sqrt(spread)) / 255)
    return tuple(means), tuple(deviations)


def resize(images: Images, size: Size) -> Images:
    """Resize 8-bit images (N, C, H, W) bilinearly, with antialiasing, to (height, width)."""
    import torch
    from torch.nn.functional import interpolate

    made = np.empty((*images.shape[:2], *size), dtype=np.uint8)
    step = max(1, PIXELS_AT_ONCE // (images.shape[1] * size[0] * size[1]))
    for start in range(0, len(images), step):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + step]))
        new = interpolate(part, size=size, mode="bilinear", antialias=True, align_corners=False)
        made[start : start + step] = new.numpy()
    return made


def content_checksum(parts: Parts) -> str:
    """SHA-256 of the images and labels, with their shapes, in the order of the files."""
    digest = hashlib.sha256()
    for part in SPLITS:
        if part in parts.images:
            images = np.ascontiguousarray(parts.images[part])
            digest.update(f"{part} {images.shape}".encode())
            digest.update(images.data)
            digest.update(parts.labels[part].astype("<i8").tobytes())
    return digest.hexdigest()


def cut_parts(name: str, parts: Parts) -> Indices:
    """Places of the images of each split: parts that the files have are kept, others are cut.

    Validation is cut from train, a tenth of it, not more than 5,000 images or ten a class. Where
    there is no test part, a fifth of train becomes one first.

    Raises:
        DataError: A class has too few images.
    """
    offsets, total = {}, 0
    for part in SPLITS:
        offsets[part] = total
        total += len(parts.labels.get(part, ()))
    train = parts.labels["train"]
    what = f"{name}, its training images"
    rest = np.arange(len(train))
    indices = {
        part: np.arange(len(labels)) + offsets[part]
        for part, labels in parts.labels.items()
        if part != "train"
    }
    for part, count in (
        ("test", len(train) // TEST_SHARE),
        ("validation", validation_size(len(train), len(parts.classes))),
    ):
        if part not in indices:
            stay, held = cut(train[rest], count, seed=SPLIT_SEED, names=parts.classes, what=what)
            indices[part], rest = rest[held], rest[stay]
    return {"train": rest, "validation": indices["validation"], "test": indices["test"]}


def make_data(
    name: str, parts: Parts, *, indices: Indices | None = None, stored: str = "", **more: Any
) -> Data:
    """Split what a reader has found.

    Args:
        name: Of the data set.
        parts: What was found.
        indices: The split, where it is not ``cut_parts``.
        stored: A packed split that wins over both, where it is of as many images.
        **more: Further fields of ``Data``.

    Raises:
        DataError: A class has too few images, or the stored split is of other images.
    """
    checksum = parts.checksum or content_checksum(parts)
    total = sum(map(len, parts.labels.values()))
    if stored:
        indices = unpack(stored)
        if sum(map(len, indices.values())) != total:
            raise DataError(
                f"{name}: the stored split is of {sum(map(len, indices.values())):,} images, and"
                f" {total:,} are there; give the folder with the stored study's files (--data-dir)"
            )
    indices = indices or cut_parts(name, parts)
    content = hashlib.sha256(checksum.encode())
    for split in SPLITS:
        content.update(split.encode())
        content.update(indices[split].astype("<i8").tobytes())
    shape = parts.input_shape or parts.images["train"].shape[1:]
    channels, height, width = (int(length) for length in shape)
    train, validation, test = (len(indices[split]) for split in SPLITS)
    digest = content.hexdigest()[:32]
    sizes = (train, validation, test)
    facts = DataFacts(name, (channels, height, width), len(parts.classes), digest, sizes)
    return Data(
        facts,
        _taken(parts.images, indices),
        _taken(parts.labels, indices),
        checksum,
        split=pack(indices),
        classes=parts.classes,
        files=_taken_files(parts.files, indices),
        **more,
    )


def _taken(arrays: dict[str, NDArray[Any]], indices: Indices) -> dict[str, NDArray[Any]]:
    """The images, or labels, of each split; a part that is a split as it is, is not copied."""
    if not arrays:
        return {}
    kept = [arrays[part] for part in SPLITS if part in arrays]
    starts = np.cumsum([0, *map(len, kept)])
    return {split: _from(kept, starts, places) for split, places in indices.items()}


def _from(kept: Sequence[NDArray[Any]], starts: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    found = []
    for array, start in zip(kept, starts, strict=False):
        within = places[(places >= start) & (places < start + len(array))] - start
        if len(within) == len(array):
            found.append(np.require(array, requirements=("C", "W")))  # torch wants to own it
        elif len(within):
            found.append(array[within])
    return found[0] if len(found) == 1 else np.concatenate(found)


def _taken_files(files: dict[str, tuple[str, ...]], indices: Indices) -> dict[str, tuple[str, ...]]:
    everything = [path for part in SPLITS for path in files.get(part, ())]
    if not everything:
        return {}
    return {split: tuple(everything[i] for i in places) for split, places in indices.items()}
