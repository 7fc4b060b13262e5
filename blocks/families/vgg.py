"""VGG: a unit is a convolution with its norm, where it has one, and its activation.

Simonyan and Zisserman, arXiv:1409.1556. The stem is the first convolution; a stage holds the units
up to a max-pool, and ends before it. In VGG-11, where the first stage would be the stem alone, the
stem ends with that max-pool and the stages are the four behind it. A unit has no shortcut; its
``standard`` is behind its norm, before its activation, and ``post`` behind that.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, stage_point, stem_point
from blocks.site import INNER, POST, STANDARD, Point

Layers = list[tuple[str, nn.Module]]


def points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``VGG``, whose layers are one long ``features``."""
    (stem, *first), *stages = _groups(network)
    if first:
        stages.insert(0, first)
    yield stem_point(_last(stem) if first else "features." + _first_pool(network))
    for stage, units in enumerate(stages, start=1):
        for number, layers in enumerate(units, start=1):
            unit = Unit(stage, number, "features")
            yield from _unit_points(unit, layers)
            if number < len(units):
                yield unit.point(POST, layers[-1][0])
        yield stage_point(stage, _last(units[-1]), last_unit=len(units))


def _last(layers: Layers) -> str:
    return f"features.{layers[-1][0]}"


def _first_pool(network: nn.Module) -> str:
    layers = network.get_submodule("features").named_children()
    return next(name for name, layer in layers if isinstance(layer, nn.MaxPool2d))


def _groups(network: nn.Module) -> list[list[Layers]]:
    """The layers of the units between max-pools."""
    groups: list[list[Layers]] = [[]]
    for name, layer in network.get_submodule("features").named_children():
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
        elif isinstance(layer, nn.Conv2d):
            groups[-1].append([(name, layer)])
        else:
            groups[-1][-1].append((name, layer))
    return [group for group in groups if group]


def _unit_points(unit: Unit, layers: Layers) -> Iterator[Point]:
    (convolution, _), *rest = layers
    if len(rest) == 1:  # an activation alone
        yield unit.point(STANDARD, convolution, also=(INNER,))
        return
    yield unit.point(INNER, convolution)
    yield unit.point(STANDARD, rest[0][0])
