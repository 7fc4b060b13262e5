"""Inverted residuals: timm's ``EfficientNet`` and ``MobileNetV3`` classes.

MobileNetV2 and V3, MNASNet, EfficientNet and EfficientNetV2, MobileNetV4 and others. A stage is a
row of the paper's table, ``blocks.0``, ``blocks.1``, ...; a unit is one block of it. A last row
that is a 1x1 convolution alone is of the head.

``expanded`` is the wide map as the projection is given it, where the backbone's own squeeze-and-
excitation stands; a unit that does not widen its input has no ``expanded``, and its own attention's
place is ``own`` alone. A unit that does not add its input has no shortcut: its ``standard`` is its
output, and it has no ``pre``, which would be the output of the unit before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.own_attention import stands_in
from blocks.site import BEFORE, EXPANDED, IDENTITY, INNER, OWN, PRE, SHORTCUT, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's networks of inverted residuals."""
    yield stem_point("bn1")
    stages = children(network, "blocks")
    if _is_of_the_head(network.get_submodule(stages[-1])):
        stages.pop()
    units = [children(network, stage) for stage in stages]
    yield from stage_points(network, units, _unit_points, ends=stages, adds=_adds)


def _is_of_the_head(row: nn.Module) -> bool:
    """Whether a row is a 1x1 convolution alone, as MobileNetV3 has before its pooling."""
    (unit, *others) = row.children()
    kernel = getattr(getattr(unit, "conv", None), "kernel_size", None)
    return not others and type(unit).__name__ == "ConvBnAct" and kernel == (1, 1)


def _adds(module: nn.Module) -> bool:
    return bool(module.has_skip)


def _unit_points(unit: Unit, module: nn.Module) -> Iterator[Point]:
    for point in _OF_CLASS.get(type(module).__name__, _nothing)(unit, module):
        if _adds(module) or point.position not in (PRE, STANDARD):
            yield point
    if _adds(module):
        yield unit.point(IDENTITY, "", side=SHORTCUT)


def _nothing(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield from ()


def _convolution(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, "conv", side=BEFORE)
    yield unit.point(INNER, "conv")
    yield unit.point(STANDARD, "aa")


def _separable(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, _first(module, "conv_dw"), side=BEFORE)
    yield unit.point(INNER, "conv_dw")
    yield from _before_projection(unit, module, widens=False)
    yield unit.point(STANDARD, "bn2")


def _inverted(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, _first(module, "conv_pw"), side=BEFORE)
    yield unit.point(INNER, "conv_dw")
    yield from _before_projection(unit, module, widens=_widens(module.conv_pw))
    yield unit.point(STANDARD, "bn3")


def _fused(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, "conv_exp", side=BEFORE)
    yield unit.point(INNER, "conv_exp")
    yield from _before_projection(unit, module, widens=_widens(module.conv_exp))
    yield unit.point(STANDARD, "bn2")


def _universal(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, "dw_start", side=BEFORE)
    if not isinstance(module.dw_mid, nn.Identity):
        yield unit.point(INNER, "dw_mid.conv")
    yield from _before_projection(unit, module, widens=True)
    yield unit.point(STANDARD, "dw_end")


def _self_attention(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, "norm", side=BEFORE)
    yield unit.point(STANDARD, "attn")


def _first(module: nn.Module, convolution: str) -> str:
    """The first convolution: one that turns pixels into channels, where the unit has that."""
    return convolution if module.conv_s2d is None else "conv_s2d"


def _widens(convolution: Any) -> bool:
    return bool(convolution.out_channels > convolution.in_channels)


def _before_projection(unit: Unit, module: nn.Module, *, widens: bool) -> Iterator[Point]:
    own = stands_in(module.se)
    if widens or own:
        yield unit.point(EXPANDED if widens else OWN, "se", side=BEFORE, own=own)


_OF_CLASS: dict[str, Callable[[Unit, nn.Module], Iterator[Point]]] = {
    "ConvBnAct": _convolution,
    "DepthwiseSeparableConv": _separable,
    "InvertedResidual": _inverted,
    "CondConvResidual": _inverted,
    "EdgeResidual": _fused,
    "UniversalInvertedResidual": _universal,
    "MobileAttention": _self_attention,
}
