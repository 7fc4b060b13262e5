"""Pre-activation residual networks of CIFAR papers (``blocks.cifar_preact``).

A unit is ``bn1, relu, conv1, bn2, relu, conv2``: its branch ends with a convolution, whose norm is
the next unit's. So ``standard`` is after ``conv2``, which is also where SimAM's authors have it in
these units: ``inner`` is the same place. ``pre`` is before ``conv1``, behind the norm and ReLU,
from where a unit that changes the shape takes its shortcut, so that no shortcut passes the block.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.site import BEFORE, IDENTITY, INNER, PRE, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of a pre-activation network; the stem's map is that of the first convolution."""
    yield stem_point("conv1")
    stages = children(network, "stages")
    units = [children(network, stage) for stage in stages]
    yield from stage_points(network, units, _unit_points, ends=stages)


def _unit_points(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, "conv1", side=BEFORE)
    yield unit.point(STANDARD, "conv2", also=(INNER,))
    yield unit.point(IDENTITY, "shortcut")
