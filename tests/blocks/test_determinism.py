import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from blocks import registry
from blocks.determinism import LISTED, unrepeatable
from blocks.errors import ToolError

DOCUMENTED = (Path(__file__).parent.parent.parent / "docs" / "devices.md").read_text("utf-8")
SHAPES = ((64, 8, 8), (64, 7, 7), (64, 14, 14))
EVERY_BLOCK = [spec.name for spec in (*registry.specs(), *registry.adapted_specs())]


class Planted(nn.Module):
    """A block that runs one function."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.function = function

    def forward(self, x):
        return self.function(x * self.weight)


def sampled(x):
    maps = torch.eye(2, 3, device=x.device).expand(len(x), 2, 3)
    grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: functional.adaptive_avg_pool2d(x, 2), "AdaptiveAvgPool2d"),
        (lambda x: functional.adaptive_max_pool2d(x, 2), "AdaptiveMaxPool2d"),
        (lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"), "ReflectionPad2d"),
        (lambda x: torch.ops.aten.upsample_bilinear2d(x, [16, 16], False), "bilinear"),
        (lambda x: x * x.median(dim=1, keepdim=True).values, "median"),
        (sampled, "grid_sample"),
    ],
)
def test_what_torch_lists_is_found(function, words):
    (found,) = unrepeatable(Planted(function), (4, 8, 8))
    assert words in found


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.adaptive_avg_pool2d(x, 1),  # a mean
        lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),  # spelt out on CUDA
        lambda x: functional.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: functional.pad(x, (1, 1, 1, 1), mode="replicate"),
        lambda x: functional.max_pool2d(x, 2),
        lambda x: x.cumsum(dim=1),
        lambda x: x[:, torch.tensor([0, 0, 1])],
        lambda x: x.median(),
    ],
)
def test_what_can_be_repeated_is_not(function):
    assert unrepeatable(Planted(function), (4, 8, 8)) == ()


def test_what_needs_no_gradient_has_no_backward():
    block = Planted(lambda x: x * functional.adaptive_avg_pool2d(x.detach(), 2).mean())
    assert unrepeatable(block, (4, 8, 8)) == ()


def test_torchs_mode_is_as_it_was():
    before = torch.get_deterministic_debug_mode()
    unrepeatable(nn.Conv2d(4, 4, 1), (4, 8, 8))
    assert torch.get_deterministic_debug_mode() == before


@pytest.mark.parametrize("name", LISTED)
def test_every_operator_of_the_list_is_torchs(name):
    operator, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, operator)
    assert not overload or overload in packet.overloads()


def found_in(name):
    """Over some maps, with default options."""
    found, examined = set(), 0
    for channels, *size in SHAPES:
        try:
            with torch.device("meta"):
                block = registry.create(name, channels)
            found.update(unrepeatable(block, (channels, *size)))
            examined += 1
        except ToolError:  # not on this map
            continue
    assert examined, name
    return found


@pytest.mark.parametrize("name", EVERY_BLOCK)
def test_the_documentation_names_the_blocks_that_cannot(name):
    rows = re.findall(rf"^\| `{re.escape(name)}` \| `(.*?)`", DOCUMENTED, re.MULTILINE)
    assert set(rows) == found_in(name)


def test_fca_with_the_published_grid_cannot():
    with torch.device("meta"):
        block = registry.create("fca", 64, dct_size=7)
    assert unrepeatable(block, (64, 14, 14)) == ("torch.nn.AdaptiveAvgPool2d",)
    assert "`dct_size: 7`" in DOCUMENTED
