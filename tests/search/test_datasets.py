from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from blocks.errors import DataError
from search import digits
from search.datasets import SPLITS, load_data
from search.splits import unpack


def test_digits_are_14_by_14_and_split_1077_360_360():
    data = load_data("digits")
    assert data.facts.input_shape == (1, 14, 14)
    assert data.facts.classes == 10
    assert data.facts.sizes == (1077, 360, 360)
    for split, size in zip(SPLITS, data.facts.sizes, strict=True):
        assert data.images[split].shape == (size, 1, 14, 14)
        assert data.images[split].dtype == np.uint8
        assert data.labels[split].shape == (size,)


def test_every_split_has_every_class_in_its_proportion():
    data = load_data("digits")
    whole = np.bincount(load_digits().target) / 1797
    for split in SPLITS:
        shares = np.bincount(data.labels[split]) / len(data.labels[split])
        assert np.abs(shares - whole).max() < 0.01


def test_no_image_is_in_two_parts():
    together = np.concatenate(list(unpack(digits.SPLIT).values()))
    assert sorted(together) == list(range(1797))


def test_the_split_is_stratified_as_scikit_learn_cut_it():
    labels, cut = load_digits().target, {}
    rest, cut["test"] = train_test_split(
        np.arange(1797), test_size=360, stratify=labels, random_state=0
    )
    cut["train"], cut["validation"] = train_test_split(
        rest, test_size=360, stratify=labels[rest], random_state=0
    )
    for split, places in unpack(digits.SPLIT).items():
        assert places.tolist() == sorted(cut[split])


@pytest.mark.parametrize("there", [True, False])
def test_the_digits_are_scikit_learns_with_its_file_and_without(there, monkeypatch):
    if not there:
        monkeypatch.setattr(digits, "FILE", Path("datasets", "data", "moved.csv.gz"))
    images, labels = digits.read_digits()
    raw = load_digits()
    assert (images == raw.images).all()
    assert (labels == raw.target).all()
    assert images.dtype == labels.dtype == np.int64


def test_the_split_never_changes():
    # Every stored result depends on it.
    assert load_data("digits").facts.split_digest == SPLIT_DIGEST
    assert load_data("digits").checksum == CHECKSUM


SPLIT_DIGEST = "0019463d8ce12d107ac78ac1ea253bde"
CHECKSUM = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def test_resizing_keeps_the_picture():
    raw = load_digits()
    parts = unpack(digits.SPLIT)
    image = load_data("digits").images["test"][0, 0].astype(float)
    small = raw.images[parts["test"][0]] * (255 / 16)
    assert abs(image.mean() - small.mean()) < 3
    rows = np.corrcoef(
        image.reshape(7, 2, 14).mean((1, 2)),
        np.interp(np.linspace(0, 7, 7), np.arange(8), small.mean(1)),
    )
    assert rows[0, 1] > 0.9


def test_an_unknown_data_set_is_named_with_the_nearest():
    with pytest.raises(DataError, match="unknown data set 'digit'. Did you mean 'digits'"):
        load_data("digit")
