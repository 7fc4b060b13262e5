"""timm's ``ConvNeXt`` (versions 1 and 2): units of a 7x7 depthwise convolution and two layers.

A unit's branch is ``conv_dw, norm, mlp``, its layer scale (version 1) and stochastic depth;
``standard`` is after the layer scale, so that the block's output is what is dropped and added.
The maps are (N, C, H, W) at every point, also where the layers between work on (N, H, W, C).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.site import BEFORE, IDENTITY, INNER, PRE, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of a ConvNeXt; the stem's map is that of the patches and their norm."""
    yield stem_point("stem")
    stages = children(network, "stages")
    units = [children(network, f"{stage}.blocks") for stage in stages]
    yield from stage_points(network, units, _unit_points, ends=stages)


def _unit_points(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, "conv_dw", side=BEFORE)
    yield unit.point(INNER, "conv_dw")
    yield unit.point(STANDARD, "drop_path", side=BEFORE)
    yield unit.point(IDENTITY, "shortcut")
