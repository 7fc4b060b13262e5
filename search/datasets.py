"""The table of data sets: where the files of each may lie, what they are called, who reads them.

A split has the data set's own fixed seed and never the study's, so that every trial of every study
sees the same images in training, validation and test. Selection uses validation alone.

A user's own data set is a function of a folder that returns ``OwnData``, registered in a file
given by ``--include`` or in an installed package with an entry point of the group
``attention_search.data``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blocks.errors import DataError, ToolError, listing, suggestion
from search.data import Data, Images, Parts, Size, make_data
from search.digits import SPLIT, read_digits
from search.formats.cifar import read_binary, read_python
from search.formats.fer import read_fer
from search.formats.folders import LAYOUT as TREE_LAYOUT
from search.formats.folders import read_tree
from search.formats.idx import read_pairs
from search.formats.svhn import read_svhn
from search.own_data import OwnData, read_own
from search.splits import SPLITS, Labels, unpack
from spaces.document import NAME

ENTRY_POINT_GROUP = "attention_search.data"
FOLDER = "folder"  # the data set of image files
TEN = tuple("0123456789")


@dataclass(frozen=True)
class Layout:
    """Files in which a data set can be had.

    Args:
        files: Of each file the names that it may have, the usual one first.
        read: Turns the files, in this order, into parts.
        within: Folders in which they may lie, under the one that is given.
    """

    files: tuple[tuple[str, ...], ...]
    read: Callable[[Sequence[Path]], Parts]
    within: tuple[str, ...] = ()

    def found(self, folder: Path) -> list[Path | None]:
        """The files that lie directly in a folder; None for each that does not."""
        return [
            next((folder / n for n in names if (folder / n).is_file()), None)
            for names in self.files
        ]


@dataclass(frozen=True)
class DataSource:
    """One row of the table of data sets.

    Args:
        name: The name that ``--data`` takes.
        title: One line for the catalogue.
        layouts: The files in which it can be had; empty where it is embedded, a tree or a user's.
        torchvision: Its definition there, with addresses and checksums; empty where it has none.
        downloads: Whether ``--download`` fetches it.
        usual: Folders where a system keeps it.
        cure: What to do where it is not found.
        embedded: Makes it, where it needs no files.
        own: A user's function of a folder.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...] = ()
    torchvision: str = ""
    downloads: bool = False
    usual: tuple[str, ...] = ()
    cure: str = ""
    embedded: Callable[[str], Data] | None = None
    own: Callable[[str], OwnData] | None = None


@dataclass(frozen=True)
class Found:
    """Where a data set lies.

    Args:
        folder: Of its files.
        layout: In which they are.
        files: All of them, in the layout's order.
    """

    folder: Path
    layout: Layout
    files: tuple[Path, ...]


def _resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize grey images (N, H, W) bilinearly to (N, side, side)."""
    from PIL import Image

    resized = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        for image in images
    ]
    return np.stack(resized)


DIGITS_SIDE = 14


def _digits(stored: str) -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels of 17 levels, resized to 14 x 14.

    At 14 x 14 the maps of a three-stage network are 14, 7 and 4 pixels wide, so that DCT
    frequencies differ; at 8 x 8 most of them would coincide.
    """
    levels, labels = read_digits()
    grey = np.rint(levels * (255 / 16)).astype(np.uint8)
    checksum = hashlib.sha256(grey.tobytes() + labels.tobytes()).hexdigest()
    images = _resized(grey, DIGITS_SIDE)[:, None]
    parts = Parts({"train": labels}, TEN, {"train": images}, checksum=checksum)
    return make_data("digits", parts, indices=unpack(SPLIT), stored=stored, published=True)


FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SPELLINGS = (("-", ".gz"), ("-", ""), (".", ""), (".", ".gz"))
IDX_FILES = tuple(
    tuple(f"{stem}{mark}idx{dimensions}-ubyte{end}" for mark, end in SPELLINGS)
    for stem, dimensions in (
        ("train-images", 3),
        ("train-labels", 1),
        ("t10k-images", 3),
        ("t10k-labels", 1),
    )
)
CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CIFAR100_FILES = ("train", "test")
FER_SITE = (
    "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition"
    "-challenge"
)


def _binary(names: Sequence[str], folder: str, label_bytes: int, classes: int) -> Layout:
    read = partial(read_binary, label_bytes=label_bytes, classes=classes)
    return Layout(tuple((f"{name}.bin",) for name in names), read, (folder,))


def _python(names: Sequence[str], folder: str, key: str, classes: int, meta: str) -> Layout:
    read = partial(read_python, key=key, classes=classes, meta=meta)
    return Layout(tuple((name,) for name in names), read, (folder,))


DATASETS: dict[str, DataSource] = {
    source.name: source
    for source in (
        DataSource(
            "digits",
            "1,797 handwritten digits from scikit-learn, grey, resized to 14 x 14; embedded",
            embedded=_digits,
        ),
        DataSource(
            "fashion-mnist",
            "70,000 pictures of clothes, 10 classes, grey, 28 x 28",
            (Layout(IDX_FILES, partial(read_pairs, classes=FASHION), ("FashionMNIST/raw",)),),
            torchvision="FashionMNIST",
            downloads=True,
            usual=("/usr/share/datasets/fashion-mnist",),
            cure="install Debian's package dataset-fashion-mnist",
        ),
        DataSource(
            "mnist",
            "70,000 handwritten digits, grey, 28 x 28",
            (Layout(IDX_FILES, partial(read_pairs, classes=TEN), ("MNIST/raw",)),),
            torchvision="MNIST",
            downloads=True,
        ),
        DataSource(
            "cifar10",
            "60,000 pictures, 10 classes, colour, 32 x 32",
            (
                _python(CIFAR10_FILES, "cifar-10-batches-py", "labels", 10, "batches.meta"),
                _binary(CIFAR10_FILES, "cifar-10-batches-bin", 1, 10),
            ),
            torchvision="CIFAR10",
            downloads=True,
        ),
        DataSource(
            "cifar100",
            "60,000 pictures, 100 classes, colour, 32 x 32",
            (
                _python(CIFAR100_FILES, "cifar-100-python", "fine_labels", 100, "meta"),
                _binary(CIFAR100_FILES, "cifar-100-binary", 2, 100),
            ),
            torchvision="CIFAR100",
            downloads=True,
        ),
        DataSource(
            "svhn",
            "99,289 house numbers' digits, colour, 32 x 32 (the extra ones are not used)",
            (Layout((("train_32x32.mat",), ("test_32x32.mat",)), read_svhn),),
            torchvision="SVHN",
            downloads=True,
        ),
        DataSource(
            "fer2013",
            "35,887 faces, 7 expressions, grey, 48 x 48",
            (Layout((("fer2013.csv", "icml_face_data.csv"),), read_fer),),
            torchvision="FER2013",
            cure=f"fetch fer2013.tar.gz by hand from {FER_SITE} and unpack it",
        ),
        DataSource(
            FOLDER,
            "any tree of image files, a folder a class (ImageNet, RAF-DB, AffectNet, your own)",
            cure=f"give the tree's folder by --data-dir: {TREE_LAYOUT}",
        ),
    )
}


def register(
    name: str, *, title: str = "your own"
) -> Callable[[Callable[[str], OwnData]], Callable[[str], OwnData]]:
    """Add a data set of one's own under a name that ``--data`` takes.

    Args:
        name: Letters, digits, ".", "_" and "-".
        title: One line for the catalogue.

    Returns:
        A decorator of a function that takes a folder (of ``--data-dir``; empty where none is given)
        and returns ``OwnData``.

    Raises:
        DataError: The name is none, or is taken.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"data set {name!r}: a name has letters, digits, '.', '_' and '-' alone")

    def add(function: Callable[[str], OwnData]) -> Callable[[str], OwnData]:
        taken = DATASETS.get(name)
        if taken is not None and taken.own is not function:
            raise DataError(f"data set {name!r} is there already; choose another name")
        DATASETS[name] = DataSource(name, title, own=function)
        return function

    return add


@cache
def _load_entry_points() -> None:
    """Import installed packages that offer data sets; ``register`` adds the rows."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        function = entry.load()
        known = any(source.own is function for source in DATASETS.values())
        if callable(function) and not known:  # a function that does not register itself
            register(entry.name)(function)


def names() -> tuple[str, ...]:
    """The data sets of this project and of users."""
    _load_entry_points()
    return tuple(DATASETS)


def source_of(name: str) -> DataSource:
    """The row of a data set.

    Raises:
        DataError: There is no such data set.
    """
    if name not in names():
        near = suggestion(name, DATASETS)
        raise DataError(f"unknown data set {name!r}.{near} Data sets: {listing(DATASETS)}")
    return DATASETS[name]


def user_folder(name: str) -> Path:
    """Where ``--download`` puts a data set, and where it is looked for without ``--data-dir``."""
    from platformdirs import user_data_path

    return user_data_path("attention-search") / "datasets" / name


def places(source: DataSource, folder: str = "") -> list[Path]:
    """Where files are looked for: the folder that is given, or the usual ones."""
    if folder:
        return [Path(folder).expanduser().absolute()]
    here = Path("data").absolute()
    return [here / source.name, here, *map(Path, source.usual), user_folder(source.name)]


def find(source: DataSource, folder: str = "") -> Found:
    """Find a data set's files.

    Args:
        source: Of which data set.
        folder: Where they are, or a folder that holds their usual folder; empty: the usual places.

    Raises:
        DataError: They are not there, or not all: which, and what to place where.
    """
    found = look(source, folder)
    if found is None:
        raise DataError(
            _missing(source, folder, f"its files are not in {_in_words(source, folder)}")
        )
    return found


def look(source: DataSource, folder: str = "") -> Found | None:
    """``find``, with None where none of the files is there.

    Raises:
        DataError: Some of them are there, but not all.
    """
    partly = ""
    for where, layout in _candidates(source, folder):
        files = layout.found(where)
        if all(files):
            return Found(where, layout, tuple(path for path in files if path))
        if any(files) and not partly:
            missing = zip(layout.files, files, strict=True)
            partly = f"{where} has no {listing(n[0] for n, path in missing if not path)}"
    if partly:
        raise DataError(_missing(source, folder, partly))
    return None


def _candidates(source: DataSource, folder: str) -> Iterator[tuple[Path, Layout]]:
    here = Path("data").absolute()
    for place in places(source, folder):
        for layout in source.layouts:
            within = (source.name, *layout.within)
            # MNIST's files have the names of Fashion-MNIST's: in ./data a folder says which.
            for name in within if place == here and not folder else ("", *within):
                yield place / name, layout


def _in_words(source: DataSource, folder: str) -> str:
    return " or ".join(map(str, places(source, folder)))


def _missing(source: DataSource, folder: str, found: str) -> str:
    looked = places(source, folder)
    needed = listing(" or ".join(names[:2]) for names in source.layouts[0].files)
    cures = [f"place {needed} in {looked[0]}"]
    archives = [path for place in looked for path in sorted(place.glob("*.tar.gz"))]
    if archives and source.downloads:
        cures.insert(0, f"unpack {archives[0]}")
    if not folder:
        cures.append("name their folder with --data-dir")
    if source.downloads:
        cures.append("fetch them with --download")
    if source.cure:
        cures.append(source.cure)
    if source.torchvision == "FER2013" and any((place / "train.csv").is_file() for place in looked):
        cures.append("train.csv is not enough, it has no labels of the test images")
    return f"data set {source.name}: {found}; {'; or '.join(cures)}"


def download(name: str, folder: str = "") -> None:
    """Fetch a data set where its files are not there yet, into the folder or the user's own.

    Raises:
        DataError: It cannot be fetched; what to place where.
    """
    from search.published import fetch

    source = source_of(name)
    if source.embedded:
        return
    if not source.downloads:
        cure = source.cure or "give its folder by --data-dir"
        raise DataError(f"--download: {name} is not downloaded by this tool; {cure}")
    try:
        find(source, folder)
    except DataError:
        target = Path(folder).expanduser().absolute() if folder else user_folder(name)
        fetch(name, source.torchvision, target)


def load_data(name: str, folder: str = "", *, size: Size | None = None, split: str = "") -> Data:
    """Load a data set, once per process.

    Args:
        name: Of the data set.
        folder: Where its files are; empty: the usual places.
        size: (height, width) that images are to have; None: their own.
        split: A stored split that wins over the one that would be cut; empty: none.

    Raises:
        DataError: There is no such data set, its files are not there or not as they should be.
    """
    source = source_of(name)
    path = str(Path(folder).expanduser().absolute()) if folder else ""
    if name == FOLDER:
        return _load_tree(path, size, split)
    data = _load(source, path, split)
    return data.resized(size) if size else data


@cache
def _load(source: DataSource, folder: str, split: str) -> Data:
    if source.embedded:
        return source.embedded(split)
    if source.own:
        return _load_own(source, folder, split)
    from search.published import compare

    found = find(source, folder)
    try:
        parts = found.layout.read(found.files)  # first: what cannot be read has no checksum
        published, note = compare(source.name, source.torchvision, found.files)
    except OSError as error:
        raise DataError(f"{error.filename or found.folder}: it cannot be read ({error})") from None
    return make_data(
        source.name,
        parts,
        stored=split,
        folder=str(found.folder),
        published=published,
        notes=(note,) if note else (),
    )


def _load_own(source: DataSource, folder: str, split: str) -> Data:
    assert source.own is not None  # asked by _load
    try:
        given = source.own(folder)
    except ToolError:
        raise
    except Exception as error:
        raise DataError(
            f"data set {source.name!r}: its function failed on the folder {folder!r}"
            f" ({type(error).__name__}: {error}); --debug shows where"
        ) from error
    return make_data(source.name, read_own(source.name, given), stored=split, folder=folder)


@cache
def _load_tree(folder: str, size: Size | None, split: str) -> Data:
    if not folder:
        raise DataError(f"data set {FOLDER}: {DATASETS[FOLDER].cure}")
    if not Path(folder).is_dir():
        raise DataError(f"data set {FOLDER}: there is no folder {folder}; {DATASETS[FOLDER].cure}")
    parts = read_tree(Path(folder), size)
    return make_data(FOLDER, parts, stored=split, folder=folder)


__all__ = [
    "DATASETS",
    "SPLITS",
    "Data",
    "DataSource",
    "Images",
    "Labels",
    "OwnData",
    "download",
    "find",
    "load_data",
    "look",
    "names",
    "register",
    "source_of",
]
