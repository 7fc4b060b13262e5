"""Pre-activation residual networks: timm's ``ResNetV2``.

He et al., "Identity Mappings in Deep Residual Networks", arXiv:1603.05027. A unit's norm and
activation come before its convolutions, and a projection takes the map behind the first of them.
So ``pre`` is between the first norm and the first convolution, where the branch leaves the
shortcut for good, and ``standard`` is behind the last convolution. In units of two convolutions
that is also ``inner``.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.site import BEFORE, IDENTITY, INNER, PRE, SHORTCUT, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``ResNetV2``: the stem ends with its max-pool."""
    yield stem_point("stem")
    stages = children(network, "stages")
    units = [children(network, f"{stage}.blocks") for stage in stages]
    yield from stage_points(network, units, _unit_points, ends=stages)


def _unit_points(unit: Unit, module: nn.Module) -> Iterator[Point]:
    pre_activated = type(module).__name__.startswith("PreAct")
    yield unit.point(PRE, "conv1", side=BEFORE)
    if not hasattr(module, "conv3"):
        yield unit.point(STANDARD, "conv2", also=(INNER,))
    else:
        yield unit.point(INNER, "conv2")
        yield unit.point(STANDARD, "conv3" if pre_activated else "norm3")
    if pre_activated and getattr(module, "downsample", None) is None:
        yield unit.point(IDENTITY, "", side=SHORTCUT)
    else:
        yield unit.point(IDENTITY, "downsample")
