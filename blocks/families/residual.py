"""Residual networks: timm's ``ResNet`` class (ResNet, ResNeXt, Wide ResNet, SE-ResNet) and CIFAR's.

Stages are ``layer1``, ``layer2``, ... of residual units whose branch is ``conv1, bn1, ...`` up to
its highest-numbered norm.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, stage_point
from blocks.site import BEFORE, IDENTITY, INNER, POST, PRE, STANDARD, STEM, Point


def cifar_points(network: nn.Module) -> Iterator[Point]:
    """Points of the residual networks of CIFAR papers, whose stem has no pooling."""
    return _points(network, stem="act1", shortcut="shortcut")


def timm_points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``ResNet``: the stem's is behind the max-pool."""
    return _points(network, stem="maxpool", shortcut="downsample")


def _points(network: nn.Module, *, stem: str, shortcut: str) -> Iterator[Point]:
    yield Point(STEM, STEM, 0, 0, "", stem)
    layers = [name for name, _ in network.named_children() if name.startswith("layer")]
    for stage, layer in enumerate(layers, start=1):
        units = list(network.get_submodule(layer).named_children())
        for number, (child, module) in enumerate(units, start=1):
            unit = Unit(stage, number, f"{layer}.{child}")
            yield from _unit_points(unit, module, shortcut)
            if number < len(units):
                yield unit.point(POST, "")
        yield stage_point(stage, layer, last_unit=len(units))


def _unit_points(unit: Unit, module: nn.Module, shortcut: str) -> Iterator[Point]:
    last_norm = max(name for name, _ in module.named_children() if name.startswith("bn"))
    has_own = getattr(module, "se", None) is not None
    yield unit.point(PRE, "conv1", side=BEFORE)
    yield unit.point(INNER, "conv2")
    yield unit.point(STANDARD, last_norm, own=has_own)
    yield unit.point(IDENTITY, shortcut)
