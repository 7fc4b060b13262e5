"""SVHN's cropped digits: MATLAB files with X (32, 32, 3, N) and y (N, 1); 10 is the digit 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.data import Parts
from search.formats.checks import broken, checked_labels

CLASSES = tuple("0123456789")


def read_svhn(files: Sequence[Path]) -> Parts:
    """Read the training and the test file; the extra images are not used.

    Raises:
        DataError: A file is not as it should be; which.
    """
    images, labels = {}, {}
    for part, path in zip(("train", "test"), files, strict=True):
        images[part], labels[part] = _read(path)
    return Parts(labels, CLASSES, images)


def _read(path: Path) -> tuple[Any, Any]:
    from scipy.io import loadmat

    needed = "a MATLAB file with X, uint8 of (32, 32, 3, N), and y, labels 1 to 10, is needed"
    try:
        content = loadmat(path, variable_names=("X", "y"))
    except OSError as error:
        raise broken(path, f"it cannot be read ({error})", needed) from None
    except Exception as error:  # scipy's reader raises nearly anything over damaged files
        raise broken(path, f"it is not read: {error}", needed) from None
    missing = [name for name in ("X", "y") if name not in content]
    if missing:
        raise broken(path, f"it has no {' and no '.join(missing)}", needed)
    pixels, numbers = content["X"], content["y"].reshape(-1)
    if pixels.ndim == 3:
        pixels = pixels[..., None]  # MATLAB drops the last dimension of one image
    if pixels.dtype != np.uint8 or pixels.shape[:3] != (32, 32, 3):
        raise broken(path, f"its X is {pixels.dtype} of {pixels.shape}", needed)
    if numbers.size and not (numbers.min() >= 1 and numbers.max() <= len(CLASSES)):
        raise broken(path, f"its y goes from {numbers.min()} to {numbers.max()}", needed)
    count = pixels.shape[3]
    labels = checked_labels(path, numbers % 10, images=count, classes=len(CLASSES))
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels
