import math

import pytest

from blocks import registry
from blocks.errors import BlockError
from blocks.options import MapShape, bottleneck_width, dct_shape

OPTIONS = [(spec, option) for spec in registry.specs() for option in spec.options]
EVERY_OPTION = pytest.mark.parametrize(
    ("spec", "option"), OPTIONS, ids=[f"{spec.name}.{option.name}" for spec, option in OPTIONS]
)
SHAPES = [MapShape(64, 56, 56), MapShape(64, 7, 9), MapShape(16, 4, 4), MapShape(32, 1, 1)]


def in_use(block, shape, **options):
    return registry.spec(block).in_use(options, MapShape(*shape))


@pytest.mark.parametrize(
    ("channels", "reduction", "width"),
    [(64, 16, 4), (64, 64, 1), (64, 65, 1), (96, 16, 6), (100, 16, 6), (7, 2, 3), (1, 1, 1)],
)
def test_bottleneck_width(channels, reduction, width):
    assert bottleneck_width(channels, reduction) == width


@EVERY_OPTION
def test_values_hold_the_default_once_each_and_all_are_allowed(spec, option):
    assert option.default in option.values
    assert len(set(option.values)) == len(option.values)
    for value in option.values:
        assert option.checked(value, block=spec.name) == value


@EVERY_OPTION
def test_what_takes_effect_is_allowed_and_stays_as_it_is(spec, option):
    for shape in SHAPES:
        for value in option.values:
            given = {option.name: value}
            if spec.requirement(shape, spec.complete(given)) is not None:
                continue
            effective = spec.in_use(given, shape)
            for name, kept in effective.items():
                spec.option(name).checked(kept, block=spec.name)
            assert spec.in_use(effective, shape) == effective


@EVERY_OPTION
def test_a_value_left_out_of_the_identity_is_the_default(spec, option):
    # Otherwise the network built from the identity would be another one.
    assert option.neutral is None or option.neutral == option.default


@EVERY_OPTION
def test_every_option_says_what_it_means_and_allows(spec, option):
    assert option.meaning
    assert option.allowed


REFUSED = [
    ("se", "reduction", [0, -4, 2.5, 16.0, "16", True, None, math.nan]),
    ("se", "bias", [1, 0, "true", None]),
    ("eca", "kernel_size", [0, 2, -3, 3.0, "3", "Auto", True, None]),
    ("cbam", "kernel_size", [0, 4, -7, 7.0, "auto", True]),
    ("cbam", "norm", [1, "no"]),
    ("scse", "combine", ["sum", "mean", "", 1, None]),
    ("rgse", "grid", [0, 3, 16, 2.0, "2", True, None]),
    ("selfatt", "scale", [1, 0.5, "true", None]),
    ("mha", "heads", [0, -2, 2.0, "8", True, None]),
    ("fca", "frequency", ["top3", "7,0", "", 3, "0,0;0,1"]),
    ("fca", "dct_size", [0, -7, 7.0, "7", "auto", True]),
    ("fca", "authors", [1, "yes"]),
    ("coord", "reduction", [0, -4, 2.5, "16", True]),
    ("triplet", "kernel_size", [0, 4, 7.0, "auto", True]),
    ("triplet", "spatial", [1, "no"]),
    ("tripse1", "combine", ["max", "Mean", 1, True]),
    ("tripse4", "weights", [1, "yes"]),
    (
        "tripse2",
        "axis",
        ["Rotated", "rotated:", "rotated:0x3", "rotated:3x", 1, True],
    ),
    ("tripse3", "axis", ["spatial", "rotated:3", "rotated:3x4x5", "channels:3x4", None]),
    ("simam", "energy_lambda", [0, -0.1, math.inf, math.nan, "0.1", True, None]),
]


@pytest.mark.parametrize(
    ("block", "option", "value"), [(b, o, value) for b, o, values in REFUSED for value in values]
)
def test_values_that_cannot_be_are_refused_with_what_is_allowed(block, option, value):
    row = registry.spec(block)
    with pytest.raises(BlockError) as refusal:
        row.complete({option: value})
    message = str(refusal.value)
    assert message.startswith(f"{block}.{option}: ")
    assert repr(value) in message or repr(str(value)) in message
    assert f"llowed: {row.option(option).allowed}" in message


@pytest.mark.parametrize(
    ("channels", "reduction", "effective"),
    [
        (64, 16, 16),
        (64, 15, 16),  # 64 // 15 = 4 = 64 // 16
        (64, 13, 16),  # 64 // 13 = 4
        (64, 12, 12),  # 64 // 12 = 5 = 64 // 12
        (16, 32, 16),  # both are 1 wide
        (16, 9, 16),
        (100, 16, 16),  # 6 wide, as is 100 // 16
        (100, 15, 16),
    ],
)
def test_reduction_in_use_is_the_widest_with_the_same_layer(channels, reduction, effective):
    assert in_use("se", (channels, 8, 8), reduction=reduction) == {"reduction": effective}
    assert bottleneck_width(channels, reduction) == bottleneck_width(channels, effective)


def test_automatic_kernel_is_spelt_as_its_number():
    assert in_use("eca", (64, 8, 8)) == {"kernel_size": 3}
    assert in_use("eca", (128, 8, 8), kernel_size="auto") == {"kernel_size": 5}
    assert in_use("eca", (64, 8, 8), kernel_size=9) == {"kernel_size": 9}


def test_frequencies_are_spelt_as_pairs():
    assert in_use("fca", (64, 7, 7), frequency="top4")["frequency"] == "0,0+0,1+6,0+0,5"
    # On 4 rows and 4 columns 1 and 2 are one index, as are 3 and 4, and 5 and 6.
    assert in_use("fca", (64, 4, 4), frequency="0,2+4,6")["frequency"] == "0,1+3,5"
    # Each side by its own length: 3 rows (0 0 1 1 2 2 2), 14 columns (all distinct).
    assert in_use("fca", (64, 3, 14), frequency="6,6+1,5")["frequency"] == "4,6+0,5"
    assert in_use("fca", (64, 1, 1), frequency="top16")["frequency"] == "0,0"


def test_frequencies_of_the_authors_rule_are_spelt_out():
    expected = {"frequency": "0,0", "reduction": 16}
    assert in_use("fca", (64, 5, 5), frequency="bot2", authors=True) == expected
    assert in_use("fca", (64, 5, 7), frequency="6,6", authors=True)["frequency"] == "0,6"


def test_dct_size_equal_to_the_map_is_no_option():
    assert "dct_size" not in in_use("fca", (64, 7, 7), dct_size=7)
    assert in_use("fca", (64, 14, 14), dct_size=7)["dct_size"] == 7
    assert in_use("fca", (64, 7, 9), dct_size=7)["dct_size"] == 7


def test_frequencies_follow_the_pooled_map_where_it_is_pooled():
    assert in_use("fca", (64, 4, 4), frequency="0,2", dct_size=7)["frequency"] == "0,2"
    assert in_use("fca", (64, 14, 14), frequency="0,2", dct_size=4)["frequency"] == "0,1"


def test_lambda_is_one_number_and_none_on_one_pixel():
    assert in_use("simam", (64, 2, 2), energy_lambda=1) == {"energy_lambda": 1.0}
    assert isinstance(in_use("simam", (64, 2, 2), energy_lambda=1)["energy_lambda"], float)
    assert in_use("simam", (64, 1, 1), energy_lambda=0.1) == in_use("simam", (64, 1, 1))


def test_dct_shape():
    assert dct_shape(MapShape(8, 5, 9), "map") == (5, 9)
    assert dct_shape(MapShape(8, 5, 9), 7) == (7, 7)


# 64 channels on 6 x 40 pixels: SE in the three branches is h // r, w // r and c // r wide.
@pytest.mark.parametrize(
    ("reduction", "effective"),
    [
        (1, 1),
        (2, 2),  # 3, 20, 32
        (4, 4),  # 1, 10, 16
        (5, 5),  # 1, 8, 12
        (15, 16),  # 1, 2, 4 as at 16
        (16, 16),
        (17, 20),  # 1, 2, 3
        (21, 21),  # 1, 1, 3
        (22, 32),  # 1, 1, 2
        (33, 64),  # 1, 1, 1
        (1000, 64),
    ],
)
def test_reduction_in_use_of_rotated_branches_keeps_all_three_widths(reduction, effective):
    found = in_use("tripse2", (64, 6, 40), reduction=reduction, axis="rotated")
    assert found == {"reduction": effective, "axis": "rotated:6x40"}
    for size in (6, 40, 64):
        assert bottleneck_width(size, reduction) == bottleneck_width(size, effective)


def test_axis_carries_the_size_of_the_map_whatever_was_written():
    for written in ("rotated", "rotated:5x9", "rotated:7x7"):
        assert in_use("tripse4", (64, 5, 9), axis=written)["axis"] == "rotated:5x9"
    assert "axis" not in in_use("tripse4", (64, 5, 9), axis="channels")
    assert "axis" not in in_use("tripse4", (1, 1, 1), axis="rotated")  # the same three numbers
