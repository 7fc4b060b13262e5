"""ConvNeXt and MobileNeXt: their units written out, with a block at each position."""

import pytest
import timm
import torch
from placed import Warp, Zeros, images_of, network_of, placed, table_of, unchanged, unit_with
from torch import nn
from torch.nn import functional

from blocks.attach import attach
from blocks.backbone import site_table
from blocks.errors import BackboneError
from blocks.families import convnext
from blocks.mobilenext import bottleneck_channels, rounded
from blocks.options import MapShape
from blocks.site import Site


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("convnext_tiny", 28_589_128, "4.4555"),
        ("convnext_small", 50_223_688, "8.6837"),
        ("convnext_base", 88_591_464, "15.4"),
        ("convnextv2_tiny", 28_635_496, "4.46"),
    ],
)
def test_published_costs(name, params, gmacs):
    cost = site_table(name, (3, 224, 224), 1000).cost
    assert cost.params == params
    digits = len(gmacs.partition(".")[2])
    assert f"{cost.macs / 1e9:.{digits}f}" == gmacs


def convnext_unit_by_hand(unit, x, position=None, block=unchanged):
    """Depthwise 7x7, norm over channels, two layers (version 2: GRN between), scale, addition."""

    def at(place, value):
        return block(value) if position == place else value

    depthwise = functional.conv2d(
        at("pre", x), unit.conv_dw.weight, unit.conv_dw.bias, padding=3, groups=x.shape[1]
    )
    value = at("inner", depthwise)
    value = value - value.mean(1, keepdim=True)
    value = value / (value.square().mean(1, keepdim=True) + 1e-6).sqrt()
    value = value * unit.norm.weight[:, None, None] + unit.norm.bias[:, None, None]
    value = functional.gelu(layer(unit.mlp.fc1, value))
    if hasattr(unit.mlp, "grn"):
        strength = value.square().sum((2, 3), keepdim=True).sqrt()
        strength = strength / (strength.mean(1, keepdim=True) + 1e-6)
        weight, bias = unit.mlp.grn.weight[:, None, None], unit.mlp.grn.bias[:, None, None]
        value = value + weight * value * strength + bias
    value = layer(unit.mlp.fc2, value)
    if unit.gamma is not None:
        value = value * unit.gamma[:, None, None]
    return at("post", at("standard", value) + at("identity", x))


def layer(module, x):
    weight = module.weight.reshape(*module.weight.shape[:2], 1, 1)
    return functional.conv2d(x, weight, module.bias)


@pytest.mark.parametrize("position", ["standard", "pre", "inner", "identity", "post"])
@pytest.mark.parametrize("name", ["convnext_tiny", "convnextv2_tiny"])
def test_positions_of_convnext(name, position):
    network = network_of(name)
    unit = network.stages[1].blocks[0]
    (site,) = table_of(name).expand(f"stage2.unit1.in-block.{position}")
    x, y = unit_with(name, network, "stages.1.blocks.0", site, Warp(site.shape))
    expected = convnext_unit_by_hand(unit, x, position, Warp())
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(y, convnext_unit_by_hand(unit, x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("position", ["standard", "pre", "inner", "identity", "post"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("convnext_atto", {"conv_mlp": True}),
        ("convnextv2_atto", {"conv_mlp": True, "use_grn": True}),
        ("convnextv2_atto", {"conv_mlp": False, "use_grn": True}),
        ("convnext_atto", {"conv_mlp": False, "drop_path_rate": 0.5}),
    ],
)
def test_positions_of_convnexts_variants(name, arguments, position):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=4, **arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    unit = network.stages[2].blocks[1]
    point = next(
        p
        for p in convnext.points(network)
        if p.stage == 3 and p.unit == 2 and position in p.positions
    )
    x = torch.randn(2, unit.conv_dw.in_channels, 5, 7)
    with torch.no_grad():
        attach(network, Site(**vars(point), shape=MapShape(x.shape[1], 5, 7)), Warp())
        y = network.stages[2].blocks[1](x)
        expected = convnext_unit_by_hand(unit_of(unit), x, position, Warp())
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def unit_of(unit):
    """A unit whose depthwise convolution may be hosted, as it was."""
    plain = nn.Module()
    plain.conv_dw = getattr(unit.conv_dw, "host", unit.conv_dw)
    plain.norm, plain.mlp, plain.gamma = unit.norm, unit.mlp, unit.gamma
    return plain


def test_a_dropped_branch_drops_the_block_too():
    torch.manual_seed(0)
    network = timm.create_model("convnext_atto", drop_path_rate=1.0 - 1e-6).train()
    (point,) = [p for p in convnext.points(network) if p.name == "stage4.unit2.standard"]
    attach(network, Site(**vars(point), shape=MapShape(320, 4, 4)), Warp())
    x = torch.randn(2, 320, 4, 4)
    assert torch.equal(network.stages[3].blocks[1](x), x)


def test_zeros_at_standard_leave_the_shortcut_of_convnext():
    network = network_of("convnext_tiny")
    (site,) = table_of("convnext_tiny").expand("stage3.unit9.standard")
    x, y = unit_with("convnext_tiny", network, "stages.2.blocks.8", site, Zeros())
    assert torch.equal(x, y)


def test_stem_and_stages_of_convnext():
    name = "convnext_tiny"
    network, x, table = network_of(name), images_of(name), table_of(name)
    with torch.no_grad():
        patches = network.stem(x)
        first = network.stages[0](Warp()(patches))
        expected = network.head(network.norm_pre(network.stages[1:](Warp()(first))))
        stem, stage = table.expand("stem")[0], table.expand("stage1")[0]
        with placed(network, stem, Warp(stem.shape)), placed(network, stage, Warp(stage.shape)):
            torch.testing.assert_close(network(x), expected)


def test_images_too_small_for_convnext_are_refused():
    with pytest.raises(BackboneError, match=r"convnext_tiny cannot take images of \(3, 8, 8\): "):
        site_table("convnext_tiny", (3, 8, 8), 10)


# MobileNeXt


# Ratio, channels in and out, stride, first and last depthwise convolution, shortcut; from table 1
# and the authors' code.
UNITS = [
    (2, 32, 96, 2, True, True, False),
    (6, 96, 144, 1, True, True, False),
    (6, 144, 192, 2, False, True, False),
    *[(6, 192, 192, 1, True, True, True)] * 2,
    (6, 192, 288, 2, False, True, False),
    *[(6, 288, 288, 1, True, True, True)] * 2,
    (6, 288, 384, 1, False, False, False),
    *[(6, 384, 384, 1, True, True, True)] * 3,
    (6, 384, 576, 2, False, True, False),
    *[(6, 576, 576, 1, True, True, True)] * 3,
    (6, 576, 960, 1, False, False, False),
    *[(6, 960, 960, 1, True, True, True)] * 2,
    (6, 960, 1280, 1, True, True, False),
]
# ceil(out / 6) rounded to 16s, where the input's share is less than a sixth of the output.
WAISTS = {
    (32, 96): 16,
    (96, 144): 32,  # 24 -> nearest multiple, upward at the half
    (144, 192): 32,
    (192, 288): 48,
    (288, 384): 64,
    (384, 576): 96,
    (576, 960): 160,
    (960, 1280): 208,  # 214 -> 208
}


def test_mobilenext_has_the_parameters_of_the_authors_code_by_formula():
    params, macs, side = 27 * 32 + 2 * 32, 27 * 32 * 112 * 112, 112
    for ratio, channels, out, stride, first, last, _ in UNITS:
        waist = WAISTS.get((channels, out), channels // ratio)
        params += 11 * channels * first + 11 * out * last
        params += channels * waist + 2 * waist + waist * out + 2 * out
        macs += (9 * channels * first + channels * waist + waist * out) * side * side
        side //= stride
        macs += 9 * out * last * side * side
    params += 1280 * 1000 + 1000
    macs += 1280 * 1000
    cost = site_table("mobilenext_100", (3, 224, 224), 1000).cost
    assert (cost.params, cost.macs) == (params, macs) == (3_535_416, 311_342_592)


@pytest.mark.parametrize(
    ("width", "published", "params"),
    [
        (1.4, 6.1, 6_126_168),
        (1.0, 3.5, 3_535_416),
        (0.75, 2.5, 2_766_168),
        (0.5, 2.1, 2_152_304),
        (0.35, 1.8, 1_913_976),
    ],
)
def test_mobilenext_at_every_published_width(width, published, params):
    """The authors' table, in millions; their 0.75 and 0.35 are not what their code gives."""
    with torch.device("meta"):
        made = parameters(network_class()(width=width))
    assert made == params
    if width not in (0.75, 0.35):
        assert abs(made / 1e6 - published) < 0.06


def network_class():
    from blocks.mobilenext import MobileNeXt

    return MobileNeXt


def test_rounding():
    assert [rounded(n, 8) for n in (11.2, 12, 33.6, 50.4)] == [16, 16, 32, 48]
    assert {pair: bottleneck_channels(*pair, 6 if pair[0] > 32 else 2) for pair in WAISTS} == WAISTS


def sandglass_by_hand(unit, x, position=None, block=unchanged):
    def at(place, value):
        return block(value) if position == place else value

    def norm(module, value):
        return functional.batch_norm(
            value, module.running_mean, module.running_var, module.weight, module.bias
        )

    parts, conv = dict(unit.branch.named_children()), functional.conv2d
    value = at("pre", x)
    if "first" in parts:
        weight = parts["first"].conv.weight
        value = at("inner", conv(value, weight, padding=1, groups=len(weight)))
        value = at("expanded", norm(parts["first"].norm, value).clamp(0, 6))
    value = norm(parts["reduce"].norm, conv(value, parts["reduce"].conv.weight))
    value = norm(parts["expand"].norm, conv(value, parts["expand"].conv.weight)).clamp(0, 6)
    if "last" in parts:
        last = parts["last"].conv
        value = conv(value, last.weight, stride=last.stride, padding=1, groups=len(last.weight))
        value = norm(parts["last"].norm, at("inner", value) if "first" not in parts else value)
    value = at("standard", value)
    return at("post", value if unit.shortcut is None else value + at("identity", x))


@pytest.mark.parametrize(
    ("unit", "position"),
    [
        *[("2.1", p) for p in ("standard", "pre", "inner", "expanded", "identity", "post")],
        *[("2.0", p) for p in ("standard", "inner", "post")],
        ("4.0", "standard"),
        ("0.0", "inner"),
        ("0.0", "expanded"),
    ],
)
def test_positions_of_mobilenext(unit, position):
    network = network_of("mobilenext_100")
    stage, number = (int(part) + 1 for part in unit.split("."))
    module = network.get_submodule(f"stages.{unit}")
    (site,) = table_of("mobilenext_100").expand(f"stage{stage}.unit{number}.in-block.{position}")
    x, y = unit_with("mobilenext_100", network, f"stages.{unit}", site, Warp(site.shape))
    expected = sandglass_by_hand(module, x, position, Warp())
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(y, sandglass_by_hand(module, x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("where", "position"),
    [
        ("stage3.unit1", "pre"),
        ("stage3.unit1", "identity"),
        ("stage3.unit1", "expanded"),
        ("stage5.unit1", "inner"),
    ],
)
def test_units_without_a_part_lack_its_position(where, position):
    with pytest.raises(BackboneError, match=f"have no position '{position}'"):
        table_of("mobilenext_100").expand(f"{where}.in-block.{position}")


def test_a_unit_without_a_shortcut_has_standard_and_post_in_one():
    table = table_of("mobilenext_100")
    assert table.expand("stage3.unit1.post") == table.expand("stage3.unit1.standard")
    (last,) = table.expand("stage8.unit1.standard")
    assert last.name == "stage8"


def test_coordinate_attention_is_after_the_first_depthwise_convolution():
    sites = table_of("mobilenext_100").expand("in-block.expanded")
    assert len(sites) == sum(first for *_, first, _, _ in UNITS) == 15
    assert {site.path.partition(".branch.")[2] for site in sites} == {"first"}
