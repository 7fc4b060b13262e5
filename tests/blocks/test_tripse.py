import math

import pytest
import torch
from literal import LITERAL, assert_equal_to_the_letter, drawn

from blocks.tripse import TripSE1, TripSE2, TripSE3, TripSE4

BLOCKS = {"tripse1": TripSE1, "tripse2": TripSE2, "tripse3": TripSE3, "tripse4": TripSE4}
SIZES = [(1, 1), (2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6), (9, 1)]
CASES = [
    ("tripse1", {}),
    ("tripse1", {"combine": "sum"}),
    ("tripse2", {}),
    ("tripse2", {"combine": "sum"}),
    ("tripse3", {}),
    ("tripse3", {"combine": "sum"}),
    ("tripse4", {}),
    ("tripse4", {"combine": "sum"}),
    ("tripse4", {"weights": True}),
    ("tripse4", {"weights": True, "combine": "sum"}),
]
LN3 = math.log(3)


def by_hand(name, tap, excite, **options):
    """One channel: the planes' logits are tap * maximum, SE's excite * relu(mean)."""
    block = BLOCKS[name](1, reduction=1, **options).double().eval()
    with torch.no_grad():
        for branch in (block.cw, block.hc, block.hw):
            branch.norm.eps = 0.0
            branch.conv.weight.zero_()
            branch.conv.weight[0, 0, 3, 3] = tap
        for se in [block.se] if name == "tripse1" else [block.cw, block.hc, block.hw]:
            se.squeeze.weight.fill_(1.0)
            se.excite.weight.fill_(excite)
    return block


# One number, 2. Where a gate is not 3/4 = s(ln 3) it is 1/2 = s(0).
BY_HAND = [
    # All planes 1/2: 2 * 1/2 = 1, or the sum 3; then SE 3/4.
    ("tripse1", 0.0, LN3, {}, 0.75),
    ("tripse1", 0.0, LN3 / 3, {"combine": "sum"}, 2.25),
    # Planes 3/4: 1.5.
    ("tripse1", LN3 / 2, 0.0, {}, 0.75),
    # SE 3/4: 1.5; of that the plane's logit ln 3, 3/4: 1.125.
    ("tripse2", LN3 / 1.5, LN3 / 2, {}, 1.125),
    ("tripse2", LN3 / 1.5, LN3 / 2, {"combine": "sum"}, 3.375),
    # The plane 3/4: 1.5; of that SE's logit ln 3, 3/4: 1.125.
    ("tripse3", LN3 / 2, LN3 / 1.5, {}, 1.125),
    ("tripse3", LN3 / 2, LN3 / 1.5, {"combine": "sum"}, 3.375),
    # Half of ln 3 from each: 3/4.
    ("tripse4", LN3 / 4, LN3 / 4, {}, 1.5),
    ("tripse4", LN3 / 4, LN3 / 4, {"combine": "sum"}, 4.5),
    # s(ln 3) = 3/4 from SE and the rest of ln 3 from the plane.
    ("tripse4", (LN3 - 0.75) / 2, LN3 / 2, {"weights": True}, 1.5),
]


@pytest.mark.parametrize(("name", "tap", "excite", "options", "expected"), BY_HAND)
def test_one_number_worked_out_by_hand(name, tap, excite, options, expected):
    block = by_hand(name, tap, excite, **options)
    x = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    assert block(x).item() == pytest.approx(expected, rel=1e-7)  # ln 3 is kept in float32 first


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_equals_the_turned_maps(name, options, size, training):
    options = {"reduction": 4, **options}
    block = drawn(BLOCKS[name](8, **options)).train(training)
    x = torch.randn(3, 8, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert_equal_to_the_letter(block, LITERAL[name](8, **options), x)


@pytest.mark.parametrize("name", ["tripse2", "tripse3", "tripse4"])
@pytest.mark.parametrize("branch", ["cw", "hc", "hw"])
def test_every_branch_has_an_se_of_its_own(name, branch):
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    block = drawn(BLOCKS[name](8, reduction=2)).eval()
    before = block(x)
    with torch.no_grad():
        getattr(block, branch).excite.weight.neg_()
    assert (block(x) - before).abs().max() > 1e-4


@pytest.mark.parametrize("name", BLOCKS)
def test_weights_do_not_depend_on_the_size_of_the_map(name):
    block = drawn(BLOCKS[name](8, reduction=2)).eval()
    for size in [(3, 3), (9, 4)]:
        assert block(torch.ones(1, 8, *size, dtype=torch.float64)).shape == (1, 8, *size)


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden"), [(64, 16, 4), (64, 1, 64), (96, 16, 6), (8, 16, 1)]
)
@pytest.mark.parametrize("name", BLOCKS)
def test_parameters(name, channels, reduction, hidden):
    block = BLOCKS[name](channels, reduction=reduction)
    layers = 1 if name == "tripse1" else 3
    expected = 300 + layers * 2 * channels * hidden
    assert sum(p.numel() for p in block.parameters()) == expected
