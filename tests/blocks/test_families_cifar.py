"""The networks of CIFAR papers and where blocks stand in pre-activation units."""

import subprocess
import sys

import pytest
import timm
import torch
from placed import Warp, Zeros, images_of, network_of, placed, table_of, unchanged, unit_with
from torch.nn import functional

from blocks import timm_models
from blocks.backbone import BACKBONES, site_table
from blocks.build import build_network, stream_seed
from blocks.cifar_preact import PreActivationUnit, PreActResNet18, WideResNet
from blocks.cifar_resnet import CifarResNet
from blocks.errors import BackboneError
from blocks.mobilenext import MobileNeXt
from blocks.own_networks import OWN_NETWORKS


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def cifar_formula(depth, *, projection):
    """Of He et al.: (depth - 2) / 6 units of two 3x3 convolutions with their norms a stage."""
    units, total, channels = (depth - 2) // 6, 3 * 16 * 9 + 32, 16
    for width in (16, 32, 64):
        for _ in range(units):
            total += 9 * channels * width + 9 * width * width + 4 * width
            if projection and channels != width:
                total += channels * width + 2 * width
            channels = width
    return total + 64 * 10 + 10


def preact_formula(units, stem, widths, *, final_norm):
    total, channels = 27 * stem, stem
    for stage, width in enumerate(widths):
        for unit in range(units):
            total += 2 * channels + 9 * channels * width + 2 * width + 9 * width * width
            if channels != width or (stage > 0 and unit == 0):
                total += channels * width
            channels = width
    return total + 2 * channels * final_norm + 10 * channels + 10


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnet20", 269_722),
        ("resnet20-b", 272_474),
        ("resnet32", 464_154),
        ("resnet32-b", 466_906),
        ("resnet44", 658_586),
        ("resnet44-b", 661_338),
        ("resnet56", 853_018),
        ("resnet56-b", 855_770),
        ("resnet110", 1_727_962),
        ("resnet110-b", 1_730_714),
    ],
)
def test_residual_networks_have_the_published_parameters(name, params):
    depth = int(name.removeprefix("resnet").removesuffix("-b"))
    assert cifar_formula(depth, projection=name.endswith("-b")) == params
    assert site_table(name, (3, 32, 32), 10).cost.params == params


@pytest.mark.parametrize(
    ("name", "units", "stem", "widths", "final_norm", "params"),
    [
        ("wrn16-4", 2, 16, (64, 128, 256), True, 2_748_890),
        ("wrn28-10", 4, 16, (160, 320, 640), True, 36_479_194),
        ("wrn40-2", 6, 16, (32, 64, 128), True, 2_243_546),
        ("preact-resnet18", 2, 64, (64, 128, 256, 512), False, 11_171_146),
    ],
)
def test_pre_activation_networks_have_the_published_parameters(
    name, units, stem, widths, final_norm, params
):
    assert preact_formula(units, stem, widths, final_norm=final_norm) == params
    assert site_table(name, (3, 32, 32), 10).cost.params == params


def test_the_papers_final_norm_is_an_argument():
    with torch.device("meta"):
        plain, final = PreActResNet18(), PreActResNet18(final_norm=True)
    assert parameters(final) - parameters(plain) == 2 * 512


def test_first_weights_of_resnet20_are_those_of_its_stream():
    state = build_network({"backbone": "resnet20"}, seed=7).state_dict()
    torch.manual_seed(stream_seed(7, "backbone"))
    for name, value in CifarResNet(3).state_dict().items():
        assert torch.equal(state[name], value), name


def unit_by_hand(unit, x, position=None, block=unchanged):
    """A pre-activation unit, its block at a position, from the paper's figure."""

    def at(place, value):
        return block(value) if position == place else value

    def norm(layer, value):
        mean, variance = layer.running_mean, layer.running_var
        scaled = (value - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return scaled * layer.weight[:, None, None] + layer.bias[:, None, None]

    stride = unit.conv1.stride
    active = norm(unit.bn1, x).clamp(min=0)
    branch = functional.conv2d(at("pre", active), unit.conv1.weight, stride=stride, padding=1)
    branch = norm(unit.bn2, branch).clamp(min=0)
    branch = at("standard", functional.conv2d(branch, unit.conv2.weight, padding=1))
    if isinstance(unit.shortcut, torch.nn.Conv2d):
        shortcut = functional.conv2d(active, unit.shortcut.weight, stride=stride)
    else:
        shortcut = x
    return at("post", branch + at("identity", shortcut))


@pytest.mark.parametrize("position", ["standard", "pre", "identity", "post"])
@pytest.mark.parametrize(
    ("name", "stage", "number"),
    [
        ("wrn16-4", 1, 1),  # wider, same size: a projection
        ("wrn16-4", 3, 1),
        ("preact-resnet18", 1, 1),
        ("preact-resnet18", 2, 1),
    ],
)
def test_positions_of_pre_activation_units(name, stage, number, position):
    network = network_of(name)
    path = f"stages.{stage - 1}.{number - 1}"
    unit = network.get_submodule(path)
    (site,) = table_of(name).expand(f"stage{stage}.unit{number}.in-block.{position}")
    x, y = unit_with(name, network, path, site, Warp(site.shape))
    expected = unit_by_hand(unit, x, position, Warp())
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(y, unit_by_hand(unit, x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("number", "projected"), [(1, True), (2, False)])
def test_zeros_at_standard_leave_the_shortcut(number, projected):
    network = network_of("wrn16-4")
    unit = network.stages[1][number - 1]
    (site,) = table_of("wrn16-4").expand(f"stage2.unit{number}.standard")
    x, y = unit_with("wrn16-4", network, f"stages.1.{number - 1}", site, Zeros())
    shortcut = unit.shortcut(unit.bn1(x).relu()) if projected else x
    assert unit.changes == projected
    torch.testing.assert_close(y, shortcut)


def test_simams_place_in_pre_activation_units_is_the_end_of_the_branch():
    table = table_of("wrn16-4")
    inner, standard = table.expand("in-block.inner"), table.expand("in-block")
    assert inner == standard
    assert table.expand("stage2.unit1.inner") == table.expand("stage2.unit1.standard")
    assert {site.path.rpartition(".")[2] for site in inner} == {"conv2"}


def test_the_stem_is_the_input_of_the_first_stage():
    network, x = network_of("wrn16-4"), images_of("wrn16-4")
    (site,) = table_of("wrn16-4").expand("stem")
    with torch.no_grad(), placed(network, site, Warp(site.shape)):
        found = network(x)
    features = Warp()(functional.conv2d(x, network.conv1.weight, padding=1))
    for stage in network.stages:
        for unit in stage:
            features = unit_by_hand(unit, features)
    norm = network.norm[0]
    features = functional.batch_norm(
        features, norm.running_mean, norm.running_var, norm.weight, norm.bias
    ).relu()
    expected = features.mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_common_pre_activation_resnet18_classifies_the_sum():
    network, x = network_of("preact-resnet18"), images_of("preact-resnet18")
    with torch.no_grad():
        features = network.conv1(x)
        for stage in network.stages:
            for unit in stage:
                features = unit(features)
        expected = network.fc(features.mean((2, 3)))
        torch.testing.assert_close(network(x), expected)


def test_start_of_wide_networks():
    torch.manual_seed(0)
    network = WideResNet(16, 4)
    # Deviation sqrt(2 / fan out): 256 channels of 9 taps.
    deviation = network.stages[2][1].conv2.weight.std().item()
    assert deviation == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert not network.fc.bias.any()
    assert isinstance(network.stages[0][0], PreActivationUnit)


@pytest.mark.parametrize("row", OWN_NETWORKS, ids=lambda row: row.timm_name)
def test_timm_makes_our_networks_once_they_are_registered(row):
    assert timm_models.OWN_NETWORKS is OWN_NETWORKS
    with torch.device("meta"):
        made = timm.create_model(row.timm_name, num_classes=100, in_chans=1)
        ours = BACKBONES[row.name].build(100, 1, (32, 32))
    assert type(made) is type(ours)
    shapes = {name: value.shape for name, value in made.state_dict().items()}
    assert shapes == {name: value.shape for name, value in ours.state_dict().items()}


def test_timms_names_have_defaults_and_arguments():
    with torch.device("meta"):
        assert timm.create_model("cifar_resnet20").fc.out_features == 10
        assert isinstance(timm.create_model("mobilenext_100", width=0.5), MobileNeXt)
        assert parameters(timm.create_model("cifar_preact_resnet18", final_norm=True)) == 11_172_170
    assert "cifar_wrn28_10" in timm.list_models("cifar_*")


def test_pretrained_weights_are_refused():
    message = "cifar_resnet56_b: no pretrained weights of it are published; leave pretrained out"
    with pytest.raises(BackboneError, match=message):
        timm.create_model("cifar_resnet56_b", pretrained=True)


def test_the_table_of_networks_needs_neither_torch_nor_timm():
    code = (
        "import sys, blocks.own_networks, blocks.backbone;"
        "print(sorted({'torch', 'timm'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
