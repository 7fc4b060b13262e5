"""Joining blocks and modules of a backbone."""

import pytest
import torch
from torch import nn

from blocks.attach import attach
from blocks.options import MapShape
from blocks.site import Site


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.inner = nn.Sequential(nn.ReLU())
        self.shortcut = None

    def forward(self, x):
        x = self.inner(self.first(x))
        return x if self.shortcut is None else x + self.shortcut(x)


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


class PerChannel(nn.Module):
    """Channel c times c + 1."""

    def forward(self, x):
        return x * torch.arange(1, x.shape[1] + 1)[:, None, None]


def site(path, **more):
    shape = more.pop("shape", MapShape(3, 2, 2))
    return Site("here", "stage", 1, 0, "", path, shape=shape, **more)


def test_after_a_module_and_around_one_another():
    network, x = Network(), torch.randn(2, 3, 2, 2)
    host = network.inner[0]
    attach(network, site("inner.0"), Twice())
    assert network.inner[0].host is host
    assert isinstance(network.inner[0].attention, Twice)
    torch.testing.assert_close(network(x), 2 * network.first(x).relu())
    attach(network, site("inner"), nn.Tanh())
    torch.testing.assert_close(network(x), (2 * network.first(x).relu()).tanh())
    names = [name for name, _ in network.named_modules()]
    assert "inner.host.0.host" in names
    assert "inner.attention" in names


def test_before_a_module():
    network, x = Network(), torch.randn(2, 3, 2, 2)
    first = network.first
    attach(network, site("first", side="before"), Twice())
    assert network.first.host is first
    torch.testing.assert_close(network(x), first(2 * x).relu())


def test_in_the_place_of_nothing():
    network, x = Network(), torch.randn(2, 3, 2, 2)
    plain = network(x)
    attach(network, site("shortcut"), Twice())
    torch.testing.assert_close(network(x), 3 * plain)
    assert any(isinstance(module, Twice) for module in network.modules())


def test_further_inputs_reach_the_host():
    class Shift(nn.Module):
        def forward(self, x, shift, *, scale=1):
            return scale * x + shift

    network = nn.ModuleDict({"unit": Shift()})
    attach(network, site("unit"), Twice())
    assert network["unit"](torch.ones(1), 2, scale=3) == 10
    attach(network, site("unit", side="before"), Twice())
    assert network["unit"](torch.ones(1), 2, scale=3) == 16


def test_on_a_map_with_channels_last():
    network = nn.Sequential(nn.Identity())
    attach(network, site("0", layout="NHWC"), PerChannel())
    x = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(network(x), x * torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_on_tokens_and_not_on_those_before_the_pixels(prefix):
    class Rows(nn.Module):
        """Row h of the map times h + 1, channels by their number too."""

        def forward(self, x):
            assert x.shape == (2, 3, 4, 5)
            return PerChannel()(x) * torch.arange(1, 5)[None, None, :, None]

    network = nn.Sequential(nn.Identity())
    shape = MapShape(3, 4, 5)
    attach(network, site("0", layout="tokens", prefix=prefix, shape=shape), Rows())
    x = torch.randn(2, prefix + 20, 3)
    out = network(x)
    assert torch.equal(out[:, :prefix], x[:, :prefix])
    for token in range(20):
        row = token // 5 + 1
        expected = x[:, prefix + token] * torch.tensor([1.0, 2.0, 3.0]) * row
        torch.testing.assert_close(out[:, prefix + token], expected)


def test_a_channels_last_view_is_not_copied():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append((x.data_ptr(), x.is_contiguous(memory_format=torch.channels_last)))
            return x

    network = nn.Sequential(nn.Identity())
    attach(network, site("0", layout="NHWC"), Spy())
    x = torch.randn(2, 4, 5, 3)
    out = network(x)
    assert seen == [(x.data_ptr(), True)]
    assert out.data_ptr() == x.data_ptr()
