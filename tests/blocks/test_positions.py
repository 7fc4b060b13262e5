"""What a position means: which tensor a block there sees, shown by a block that returns zeros."""

import pytest
import torch
from torch import nn

from blocks.attach import attach
from blocks.backbone import backbone, site_table


class Zeros(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def network_of(name, size=64):
    """A backbone with drawn norms: timm starts the last one of a branch at 0."""
    torch.manual_seed(0)
    network = backbone(name).build(10, 3, (size, size)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


def run(name, unit, position, size=64):
    """Input, branch-less output and output of a unit with zeros at a position of it."""
    network = network_of(name, size)
    if position is not None:
        (site,) = site_table(name, (3, size, size), 10).expand(f"{unit}.in-block.{position}")
        attach(network, site, Zeros())
    stage, number = (int(part[-1]) for part in unit.split("."))
    module = network.get_submodule(f"layer{stage}")
    module = getattr(module, "host", module)
    module = module[number - 1]
    module = getattr(module, "host", module) if position != "post" else module
    seen = {}

    def note(_, inputs, output):
        seen["x"], seen["y"] = inputs[0], output

    handle = module.register_forward_hook(note)
    network(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)))
    handle.remove()
    return module, seen["x"], seen["y"]


def shortcut_of(module, x):
    shortcut = getattr(module, "downsample", None) or getattr(module, "shortcut", None)
    return x if shortcut is None else shortcut(x)


UNITS = [
    ("resnet20", "stage1.unit2"),
    ("resnet20", "stage2.unit1"),
    ("resnet20-b", "stage3.unit1"),
    ("resnet18", "stage2.unit1"),
    ("resnet18", "stage4.unit2"),
    ("resnet50", "stage1.unit1"),
    ("resnet50", "stage2.unit3"),
]


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_standard_is_the_end_of_the_branch(name, unit):
    module, x, y = run(name, unit, "standard")
    torch.testing.assert_close(y, shortcut_of(module, x).relu())


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_identity_is_the_shortcut(name, unit):
    _, x, y = run(name, unit, "identity")
    plain, given, whole = run(name, unit, None)
    torch.testing.assert_close(x, given)
    branch = branch_of(plain, given)
    torch.testing.assert_close(whole, (branch + shortcut_of(plain, given)).relu())
    torch.testing.assert_close(y, branch.relu())


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_pre_is_the_branchs_input_alone(name, unit):
    module, x, y = run(name, unit, "pre")
    plain, _, _ = run(name, unit, None)
    expected = (branch_of(plain, torch.zeros_like(x)) + shortcut_of(module, x)).relu()
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_post_is_the_units_output(name, unit):
    _, _, y = run(name, unit, "post") if not unit_is_last(name, unit) else (None, None, None)
    if y is not None:
        assert torch.equal(y, torch.zeros_like(y))


def unit_is_last(name, unit):
    (site,) = site_table(name, (3, 64, 64), 10).expand(f"{unit}.in-block.post")
    return site.placement == "stage"


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_inner_is_before_the_norm_of_the_3x3_convolution(name, unit):
    module, x, y = run(name, unit, "inner")
    plain, _, _ = run(name, unit, None)
    bottleneck = hasattr(plain, "conv3")
    shape = (1, plain.conv2.out_channels, 1, 1)
    constant = plain.bn2(torch.zeros(shape)).expand(x.shape[0], -1, *y.shape[2:])
    branch = plain.bn3(plain.conv3(constant.relu())) if bottleneck else constant
    torch.testing.assert_close(y, (branch + shortcut_of(module, x)).relu())


def branch_of(module, x):
    x = module.bn1(module.conv1(x)).relu()
    x = module.bn2(module.conv2(x))
    return module.bn3(module.conv3(x.relu())) if hasattr(module, "conv3") else x
