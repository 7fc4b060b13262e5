import math

import numpy as np
import pytest
import torch
from literal import Coordinate, assert_equal_to_the_letter, drawn

from blocks import registry
from blocks.coordinate import CoordinateAttention
from blocks.cost import block_cost, measure_cost
from blocks.options import MapShape, coordinate_width

SIZES = [(1, 1), (2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6), (9, 1)]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def reference(x, state, training):
    # Row and column means, one layer + norm + hard-swish for both, a layer for each, sigmoids.
    def layer(name, columns):
        return state[f"{name}.weight"][:, :, 0, 0] @ columns + state[f"{name}.bias"][:, None]

    batch, _, height, width = x.shape
    lines = [np.concatenate([x[b].mean(2), x[b].mean(1)], axis=1) for b in range(batch)]
    squeezed = np.stack([layer("squeeze", line) for line in lines])
    mean, variance = state["norm.running_mean"], state["norm.running_var"]
    if training:
        mean, variance = squeezed.mean((0, 2)), squeezed.var((0, 2))
    normed = (squeezed - mean[:, None]) / np.sqrt(variance + 1e-5)[:, None]
    normed = normed * state["norm.weight"][:, None] + state["norm.bias"][:, None]
    active = normed * np.clip(normed + 3, 0, 6) / 6
    out = np.empty_like(x)
    for b in range(batch):
        rows = sigmoid(layer("excite_rows", active[b, :, :height]))
        columns = sigmoid(layer("excite_columns", active[b, :, height:]))
        for i in range(height):
            for j in range(width):
                out[b, :, i, j] = x[b, :, i, j] * rows[:, i] * columns[:, j]
    return out


def by_hand(excite_rows, excite_columns):
    """One channel; of 8 squeezed ones the first alone is used, as it is."""
    block = CoordinateAttention(1).double().eval()
    with torch.no_grad():
        block.norm.eps = 0.0
        for layer in (block.squeeze, block.excite_rows, block.excite_columns):
            layer.weight.zero_()
            layer.bias.zero_()
        block.squeeze.weight[0] = 1.0
        block.excite_rows.weight[0, 0] = excite_rows
        block.excite_columns.weight[0, 0] = excite_columns
    return block


def test_gates_worked_out_by_hand():
    # Row means 3 and 0, column means 1.5 and 1.5 (7 and 1; -4 and 4 in the other order).
    # Hard-swish: 3 -> 3, 0 -> 0, 1.5 * 4.5 / 6 = 1.125.
    # Rows s(ln 3) = 3/4 and s(0) = 1/2; columns s(ln 9) = 9/10 for both.
    block = by_hand(math.log(3) / 3, math.log(9) / 1.125)
    x = torch.tensor([[[[7.0, -1.0], [-4.0, 4.0]]]], dtype=torch.float64)
    rows, columns = block.gates(x)
    close = {"rtol": 1e-6, "atol": 1e-7}  # ln 3 is kept in float32 first
    torch.testing.assert_close(rows.flatten().tolist(), [0.75, 0.5], **close)
    torch.testing.assert_close(columns.flatten().tolist(), [0.9, 0.9], **close)
    expected = torch.tensor([[[[7 * 0.675, -0.675], [-1.8, 1.8]]]], dtype=torch.float64)
    torch.testing.assert_close(block(x), expected, **close)


def test_rows_are_averaged_along_the_width():
    # 1 x 2 map (6, -6): the row's mean is 0, the columns' are 6 and -6, and hard-swish(-6) = 0.
    block = by_hand(1.0, math.log(3) / 6)
    rows, columns = block.gates(torch.tensor([[[[6.0, -6.0]]]], dtype=torch.float64))
    assert rows.shape == (1, 1, 1, 1)
    assert columns.shape == (1, 1, 1, 2)
    assert rows.item() == pytest.approx(0.5)
    assert columns.flatten().tolist() == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_formula(size, training):
    block = drawn(CoordinateAttention(12)).train(training)
    x = torch.randn(3, 12, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    state = {name: value.clone().numpy() for name, value in block.state_dict().items()}
    expected = reference(x.numpy(), state, training)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_turned_maps_of_the_authors(size, training):
    block = drawn(CoordinateAttention(48, reduction=3)).train(training)
    x = torch.randn(3, 48, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert_equal_to_the_letter(block, Coordinate(48, reduction=3), x)


def test_the_bias_before_the_norm_is_only_seen_in_evaluation():
    block = drawn(CoordinateAttention(16)).train()
    x = torch.randn(3, 16, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    training, evaluation = block(x), block.eval()(x)
    with torch.no_grad():
        block.squeeze.bias += 1.0
    assert (block(x) - evaluation).abs().max() > 1e-3
    torch.testing.assert_close(block.train()(x), training)


@pytest.mark.parametrize(
    ("channels", "reduction", "width"),
    [(64, 32, 8), (512, 32, 16), (256, 32, 8), (64, 4, 16), (64, 8, 8), (100, 8, 12), (4, 1, 8)],
)
def test_squeezed_width_and_parameters(channels, reduction, width):
    assert coordinate_width(channels, reduction) == width
    block = CoordinateAttention(channels, reduction=reduction)
    # C m + m, 2 m, and twice m C + C
    expected = 3 * channels * width + 3 * width + 2 * channels
    assert sum(p.numel() for p in block.parameters()) == expected


def test_default_is_the_authors():
    assert tuple(CoordinateAttention(512).squeeze.weight.shape) == (16, 512, 1, 1)


@pytest.mark.parametrize(
    ("channels", "reduction", "effective"),
    [
        (64, 32, 32),
        (64, 8, 32),  # both 8 wide
        (64, 7, 7),  # 9 wide
        (64, 6, 6),  # 10
        (64, 4, 4),
        (100, 7, 7),  # 14
        (512, 32, 32),
        (512, 31, 32),  # 16
        (512, 57, 57),  # 8 wide from 57 on
        (512, 1000, 57),
        (15, 1, 1),  # 15 wide
        (15, 2, 32),
        (4, 1, 32),  # 8 wide whatever it is
    ],
)
def test_reduction_in_use_is_one_spelling_of_each_width(channels, reduction, effective):
    shape = MapShape(channels, 7, 7)
    assert registry.spec("coord").in_use({"reduction": reduction}, shape) == {
        "reduction": effective
    }


@pytest.mark.parametrize("channels", [1, 4, 8, 9, 15, 16, 17, 64, 71, 72, 100, 288, 512, 2048])
def test_reductions_in_use_are_equal_where_the_widths_are(channels):
    row, shape = registry.spec("coord"), MapShape(channels, 7, 7)
    widths = {}
    for reduction in range(1, 2 * channels + 40):
        kept = int(row.in_use({"reduction": reduction}, shape)["reduction"])
        assert coordinate_width(channels, kept) == coordinate_width(channels, reduction)
        widths.setdefault(coordinate_width(channels, reduction), set()).add(kept)
    assert all(len(kept) == 1 for kept in widths.values())


@pytest.mark.parametrize("shape", [(64, 7, 7), (64, 1, 1), (32, 5, 9), (288, 3, 2)])
def test_costs_what_its_literal_form_does(shape):
    # Its own code, with one operator for hard-swish, is counted in test_formulas.
    assert measure_cost(Coordinate(shape[0]), shape) == block_cost("coord", MapShape(*shape), {})
