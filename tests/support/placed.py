"""A block at a site, to be compared with the unit written out by hand."""

from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import nn

from blocks.attach import attach
from blocks.backbone import BACKBONES, site_table


def size_of(name):
    """Height and width of the images: not square, so that no axis can be taken for another."""
    return (32, 40) if BACKBONES[name].small else (64, 96)


def table_of(name):
    return site_table(name, (3, *size_of(name)), 10)


@lru_cache(maxsize=2)
def network_of(name):
    """A backbone in which no norm starts at 0 or 1, in evaluation mode after one batch.

    It is shared by tests, which leave it as it was.
    """
    torch.manual_seed(0)
    network = BACKBONES[name].build(10, 3, size_of(name))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            network.train()(images_of(name, batch=4, seed=2))
    return network.eval()


def images_of(name, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size_of(name), generator=generator)


class Warp(nn.Module):
    """Another factor for every channel, row and column, and a shift."""

    def __init__(self, shape=None):
        super().__init__()
        self.shape = shape
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        channels, height, width = x.shape[1:]
        if self.shape is not None:
            assert (channels, height, width) == tuple(vars(self.shape).values())
        for axis, size in ((1, channels), (2, height), (3, width)):
            factors = torch.linspace(0.5, 1.5 + axis / 4, size)
            x = x * factors.view([-1 if a == axis else 1 for a in range(4)])
        return x + 0.3


class Zeros(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def unchanged(x):
    return x


@contextmanager
def placed(network, site, block):
    """The network with a block at a site; after, as it was."""
    parent, _, name = site.path.rpartition(".")
    parent = network.get_submodule(parent)
    host = getattr(parent, name)
    attach(network, site, block)
    yield network
    setattr(parent, name, host)


def unit_of(network, path):
    """What a unit of a network takes and gives when the network runs."""
    seen = {}

    def note(module, inputs, output):
        seen["x"], seen["y"] = inputs[0].clone(), output.clone()

    return network.get_submodule(path).register_forward_hook(note), seen


def unit_with(name, network, path, site, block):
    """Input and output of a unit with a block in it, or on it."""
    with torch.no_grad(), placed(network, site, block):
        handle, seen = unit_of(network, path)
        network(images_of(name))
        handle.remove()
    return seen["x"], seen["y"]
