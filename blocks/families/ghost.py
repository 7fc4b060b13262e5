"""GhostNet: timm's ``GhostNet`` class, versions 1 to 3.

Han et al., arXiv:1911.11907. A unit is a Ghost bottleneck; a stage holds those whose output has one
size. ``expanded`` is the wide map as the second Ghost module is given it, behind the unit's own
squeeze-and-excitation; the first unit does not widen its input, and has none. Only units with
stride 2 have one depthwise convolution between the modules, so that only they have ``inner``, and
not in version 3, where it is a sum of several.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.own_attention import stands_in
from blocks.site import BEFORE, EXPANDED, IDENTITY, INNER, PRE, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``GhostNet``; the convolution behind the last unit is of the head."""
    yield stem_point("act1")
    stages: list[list[str]] = [[]]
    for path in (
        unit for group in children(network, "blocks") for unit in children(network, group)
    ):
        module = network.get_submodule(path)
        if not type(module).__name__.startswith("GhostBottleneck"):
            continue
        if module.stride > 1:  # type: ignore[operator]
            stages.append([])
        stages[-1].append(path)
    yield from stage_points(network, stages, _unit_points)


def _widens(ghost: Any) -> bool:
    convolution = next(module for module in ghost.modules() if isinstance(module, nn.Conv2d))
    return bool(ghost.out_chs > convolution.in_channels)


def _unit_points(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield unit.point(PRE, "ghost1", side=BEFORE)
    if type(module).__name__ == "GhostBottleneck" and module.conv_dw is not None:
        yield unit.point(INNER, "conv_dw")
    if _widens(module.get_submodule("ghost1")):
        yield unit.point(EXPANDED, "ghost2", side=BEFORE, own=stands_in(module.se))
    yield unit.point(STANDARD, "ghost2")
    yield unit.point(IDENTITY, "shortcut")
