"""A user's own data set: what its function returns, checked and read out."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from blocks.errors import DataError
from search.data import Images, Parts
from search.splits import SPLITS, Labels

PART = (
    "a pair (images, labels) of arrays, uint8 (N, C, H, W) and whole numbers (N,), or a Dataset of"
    " (PIL image or uint8 tensor (C, H, W), class number)"
)


@dataclass(frozen=True)
class OwnData:
    """What a user's function returns.

    Args:
        train: A pair of arrays or tensors, images uint8 (N, C, H, W) and labels (N,) from 0; or a
            ``Dataset`` as torch and torchvision have them, of (PIL image or uint8 tensor (C, H, W),
            class number), which is read out once.
        test: The same.
        validation: The same; None: cut from train.
        classes: Their names; empty: as many as the labels say.
    """

    train: Any
    test: Any
    validation: Any = None
    classes: tuple[str, ...] = ()


def read_own(name: str, given: object) -> Parts:
    """Check what a user's function has returned.

    Raises:
        DataError: It is not as it should be: which part, what was given, what is needed.
    """
    if not isinstance(given, OwnData):
        raise DataError(
            f"data set {name!r}: its function returned a {type(given).__name__}; it must return"
            " search.datasets.OwnData(train=..., test=...)"
        )
    images: dict[str, Images] = {}
    labels: dict[str, Labels] = {}
    for part in SPLITS:
        content = getattr(given, part)
        if content is not None or part != "validation":
            images[part], labels[part] = _read(f"data set {name!r}, {part}", content)
    shapes = {part: array.shape[1:] for part, array in images.items()}
    for part, shape in shapes.items():
        if shape != shapes["train"]:
            raise DataError(
                f"data set {name!r}: images of {part} are {_words(shape)} and those of train"
                f" {_words(shapes['train'])}; all must be of one shape"
            )
    classes = given.classes or tuple(
        str(number) for number in range(max(int(v.max()) for v in labels.values()) + 1)
    )
    for part, values in labels.items():
        if int(values.min()) < 0 or int(values.max()) >= len(classes):
            raise DataError(
                f"data set {name!r}, {part}: labels go from {values.min()} to {values.max()}; they"
                f" must be 0 to {len(classes) - 1}"
            )
    return Parts(labels, tuple(map(str, classes)), images)


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _read(where: str, content: Any) -> tuple[Images, Labels]:
    if isinstance(content, tuple | list) and len(content) == 2:
        images, labels = np.asarray(content[0]), np.asarray(content[1])
    elif hasattr(content, "__getitem__") and isinstance(content, Sized):
        images, labels = _read_out(where, content)
    else:
        raise DataError(f"{where}: it is a {type(content).__name__}; needed is {PART}")
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        found = f"images are {images.dtype} of {images.shape}"
        raise DataError(f"{where}: {found}; needed are uint8 of (N, C, H, W), 8-bit and unscaled")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        found = f"labels are {labels.dtype} of {labels.shape}"
        raise DataError(f"{where}: {found}; needed are whole numbers, one for each image")
    return np.ascontiguousarray(images), labels.astype(np.int64)


def _read_out(where: str, content: Any) -> tuple[Any, Any]:
    images, labels = [], []
    for index in range(len(content)):
        try:
            picture, label = content[index]
            images.append(_planes(picture))
            labels.append(int(label))
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}, item {index}: {error}; needed is {PART}") from None
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{where}: item {index} is {_words(images[-1].shape)} and item 0"
                f" {_words(images[0].shape)}; all must be of one shape"
            )
    if not images:
        raise DataError(f"{where}: it holds no images")
    return np.stack(images), np.array(labels, dtype=np.int64)


def _planes(picture: Any) -> Any:
    """A picture as 8-bit (C, H, W)."""
    if hasattr(picture, "getbands"):  # PIL's
        if picture.mode not in ("L", "RGB"):
            picture = picture.convert("RGB")
        array = np.asarray(picture)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3:
        raise ValueError(f"the picture is {array.dtype} of {array.shape}")
    return array
