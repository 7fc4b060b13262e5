"""Parameters and MACs of whole networks against what is published, or against a sum by hand.

ResNet-50 has 3, 4, 6 and 3 units with 256, 512, 1024 and 2048 channels on maps of 56, 28, 14 and 7
pixels a side (images of 224 x 224). Every block stands in each of the 16 units; what one costs is
written below as its paper or its authors' code has it, not as ``blocks.formulas`` computes it.
"""

import pytest
import torch

from blocks import registry
from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.backbone import site_table
from blocks.build import build_network

STAGES = [(3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7)]  # units, channels, side


def bottleneck_macs(channels_in, channels, side_in, side):
    """1x1 at the input's size, 3x3 with the stride, 1x1; a projection where the shape changes."""
    width = channels // 4
    macs = channels_in * width * side_in**2
    macs += 9 * width * width * side**2 + width * channels * side**2
    if channels_in != channels:
        macs += channels_in * channels * side**2
    return macs


def resnet50_macs():
    macs = 7 * 7 * 3 * 64 * 112**2  # the stem
    channels_in, side_in = 64, 56
    for units, channels, side in STAGES:
        for _ in range(units):
            macs += bottleneck_macs(channels_in, channels, side_in, side)
            channels_in, side_in = channels, side
    return macs + 2048 * 1000


RESNET50_PARAMS = 25_557_032


# (parameters, MACs) of one block at C channels on S x S pixels -----------------------------------


def squeezed(channels, side):
    return 2 * channels * (channels // 16), 2 * channels * (channels // 16)


def squeezed_biased(channels, side, reduction=16):
    hidden = channels // reduction
    return 2 * channels * hidden + hidden + channels, 2 * channels * hidden


def half_squeezed(channels, side):
    return squeezed_biased(channels, side, reduction=2)


def pixel_gate(channels, side):
    return channels + 1, channels * side**2


def both(channels, side):
    one, other = half_squeezed(channels, side), pixel_gate(channels, side)
    return one[0] + other[0], one[1] + other[1]


def kernel(*sizes):
    sizes = dict(zip((256, 512, 1024, 2048), sizes, strict=True))
    return lambda channels, side: (sizes[channels], sizes[channels] * channels)


def nothing(channels, side):
    return 0, 0


def coordinate(channels, side):
    width = max(8, channels // 32)
    lines = 2 * side
    params = 3 * channels * width + 3 * width + 2 * channels
    return params, channels * width * lines + 2 * channels * width * side


def cbam(channels, side):
    params, macs = squeezed_biased(channels, side)
    return params + 98 + 2, 2 * macs + 98 * side**2


def planes(channels, side, taps=98):
    return 3 * (taps + 2), taps * (2 * channels * side + side**2)


def two_planes(channels, side):
    return 200, 98 * 2 * channels * side


def planes_and(squeezes):
    def unit(channels, side):
        params, macs = planes(channels, side)
        layers = squeezes * 2 * channels * (channels // 16)
        return params + layers, macs + layers

    return unit


def planes_and_rotated(channels, side):
    params, macs = planes(channels, side)
    layers = 2 * (channels * (channels // 16) + 2 * side * max(1, side // 16))
    return params + layers, macs + layers


def pyramid(channels, side):
    params, macs = squeezed_biased(channels, side)
    return params + 26 * channels, macs + (1 + 4 + 16) * channels


def grid(channels, side):
    windows = (side // 7) ** 2
    params, macs = squeezed_biased(channels, side)
    if windows == 1:
        return params, macs
    return params + (windows + 2) * channels, macs + windows * channels


def attention(projections):
    def unit(channels, side):
        pixels = side**2
        params = projections * (channels**2 + channels) + 1
        return params, projections * channels**2 * pixels + 2 * channels * pixels**2

    return unit


def together(*units):
    def unit(channels, side):
        params, macs = zip(*(one(channels, side) for one in units), strict=True)
        return sum(params), sum(macs)

    return unit


# name: block, options (a list: one of each stage), one unit by hand, published parameters and GMACs
K3557 = [{"kernel_size": k} for k in (3, 5, 5, 7)]
NETWORKS = {
    "none": ("none", {}, nothing, 25_557_032, "4.0892"),
    "se": ("se", {}, squeezed, 28_071_976, "4.0917"),
    # The Caffe models' 28.09 M; their stride is elsewhere, so their MACs are others.
    "se with biases": ("se", {"bias": True}, squeezed_biased, 28_088_024, None),
    "cse": ("cse", {}, half_squeezed, None, None),
    "sse": ("sse", {}, pixel_gate, None, None),
    "scse": ("scse", {}, both, None, None),
    # The formula of the paper; the released networks have 3, 5, 5, 7, which are the 80 parameters.
    "eca": ("eca", {}, kernel(5, 5, 5, 7), None, None),
    "eca 3557": ("eca", K3557, kernel(3, 5, 5, 7), 25_557_112, "4.0893"),
    "fca": ("fca", {}, squeezed, 28_071_976, "4.0917"),
    "fca top1": ("fca", {"frequency": "top1"}, squeezed, 28_071_976, "4.0917"),
    "fca low2": ("fca", {"frequency": "low2"}, squeezed, 28_071_976, "4.0917"),
    "fca bot32": ("fca", {"frequency": "bot32"}, squeezed, 28_071_976, "4.0917"),
    "fca 7 x 7": ("fca", {"dct_size": 7}, squeezed, 28_071_976, "4.0917"),
    "coord": ("coord", {}, coordinate, None, None),
    "simam": ("simam", {}, nothing, 25_557_032, "4.0892"),
    "cbam": ("cbam", {}, cbam, 28_089_624, "4.0956"),
    "triplet": ("triplet", {}, planes, 25_561_832, "4.1355"),
    "triplet, two branches": ("triplet", {"spatial": False}, two_planes, None, None),
    "tripse1": ("tripse1", {}, planes_and(1), None, None),
    "tripse2": ("tripse2", {}, planes_and(3), None, None),
    "tripse3": ("tripse3", {}, planes_and(3), None, None),
    "tripse4": ("tripse4", {}, planes_and(3), None, None),
    "tripse2 rotated": ("tripse2", {"axis": "rotated"}, planes_and_rotated, None, None),
    "spse": ("spse", {}, pyramid, 28_480_728, "4.0920"),
    "rgse": ("rgse", {}, grid, 28_212_440, "4.0918"),
    "selfatt": ("selfatt", {}, attention(3), None, None),
    "mha": ("mha", {}, attention(4), None, None),
    "parallel": ("parallel", {"blocks": "se + cbam"}, together(squeezed, cbam), None, None),
    "sequential": (
        "sequential",
        {"blocks": "se + triplet"},
        together(squeezed, planes),
        None,
        None,
    ),
}


def in_every_unit(block, options):
    if isinstance(options, list):
        return [
            Placement(f"stage{stage}.in-block", block, of_stage)
            for stage, of_stage in enumerate(options, start=1)
        ]
    return [Placement("in-block", block, options)]


def cost_of(backbone, placements, image=(3, 224, 224), classes=1000):
    sites = site_table(backbone, image, classes)
    return architecture_cost(resolve(Architecture(backbone, tuple(placements)), sites), sites)


def test_every_block_is_in_the_table():
    own = {name for name in registry.names() if ":" not in name}  # not another library's
    assert {block for block, *_ in NETWORKS.values()} == own


@pytest.mark.parametrize("name", NETWORKS)
def test_resnet50_with_a_block_in_every_unit(name):
    block, options, unit, published_params, published_gmacs = NETWORKS[name]
    by_hand = [
        (count * params, count * macs)
        for count, channels, side in STAGES
        for params, macs in [unit(channels, side)]
    ]
    params = RESNET50_PARAMS + sum(params for params, _ in by_hand)
    macs = resnet50_macs() + sum(macs for _, macs in by_hand)
    cost = cost_of("resnet50", in_every_unit(block, options))
    assert (cost.params, cost.trainable_params, cost.macs) == (params, params, macs)
    if published_params is not None:
        assert cost.params == published_params
    if published_gmacs is not None:
        assert f"{cost.macs / 1e9:.4f}" == published_gmacs


@pytest.mark.parametrize("name", NETWORKS)
def test_the_built_resnet50_has_these_parameters(name):
    block, options, *_ = NETWORKS[name]
    placements = in_every_unit(block, options)
    with torch.device("meta"):
        network = build_network(
            Architecture("resnet50", tuple(placements)), num_classes=1000, input_size=224
        )
    built = sum(p.numel() for p in network.parameters())
    assert built == cost_of("resnet50", placements).params


# Other networks are in test_architecture, test_backbone, test_spatial_pooling and
# test_self_attention. CNNtention's CBAM (271,363 and 270,691) has layers without biases and a
# biased convolution without a norm, which no option of `cbam` builds.


def test_published_parameters_of_the_deepest_caffe_network():
    assert cost_of("resnet152", in_every_unit("se", {"bias": True})).params == 66_821_848
