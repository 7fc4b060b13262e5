"""Small data sets in the real formats, written by the tests themselves."""

import csv
import gzip
import pickle
import struct

import numpy as np
from PIL import Image
from scipy.io import savemat


def labelled(count, classes, shape, seed):
    """Random 8-bit images and labels in which every class comes equally often."""
    state = np.random.RandomState(seed)
    images = state.randint(0, 256, (count, *shape), dtype=np.uint8)
    return images, np.arange(count) % classes


def idx_bytes(array):
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_idx(folder, *, train=60, test=20, packed=True, side=28, dot=False):
    """MNIST's four files; returns what is in them, by part."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for part, stem, count in (("train", "train", train), ("test", "t10k", test)):
        images, labels = labelled(count, 10, (side, side), seed=count)
        written[part] = images, labels
        for what, array in (("images", images), ("labels", labels)):
            name = f"{stem}-{what}{'.' if dot else '-'}idx{array.ndim}-ubyte"
            content = idx_bytes(array)
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return written


def write_cifar(folder, *, classes=10, train=20, test=20, protocol=2):
    """Python batches as published: one dictionary of bytes a file; five training files of ten."""
    names = ["train"] if classes == 100 else [f"data_batch_{n}" for n in range(1, 6)]
    key = b"fine_labels" if classes == 100 else b"labels"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for seed, name in enumerate([*names, "test" if classes == 100 else "test_batch"]):
        count = test if name.startswith("test") else train
        images, labels = labelled(count, classes, (3072,), seed)
        batch = {b"data": images, key: labels.tolist(), b"batch_label": b"a batch"}
        if classes == 100:
            batch[b"coarse_labels"] = [0] * count
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
        written.append((name, images, labels))
    return written


def write_cifar_binary(folder, written, *, classes=10):
    """The same batches as binary files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, images, labels in written:
        columns = [labels[:, None].astype(np.uint8), images]
        if classes == 100:
            columns.insert(0, np.zeros((len(labels), 1), np.uint8))
        (folder / f"{name}.bin").write_bytes(np.concatenate(columns, axis=1).tobytes())


def write_svhn(folder, *, train=40, test=20):
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for part, count in (("train", train), ("test", test)):
        images, labels = labelled(count, 10, (32, 32, 3), seed=count)
        written[part] = images, labels
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{part}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": y})
    return written


def write_fer(path, *, counts=(("Training", 28), ("PublicTest", 14), ("PrivateTest", 7))):
    """The table; with icml_face_data.csv's columns where the path has that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    icml = path.name.startswith("icml")
    written = {}
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["emotion", " Usage", " pixels"] if icml else ["emotion", "pixels", "Usage"])
        for usage, count in counts:
            images, labels = labelled(count, 7, (48, 48), seed=count)
            written[usage] = images, labels
            for image, label in zip(images, labels, strict=True):
                text = " ".join(map(str, image.ravel()))
                rows.writerow([label, usage, text] if icml else [label, text, usage])
    return written


def write_tree(folder, *, parts=("train",), classes=("ape", "bee"), count=10, side=16, end="png"):
    """A tree of images of one size, with folders of parts unless there are none."""
    state = np.random.RandomState(0)
    for part in parts or ("",):
        for name in classes:
            inside = folder / part / name
            inside.mkdir(parents=True)
            for number in range(count):
                pixels = state.randint(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(inside / f"{number}.{end}")
    return folder
