"""What all formats check of images and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blocks.errors import DataError

AGAIN = "place the whole file there again"


def broken(path: Path, found: object, needed: str, cure: str = AGAIN) -> DataError:
    """The error of a file that is not as it should be."""
    return DataError(f"{path}: {found}; {needed}; {cure}")


def checked_labels(path: Path, labels: NDArray[Any], *, images: int, classes: int) -> Any:
    """Labels as int64, one for each image and each a class.

    Raises:
        DataError: Their number or a value is wrong.
    """
    if labels.shape != (images,):
        found = f"{labels.size:,} labels for {images:,} images"
        raise broken(path, found, "one label for each image is needed")
    if images == 0:
        raise broken(path, "it holds no images", "one or more are needed")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        worst = low if low < 0 else high
        raise broken(path, f"a label is {worst}", f"labels are 0 to {classes - 1}")
    return labels.astype(np.int64)
