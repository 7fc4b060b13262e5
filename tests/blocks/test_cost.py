import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from blocks import registry
from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import block_cost, measure_cost
from blocks.errors import BlockError, SiteError
from blocks.formulas import Cost
from blocks.options import MapShape


class Function(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# Single layers -----------------------------------------------------------------------------------

# (network, (channels, height, width), (params, macs, flops)). 4 x 6 x 6 is 144 numbers.
LAYERS = {
    # 8 outputs of 36 pixels, 4 * 9 weights each
    "convolution": (nn.Conv2d(4, 8, 3, padding=1, bias=False), (4, 6, 6), (288, 10368, 20736)),
    # ... and a bias for each of 288 outputs
    "bias": (nn.Conv2d(4, 8, 3, padding=1), (4, 6, 6), (296, 10368, 20736 + 288)),
    # no padding: 4 x 4 pixels, 128 outputs
    "no padding": (nn.Conv2d(4, 8, 3, bias=False), (4, 6, 6), (288, 128 * 36, 2 * 128 * 36)),
    # stride 2: 3 x 3 pixels, 72 outputs
    "stride": (
        nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False),
        (4, 6, 6),
        (288, 72 * 36, 2 * 72 * 36),
    ),
    # 2 groups: each output sees 2 * 9 numbers
    "groups": (
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        (4, 6, 6),
        (152, 288 * 18, 2 * 288 * 18 + 288),
    ),
    # depthwise: 9 numbers
    "depthwise": (
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        (4, 6, 6),
        (36, 144 * 9, 2 * 144 * 9),
    ),
    # 5 x 6 map, kernel 1 x 3: 5 x 4 pixels of 2 channels, 3 * 3 numbers
    "not square": (
        nn.Conv2d(3, 2, (1, 3), bias=False),
        (3, 5, 6),
        (18, 40 * 9, 2 * 40 * 9),
    ),
    # every one of 144 inputs is multiplied with 2 * 4 weights; 2 x 12 x 12 outputs have a bias
    "transposed convolution": (
        nn.ConvTranspose2d(4, 2, 2, stride=2),
        (4, 6, 6),
        (34, 144 * 8, 2 * 144 * 8 + 288),
    ),
    # 4 * 6 rows of 6 numbers to 5
    "linear": (nn.Linear(6, 5), (4, 6, 6), (35, 24 * 30, 2 * 24 * 30 + 24 * 5)),
    "linear without bias": (nn.Linear(6, 5, bias=False), (4, 6, 6), (30, 24 * 30, 2 * 24 * 30)),
    # one row
    "classifier": (
        nn.Sequential(nn.Flatten(), nn.Linear(144, 10)),
        (4, 6, 6),
        (1450, 1440, 2890),
    ),
    "batch norm": (nn.BatchNorm2d(4), (4, 6, 6), (8, 0, 288)),
    # mean, subtract, square, mean, divide, scale, shift
    "layer norm": (nn.LayerNorm(6), (4, 6, 6), (12, 0, 7 * 144)),
    "layer norm without weights": (
        nn.LayerNorm(6, elementwise_affine=False),
        (4, 6, 6),
        (0, 0, 5 * 144),
    ),
    "group norm": (nn.GroupNorm(2, 4), (4, 6, 6), (8, 0, 7 * 144)),
    "ReLU": (nn.ReLU(), (4, 6, 6), (0, 0, 144)),
    "ReLU in place": (nn.ReLU(inplace=True), (4, 6, 6), (0, 0, 144)),
    "ReLU6": (nn.ReLU6(), (4, 6, 6), (0, 0, 2 * 144)),
    "sigmoid": (nn.Sigmoid(), (4, 6, 6), (0, 0, 4 * 144)),
    "tanh": (nn.Tanh(), (4, 6, 6), (0, 0, 144)),
    # a sigmoid and a multiplication
    "SiLU": (nn.SiLU(), (4, 6, 6), (0, 0, 5 * 144)),
    "GELU": (nn.GELU(), (4, 6, 6), (0, 0, 5 * 144)),
    "hard-swish": (nn.Hardswish(), (4, 6, 6), (0, 0, 5 * 144)),
    "hard-sigmoid": (nn.Hardsigmoid(), (4, 6, 6), (0, 0, 4 * 144)),
    # largest, subtract, exp, sum, divide
    "softmax": (nn.Softmax(dim=1), (4, 6, 6), (0, 0, 5 * 144)),
    # 3 x 3 windows of 4 numbers: 3 comparisons, or 3 additions and a division
    "max-pool": (nn.MaxPool2d(2), (4, 6, 6), (0, 0, 36 * 3)),
    "average pool": (nn.AvgPool2d(2), (4, 6, 6), (0, 0, 36 * 4)),
    "max-pool with stride": (nn.MaxPool2d(3, stride=2, padding=1), (4, 6, 6), (0, 0, 36 * 8)),
    "global pool": (nn.AdaptiveAvgPool2d(1), (4, 6, 6), (0, 0, 144)),
    # 36 windows of 2 x 2, 3 comparisons each; 4 x 16 windows of 2 x 2 that overlap
    "adaptive max-pool": (nn.AdaptiveMaxPool2d(3), (4, 6, 6), (0, 0, 36 * 3)),
    "adaptive max-pool, overlapping": (nn.AdaptiveMaxPool2d(4), (4, 6, 6), (0, 0, 64 * 3)),
    # a comparison and a multiplication; a convolution of 1 x 1 at 8 x 8 pixels that are copies
    "PReLU": (nn.PReLU(), (4, 6, 6), (1, 0, 2 * 144)),
    "reflected edge": (
        nn.Conv2d(4, 4, 1, padding=1, padding_mode="reflect", bias=False),
        (4, 6, 6),
        (16, 64 * 16, 2 * 64 * 16),
    ),
    "repeated edge": (
        nn.Conv2d(4, 4, 1, padding=1, padding_mode="replicate", bias=False),
        (4, 6, 6),
        (16, 64 * 16, 2 * 64 * 16),
    ),
    # windows of 2 x 2
    "adaptive pool": (nn.AdaptiveAvgPool2d(3), (4, 6, 6), (0, 0, 144)),
    # 6 into 4: windows of 2, 2, 2 and 2 (0-1, 1-2, 3-4, 4-5): 8 a side
    "adaptive pool, overlapping": (nn.AdaptiveAvgPool2d(4), (4, 6, 6), (0, 0, 4 * 64)),
    # 2 into 3: windows of 1, 2 and 1: 4 a side
    "adaptive pool, upwards": (nn.AdaptiveAvgPool2d(3), (4, 2, 2), (0, 0, 4 * 16)),
    "mean": (Function(lambda x: x.mean(dim=(2, 3))), (4, 6, 6), (0, 0, 144)),
    "sum": (Function(lambda x: x.sum(dim=(2, 3))), (4, 6, 6), (0, 0, 144 - 4)),
    "maximum": (Function(lambda x: x.amax(dim=1)), (4, 6, 6), (0, 0, 144 - 36)),
    "addition": (Function(lambda x: x + x), (4, 6, 6), (0, 0, 144)),
    "scaling channels": (Function(lambda x: x * x[:, :, :1, :1]), (4, 6, 6), (0, 0, 144)),
    # 36 x 36 pairs of 4 channels
    "matrix product": (
        Function(lambda x: x.flatten(2).mT @ x.flatten(2)),
        (4, 6, 6),
        (0, 36 * 36 * 4, 2 * 36 * 36 * 4),
    ),
    # dilation 2: 3 x 3 taps over 5 x 5 pixels leave 2 x 2, 32 outputs with a bias
    "dilation": (
        nn.Conv2d(4, 8, 3, dilation=2),
        (4, 6, 6),
        (296, 32 * 36, 2 * 32 * 36 + 32),
    ),
    # every one of 144 inputs with the 9 * 3 weights of its group; 6 x 11 x 11 outputs have a bias
    "transposed convolution in groups": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2),
        (4, 6, 6),
        (4 * 3 * 9 + 6, 144 * 27, 2 * 144 * 27 + 6 * 121),
    ),
    # 4 products of 6 x 6 matrices, added to what is there
    "added matrix product": (
        Function(lambda x: torch.baddbmm(x[0], x[0], x[0])),
        (4, 6, 6),
        (0, 4 * 36 * 6, 2 * 4 * 36 * 6 + 144),
    ),
    # a comparison, an exponential and a subtraction
    "ELU": (nn.ELU(), (4, 6, 6), (0, 0, 3 * 144)),
    "leaky ReLU": (nn.LeakyReLU(), (4, 6, 6), (0, 0, 2 * 144)),
    # two halves of 72 numbers: the sigmoid of one times the other
    "GLU": (nn.GLU(dim=1), (4, 6, 6), (0, 0, 5 * 72)),
    "log-softmax": (nn.LogSoftmax(dim=1), (4, 6, 6), (0, 0, 5 * 144)),
    "nearest": (nn.Upsample(scale_factor=2), (4, 6, 6), (0, 0, 0)),
    # three weighted means of two numbers; five of four
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (4, 6, 6), (0, 0, 9 * 576)),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), (4, 6, 6), (0, 0, 35 * 576)),
    # a square, and a sum with its root
    "norm": (Function(lambda x: torch.linalg.vector_norm(x, dim=1)), (4, 6, 6), (0, 0, 288)),
    "choosing numbers": (
        Function(lambda x: torch.where(torch.ones_like(x, dtype=torch.bool), x, x)),
        (4, 6, 6),
        (0, 0, 0),
    ),
    "moving numbers": (
        Function(lambda x: torch.cat([x.permute(0, 1, 3, 2), x], 1).flip(2)[:, ::2].reshape(-1)),
        (4, 6, 6),
        (0, 0, 0),
    ),
    "dropout": (nn.Dropout(0.5), (4, 6, 6), (0, 0, 0)),
    "identity": (nn.Identity(), (4, 6, 6), (0, 0, 0)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_worked_out_by_hand(layer):
    network, shape, (params, macs, flops) = LAYERS[layer]
    assert measure_cost(network, shape) == Cost(params, params, macs, flops)


def test_fused_attention():
    # 4 heads of 5 tokens of 6 numbers: 4 * 25 pairs, 6 numbers for each of the two products.
    attention = Function(lambda x: functional.scaled_dot_product_attention(x, x, x))
    cost = measure_cost(attention, (4, 5, 6))
    assert cost.macs == 100 * 12
    # Softmax takes 5 a pair; torch scales the pairs, or queries and keys (120 numbers each).
    assert cost.flops - 2 * cost.macs in (100 * 6, 100 * 5 + 240)


def test_layers_add_up():
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    # Above; 8 x 36 outputs are normalised and cut.
    assert measure_cost(network, (4, 6, 6)) == Cost(312, 312, 10368, 20736 + 288 + 576 + 288)


def test_a_layer_used_twice_costs_twice_and_has_its_parameters_once():
    layer = nn.Conv2d(4, 4, 1, bias=False)
    assert measure_cost(nn.Sequential(layer, layer), (4, 6, 6)) == Cost(16, 16, 1152, 2304)


def test_a_layer_that_is_not_reached_costs_parameters_alone():
    network = nn.ReLU()
    network.unused = nn.Linear(10, 10)
    assert measure_cost(network, (4, 6, 6)) == Cost(110, 110, 0, 144)


def test_frozen_parameters_are_told_apart():
    network = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 2, bias=False))
    network[0].weight.requires_grad_(False)
    cost = measure_cost(network, (4, 6, 6))
    assert (cost.params, cost.trainable_params) == (40, 10)


def test_integers_are_not_floating_point():
    index = Function(lambda x: x[:, torch.arange(4, device=x.device) * 1])
    assert measure_cost(index, (4, 6, 6)) == Cost()


@pytest.mark.parametrize(
    ("network", "operator"),
    [
        (nn.CELU(), "aten.celu"),
        (nn.AdaptiveMaxPool3d(3), "aten.adaptive_max_pool3d"),
        (Function(torch.fft.rfft2), "aten._fft_r2c"),
    ],
)
def test_operators_that_are_not_counted_are_named(network, operator):
    network = nn.Sequential(nn.ReLU(), network)
    with pytest.warns(UserWarning, match=f"in no cost table, counted as 0: .*{operator}"):
        cost = measure_cost(network, (4, 6, 6))
    assert cost.flops == 144


def test_the_network_is_not_changed():
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), registry.create("se", 8)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure_cost(network, (4, 6, 6))
    assert all(module.training for module in network.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_and_evaluation_cost_the_same():
    network = build_network(Architecture("resnet20", (Placement("in-block", "cbam"),)))
    assert measure_cost(network.train(), (3, 32, 32)) == measure_cost(network.eval(), (3, 32, 32))


# Blocks ------------------------------------------------------------------------------------------


def test_a_block_costs_its_formula_however_it_is_spelt():
    # The formula replaces what its operators would be counted as.
    block = registry.create("se", 8)
    block.forward = lambda x: x.exp().log().sqrt()
    shape = MapShape(8, 6, 6)
    assert measure_cost(block, (8, 6, 6)) == block_cost("se", shape, {})


@pytest.mark.parametrize("name", registry.names()[1:])
def test_block_cost_is_the_cost_of_the_built_block(name):
    side = (7, 7) if name == "rgse" else (9, 5)  # the one size that its default takes
    block = registry.create(name, 32)
    assert block_cost(name, MapShape(32, *side), {}) == measure_cost(block, (32, *side))


def test_block_cost_refuses_what_cannot_be():
    with pytest.raises(BlockError, match="unknown block 'sea'"):
        block_cost("sea", MapShape(8, 4, 4), {})
    with pytest.raises(BlockError, match=r"se\.reduction: 0"):
        block_cost("se", MapShape(8, 4, 4), {"reduction": 0})


# Whole networks: the sum of formulas is what the built network is counted at ---------------------

ANYWHERE = [name for name in registry.names()[1:] if name != "rgse"]  # see test_spatial_pooling
PLACED = [
    (),
    *[((where, name, {}),) for where in ("stem", "stage") for name in ANYWHERE],
    *[(("in-block", name, {}),) for name in ("se", "fca", "cbam")],
    (("in-block", "se", {"reduction": 4, "bias": True}),),
    (("in-block", "eca", {"kernel_size": 9}),),
    (("stage", "fca", {"frequency": "low2", "dct_size": 7}),),
    (("stage3", "fca", {"frequency": "bot32", "authors": True, "dct_size": 14}),),
    (("in-block", "cbam", {"kernel_size": 3, "norm": False}),),
    (("stage2.in-block", "simam", {"energy_lambda": 0.1}),),
    (("stem", "se", {}), ("in-block", "eca", {}), ("stage", "cbam", {"reduction": 8})),
    (("stage1", "fca", {}), ("stage1.in-block", "se", {}), ("stage3.unit2.standard", "cbam", {})),
]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 17, 40), (3, 4, 4)])
@pytest.mark.parametrize("placed", PLACED)
def test_formulas_add_up_to_the_built_network(placed, shape):
    sites = site_table("resnet20", shape, 7)
    written = Architecture("resnet20", tuple(Placement(*placement) for placement in placed))
    network = build_network(written, num_classes=7, in_channels=shape[0], input_size=shape[1:])
    expected = architecture_cost(resolve(written, sites), sites)
    assert measure_cost(network, shape) == expected
    assert sum(p.numel() for p in network.parameters()) == expected.params


def test_formulas_add_up_to_the_published_network():
    sites = site_table("resnet18", (3, 224, 224), 1000)
    written = Architecture("resnet18", (Placement("in-block", "cbam"),))
    network = build_network(written, num_classes=1000, input_size=224, seed=0)
    assert sum(p.numel() for p in network.parameters()) == 11_779_392
    assert measure_cost(network, (3, 224, 224)) == architecture_cost(resolve(written, sites), sites)


def test_counting_warns_of_nothing_in_a_whole_network():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("resnet20", "resnet20-b"):
            measure_cost(build_network(Architecture(name)), (3, 32, 32))


def test_a_block_that_cannot_stand_there_is_refused_when_built():
    with pytest.raises(SiteError, match=r"16 channels .* 32 equal frequency groups at site stem"):
        build_network(Architecture("resnet20", (Placement("stem", "fca", {"frequency": "top32"}),)))
