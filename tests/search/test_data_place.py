"""A study's data: folders, downloads, stored splits, own data sets; as plans and as users."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_data import write_cifar, write_idx, write_tree
from sqlalchemy import delete, select

from blocks.errors import DataError, StudyError
from search import datasets, kept_split, options, published, splits, tables
from search.datasets import DATASETS, OwnData, download, load_data, register
from search.doctor import examine
from search.plan import make_plan
from search.trial import assigned_data

SPACE = """
backbone: resnet20
attention: {type: [none, se], placement: [stage], reduction: [8]}
training: {epochs: 1, batch_size: 30}
study: {trials: 2, sampler: random, data: cifar10}
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def cifar(tmp_path):
    write_cifar(tmp_path / "there" / "cifar-10-batches-py")
    return tmp_path / "there"


@pytest.fixture
def fresh(monkeypatch):
    """The table of data sets as it was, and nothing loaded yet."""
    monkeypatch.setattr(datasets, "DATASETS", dict(DATASETS))
    for cached in (datasets._load, datasets._load_tree, datasets._load_entry_points):
        cached.cache_clear()
    yield
    for cached in (datasets._load, datasets._load_tree, datasets._load_entry_points):
        cached.cache_clear()


def test_the_folder_is_a_setting_and_no_part_of_the_identity(space, cifar, storage, tmp_path):
    there = make_plan(space, storage=storage, data_dir=str(cifar))
    moved = shutil.copytree(cifar, tmp_path / "moved")
    elsewhere = make_plan(space, storage=storage, data_dir=str(moved))
    assert there.identity == elsewhere.identity
    assert str(tmp_path) not in json.dumps(there.identity)
    assert there.settings["data_dir"] == str(cifar / "cifar-10-batches-py")
    assert "data_dir" not in make_plan(space, storage=storage, data="digits").settings


def test_a_study_goes_on_with_its_folder_and_tells_workers(space, cifar, opened, tmp_path):
    study = opened(space, data_dir=str(cifar))
    assignment = study.next_assignment()
    assert assignment.data_folder == str(cifar / "cifar-10-batches-py")
    assert assignment.data_split == ""
    assert assigned_data(assignment).facts == study.plan.data
    assert opened(space).plan.place == study.plan.place  # no --data-dir
    moved = shutil.copytree(cifar, tmp_path / "moved")
    assert opened(space, data_dir=str(moved)).plan.place.folder.startswith(str(moved))


def test_a_study_whose_folder_is_gone_says_what_is_needed(space, cifar, opened, fresh, monkeypatch):
    monkeypatch.chdir(cifar.parent)
    opened(space, data_dir=str(cifar))
    shutil.rmtree(cifar)
    with pytest.raises(DataError, match="cifar10: its files are not in .*--data-dir.*--download"):
        opened(space)


def test_files_of_other_content_are_another_study(space, cifar, opened):
    opened(space, data_dir=str(cifar))
    write_cifar(cifar / "other", train=30)
    with pytest.raises(StudyError, match="another space or setting.*\n.*data"):
        opened(space, data_dir=str(cifar / "other"))


def kept(study):
    with study.store.engine.connect() as connection:
        return connection.execute(select(tables.splits)).all()


def test_the_split_is_stored_with_the_study(space, cifar, opened):
    study = opened(space, data_dir=str(cifar))
    (row,) = kept(study)
    assert row.split_digest == study.plan.data.split_digest
    assert (row.data, row.sizes) == ("cifar10", [90, 10, 20])
    indices = splits.unpack(base64.b64encode(row.parts).decode())
    data = load_data("cifar10", str(cifar))
    everything = np.concatenate([batch[2] for batch in write_cifar(cifar / "again")])
    for split, places in indices.items():
        assert everything[places].tolist() == data.labels[split].tolist()
    opened(space)
    assert len(kept(study)) == 1


@pytest.mark.parametrize("name", ["cifar10", "digits"])
def test_the_stored_split_wins_over_another_cut(space, cifar, opened, monkeypatch, fresh, name):
    folder = str(cifar) if name == "cifar10" else None
    first = opened(space, data=name, data_dir=folder, overrides=["training.batch_size=20"])
    facts = first.plan.data
    before = assigned_data(first.next_assignment())

    def otherwise(labels, held, *, seed, **more):
        return splits.cut(labels, held, seed=seed + 1, **more)

    swapped = splits.unpack(datasets.SPLIT)
    swapped["validation"], swapped["test"] = swapped["test"], swapped["validation"]
    monkeypatch.setattr("search.data.cut", otherwise)
    monkeypatch.setattr(datasets, "SPLIT", splits.pack(swapped))
    datasets._load.cache_clear()
    assert load_data(name, folder or "").facts.split_digest != facts.split_digest
    again = opened(space, data=name, overrides=["training.batch_size=20"])
    assert again.plan.data == facts
    assignment = again.next_assignment()
    assert assignment.data_split == before.split
    data = assigned_data(assignment)
    for split in splits.SPLITS:
        assert (data.images[split] == before.images[split]).all()
        assert (data.labels[split] == before.labels[split]).all()

    # Without what was stored, the other cut is another study, and is refused.
    with again.store.transaction() as connection:
        connection.execute(delete(tables.splits))
    with pytest.raises(StudyError, match="split_digest"):
        opened(space, data=name, overrides=["training.batch_size=20"])


def test_a_stored_split_of_other_images_is_refused(cifar):
    digits = load_data("digits")
    with pytest.raises(DataError, match="the stored split is of 1,797 images, and 120 are there"):
        load_data("cifar10", str(cifar), split=digits.split)


def test_a_database_of_a_version_without_splits_is_read(space, cifar, opened, storage):
    study = opened(space, data_dir=str(cifar))
    tables.splits.drop(study.store.engine)
    assert kept_split.read_split(study.store.engine, "x") is None
    assert make_plan(space, storage=storage).data == study.plan.data


def test_unknown_names_give_the_nearest_and_all():
    with pytest.raises(
        DataError, match="unknown data set 'cifar-10'. Did you mean 'cifar10'.*svhn"
    ):
        load_data("cifar-10")
    with pytest.raises(
        StudyError, match="--data 'fashion' is unknown.*Did you mean 'fashion-mnist'"
    ):
        make_plan("smoke", data="fashion")


def test_the_help_names_every_data_set():
    assert options.DATA_NAMES.split(", ") == list(DATASETS)


# Downloads. --------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path, monkeypatch):
    """torchvision's one way to the network, which copies small files instead; what was asked."""
    remote = tmp_path / "remote"
    write_idx(remote)
    write_cifar(remote / "cifar-10-batches-py")
    with tarfile.open(remote / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(remote / "cifar-10-batches-py", "cifar-10-batches-py")
    asked = []

    def copy(url, root, filename=None, md5=None):
        asked.append((url, md5))
        if "ossci" in url:
            raise OSError("<urlopen error [Errno -2] Name or service not known>")
        shutil.copy(remote / filename, Path(root) / filename)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", copy)
    return asked


def test_a_download_goes_where_it_is_looked_for(network, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10, MNIST

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    download("mnist")  # the first mirror fails, the second has it
    assert load_data("mnist").folder == str(tmp_path / "home/attention-search/datasets/mnist")
    assert {md5 for _, md5 in network} == {md5 for _, md5 in MNIST.resources}
    download("cifar10", "given")
    assert load_data("cifar10", "given").folder == str(tmp_path / "given/cifar-10-batches-py")
    assert network[-1] == (CIFAR10.url, CIFAR10.tgz_md5)
    count = len(network)
    download("mnist")
    download("cifar10", "given")
    download("digits")
    assert len(network) == count  # what is there is not fetched again


def test_no_network_is_one_line_that_says_what_to_place_where(tmp_path, monkeypatch):
    def fail(*given, **more):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    words = "train_32x32.mat of svhn could not be had from http.*not known.*place it in .*: train_"
    with pytest.raises(DataError, match=words) as caught:
        download("svhn", str(tmp_path))
    assert "\n" not in str(caught.value)
    for name in ("fer2013", "folder"):
        with pytest.raises(DataError, match=f"--download: {name} is not downloaded by this tool; "):
            download(name, str(tmp_path))


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path):
    (tmp_path / "a").write_text("a")
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a", "../outside")
    (tmp_path / "inside").mkdir()
    with pytest.raises(DataError, match="bad.tar.gz: it cannot be unpacked"):
        published._unpack(tmp_path / "bad.tar.gz", tmp_path / "inside")
    assert not (tmp_path / "outside").exists()


# Own data sets. ----------------------------------------------------------------------------------


def arrays(count, shape=(3, 8, 8), classes=4):
    images = np.random.RandomState(count).randint(0, 256, (count, *shape), dtype=np.uint8)
    return images, np.arange(count) % classes


class Pictures:
    """As torch's and torchvision's data sets are."""

    def __init__(self, count, mode="RGB"):
        self.content = arrays(count)
        self.mode = mode

    def __len__(self):
        return len(self.content[1])

    def __getitem__(self, index):
        image = Image.fromarray(self.content[0][index].transpose(1, 2, 0))
        return image.convert(self.mode), int(self.content[1][index])


def test_an_own_data_set_of_arrays_or_of_pictures(fresh):
    seen = []

    @register("of-arrays")
    def of_arrays(folder):
        seen.append(folder)
        return OwnData(arrays(40), arrays(12), classes=("a", "b", "c", "d"))

    @register("of-pictures")
    def of_pictures(folder):
        return OwnData(Pictures(40), Pictures(12), validation=Pictures(8))

    first = load_data("of-arrays", "/some/where")
    assert seen == ["/some/where"]
    assert first.facts.sizes == (36, 4, 12)
    assert first.classes == ("a", "b", "c", "d")
    second = load_data("of-pictures")
    assert second.facts.sizes == (40, 8, 12)
    assert second.facts.classes == 4
    assert (second.images["test"] == first.images["test"]).all()
    plan = make_plan("smoke", data="of-pictures", overrides=["training.batch_size=40"])
    assert plan.data == second.facts


def test_tensors_and_grey_pictures(fresh):
    import torch

    @register("grey")
    def grey(folder):
        images, labels = map(torch.from_numpy, arrays(40, (1, 8, 8)))
        return OwnData((images, labels), Pictures(12, "L"))

    assert load_data("grey").facts.input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([1], [2]), "its function returned a tuple; it must return search.datasets.OwnData"),
        (OwnData(arrays(8), None), "test: it is a NoneType; needed is a pair"),
        (OwnData((arrays(8)[0] / 255, arrays(8)[1]), arrays(8)), "train: images are float64 of"),
        (OwnData((arrays(8)[0][0], arrays(8)[1]), arrays(8)), r"uint8 of \(3, 8, 8\); needed"),
        (OwnData((arrays(8)[0], arrays(9)[1]), arrays(8)), r"labels are int64 of \(9,\); needed"),
        (OwnData((arrays(8)[0], arrays(8)[1] / 2), arrays(8)), "labels are float64"),
        (OwnData((arrays(8)[0], arrays(8)[1] - 1), arrays(8)), "train: labels go from -1 to 2"),
        (OwnData(arrays(8), arrays(8), classes=("a", "b")), "from 0 to 3; they must be 0 to 1"),
        (OwnData(arrays(8), arrays(8, (3, 9, 8))), "images of test are 3 x 9 x 8 and those of tr"),
        (OwnData([(1, 2), (3, 4), (5, 6)], arrays(8)), r"train, item 0: the picture is int64 of"),
        (OwnData([], arrays(8)), "train: it holds no images"),
        (OwnData(arrays(8, classes=8), arrays(8)), "own, its training images: class '0' has 1"),
    ],
)
def test_what_an_own_data_set_gives_is_checked(fresh, given, words):
    register("own")(lambda folder: given)
    with pytest.raises(DataError, match=words):
        load_data("own")


def test_names_that_cannot_be_and_functions_that_fail(fresh):
    with pytest.raises(DataError, match="data set 'digits' is there already"):
        register("digits")(lambda folder: None)
    with pytest.raises(DataError, match="data set 'a b': a name has letters"):
        register("a b")
    register("fails")(lambda folder: 1 / 0)
    with pytest.raises(DataError, match="'fails': its function failed on .*ZeroDivisionError"):
        load_data("fails")


@pytest.mark.parametrize("itself", [True, False])
def test_installed_packages_offer_data_sets(fresh, monkeypatch, tmp_path, itself):
    decorator = '@register("installed")\n' if itself else ""
    code = f"from search.datasets import OwnData, register\n{decorator}def make(folder): return 1\n"
    (tmp_path / f"offers_{itself}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("installed", f"offers_{itself}:make", datasets.ENTRY_POINT_GROUP)
    monkeypatch.setattr(datasets, "entry_points", lambda group: [entry])
    assert datasets.names()[-1] == "installed"
    with pytest.raises(DataError, match="function returned a int"):
        load_data("installed")


# As users see it. --------------------------------------------------------------------------------


def test_doctor_warns_of_broken_files_alone(tmp_path, monkeypatch, storage, fresh):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    write_idx(tmp_path / "data" / "mnist")
    broken = write_cifar(tmp_path / "data" / "cifar10")
    (tmp_path / "data" / "cifar10" / broken[2][0]).write_bytes(b"x")
    write_cifar(tmp_path / "data" / "cifar-100-python", classes=100, train=200)
    (tmp_path / "data" / "cifar-100-python" / "test").unlink()
    found = {row.what: row for row in examine(storage)}
    assert found["data digits"].state == found["data mnist"].state == "ok"
    assert "data/mnist: train-images-idx3-ubyte.gz (and 3 more) is not the published" in (
        found["data mnist"].detail
    )
    assert found["data svhn"].state == "ok"
    assert found["data svhn"].detail.startswith("not on this machine")
    assert "--data-dir" in found["data folder"].detail
    assert found["data cifar10"].state == found["data cifar100"].state == "warning"
    assert "data_batch_3: it is not read" in found["data cifar10"].detail
    assert "cifar-100-python has no test; " in found["data cifar100"].detail


def search(*arguments, cwd):
    command = [sys.executable, "-P", "-m", "search.cli", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=240, env=environment
    )


def test_a_study_on_cifar_files_from_the_command_line(space, cifar, tmp_path):
    done = search("run", "--space", space, "--trials", 1, "--data-dir", cifar, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())  # whatever the width of the table
    assert "cifar10: 3 x 32 x 32, 10 classes, 90 train / 10 validation / 20 test" in said
    assert "data_batch_1 (and 5 more) is not the published file" in " ".join(done.stderr.split())
    one = json.loads(search("show", "small", "0", "--format", "json", cwd=tmp_path).stdout)
    assert one["state"] == "complete"
    made = one["attempts"][-1]["provenance"]["data"]
    assert made["folder"] == str(cifar / "cifar-10-batches-py")
    assert made["published"] is False
    assert made["sha256"] == load_data("cifar10", str(cifar)).checksum


@pytest.mark.slow
def test_a_study_on_a_tree_of_images(tmp_path, space):
    tree = write_tree(tmp_path / "tree", parts=("train", "val"), count=20, side=32)
    done = search(
        *("run", "--space", space, "--trials", 1, "--data", "folder", "--data-dir", tree),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "folder: 3 x 32 x 32, 2 classes, 36 train / 4 validation / 40 test" in done.stderr


def test_a_missing_folder_is_one_line_and_exit_code_2(tmp_path, space):
    done = search("run", "--space", space, "--data-dir", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("search: data set cifar10: its files are not in ")
    assert not (tmp_path / "studies.db").exists()
