"""CIFAR-10 and CIFAR-100, as Python batches and as binary files.

A Python batch is a pickle, and a pickle can run anything: the unpickler here admits arrays of
numpy and text, and refuses every other name before it is looked up.
"""

from __future__ import annotations

import codecs
import importlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blocks.errors import DataError
from search.data import Parts
from search.formats.checks import broken, checked_labels

PIXELS = 3 * 32 * 32
ADMITTED = {  # what arrays are pickled as: module without numpy's prefix, name -> where it is now
    ("multiarray", "_reconstruct"),
    ("multiarray", "scalar"),
    ("numeric", "_frombuffer"),
}
NUMPY_CORES = ("numpy.core.", "numpy._core.")


def _encode(text: str, encoding: str) -> bytes:
    """``codecs.encode`` as pickles of bytes use it, and for nothing else."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not that of bytes")
    return codecs.encode(text, "latin1")


class ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, numbers, text and numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for.

        Raises:
            pickle.UnpicklingError: It is none of those that arrays need.
        """
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        for core in NUMPY_CORES:
            if module.startswith(core) and (module.removeprefix(core), name) in ADMITTED:
                inside = importlib.import_module(f"numpy._core.{module.removeprefix(core)}")
                return getattr(inside, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays and lists, running nothing.

    Raises:
        DataError: It cannot be read, or holds anything else.
    """
    needed = "a batch is a pickled dictionary of arrays, lists and text"
    try:
        with path.open("rb") as file:
            content = ArrayUnpickler(file, encoding="latin1").load()
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise nearly anything
        raise broken(path, f"it is not read: {error}", needed) from None
    if not isinstance(content, dict):
        raise broken(path, f"it holds a {type(content).__name__}", needed)
    return {str(_text(key)): value for key, value in content.items()}


def _text(key: Any) -> Any:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _python_batch(path: Path, key: str, classes: int) -> tuple[Any, Any]:
    batch = read_pickle(path)
    missing = [name for name in ("data", key) if name not in batch]
    if missing:
        found = f"it holds {', '.join(sorted(batch)) or 'nothing'}"
        raise broken(path, found, f"{' and '.join(missing)} must be among its keys")
    data = batch["data"]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2):
        raise broken(path, f"its data is {_described(data)}", f"uint8 of (N, {PIXELS}) is needed")
    if data.shape[1] != PIXELS:
        raise broken(path, f"its data is {_described(data)}", f"uint8 of (N, {PIXELS}) is needed")
    try:
        labels = np.asarray(batch[key]).astype(np.int64, casting="same_kind")
    except (TypeError, ValueError):
        raise broken(path, f"its {key} are not whole numbers", "class numbers are needed") from None
    return data, checked_labels(path, labels, images=len(data), classes=classes)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of {value.shape}"
    return f"a {type(value).__name__}"


def _binary_batch(path: Path, label_bytes: int, classes: int) -> tuple[Any, Any]:
    record = label_bytes + PIXELS
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(content) or len(content) % record:
        needed = f"a whole number of images of {record:,} bytes is needed"
        raise broken(path, f"it holds {len(content):,} bytes", needed)
    rows = content.reshape(-1, record)
    labels = rows[:, label_bytes - 1].astype(np.int64)  # of CIFAR-100's two, the fine one
    checked = checked_labels(path, labels, images=len(rows), classes=classes)
    return rows[:, label_bytes:], checked


def _joined(batches: Sequence[tuple[Any, Any]], classes: tuple[str, ...]) -> Parts:
    """The last batch is the test part."""

    def images(some: Sequence[tuple[Any, Any]]) -> NDArray[np.uint8]:
        return np.concatenate([data for data, _ in some]).reshape(-1, 3, 32, 32)

    train, test = batches[:-1], batches[-1:]
    return Parts(
        {"train": np.concatenate([labels for _, labels in train]), "test": test[0][1]},
        classes,
        {"train": images(train), "test": images(test)},
    )


def read_python(files: Sequence[Path], *, key: str, classes: int, meta: str) -> Parts:
    """Read Python batches.

    Args:
        files: The training batches, then the test batch.
        key: Of the labels: "labels" or "fine_labels".
        classes: How many there are.
        meta: File beside them with the names of the classes, which may be missing.

    Raises:
        DataError: A file is not as it should be; which.
    """
    names: Sequence[Any] = ()
    beside = files[0].with_name(meta)
    if beside.is_file():
        try:
            names = read_pickle(beside).get(key.removesuffix("s") + "_names", ())
        except DataError:
            names = ()  # numbers do as well
    given = [str(_text(name)) for name in names] if len(names) == classes else range(classes)
    batches = [_python_batch(path, key, classes) for path in files]
    return _joined(batches, tuple(map(str, given)))


def read_binary(files: Sequence[Path], *, label_bytes: int, classes: int) -> Parts:
    """Read binary files: of each image its label bytes, then 3 x 32 x 32 pixels.

    Args:
        files: The training batches, then the test batch.
        label_bytes: 1; of CIFAR-100 2, the coarse class and the fine one.
        classes: How many there are.

    Raises:
        DataError: A file is not as it should be; which.
    """
    batches = [_binary_batch(path, label_bytes, classes) for path in files]
    return _joined(batches, tuple(map(str, range(classes))))
