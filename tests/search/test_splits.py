import numpy as np
import pytest

from blocks.errors import DataError
from search.splits import cut, pack, unpack, validation_size

NAMES = ("ape", "bee", "cow")


@pytest.mark.parametrize(
    ("images", "classes", "held"),
    [(60_000, 10, 5000), (50_000, 100, 5000), (73_257, 10, 5000), (1_281_167, 1000, 10_000),
     (900, 10, 90), (9, 2, 0)],
)  # fmt: skip
def test_a_tenth_is_held_out_and_not_more_than_is_needed(images, classes, held):
    assert validation_size(images, classes) == held


def test_classes_are_held_out_in_proportion_by_largest_remainders():
    labels = np.repeat([0, 1, 2], [60, 29, 11])
    stay, held = cut(labels, 10, seed=0, names=NAMES, what="x")
    # 6.0, 2.9 and 1.1 of ten: the one that is left goes to the second.
    assert np.bincount(labels[held]).tolist() == [6, 3, 1]
    assert sorted([*stay, *held]) == list(range(100))
    assert (np.diff(stay) > 0).all()
    assert (np.diff(held) > 0).all()


def test_every_class_is_on_both_sides_however_small():
    labels = np.repeat([0, 1, 2], [95, 3, 2])
    stay, held = cut(labels, 2, seed=0, names=NAMES, what="x")
    assert set(labels[held]) == set(labels[stay]) == {0, 1, 2}


def test_the_cut_never_changes_and_has_a_seed():
    labels = np.arange(30) % 3
    held = cut(labels, 6, seed=0, names=NAMES, what="x")[1]
    assert held.tolist() == HELD
    assert cut(labels, 6, seed=1, names=NAMES, what="x")[1].tolist() != HELD


HELD = [6, 8, 10, 11, 16, 24]


def test_a_class_with_one_image_is_named():
    with pytest.raises(DataError, match="x: class 'cow' has 1 image; 2 or more of every class"):
        cut(np.array([0, 0, 1, 1, 2]), 1, seed=0, names=NAMES, what="x")


def test_a_packed_split_is_read_back():
    parts = np.random.RandomState(0).permutation(1000)
    indices = {
        "train": np.sort(parts[:700]),
        "validation": np.sort(parts[700:900]),
        "test": np.sort(parts[900:]),
    }
    found = unpack(pack(indices))
    assert all((found[split] == indices[split]).all() for split in indices)
    assert len(pack(indices)) < 600
    with pytest.raises(DataError, match="a stored split is damaged"):
        unpack(pack(indices)[:-20])
