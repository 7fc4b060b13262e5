import pytest
import torch
from literal import LITERAL

from blocks import registry
from blocks.cost import measure_cost
from blocks.formulas import Cost, total
from blocks.options import MapShape


def cost_of(block, shape, **options):
    row = registry.spec(block)
    return row.cost(MapShape(*shape), row.complete(options))


def test_costs_add_up():
    assert Cost(1, 2, 3, 4) + Cost(10, 20, 30, 40) == Cost(11, 22, 33, 44)
    assert total([]) == Cost()
    assert total([Cost(1, 1, 2, 3)] * 3) == Cost(3, 3, 6, 9)


def test_cost_survives_json():
    cost = Cost(params=1, trainable_params=2, macs=3, flops=4)
    assert cost.to_json() == {"params": 1, "trainable_params": 2, "macs": 3, "flops": 4}
    assert Cost.from_json(cost.to_json()) == cost


# 64 channels on 7 x 7: 49 pixels, 3136 numbers; r = 16, so 4 wide and 2 * 64 * 4 = 512 weights.
BY_HAND = [
    # mean 3136, layers 1024, ReLU 4, sigmoid 4 * 64, scale 3136
    ("se", {}, (512, 512, 3136 + 1024 + 4 + 256 + 3136)),
    # ... and biases 4 + 64
    ("se", {"bias": True}, (580, 512, 3136 + 1024 + 68 + 4 + 256 + 3136)),
    # mean 3136, 3 taps 2 * 192, sigmoid 256, scale 3136
    ("eca", {}, (3, 192, 3136 + 384 + 256 + 3136)),
    ("eca", {"kernel_size": 9}, (9, 576, 3136 + 1152 + 256 + 3136)),
    # 49 multiplications and 48 additions a channel in the mean's place; not in the macs
    ("fca", {}, (512, 512, 64 * 97 + 1024 + 4 + 256 + 3136)),
    # pooled to 14 x 14 by windows of one pixel, 196 of them a channel; then 391 a channel
    ("fca", {"dct_size": 14}, (512, 512, 64 * 196 + 64 * 391 + 1024 + 4 + 256 + 3136)),
    # eleven a number and two a channel
    ("simam", {}, (0, 0, 11 * 3136 + 2 * 64)),
    # channel gate: mean 3136, maximum 64 * 48, layers twice (1024 + 68 + 4), sum 64, sigmoid 256,
    # scale 3136; spatial gate: maximum 63 * 49, mean 3136, 98 taps on 49 pixels, norm 2 * 49,
    # sigmoid 4 * 49, scale 3136
    (
        "cbam",
        {},
        (
            512 + 68 + 98 + 2,
            1024 + 98 * 49,
            *[3136 + 3072 + 2 * 1096 + 64 + 256 + 3136 + 3087 + 3136 + 9604 + 98 + 196 + 3136],
        ),
    ),
    # 18 taps and no norm
    (
        "cbam",
        {"kernel_size": 3, "norm": False},
        (
            512 + 68 + 18,
            1024 + 18 * 49,
            *[3136 + 3072 + 2 * 1096 + 64 + 256 + 3136 + 3087 + 3136 + 1764 + 196 + 3136],
        ),
    ),
    # 32 wide: mean, layers, biases 96, ReLU 32, sigmoid, scale
    ("cse", {}, (4096 + 96, 4096, 3136 + 8192 + 96 + 32 + 256 + 3136)),
    # a weighted sum and a bias for 49 pixels, sigmoid 4 * 49, scale
    ("sse", {}, (65, 3136, 6272 + 49 + 196 + 3136)),
    # both, and one operation a number
    (
        "scse",
        {},
        (4192 + 65, 4096 + 3136, 3136 + 8192 + 96 + 32 + 256 + 3136 + 9653 + 3136),
    ),
    # pools of 49, 8 * 8 and 10 * 10 numbers (7 in 4 parts: 2, 3, 3, 2), taps 1 + 4 + 16, three
    # biases, two sums, norm, ReLU, layers 1024 + 68 + 4, sigmoid, scale
    (
        "spse",
        {},
        (
            580 + 26 * 64,
            512 + 21 * 64,
            64 * 213 + 2 * 64 * 21 + 64 * (3 + 2 + 2 + 1) + 1096 + 256 + 3136,
        ),
    ),
    # one window: no taps and no norm, but a ReLU
    ("rgse", {}, (580, 512, 3136 + 64 + 1096 + 256 + 3136)),
    # three projections with biases; 2401 pairs, 2 * 64 products and a softmax (5) each; gamma;
    # the outer residual
    (
        "selfatt",
        {},
        (
            3 * 4160 + 1,
            3 * 4096 * 49 + 2401 * 128,
            2 * (3 * 4096 * 49 + 2401 * 128) + 3 * 3136 + 5 * 2401 + 3136 + 3136,
        ),
    ),
    # four projections; 8 heads of 2401 pairs, scale and softmax 6 each
    (
        "mha",
        {},
        (
            4 * 4160 + 1,
            4 * 4096 * 49 + 2401 * 128,
            2 * (4 * 4096 * 49 + 2401 * 128) + 4 * 3136 + 6 * 8 * 2401 + 3136 + 3136,
        ),
    ),
]


# Triplet attention pools the 3136 numbers to planes of 448, 448 and 49, 945 in all: maximum and
# mean, 98 taps, norm 2, sigmoid 4; three scaled maps, two additions and one multiplication.
PLANES = 6 * 3136 - 945 + 2 * 98 * 945 + 6 * 945 + 3 * 3136
SQUEEZE = 3136 + 1024 + 4 + 256 + 3136
BY_HAND += [
    # two means, 8 wide on 14 lines (1024 products, a bias, norm 2, hard-swish 5 each), 64 wide
    # with a bias and a sigmoid, two scales
    (
        "coord",
        {},
        (
            3 * 512 + 24 + 128,
            2 * 512 * 14,
            2 * 3136 + 4 * 512 * 14 + 8 * 8 * 14 + 5 * 64 * 14 + 2 * 3136,
        ),
    ),
    ("triplet", {}, (300, 98 * 945, PLANES + 3 * 3136)),
    # planes of 896; one addition and one multiplication
    (
        "triplet",
        {"kernel_size": 3, "spatial": False},
        (40, 18 * 896, 4 * 3136 - 896 + 2 * 18 * 896 + 6 * 896 + 2 * 3136 + 2 * 3136),
    ),
    ("tripse1", {}, (812, 98 * 945 + 512, PLANES + 3 * 3136 + SQUEEZE)),
    ("tripse1", {"combine": "sum"}, (812, 98 * 945 + 512, PLANES + 2 * 3136 + SQUEEZE)),
    ("tripse2", {}, (1836, 98 * 945 + 1536, PLANES + 3 * 3136 + 3 * SQUEEZE)),
    ("tripse3", {}, (1836, 98 * 945 + 1536, PLANES + 3 * 3136 + 3 * SQUEEZE)),
    # no scale by SE; SE's logits are added, and the third sigmoid is taken of 3136, not of 49
    (
        "tripse4",
        {},
        (
            1836,
            98 * 945 + 1536,
            PLANES + 3 * 3136 + 3 * (3136 + 1024 + 4) + 896 + 3136 + 4 * (3136 - 49),
        ),
    ),
]


# 64 channels on 5 x 9 pixels, 2880 numbers, planes of 576, 320 and 45; r = 4: 1, 2 and 16 wide, so
# 5 + 18 + 1024 = 1047 weights each way, 78 logits. TripSE4's three gates are as large as the map.
ROTATED = {"axis": "rotated", "reduction": 4}
WIDE = 6 * 2880 - 941 + 2 * 98 * 941 + 6 * 941 + 3 * 2880 + 3 * 2880
LAYERS = 4 * 1047 + 19
ROTATED_BY_HAND = [
    ("tripse2", WIDE + 3 * 2 * 2880 + LAYERS + 4 * 78),
    ("tripse3", WIDE + 3 * 2 * 2880 + LAYERS + 4 * 78),
    ("tripse4", WIDE + 3 * 2880 + LAYERS + 3 * 2880 + 4 * (3 * 2880 - 941)),
]


@pytest.mark.parametrize(("block", "flops"), ROTATED_BY_HAND)
def test_costs_of_rotated_branches_worked_out_by_hand(block, flops):
    params, macs = 300 + 2 * 1047, 98 * 941 + 2 * 1047
    assert cost_of(block, (64, 5, 9), **ROTATED) == Cost(params, params, macs, flops)


@pytest.mark.parametrize(("block", "options", "expected"), BY_HAND)
def test_costs_worked_out_by_hand(block, options, expected):
    params, macs, flops = expected
    assert cost_of(block, (64, 7, 7), **options) == Cost(params, params, macs, flops)


def test_simam_on_one_pixel_is_one_multiplication():
    assert cost_of("simam", (64, 1, 1)) == Cost(flops=64)


def test_macs_of_fcanet_are_those_of_se():
    for shape in [(64, 7, 7), (256, 56, 56), (16, 3, 5)]:
        se, fca = cost_of("se", shape), cost_of("fca", shape)
        assert (se.params, se.macs) == (fca.params, fca.macs)
        assert fca.flops > se.flops


SHAPES = [(64, 7, 7), (64, 1, 1), (32, 5, 9), (48, 14, 14), (16, 3, 2)]
CASES = [
    ("se", {}),
    ("se", {"reduction": 4, "bias": True}),
    ("se", {"reduction": 1000}),
    ("eca", {}),
    ("eca", {"kernel_size": 9}),
    ("fca", {}),
    ("fca", {"frequency": "low2", "reduction": 4}),
    ("fca", {"frequency": "bot8", "dct_size": 7}),
    ("fca", {"frequency": "top1", "dct_size": 3, "authors": True}),
    ("simam", {}),
    ("simam", {"energy_lambda": 0.1}),
    ("cbam", {}),
    ("cbam", {"reduction": 4, "kernel_size": 3}),
    ("cbam", {"norm": False, "kernel_size": 5}),
    ("cse", {}),
    ("cse", {"reduction": 4, "gate": "tanh"}),
    ("sse", {}),
    ("sse", {"gate": "hardsigmoid"}),
    ("scse", {}),
    ("scse", {"combine": "add", "reduction": 16}),
    ("scse", {"combine": "mul", "gate": "relu"}),
    ("spse", {}),
    ("spse", {"reduction": 4, "residual": True}),
    ("rgse", {}),
    ("rgse", {"reduction": 4, "gate": "tanh"}),
    ("coord", {}),
    ("coord", {"reduction": 4}),
    ("triplet", {}),
    ("triplet", {"kernel_size": 3, "spatial": False}),
    ("tripse1", {}),
    ("tripse1", {"reduction": 4, "combine": "sum"}),
    ("tripse2", {}),
    ("tripse2", {"reduction": 4, "combine": "sum"}),
    ("tripse3", {}),
    ("tripse3", {"reduction": 4, "combine": "sum"}),
    ("tripse4", {}),
    ("tripse4", {"reduction": 4, "combine": "sum"}),
    ("tripse4", {"weights": True}),
    ("tripse2", {"axis": "rotated"}),
    ("tripse3", {"axis": "rotated", "reduction": 4, "combine": "sum"}),
    ("tripse4", {"axis": "rotated"}),
    ("tripse4", {"axis": "rotated", "weights": True, "reduction": 2}),
    *(
        ("parallel", {"blocks": "se + cbam", "combine": c})
        for c in ("sum", "mean", "max", "concat")
    ),
    ("sequential", {"blocks": "se(bias=true) + sse + eca"}),
]


def test_every_block_with_a_formula_is_put_to_the_count():
    with_formula = {spec.name for spec in registry.specs() if spec.cost is not None}
    # Fused attention is put to the count of its literal form in test_self_attention.
    assert with_formula == {block for block, _ in CASES} | {"selfatt", "mha"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("block", "options"), CASES)
def test_formula_equals_the_count_of_the_operators(block, options, shape):
    row = registry.spec(block)
    if row.requirement(MapShape(*shape), row.complete(options)) is not None:
        pytest.skip(f"{block} cannot stand at {shape}")
    at_the_map = row.in_use(options, MapShape(*shape))
    if block in LITERAL:
        if "axis" in options:
            options = {**options, "axis": at_the_map["axis"]}
        built = LITERAL[block](shape[0], **options)
    else:
        built = registry.create(block, shape[0], **{**at_the_map, **options}).eval().to("meta")
        built(torch.empty(1, *shape, device="meta"))  # FcaNet's bases are made once, not per image
        del built.attention_block
    assert measure_cost(built, shape) == cost_of(block, shape, **options)
