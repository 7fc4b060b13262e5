"""Evaluation of a split, by numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from search.evaluation import calibration_error, evaluate, loss_and_accuracy
from search.outcome import Answers


class Given(nn.Module):
    """A network whose answers are given: it takes images for numbers of rows."""

    def __init__(self, shares):
        super().__init__()
        self.logits = torch.tensor(shares).log()

    def forward(self, x_BCHW):
        return self.logits[x_BCHW[:, 0, 0, 0].long()]


def parts(labels, size):
    images = torch.arange(len(labels), dtype=torch.float32)[:, None, None, None]
    labels = torch.tensor(labels)
    return list(zip(images.split(size), labels.split(size), strict=True))


# Five images of three classes: shares of each class, and what the image is.
SHARES = [
    [0.90, 0.05, 0.05],  # right
    [0.90, 0.05, 0.05],  # wrong: it is of class 1
    [0.10, 0.85, 0.05],  # right
    [0.50, 0.25, 0.25],  # right
    [0.30, 0.50, 0.20],  # wrong: it is of class 0
]
LABELS = [0, 1, 1, 0, 0]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_by_hand(size):
    found = evaluate(Given(SHARES), parts(LABELS, size), classes=3)
    assert found.right.tolist() == [True, False, True, True, False]
    assert found.accuracy == 3 / 5
    assert found.images.tolist() == [3, 2, 0]
    assert found.right_by_class.tolist() == [2, 1, 0]
    assert found.predicted.tolist() == [3, 2, 0]
    expected = -sum(map(math.log, (0.9, 0.05, 0.85, 0.5, 0.3))) / 5
    assert found.loss == pytest.approx(expected, rel=1e-6)
    # 0.9 and 0.9 in (13/15, 14/15]: 2/5 |0.9 - 1/2|; 0.85 in (12/15, 13/15]: 1/5 |0.85 - 1|;
    # 0.5 and 0.5 in (7/15, 8/15]: 2/5 |0.5 - 1/2|. In all 0.16 + 0.03 + 0.
    assert found.calibration_error == pytest.approx(0.19, abs=1e-6)


def test_the_short_way_gives_the_same_numbers():
    network = Given(SHARES)
    found = evaluate(network, parts(LABELS, 2), classes=3)
    assert loss_and_accuracy(network, parts(LABELS, 2)) == (found.loss, found.accuracy)


def test_bins_are_open_below_and_closed_above():
    # In one bin with each other, a right and a wrong one of 1/5 cancel to |0.2 - 0.5|; apart not.
    edge = np.array([3 / 15, 3 / 15])
    assert calibration_error(edge, np.array([True, False])) == pytest.approx(0.3)
    apart = np.array([3 / 15, 3.001 / 15])
    assert calibration_error(apart, np.array([True, False])) == pytest.approx(0.5, abs=1e-4)


def test_the_ends_of_calibration():
    certain = np.ones(4)
    assert calibration_error(certain, np.ones(4, dtype=bool)) == 0
    assert calibration_error(certain, np.zeros(4, dtype=bool)) == 1
    assert math.isnan(calibration_error(np.array([0.5, np.nan]), np.array([True, False])))


def test_it_leaves_training_mode_and_asks_for_no_gradient():
    network = Given(SHARES).train()
    evaluate(network, parts(LABELS, 5), classes=3)
    assert not network.training


def test_answers_survive_a_pipe_with_one_bit_an_image():
    found = evaluate(Given(SHARES), parts(LABELS, 5), classes=3).answers("test")
    assert found.right == bytes([0b10110000])
    assert found.classes == ((3, 2, 3), (2, 1, 2), (0, 0, 0))
    assert Answers.from_json(found.to_json()) == found
    assert found.to_json()["right"] == "sA=="
