import math

import pytest
import torch
from literal import LITERAL, assert_equal_to_the_letter, drawn

from blocks import registry
from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import measure_cost
from blocks.errors import BlockError, SiteError
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


# SE over what a branch's rotation brings first ---------------------------------------------------

ROTATED_CASES = [case for case in CASES if case[0] != "tripse1"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "options"), ROTATED_CASES)
def test_rotated_branches_equal_the_turned_maps(name, options, size, training):
    options = {"reduction": 2, "axis": f"rotated:{size[0]}x{size[1]}", **options}
    block = drawn(BLOCKS[name](8, **options)).train(training)
    x = torch.randn(3, 8, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert_equal_to_the_letter(block, LITERAL[name](8, **options), x)


# One channel of 2 x 1 pixels, 1 and 3; planes' logits 0. The rows' SE is 2 wide: logits ln 3 and 0,
# so that row 1 is scaled by 3/4 and row 2 by 1/2, in the first branch alone.
def test_rotated_branch_worked_out_by_hand():
    block = TripSE2(1, reduction=1, axis="rotated:2x1").double().eval()
    with torch.no_grad():
        for branch in (block.cw, block.hc, block.hw):
            branch.conv.weight.zero_()
            branch.excite.weight.zero_()
        block.cw.squeeze.weight.copy_(torch.eye(2))
        block.cw.excite.weight[0, 0] = LN3  # of the first row's mean, 1
    x = torch.tensor([1.0, 3.0], dtype=torch.float64).reshape(1, 1, 2, 1)
    # Half (the plane) of 3/4 and of 1/2; the two other branches give half of a half.
    expected = [(0.375 + 0.25 + 0.25) / 3, 3 * (0.25 + 0.25 + 0.25) / 3]
    assert block(x).flatten().tolist() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", ["tripse2", "tripse3", "tripse4"])
def test_parameters_of_rotated_branches(name):
    # 300 + 2 (C h_C + H h_H + W h_W), 7 // 4 = 1, 20 // 4 = 5, 64 // 4 = 16.
    block = registry.create(name, 64, reduction=4, axis="rotated:7x20")
    assert sum(p.numel() for p in block.parameters()) == 300 + 2 * (64 * 16 + 7 * 1 + 20 * 5)


@pytest.mark.parametrize("name", ["tripse2", "tripse3", "tripse4"])
def test_rotated_branches_need_a_size(name):
    with pytest.raises(BlockError, match=r"axis 'rotated': .*write them, such as rotated:14x14"):
        registry.create(name, 64, axis="rotated")


@pytest.mark.parametrize("name", ["tripse2", "tripse3", "tripse4"])
@pytest.mark.parametrize("size", [(4, 5), (5, 5), (1, 1)])
def test_rotated_branches_refuse_maps_of_another_size(name, size):
    block = registry.create(name, 8, axis="rotated:5x4")
    message = rf"rotated:5x4 takes maps of 5 x 4, not of {size[0]} x {size[1]}"
    with pytest.raises(SiteError, match=message):
        block(torch.zeros(1, 8, *size))


@pytest.mark.parametrize("name", ["tripse2", "tripse3", "tripse4"])
def test_a_network_takes_the_sizes_of_its_own_maps(name):
    written = Architecture("resnet20", (Placement("stage", name, {"axis": "rotated"}),))
    sites = site_table("resnet20", (3, 24, 36), 10)
    resolved = resolve(written, sites)
    axes = [dict(placement.options)["axis"] for placement in resolved.placements]
    assert axes == ["rotated:24x36", "rotated:12x18", "rotated:6x9"]
    assert resolved != resolve(Architecture("resnet20", (Placement("stage", name),)), sites)
    network = build_network(resolved, seed=0).eval()
    assert measure_cost(network, (3, 24, 36)) == architecture_cost(resolved, sites)
    assert network(torch.zeros(1, 3, 24, 36)).shape == (1, 10)
    with pytest.raises(SiteError, match="rotated:24x36 takes maps of 24 x 36, not of 32 x 32"):
        network(torch.zeros(1, 3, 32, 32))
    # Written with one size and built at another, a network takes the maps that it has there.
    other = build_network(resolved, input_size=32).eval()
    assert other(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


# Changing it orphans stored results: see test_digests_are_the_ones_in_stored_results.
def test_the_channels_axis_stays_out_of_the_identity():
    sites = site_table("resnet20", (3, 32, 32), 10)
    plain, named = (
        resolve(Architecture("resnet20", (Placement("stage", "tripse2", options),)), sites)
        for options in ({}, {"axis": "channels"})
    )
    assert plain == named
    assert plain.digest == "a1-1f2ae2f9dce197d7b220805abd9b1aaf"
