import numpy as np
import pytest
from sklearn.datasets import load_digits

from blocks.errors import DataError
from search.datasets import SPLITS, load_data, split_indices


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
    labels = load_digits().target
    parts = split_indices(labels, seed=0, test=360, validation=360)
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(1797))


def test_the_split_never_changes():
    # Every stored result depends on it.
    assert load_data("digits").facts.split_digest == SPLIT_DIGEST
    assert load_data("digits").checksum == CHECKSUM


SPLIT_DIGEST = "0019463d8ce12d107ac78ac1ea253bde"
CHECKSUM = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def test_resizing_keeps_the_picture():
    raw = load_digits()
    parts = split_indices(raw.target, seed=0, test=360, validation=360)
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
