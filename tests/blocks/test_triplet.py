import math

import pytest
import torch
from literal import Triplet, assert_equal_to_the_letter, drawn

from blocks.triplet import TripletAttention

SIZES = [(1, 1), (2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6), (9, 1)]
BRANCHES = ("cw", "hc", "hw")


def flat(**options):
    """A block in evaluation whose logits are what its convolutions give, all 0 at first."""
    block = TripletAttention(2, **options).double().eval()
    with torch.no_grad():
        for name in BRANCHES:
            branch = getattr(block, name)
            if branch is not None:
                branch.norm.eps = 0.0
                branch.conv.weight.zero_()
    return block


def tensor(numbers, *shape):
    return torch.tensor(numbers, dtype=torch.float64).reshape(1, *shape)


@pytest.mark.parametrize(("plane", "tap"), [(0, math.log(3) / 3), (1, math.log(3) / 2)])
@pytest.mark.parametrize(
    ("branch", "shape"), [("cw", (1, 2, 1)), ("hc", (1, 1, 2)), ("hw", (2, 1, 1))]
)
def test_mean_of_the_gates_worked_out_by_hand(branch, shape, plane, tap):
    # 1 and 3 along what the branch pools away: maximum 3 first, mean 2 second; s(ln 3) = 3/4.
    # The other two gates are 1/2: (1/2 + 1/2 + 3/4) / 3 = 7/12.
    block = flat(kernel_size=3)
    with torch.no_grad():
        getattr(block, branch).conv.weight[0, plane, 1, 1] = tap
    x = tensor([1.0, 3.0], *shape)
    torch.testing.assert_close(block(x), x * 7 / 12)


@pytest.mark.parametrize(("branch", "shape"), [("cw", (1, 2, 1)), ("hc", (1, 1, 2))])
def test_two_gates_worked_out_by_hand(branch, shape):
    # Without the third gate: (1/2 + 3/4) / 2 = 5/8.
    block = flat(kernel_size=3, spatial=False)
    with torch.no_grad():
        getattr(block, branch).conv.weight[0, 0, 1, 1] = math.log(3) / 3
    x = tensor([1.0, 3.0], *shape)
    torch.testing.assert_close(block(x), x * 5 / 8)


# Numbers a, b, c, d = 0, 0, ln 3, ln 9: one tap on the next row takes the gate of the first row
# to s(ln 3) = 3/4 and s(ln 9) = 9/10; what is beyond the border is 0, so the second row has 1/2.
LOW, FIRST, SECOND = 0.5, 0.75, 0.9
NEXT = [0.0, 0.0, math.log(3), math.log(9)]


@pytest.mark.parametrize(
    ("branch", "shape", "turn"),
    [
        ("cw", (2, 1, 2), (0, 1, 2)),  # rows are channels, columns are columns
        ("hc", (2, 2, 1), (1, 0, 2)),  # rows are rows, columns are channels
        ("hw", (1, 2, 2), (0, 1, 2)),
    ],
)
def test_rows_and_columns_of_the_planes(branch, shape, turn):
    block = flat(kernel_size=3)
    with torch.no_grad():
        getattr(block, branch).conv.weight[0, 0, 2, 1] = 1.0  # the maximum, one row further
    x = tensor(NEXT, *shape).permute(0, *(dim + 1 for dim in turn))
    expected = tensor([FIRST, SECOND, LOW, LOW], *shape).permute(0, *(dim + 1 for dim in turn))
    torch.testing.assert_close(getattr(block, branch)(x).expand_as(expected), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_turned_maps_of_the_authors(size, kernel_size, spatial, training):
    options = {"kernel_size": kernel_size, "spatial": spatial}
    block = drawn(TripletAttention(6, **options)).train(training)
    x = torch.randn(3, 6, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert_equal_to_the_letter(block, Triplet(6, **options), x)


def test_starts_with_norms_of_scale_one_and_momentum_a_hundredth():
    block = TripletAttention(4)
    for name in BRANCHES:
        norm = getattr(block, name).norm
        assert norm.weight.item() == 1
        assert norm.momentum == 0.01


def test_a_tied_maximum_shares_its_gradient():
    # Constant along every dimension: all places are alike, so their gradients are.
    block = drawn(TripletAttention(4, kernel_size=1)).eval()
    x = torch.ones(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    block(x).sum().backward()
    torch.testing.assert_close(x.grad, x.grad[0, 0, 0, 0].expand_as(x))


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ({}, 300),  # 3 (2 * 49 + 2)
        ({"spatial": False}, 200),
        ({"kernel_size": 5}, 3 * 52),
        ({"kernel_size": 3}, 3 * 20),
        ({"kernel_size": 3, "spatial": False}, 2 * 20),
    ],
)
@pytest.mark.parametrize("channels", [1, 64])
def test_parameters(channels, options, params):
    block = TripletAttention(channels, **options)
    assert sum(p.numel() for p in block.parameters()) == params
