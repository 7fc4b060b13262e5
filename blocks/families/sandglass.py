"""MobileNeXt (``blocks.mobilenext``): stages are the rows of the paper's table.

``expanded`` is after the first depthwise convolution, its norm and activation, where coordinate
attention's authors put it; ``inner`` after the unit's first or only depthwise convolution. Units
that change the channels lack the first depthwise convolution, or both. A unit that does not add
its input has no shortcut: its ``standard`` is its output, and it has no ``pre``, which would be
the output of the unit before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.site import BEFORE, EXPANDED, IDENTITY, INNER, PRE, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of a MobileNeXt; the stem's map is that of its first convolution's activation."""
    yield stem_point("stem")
    stages = children(network, "stages")
    units = [children(network, stage) for stage in stages]
    yield from stage_points(network, units, _unit_points, ends=stages, adds=_adds)


def _adds(module: nn.Module) -> bool:
    return module.shortcut is not None


def _unit_points(unit: Unit, module: nn.Module) -> Iterator[Point]:
    parts = dict(module.get_submodule("branch").named_children())
    if _adds(module):
        yield unit.point(PRE, "branch", side=BEFORE)
    if "first" in parts:
        yield unit.point(INNER, "branch.first.conv")
        yield unit.point(EXPANDED, "branch.first")
    elif "last" in parts:
        yield unit.point(INNER, "branch.last.conv")
    if _adds(module):
        yield unit.point(STANDARD, "branch")
        yield unit.point(IDENTITY, "shortcut")
