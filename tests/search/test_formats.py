"""Every published format, in small files as they really are, and broken in the ways that happen."""

import builtins
import gzip
import pickle
import shutil

import numpy as np
import pytest
from scipy.io import savemat
from small_data import (
    idx_bytes,
    labelled,
    write_cifar,
    write_cifar_binary,
    write_fer,
    write_idx,
    write_svhn,
)

from blocks.errors import DataError
from search import published
from search.datasets import load_data

NEVER = dict.fromkeys(("train", "validation"))


def whole_train(data):
    """Images of train and validation together, in an order that forgets the split."""
    together = np.concatenate([data.images[part] for part in NEVER])
    return sorted(image.tobytes() for image in together)


def refused(name, folder, words):
    with pytest.raises(DataError, match=words) as caught:
        load_data(name, str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("name", "inside"), [("mnist", "MNIST/raw"), ("fashion-mnist", "")])
def test_idx_files_are_read_wherever_they_usually_lie(tmp_path, name, inside, packed):
    written = write_idx(tmp_path / inside, packed=packed)
    data = load_data(name, str(tmp_path))
    assert data.facts.input_shape == (1, 28, 28)
    assert data.facts.sizes == (50, 10, 20)  # a tenth is 6, but there are ten classes
    assert (data.images["test"][:, 0] == written["test"][0]).all()
    assert data.labels["test"].tolist() == written["test"][1].tolist()
    assert whole_train(data) == sorted(image.tobytes() for image in written["train"][0])
    assert sorted(data.labels["validation"]) == list(range(10))


def test_other_sizes_and_kaggles_names_of_idx_files(tmp_path):
    write_idx(tmp_path, side=9, packed=False, dot=True)
    assert load_data("mnist", str(tmp_path)).facts.input_shape == (1, 9, 9)


def test_the_same_content_has_one_identity_and_other_content_another(tmp_path):
    write_idx(tmp_path / "packed")
    write_idx(tmp_path / "plain", packed=False)
    write_idx(tmp_path / "other", test=30)
    packed, plain, other = (
        load_data("mnist", str(tmp_path / name)).facts for name in ("packed", "plain", "other")
    )
    assert packed == plain
    assert packed.split_digest != other.split_digest


def test_broken_idx_files_say_what_was_found_and_what_is_needed(tmp_path):
    image_file, label_file = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
    images, labels = labelled(60, 10, (28, 28), 0)
    good = gzip.compress(idx_bytes(images))
    for case, name, content, words in (
        (
            "magic",
            image_file,
            gzip.compress(idx_bytes(labels)),
            "begins with the bytes 00 00 08 01",
        ),
        ("cut", image_file, good[:-100], "cannot be unpacked"),
        ("no-gzip", image_file, b"<html>", "cannot be unpacked"),
        ("short", image_file, gzip.compress(idx_bytes(images)[:-1]), r"60 x 28 x 28 = 47,040"),
        ("empty", image_file, gzip.compress(b""), "the bytes of nothing"),
        (
            "high",
            label_file,
            gzip.compress(idx_bytes(labels + 7)),
            "a label is 16; .* 0 to 9",
        ),
        ("count", label_file, gzip.compress(idx_bytes(labels[:50])), "50 labels for 60 images"),
    ):
        folder = tmp_path / case
        write_idx(folder)
        (folder / name).write_bytes(content)
        refused("mnist", folder, f"{name}: .*{words}.*place the whole file there again")


def test_test_images_of_another_size_are_refused(tmp_path):
    write_idx(tmp_path, side=12)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(idx_bytes(np.zeros((20, 9, 9), np.uint8)))
    )
    refused("mnist", tmp_path, "images are 9 x 9 pixels; those of train-images.* are 12 x 12")


@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar_10_batches_are_read(tmp_path, protocol):
    written = write_cifar(tmp_path / "cifar-10-batches-py", protocol=protocol)
    data = load_data("cifar10", str(tmp_path))
    assert data.facts.input_shape == (3, 32, 32)
    assert data.facts.sizes == (90, 10, 20)
    name, images, labels = written[-1]
    assert name == "test_batch"
    assert (data.images["test"].reshape(20, -1) == images).all()
    assert data.labels["test"].tolist() == labels.tolist()
    everything = np.concatenate([images for _, images, _ in written[:-1]])
    assert whole_train(data) == sorted(image.tobytes() for image in everything)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_binary_files_are_the_same_data_as_python_batches(tmp_path, name, classes):
    count = {"train": 2 * classes, "test": classes}
    written = write_cifar(tmp_path / "python", classes=classes, **count)
    write_cifar_binary(tmp_path / "binary", written, classes=classes)
    python, binary = (load_data(name, str(tmp_path / form)) for form in ("python", "binary"))
    assert python.facts == binary.facts
    assert python.facts.classes == classes
    assert sorted(set(binary.labels["validation"])) == list(range(classes))


def test_names_of_the_classes_are_those_of_the_meta_file(tmp_path):
    write_cifar(tmp_path, classes=100, train=200, test=100)
    names = [f"kind {number}" for number in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    assert load_data("cifar100", str(tmp_path)).classes == tuple(names)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (self.path, "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    write_cifar(tmp_path)
    traces = tmp_path / "it-ran"
    content = {b"data": Malicious(str(traces)), b"labels": [0]}
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(content, protocol=protocol))
    pickle.loads(pickle.dumps(Malicious(str(traces)))).close()
    assert traces.exists(), "the pickle does nothing: the test would prove nothing"
    traces.unlink()
    refused("cifar10", tmp_path, r"data_batch_2: .*names _?io.open, which is no array")
    assert not traces.exists()


@pytest.mark.parametrize(
    "text",
    [
        b"cposix\nsystem\n(S'true'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"cnumpy._core.multiarray\n_reconstruct.__globals__\n.",
        b"cnumpy.f2py\ncompile\n.",
        b"c_codecs\ndecode\n.",
        b"c_codecs\nencode\n(S'a'\nS'zlib'\ntR.",
        b"cbuiltins\neval\n.",
    ],
)
def test_the_unpickler_admits_nothing_else(tmp_path, text):
    write_cifar(tmp_path)
    (tmp_path / "test_batch").write_bytes(text)
    refused("cifar10", tmp_path, "test_batch: it is not read")


def test_broken_batches_say_what_was_found_and_what_is_needed(tmp_path):
    images, labels = labelled(20, 10, (3072,), 0)
    for case, batch, words in (
        ("list", [1, 2], "it holds a list"),
        ("key", {"data": images, "fine_labels": [0]}, "labels must be among its keys"),
        (
            "kind",
            {"data": images.astype(float), "labels": labels.tolist()},
            "float64 of .20, 30",
        ),
        ("width", {"data": images[:, :100], "labels": labels.tolist()}, "uint8 of .20, 100."),
        ("high", {"data": images, "labels": [10] * 20}, "a label is 10"),
        ("low", {"data": images, "labels": [-1] * 20}, "a label is -1"),
        ("count", {"data": images, "labels": [1] * 19}, "19 labels for 20 images"),
        ("text", {"data": images, "labels": ["a"] * 20}, "not whole numbers"),
    ):
        folder = tmp_path / case
        write_cifar(folder)
        (folder / "data_batch_3").write_bytes(pickle.dumps(batch, protocol=2))
        refused("cifar10", folder, f"data_batch_3: .*{words}")
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": images}, protocol=2)[:-500])
    refused("cifar10", folder, "data_batch_3: it is not read")


def test_a_binary_file_of_a_broken_length_is_refused(tmp_path):
    write_cifar_binary(tmp_path, write_cifar(tmp_path / "python"))
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-1])
    refused("cifar10", tmp_path, "data_batch_1.bin: it holds 61,459 bytes; .*3,073 bytes")


def test_svhn_is_read_and_ten_is_zero(tmp_path):
    written = write_svhn(tmp_path)
    data = load_data("svhn", str(tmp_path))
    assert data.facts.input_shape == (3, 32, 32)
    assert data.facts.sizes == (30, 10, 20)
    images, labels = written["test"]
    assert (data.images["test"] == images.transpose(0, 3, 1, 2)).all()
    assert data.labels["test"].tolist() == labels.tolist()


def test_broken_mat_files_are_refused(tmp_path):
    images, labels = labelled(20, 10, (32, 32, 3), 0)
    x, y = images.transpose(1, 2, 3, 0), (labels + 1)[:, None]
    for case, content, words in (
        ("names", {"X": x}, "it has no y"),
        ("zero", {"X": x, "y": y - 1}, "its y goes from 0 to 9"),
        ("side", {"X": x[:16], "y": y}, r"its X is uint8 of \(16, 32, 3, 20\)"),
        ("kind", {"X": x.astype(float), "y": y}, "its X is float64"),
        ("count", {"X": x, "y": y[:9]}, "9 labels for 20 images"),
    ):
        folder = tmp_path / case
        write_svhn(folder)
        savemat(folder / "test_32x32.mat", content)
        refused("svhn", folder, f"test_32x32.mat: {words}")
    (folder / "test_32x32.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    refused("svhn", folder, "test_32x32.mat: it is not read")


@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv"])
def test_fer2013_has_three_parts_of_its_own(tmp_path, name):
    written = write_fer(tmp_path / "fer2013" / name)
    data = load_data("fer2013", str(tmp_path))
    assert data.facts.input_shape == (1, 48, 48)
    assert data.facts.sizes == (28, 14, 7)
    for split, usage in (
        ("train", "Training"),
        ("validation", "PublicTest"),
        ("test", "PrivateTest"),
    ):
        images, labels = written[usage]
        assert (data.images[split][:, 0] == images).all()
        assert data.labels[split].tolist() == labels.tolist()


def test_broken_tables_of_fer2013_are_refused_with_the_line(tmp_path):
    path = tmp_path / "fer2013.csv"
    write_fer(path)
    good = path.read_text().splitlines()
    pixels = good[1].split(",")[1]
    for lines, words in (
        (
            ["emotion,pixels,Usage,Usage", *good[1:]],
            "its columns are .*pixels, Usage, Usage",
        ),
        (["emotion,pixels", *good[1:]], "its columns are emotion, pixels;"),
        ([], "its columns are none"),
        ([*good[:3], good[0], *good[3:]], "line 4: the emotion is 'emotion'"),
        ([*good[:2], f"7,{pixels},Training"], "line 3: the emotion is '7'; emotions are 0 to 6"),
        ([*good[:2], f"1,{pixels[:-4]},Training"], "line 3 has 2,30. pixels; 48 x 48 = 2,304"),
        ([*good[:2], f"1,256 {pixels},Training"], "line 3: a pixel is '256'; pixels are 0 to 255"),
        ([*good[:2], f"1,{pixels[:-4]} 1.5,Training"], "line 3: a pixel is '1.5'"),
        ([*good[:2], f"1,{pixels},Test"], "line 3: the Usage is 'Test'"),
        ([*good[:2], "1,2"], "line 3 has 2 columns"),
        (good[:20], "it has no line of the Usage PublicTest"),
    ):
        path.write_text("\n".join(lines))
        refused("fer2013", tmp_path, f"fer2013.csv: {words}")


def test_the_challenges_own_tables_are_not_enough(tmp_path):
    (tmp_path / "train.csv").write_text("emotion,pixels\n")
    refused("fer2013", tmp_path, "by hand from.*train.csv is not enough, it has no labels")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fashion-mnist", "train-images-idx3-ubyte.gz.*--download.*dataset-fashion-mnist"),
        ("mnist", "t10k-labels-idx1-ubyte.gz or t10k-labels-idx1-ubyte in .*--download"),
        ("cifar10", "data_batch_1, .*test_batch in .*--download"),
        ("cifar100", "train, test in .*--download"),
        ("svhn", "train_32x32.mat, test_32x32.mat in .*--download"),
        ("fer2013", "fer2013.csv or icml_face_data.csv in .*by hand from"),
    ],
)
def test_a_missing_folder_says_what_to_place_where(tmp_path, name, words):
    refused(
        name, tmp_path / "gone", f"data set {name}: its files are not in .*gone; place .*{words}"
    )


def test_without_a_folder_the_usual_places_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    words = r"/data/mnist or .*/data or .*/home/attention-search/datasets/mnist; .*--data-dir"
    with pytest.raises(DataError, match=words):
        load_data("mnist")
    # MNIST's and Fashion-MNIST's files have the same names: a folder must say which they are.
    write_idx(tmp_path / "data")
    with pytest.raises(DataError, match="its files are not in"):
        load_data("mnist")
    write_idx(tmp_path / "data" / "MNIST" / "raw")
    assert load_data("mnist").folder == str(tmp_path / "data" / "MNIST" / "raw")


def test_files_that_are_partly_there_are_named(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    refused("cifar10", tmp_path, f"data set cifar10: {tmp_path} has no data_batch_4; ")
    shutil.move(tmp_path / "data_batch_1", tmp_path / "cifar-10-python.tar.gz")
    refused("cifar10", tmp_path, "unpack .*cifar-10-python.tar.gz; or place")


def test_a_class_with_one_image_cannot_be_held_out_of(tmp_path):
    write_idx(tmp_path, train=21)
    data = load_data("mnist", str(tmp_path))
    assert np.bincount(data.labels["train"]).tolist() == [2] + [1] * 9
    folder = tmp_path / "few"
    write_idx(folder, train=19)
    refused("mnist", folder, "mnist, its training images: class '9' has 1 image; 2 or more")


def test_files_that_are_not_the_published_ones_are_named_and_used(tmp_path, monkeypatch):
    write_cifar(tmp_path)
    data = load_data("cifar10", str(tmp_path))
    assert data.published is False
    (note,) = data.notes
    assert "cifar10: data_batch_1 (and 5 more) is not the published file (MD5 " in note
    assert note.endswith("results compare only with studies on the same files")


def test_published_files_are_known_packed_packed_anew_and_unpacked(tmp_path, monkeypatch):
    write_idx(tmp_path / "packed")
    write_idx(tmp_path / "plain", packed=False)
    packed, plain = (
        {path.name: published.md5_of(path) for path in (tmp_path / form).iterdir()}
        for form in ("packed", "plain")
    )
    files = {form: sorted((tmp_path / form).iterdir()) for form in ("packed", "plain")}
    monkeypatch.setattr(published, "checksums", lambda definition: {**packed, **plain})
    assert published.compare("mnist", "MNIST", files["packed"]) == (True, "")
    assert published.compare("mnist", "MNIST", files["plain"]) == (True, "")
    wrong = dict.fromkeys(packed, "0" * 32)
    monkeypatch.setattr(published, "checksums", lambda definition: {**wrong, **plain})
    assert published.compare("mnist", "MNIST", files["packed"]) == (True, "")
    monkeypatch.setattr(published, "checksums", lambda definition: wrong)
    assert published.compare("mnist", "MNIST", files["packed"])[0] is False
    monkeypatch.setattr(published, "checksums", lambda definition: {})
    assert published.compare("mnist", "MNIST", files["packed"])[0] is None


def test_checksums_are_torchvisions():
    from torchvision.datasets import CIFAR10, FER2013, MNIST, SVHN

    assert published.checksums("CIFAR10")["test_batch"] == CIFAR10.test_list[0][1]
    assert published.checksums("SVHN")["test_32x32.mat"] == SVHN.split_list["test"][2]
    assert published.checksums("FER2013")["fer2013.csv"] == FER2013._RESOURCES["fer"][1]
    known = published.checksums("MNIST")
    assert [(name, known[name]) for name, _ in MNIST.resources] == MNIST.resources


FASHION = "/usr/share/datasets/fashion-mnist"


@pytest.mark.slow
def test_the_real_fashion_mnist_where_it_is_installed():
    from pathlib import Path

    if not Path(FASHION).is_dir():
        pytest.skip(f"{FASHION} is not installed")
    data = load_data("fashion-mnist", FASHION)
    assert data.facts.sizes == (55000, 5000, 10000)
    assert np.bincount(data.labels["validation"]).tolist() == [500] * 10
    assert np.bincount(data.labels["train"]).tolist() == [5500] * 10
    assert data.published is True
    assert data.mean[0] == pytest.approx(0.286, abs=1e-3)  # as its users state them
    assert data.deviation[0] == pytest.approx(0.353, abs=1e-3)
    assert data.facts.split_digest == "d663d4900425bf3f83673a9a2c2cd701"
