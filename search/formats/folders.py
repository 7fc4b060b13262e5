"""Trees of image files, one folder a class, as torchvision's ImageFolder has them.

``train/CLASS/*.jpg`` with ``val`` (``valid``, ``validation``) and ``test`` where they exist, or the
folders of the classes directly. With one held-out folder beside ``train``, whatever its name, that
is the test part. Images are read as RGB; the shorter side is resized to the size that is asked
for, and the middle is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from blocks.errors import DataError
from search.data import Images, Parts, Size
from search.formats.checks import broken

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MEMORY_BYTES = 2 * 1024**3  # of decoded images; larger trees are read while training
HASHED_BYTES = 2 * 1024**3  # of files; of larger trees names, sizes and labels are hashed
LARGEST_OWN_SIZE = 128
TRAIN = "train"
VALIDATION = ("val", "valid", "validation")
TEST = "test"
LAYOUT = "train/CLASS/*.jpg with val/ and test/ beside train/ where they exist, or CLASS/*.jpg"


def fits_memory(images: int, size: Size) -> bool:
    """Whether so many decoded images of a size are kept in memory."""
    return images * 3 * size[0] * size[1] <= MEMORY_BYTES


def find_parts(folder: Path) -> dict[str, Path]:
    """Part -> its folder; the folder itself as train where it holds the classes.

    Raises:
        DataError: There is a validation or test folder, but none for training.
    """
    held = [folder / name for name in VALIDATION if (folder / name).is_dir()]
    test = folder / TEST
    if not (folder / TRAIN).is_dir():
        if held or test.is_dir():
            there = (held or [test])[0].name
            raise DataError(f"{folder}: there is {there}/ and no train/; needed are {LAYOUT}")
        return {"train": folder}
    if len(held) > 1:
        names = " and ".join(f"{path.name}/" for path in held)
        raise DataError(f"{folder}: {names} are both there; one validation folder is needed")
    parts = {"train": folder / TRAIN}
    if held and test.is_dir():
        return parts | {"validation": held[0], "test": test}
    if held or test.is_dir():
        return parts | {"test": (held or [test])[0]}
    return parts


def _classes(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _found(folder: Path, classes: dict[str, int]) -> list[tuple[str, int]]:
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    found = make_dataset(str(folder), classes, extensions=IMG_EXTENSIONS, allow_empty=True)
    return [(path, label) for path, label in found if not Path(path).name.startswith(".")]


def read_tree(folder: Path, size: Size | None) -> Parts:
    """Read a tree, into memory where it fits.

    Args:
        folder: With ``train`` in it, or with the classes.
        size: (height, width) of the images as they are to be; None: the one that all have.

    Raises:
        DataError: The tree is not as it should be, a class is empty, an image cannot be read, or
            no size is given and the images have several, or large ones.
    """
    where = find_parts(folder)
    names = _classes(where["train"])
    if len(names) < 2:
        found = f"{len(names)} folders of classes" if names else "no folders of classes"
        raise DataError(f"{where['train']}: it holds {found}; needed are {LAYOUT}")
    classes = {name: number for number, name in enumerate(names)}
    listed = {part: _listed(path, part, classes) for part, path in where.items()}
    files = {part: tuple(path for path, _ in rows) for part, rows in listed.items()}
    labels = {
        part: np.array([label for _, label in rows], dtype=np.int64)
        for part, rows in listed.items()
    }
    size = size or common_size(folder, [path for paths in files.values() for path in paths])
    checksum = _checksum(folder, files, labels)
    images = {}
    if fits_memory(sum(map(len, files.values())), size):
        images = {part: decode_all(paths, size) for part, paths in files.items()}
    return Parts(labels, tuple(names), images, files, (3, *size), checksum)


def _listed(folder: Path, part: str, classes: dict[str, int]) -> list[tuple[str, int]]:
    inside = _classes(folder)
    strange = [name for name in inside if name not in classes]
    if strange:
        raise DataError(
            f"{folder}: the class {strange[0]!r} is not among those of train/"
            f" ({', '.join(list(classes)[:5])}, ...); every part needs the same classes"
        )
    rows = _found(folder, {name: classes[name] for name in inside}) if inside else []
    if not rows:
        flat = "files and no folders of classes" if any(folder.iterdir()) else "nothing"
        held = flat if not inside else "folders without images"
        raise DataError(f"{folder}: it holds {held}; needed are {LAYOUT}")
    empty = sorted(set(classes.values()) - {label for _, label in rows})
    if part == "train" and empty:
        name = list(classes)[empty[0]]
        raise DataError(f"{folder / name}: a class without images; put some there or remove it")
    return rows


def common_size(folder: Path, paths: Iterable[str]) -> Size:
    """The size that all images have, where it is one and small.

    Raises:
        DataError: There are several, or it is a large one: the size must be given.
    """
    from PIL import Image

    first: tuple[str, Size] | None = None
    cure = "give the size of the network's input: --set training.input_size=64"
    for path in paths:
        try:
            with Image.open(path) as image:
                size = image.height, image.width
        except Exception as error:  # as in decode
            raise _unreadable(path, error) from None
        if max(size) > LARGEST_OWN_SIZE:
            raise DataError(f"{folder}: images are large ({path}: {_words(size)}); {cure}")
        first = first or (path, size)
        if size != first[1]:
            raise DataError(
                f"{folder}: images have several sizes ({first[0]}: {_words(first[1])}; {path}:"
                f" {_words(size)}); {cure}"
            )
    assert first is not None  # an empty tree was refused
    return first[1]


def _words(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _unreadable(path: str, error: Exception) -> DataError:
    return broken(
        Path(path),
        f"the image is not read: {error}".replace(repr(path), "it"),
        "a whole image file is needed",
        "replace or remove it",
    )


def _checksum(
    folder: Path, files: dict[str, tuple[str, ...]], labels: dict[str, NDArray[np.int64]]
) -> str:
    """SHA-256 of the files' names, labels and bytes; of a large tree's sizes instead of bytes."""
    rows = [
        (part, path, int(label))
        for part, paths in files.items()
        for path, label in zip(paths, labels[part], strict=True)
    ]
    sizes = [os.stat(path).st_size for _, path, _ in rows]
    whole = sum(sizes) <= HASHED_BYTES
    digest = hashlib.sha256()
    for (part, path, label), size in zip(rows, sizes, strict=True):
        name = Path(path).relative_to(folder).as_posix()
        digest.update(f"{part}\0{name}\0{label}\0{size}\0".encode())
        if whole:
            digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def as_rgb(image: Picture) -> Picture:
    """Any mode of PIL as RGB: palettes, grey of 8 and 16 bits, CMYK, transparency left out."""
    if image.mode.startswith("I;16") or image.mode == "I":
        from PIL import Image

        levels = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def open_image(path: str) -> Picture:
    """Read one image file as RGB.

    Raises:
        DataError: It cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return as_rgb(image)
    except Exception as error:  # PIL raises nearly anything over damaged files
        raise _unreadable(path, error) from None


def decode(path: str, size: Size) -> NDArray[np.uint8]:
    """Read one image file: its shorter side resized (bilinear, antialiased), the middle kept.

    Args:
        path: Of the file.
        size: (height, width) in pixels.

    Returns:
        8-bit RGB (3, height, width).

    Raises:
        DataError: It cannot be read.
    """
    from PIL import Image

    image = open_image(path)
    height, width = size
    scale = max(height / image.height, width / image.width)
    whole = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if image.size != whole:
        image = image.resize(whole, Image.Resampling.BILINEAR)
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    middle = image.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(middle).transpose(2, 0, 1))


def decode_all(paths: Sequence[str], size: Size) -> Images:
    """Read image files in several threads.

    Args:
        paths: Of the files.
        size: (height, width) in pixels.

    Returns:
        8-bit RGB (N, 3, height, width).

    Raises:
        DataError: One cannot be read; which.
    """
    images = np.empty((len(paths), 3, *size), dtype=np.uint8)

    def put(index: int) -> None:
        images[index] = decode(paths[index], size)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            for _ in pool.map(put, range(len(paths))):
                pass
        except DataError:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images
