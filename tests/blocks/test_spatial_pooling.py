import math
import re

import numpy as np
import pytest
import torch

from blocks import registry
from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import measure_cost
from blocks.errors import SiteError
from blocks.options import MapShape
from blocks.spatial_pooling import GridSqueezeExcite, PyramidSqueezeExcite

SIZES = [(1, 1), (2, 2), (3, 5), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6)]


def filled(block, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                low = 0.5 if name in ("norm.weight", "norm.running_var") else -0.5
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return block.double()


def numbers(block):
    return {name: value.clone().numpy() for name, value in block.state_dict().items()}


def maps(size, channels=12, batch=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=generator)


def parameters(block):
    return sum(p.numel() for p in block.parameters())


def normed(described, state, training):
    # Batch norm of one number per image and channel.
    mean, variance = state["norm.running_mean"], state["norm.running_var"]
    if training:
        mean, variance = described.mean(0), described.var(0)
    return (described - mean) / np.sqrt(variance + 1e-5) * state["norm.weight"] + state["norm.bias"]


def gated(x, described, state):
    # ReLU -> linear -> ReLU -> linear -> sigmoid -> scale.
    hidden = np.maximum(described, 0) @ state["squeeze.weight"].T + state["squeeze.bias"]
    logits = np.maximum(hidden, 0) @ state["excite.weight"].T + state["excite.bias"]
    return x * (1 / (1 + np.exp(-logits)))[:, :, None, None]


def pooled(channel, side):
    # Adaptive pooling: part i of n pixels goes from floor(i n / side) to ceil((i + 1) n / side).
    height, width = channel.shape
    out = np.empty((side, side))
    for i in range(side):
        top, bottom = math.floor(i * height / side), math.ceil((i + 1) * height / side)
        for j in range(side):
            left, right = math.floor(j * width / side), math.ceil((j + 1) * width / side)
            window = channel[top:bottom, left:right]
            out[i, j] = window.sum() / window.size
    return out


def pyramid_reference(x, state, training):
    described = np.zeros(x.shape[:2])
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            for index, side in enumerate((1, 2, 4)):
                taps = state[f"fuse.{index}.weight"][c, 0]
                described[b, c] += (taps * pooled(x[b, c], side)).sum()
                described[b, c] += state[f"fuse.{index}.bias"][c]
    return gated(x, normed(described, state, training), state)


def grid_reference(x, state, grid, training):
    described = np.zeros(x.shape[:2])
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            windows = [
                [x[b, c, 7 * i : 7 * i + 7, 7 * j : 7 * j + 7].sum() / 49 for j in range(grid)]
                for i in range(grid)
            ]
            taps = state["fuse.weight"][c, 0] if grid > 1 else np.ones((1, 1))
            described[b, c] = (taps * np.array(windows)).sum()
    if grid > 1:
        described = normed(described, state, training)
    return gated(x, described, state)


# The pyramid -------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_pyramid_equals_the_formula(size, training):
    block = filled(PyramidSqueezeExcite(12, reduction=4)).train(training)
    x, state = maps(size), numbers(block)
    expected = pyramid_reference(x.numpy(), state, training)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_the_pyramid_worked_out_by_hand():
    # One channel, 4 x 4: the whole has mean 1, the upper left quarter 4, the first pixel 16.
    # Taps 1 on the whole, 1/2 on the upper left quarter, 1/8 on the first pixel, biases 1, 2 and
    # -3: 1 + 2 + 2 + 0 = 5.
    block = PyramidSqueezeExcite(1).eval()
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 16.0
    with torch.no_grad():
        for fuse, tap, bias in zip(block.fuse, (1, 0.5, 0.125), (1, 2, -3), strict=True):
            fuse.weight.zero_()
            fuse.weight[0, 0, 0, 0] = tap
            fuse.bias.fill_(bias)
        assert block.describe(x).item() == 5.0
        # A norm that keeps it, two layers of ln(3) / 5 and 1: the gate is s(ln 3) = 3/4.
        block.norm.running_var.fill_(1 - block.norm.eps)
        block.squeeze.weight.fill_(math.log(3) / 5)
        block.excite.weight.fill_(1.0)
        block.squeeze.bias.zero_()
        block.excite.bias.zero_()
    torch.testing.assert_close(block(x), 0.75 * x)


# The grid ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_the_grid_equals_the_formula(grid, training):
    block = filled(GridSqueezeExcite(6, reduction=2, grid=grid)).train(training)
    x, state = maps((7 * grid, 7 * grid), channels=6), numbers(block)
    expected = grid_reference(x.numpy(), state, grid, training)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_one_window_is_cut_at_zero_before_the_layers():
    # A mean of -2 is cut to 0: every gate is 1/2, whatever the weights are.
    block = GridSqueezeExcite(4)
    with torch.no_grad():
        block.squeeze.bias.zero_()
        block.excite.bias.zero_()
    x = torch.full((1, 4, 7, 7), -2.0)
    torch.testing.assert_close(block(x), x / 2)


def test_four_windows_worked_out_by_hand():
    # Windows with means 1, 2, 3, 4 and taps 1, 0, 0, 1: 5; the gate is s(5 ln(3) / 5) = 3/4.
    block = GridSqueezeExcite(1, grid=2).eval()
    with torch.no_grad():
        block.fuse.weight.copy_(torch.eye(2))
        block.norm.running_var.fill_(1 - block.norm.eps)
        block.squeeze.weight.fill_(math.log(3) / 5)
        block.excite.weight.fill_(1.0)
        block.squeeze.bias.zero_()
        block.excite.bias.zero_()
    means = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = means.repeat_interleave(7, 0).repeat_interleave(7, 1)[None, None]
    torch.testing.assert_close(block(x), 0.75 * x)


@pytest.mark.parametrize("size", [(14, 14), (7, 14), (1, 1), (8, 8)])
def test_a_map_that_is_not_the_blocks_is_refused(size):
    message = f"rgse: a block with grid 1 takes maps of 7 x 7, not of {size[0]} x {size[1]}"
    with pytest.raises(SiteError, match=re.escape(message)):
        GridSqueezeExcite(4)(torch.zeros(1, 4, *size))


@pytest.mark.parametrize(("side", "grid"), [(7, 1), (14, 2), (28, 4), (56, 8)])
@pytest.mark.parametrize("written", [{}, {"grid": 1}, {"grid": 8}])
def test_the_map_sets_the_grid(side, grid, written):
    in_use = registry.spec("rgse").in_use(written, MapShape(64, side, side))
    assert in_use == {"reduction": 16, "grid": grid}


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 14), (6, 7), (21, 21), (112, 112), (32, 32)])
def test_maps_without_a_grid_are_refused_with_the_sizes_that_work(size):
    message = (
        f"rgse: a map of {size[0]} x {size[1]} pixels has no grid of whole 7 x 7 windows; maps that"
        " have: 7 x 7, 14 x 14, 28 x 28, 56 x 56"
    )
    with pytest.raises(SiteError, match=re.escape(message)):
        registry.spec("rgse").in_use({}, MapShape(64, *size))


def test_a_refusal_names_the_site():
    written = Architecture("resnet20", (Placement("stage2", "rgse"),))
    with pytest.raises(SiteError, match=r"56 x 56 at site stage2 of resnet20"):
        build_network(written)


def test_a_network_of_grids_is_what_its_formulas_say():
    # Images of 28 x 28: maps of 28, 14 and 7.
    sites = site_table("resnet20", (3, 28, 28), 10)
    written = Architecture("resnet20", (Placement("in-block", "rgse"), Placement("stage", "spse")))
    resolved = resolve(written, sites)
    network = build_network(resolved, seed=0)
    assert measure_cost(network, (3, 28, 28)) == architecture_cost(resolved, sites)
    assert parameters(network) == architecture_cost(resolved, sites).params
    grids = [b.grid for b in network.modules() if isinstance(b, GridSqueezeExcite)]
    assert grids == [4] * 3 + [2] * 3 + [1] * 3
    assert network.eval()(torch.zeros(1, 3, 28, 28)).shape == (1, 10)


# Both --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "size"),
    [(PyramidSqueezeExcite(8), (7, 7)), (GridSqueezeExcite(8, grid=2), (14, 14))],
)
def test_training_needs_two_images(block, size):
    with pytest.raises(SiteError, match="this block: in training its batch norm needs more than"):
        block.train()(torch.randn(1, 8, *size))
    assert block(torch.randn(2, 8, *size)).shape == (2, 8, *size)
    assert block.eval()(torch.randn(1, 8, *size)).shape == (1, 8, *size)


def test_one_window_has_no_norm_and_trains_on_one_image():
    block = GridSqueezeExcite(8).train()
    assert block(torch.randn(1, 8, 7, 7)).shape == (1, 8, 7, 7)


@pytest.mark.parametrize(
    ("name", "side", "options", "params"),
    [
        ("spse", 9, {}, 512 + 4 + 64 + 26 * 64),  # 2 C h + h + C + 26 C with h = 4
        ("spse", 9, {"reduction": 4}, 2048 + 16 + 64 + 26 * 64),
        ("rgse", 7, {}, 512 + 4 + 64),
        ("rgse", 14, {"grid": 2}, 580 + (4 + 2) * 64),
        ("rgse", 28, {"grid": 4}, 580 + (16 + 2) * 64),
        ("rgse", 56, {"grid": 8}, 580 + (64 + 2) * 64),
    ],
)
def test_parameters(name, side, options, params):
    assert parameters(registry.create(name, 64, **options)) == params
    row = registry.spec(name)
    assert row.cost(MapShape(64, side, side), row.complete({})).params == (
        params if "reduction" not in options else params - 2048 - 16 + 512 + 4
    )


# BLOCKS.md, section 14; all have a norm and a depthwise convolution where the map is above 7 x 7.
PUBLISHED = [
    ("resnet50", "spse", 28_480_728, "4.0920"),
    ("resnet50", "rgse", 28_212_440, "4.0918"),
    ("resnet101", "spse", 50_172_184, None),
    ("resnet101", "rgse", 49_555_736, None),
    ("resnet152", "spse", 68_066_520, None),
    ("resnet152", "rgse", 67_167_448, None),
]


@pytest.mark.parametrize(("backbone", "block", "params", "gmacs"), PUBLISHED)
def test_published_counts(backbone, block, params, gmacs):
    sites = site_table(backbone, (3, 224, 224), 1000)
    resolved = resolve(Architecture(backbone, (Placement("in-block", block),)), sites)
    cost = architecture_cost(resolved, sites)
    assert cost.params == params
    if gmacs is not None:
        assert f"{cost.macs / 1e9:.4f}" == gmacs


@pytest.mark.parametrize("block", ["spse", "rgse"])
def test_the_published_network_is_built(block):
    written = Architecture("resnet50", (Placement("in-block", block),))
    network = build_network(written, num_classes=1000, input_size=224, seed=0)
    assert parameters(network) == {"spse": 28_480_728, "rgse": 28_212_440}[block]
