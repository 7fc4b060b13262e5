"""RegNet: timm's ``RegNet`` class (X, Y, and V and Z).

Radosavovic et al., arXiv:2003.13678. A unit is a bottleneck with a grouped 3x3 convolution, behind
which RegNetY has squeeze-and-excitation: ``expanded``, as the last convolution is given it. RegNetV
norms before it convolves: there ``expanded`` is ``inner`` too, and the shortcut takes the normed
map.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.own_attention import stands_in
from blocks.site import BEFORE, EXPANDED, IDENTITY, INNER, PRE, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``RegNet``."""
    yield stem_point("stem")
    stages = [name for name in ("s1", "s2", "s3", "s4") if hasattr(network, name)]
    units = [children(network, stage) for stage in stages]
    yield from stage_points(network, units, _unit_points, ends=stages, adds=_adds)


def _adds(module: nn.Module) -> bool:
    return module.downsample is not None


def _unit_points(unit: Unit, module: nn.Module) -> Iterator[Point]:
    pre_activated = type(module).__name__ == "PreBottleneck"
    if _adds(module):
        yield unit.point(PRE, "conv1", side=BEFORE)
    own = stands_in(module.se)
    if pre_activated:
        yield unit.point(EXPANDED, "se", side=BEFORE, own=own, also=(INNER,))
    else:
        yield unit.point(INNER, "conv2.conv")
        yield unit.point(EXPANDED, "se", side=BEFORE, own=own)
    if not _adds(module):
        return
    yield unit.point(STANDARD, "conv3")
    yield unit.point(IDENTITY, "downsample")
