"""Residual networks: timm's ``ResNet`` class (ResNet, ResNeXt, Wide ResNet, SE-ResNet) and CIFAR's.

Stages are ``layer1``, ``layer2``, ... of residual units. The branch is ``conv1, bn1, ...`` up to
its highest-numbered norm, behind which SE-ResNet's attention is. timm builds Res2Net, ResNeSt and
SKNet of the same class with units of their own, which have no one 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.own_attention import stands_in
from blocks.site import BEFORE, IDENTITY, INNER, PRE, STANDARD, Point

# The module that ends the branch of a unit without one ``bn`` behind the last convolution.
_ENDS = {"SelectiveKernelBasic": "conv2", "SelectiveKernelBottleneck": "conv3"}
_PLAIN = ("BasicBlock", "Bottleneck", "ResidualUnit")


def cifar_points(network: nn.Module) -> Iterator[Point]:
    """Points of the residual networks of CIFAR papers, whose stem has no pooling."""
    return _points(network, stem="act1", shortcut="shortcut")


def timm_points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``ResNet``: the stem's is behind the max-pool."""
    return _points(network, stem="maxpool", shortcut="downsample")


def _points(network: nn.Module, *, stem: str, shortcut: str) -> Iterator[Point]:
    yield stem_point(stem)
    layers = [name for name, _ in network.named_children() if name.startswith("layer")]
    stages = [children(network, layer) for layer in layers]
    points = partial(_unit_points, shortcut=shortcut)
    yield from stage_points(network, stages, points, ends=layers)


def _unit_points(unit: Unit, module: nn.Module, *, shortcut: str) -> Iterator[Point]:
    kind = type(module).__name__
    norms = [name for name, _ in module.named_children() if name.startswith("bn") and name != "bns"]
    yield unit.point(PRE, "conv1", side=BEFORE)
    if kind in _PLAIN:
        yield unit.point(INNER, "conv2")
    own = stands_in(getattr(module, "se", None))
    yield unit.point(STANDARD, _ENDS.get(kind) or max(norms), own=own)
    yield unit.point(IDENTITY, shortcut)
