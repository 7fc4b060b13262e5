"""Trees of image files: how they lie, what is in them, in memory and streamed."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import write_tree

from blocks.errors import DataError
from search.batches import resident
from search.data import channel_statistics, resize
from search.datasets import SPLITS, load_data
from search.formats import folders
from search.formats.folders import as_rgb, decode
from search.streaming import StreamedBatches
from spaces.training import Training

CPU = torch.device("cpu")
SIZE = (16, 16)


def load(folder, size=None):
    return load_data("folder", str(folder), size=size)


def refused(folder, words, size=SIZE):
    with pytest.raises(DataError, match=words) as caught:
        load(folder, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ((), (14, 2, 4)),  # the classes directly: a fifth of 20 is tested on, two are held out
        (("train",), (14, 2, 4)),
        (("train", "val"), (18, 2, 20)),  # one held-out folder is the test part
        (("train", "test"), (18, 2, 20)),
        (("train", "valid", "test"), (20, 20, 20)),
        (("train", "validation", "test"), (20, 20, 20)),
    ],
)
def test_parts_that_are_there_are_kept_and_others_cut(tmp_path, parts, sizes):
    data = load(write_tree(tmp_path, parts=parts))
    assert data.facts.sizes == sizes
    assert data.facts.input_shape == (3, 16, 16)
    assert data.classes == ("ape", "bee")
    everything = [path for split in SPLITS for path in data.files[split]]
    assert len(set(everything)) == len(everything) == 20 * max(1, len(parts))
    for split in SPLITS:
        assert set(data.labels[split]) == {0, 1}
        for path, image, label in zip(
            data.files[split], data.images[split], data.labels[split], strict=True
        ):
            assert f"/{data.classes[label]}/" in path
            assert (np.asarray(Image.open(path)).transpose(2, 0, 1) == image).all()


def test_trees_that_are_not_as_they_should_be(tmp_path):
    for case, parts, words in (
        ("untrained", ("val",), "there is val/ and no train/; needed are train/CLASS"),
        ("twice", ("train", "val", "valid"), "val/ and valid/ are both there"),
    ):
        refused(write_tree(tmp_path / case, parts=parts), words)
    refused(write_tree(tmp_path / "one", classes=("ape",)), "it holds 1 folders of classes")
    flat = write_tree(tmp_path / "flat")
    (flat / "val").mkdir()
    refused(flat, "val: it holds nothing; needed are")
    (flat / "val" / "a.jpg").write_bytes(b"")
    refused(flat, "val: it holds files and no folders of classes")
    strange = write_tree(tmp_path / "strange")
    write_tree(strange, parts=("test",), classes=("ape", "cat"))
    refused(strange, "test: the class 'cat' is not among those of train/ .ape, bee")
    empty = write_tree(tmp_path / "empty")
    (empty / "train" / "cow").mkdir()
    refused(empty, "train/cow: a class without images")
    single = write_tree(tmp_path / "single", count=1)
    refused(single, "folder, its training images: class 'ape' has 1 image")
    refused(tmp_path / "gone", "there is no folder .*gone; give the tree's folder by --data-dir")
    with pytest.raises(DataError, match="give the tree's folder by --data-dir: train/CLASS"):
        load_data("folder")


def test_hidden_files_and_files_that_are_no_images_are_left_out(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "ape" / "._0.png").write_bytes(b"")
    (tmp_path / "train" / "ape" / "Thumbs.db").write_bytes(b"")
    assert sum(load(tmp_path).facts.sizes) == 20


def test_every_mode_of_image_is_read_as_rgb(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = np.stack([levels] * 3, axis=2)
    colour = np.random.RandomState(0).randint(0, 256, (16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(colour)
    transparent = picture.quantize(8)
    transparent.info["transparency"] = bytes(range(8))
    sixteen = Image.fromarray(levels.astype(np.uint16) * 257)
    for image, wanted, tolerance in (
        (Image.fromarray(levels), grey, 0),
        (sixteen, grey, 0),
        (sixteen.convert("I"), grey, 0),
        (Image.merge("LA", [Image.fromarray(levels)] * 2), grey, 0),
        (Image.fromarray(levels > 127), 255 * (grey > 127), 0),
        (picture.convert("RGBA"), colour, 0),
        (picture.quantize(256), colour, 64),
        (transparent, np.asarray(transparent.convert("RGBA"))[..., :3], 0),
        (picture.convert("CMYK"), colour, 1),
    ):
        made = as_rgb(image)
        assert made.mode == "RGB"
        difference = np.abs(np.asarray(made).astype(int) - wanted)
        assert difference.max() <= tolerance, image.mode


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "CMYK"])
@pytest.mark.parametrize("end", ["jpg", "png", "tif"])
def test_image_files_of_several_formats_and_modes(tmp_path, mode, end):
    if (mode, end) in (("P", "jpg"), ("CMYK", "png")):
        pytest.skip(f"{end} holds no {mode}")
    path = tmp_path / f"a.{end}"
    Image.new("RGB", (20, 10), (200, 200, 200)).convert(mode).save(path)
    made = decode(str(path), (5, 5))
    assert made.shape == (3, 5, 5)
    assert np.abs(made.astype(int) - 200).max() <= 6  # the nearest colours of a palette


def test_the_shorter_side_is_resized_and_the_middle_kept(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255  # the middle third is white
    for array in (wide, wide.transpose(1, 0, 2)):
        path = tmp_path / "a.png"
        Image.fromarray(array).save(path)
        assert (decode(str(path), (10, 10)) == 255).all()
        assert decode(str(path), (5, 5)).mean() > 240
        assert decode(str(path), (7, 9)).shape == (3, 7, 9)


def test_a_damaged_image_is_named_with_its_path(tmp_path):
    write_tree(tmp_path, end="jpg")
    path = tmp_path / "train" / "bee" / "3.jpg"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no image", b""):
        path.write_bytes(content)
        for size in (SIZE, None):
            refused(tmp_path, f"{path}: the image is not read: .*replace or remove it", size)


def test_images_of_several_sizes_need_one_that_is_given(tmp_path):
    write_tree(tmp_path)
    Image.new("RGB", (20, 30)).save(tmp_path / "train" / "bee" / "3.png")
    words = "several sizes .*16 x 16; .*bee/3.png: 30 x 20.; .*--set training.input_size"
    refused(tmp_path, words, size=None)
    assert load(tmp_path, (24, 24)).images["test"].shape[2:] == (24, 24)
    large = write_tree(tmp_path / "large", side=130, count=4)
    refused(large, "images are large .*130 x 130.; give the size", size=None)


def test_the_identity_is_that_of_names_labels_and_bytes_whatever_the_size(tmp_path, monkeypatch):
    trees = [write_tree(tmp_path / name) for name in ("a", "b", "c")]
    Image.new("RGB", SIZE).save(trees[1] / "train" / "bee" / "3.png")
    (trees[2] / "train" / "bee" / "3.png").rename(trees[2] / "train" / "bee" / "30.png")
    digests = {load(tree).facts.split_digest for tree in trees}
    assert len(digests) == 3
    assert load(trees[0], (8, 8)).facts.split_digest in digests
    monkeypatch.setattr(folders, "HASHED_BYTES", 0)
    named = load(trees[0], (9, 9)).checksum
    (trees[0] / "train" / "bee" / "4.png").write_bytes(
        (trees[0] / "train" / "ape" / "4.png").read_bytes().ljust(2000, b"\0")
    )
    assert load(trees[0], (10, 10)).checksum != named  # a file of another size


@pytest.fixture
def streamed(tmp_path, monkeypatch):
    """The same tree in memory and too large for it."""
    tree = write_tree(tmp_path, parts=("train", "val"), count=12, side=20)
    whole = load(tree, SIZE)
    monkeypatch.setattr(folders, "MEMORY_BYTES", 1000)
    return whole, load(tree, (17, 17)).resized(SIZE)


def test_a_tree_too_large_for_memory_has_the_same_facts_and_no_images(streamed):
    whole, large = streamed
    assert not whole.streams
    assert large.streams
    assert large.facts == whole.facts
    assert large.files == whole.files
    assert large.mean == pytest.approx(whole.mean)
    assert large.deviation == pytest.approx(whole.deviation)


def test_streamed_parts_are_the_images_in_memory_in_their_order(streamed):
    whole, large = streamed
    batches = StreamedBatches(large, CPU)
    there = resident(whole, CPU)
    for split in SPLITS:
        images, labels = (torch.cat(some) for some in zip(*batches.part(split), strict=True))
        expected, _ = (torch.cat(some) for some in zip(*there.part(split), strict=True))
        assert torch.allclose(images, expected, atol=1e-4)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == whole.labels[split].tolist()


EVERYTHING = Training(
    batch_size=8, crop=2, flip="random", cutout=4, rand_augment="1x9", mixup=0.2, cutmix=1.0
)


def test_streamed_batches_are_augmented_as_those_in_memory(streamed):
    whole, large = streamed
    drawn = zip(
        StreamedBatches(large, CPU).train(EVERYTHING, seed=1, epoch=2),
        resident(whole, CPU).train(EVERYTHING, seed=1, epoch=2),
        strict=True,
    )
    for (x, y, z, share), (images, labels, others, of_first) in drawn:
        assert torch.allclose(x, images, atol=1e-4)
        assert torch.equal(y, labels)
        assert torch.equal(z, others)
        assert share == of_first


def test_streamed_batches_depend_on_seed_and_epoch_alone(streamed):
    batches = StreamedBatches(streamed[1], CPU)
    training = Training(batch_size=8, resized_crop=0.3)

    def drawn(seed, epoch):
        return [(x, y.tolist()) for x, y, _, _ in batches.train(training, seed=seed, epoch=epoch)]

    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate()
    first = drawn(1, 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    torch.manual_seed(6)
    assert len(first) == len(streamed[1].files["train"]) // 8
    for (x, y), (again, same) in zip(first, drawn(1, 1), strict=True):
        assert x.shape == (8, 3, 16, 16)
        assert torch.equal(x, again)
        assert y == same
    for other in (drawn(1, 2), drawn(2, 1)):
        assert not torch.equal(other[0][0], first[0][0])
    with pytest.raises(DataError, match="batch_size 800 is more than the 22 training images"):
        next(batches.train(Training(batch_size=800), seed=1, epoch=1))


@pytest.mark.slow
def test_processes_that_read_ahead_change_nothing(streamed):
    alone, ahead = (StreamedBatches(streamed[1], CPU, processes=number) for number in (0, 2))
    training = Training(batch_size=8, resized_crop=0.3)
    pairs = zip(
        alone.train(training, seed=0, epoch=1), ahead.train(training, seed=0, epoch=1), strict=True
    )
    for (x, y, _, _), (again, same, _, _) in pairs:
        assert torch.equal(x, again)
        assert torch.equal(y, same)


def test_resizing_is_antialiased_and_keeps_8_bits():
    checks = np.indices((16, 16)).sum(0) % 2 * 255
    images = np.tile(checks.astype(np.uint8), (3, 2, 1, 1))
    small = resize(images, (4, 4))
    assert small.shape == (3, 2, 4, 4)
    assert small.dtype == np.uint8
    assert np.abs(small.astype(int) - 127).max() <= 6  # without antialiasing: 0 or 255
    assert (resize(images, (16, 16)) == images).all()


def test_resized_data_are_made_once_and_keep_their_identity():
    digits = load_data("digits")
    assert digits.resized((14, 14)) is digits
    small = digits.resized((8, 10))
    assert small is digits.resized((8, 10))
    assert small.facts.input_shape == (1, 8, 10)
    assert small.facts.split_digest == digits.facts.split_digest
    assert small.images["test"].shape == (360, 1, 8, 10)
    assert small.images["test"].dtype == np.uint8
    assert small.mean[0] == pytest.approx(digits.mean[0], abs=0.02)


def test_statistics_are_those_of_the_training_part():
    images = np.array([[[[0, 255]], [[10, 10]]], [[[255, 0]], [[10, 14]]]], dtype=np.uint8)
    mean, deviation = channel_statistics(images)
    assert mean == pytest.approx((0.5, 11 / 255))
    assert deviation == pytest.approx(((4 * 127.5**2 / 3) ** 0.5 / 255, 2 / 255))


def test_statistics_of_digits_are_those_that_training_has_always_used():
    digits = load_data("digits")
    train = torch.from_numpy(digits.images["train"]).to(torch.float64)
    assert np.float32(digits.mean[0] * 255) == train.mean().float()
    assert np.float32(digits.deviation[0] * 255) == train.std().float()
