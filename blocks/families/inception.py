"""Inception-v3 and -v4: a unit is a module, whose branches are joined; none has a shortcut.

Szegedy et al., arXiv:1512.00567 and arXiv:1602.07261. ``standard`` is the whole module's output,
and so ``post`` too; a stage holds the modules whose output has one size, the reducing one first.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, children, stage_points, stem_point
from blocks.site import Point


def v3_points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``InceptionV3``: the stem's is behind the second max-pool."""
    yield stem_point("Pool2")
    modules = [name for name, _ in network.named_children() if name.startswith("Mixed_")]
    groups = [[name for name in modules if name.startswith(f"Mixed_{n}")] for n in (5, 6, 7)]
    yield from stage_points(network, groups, _nothing, adds=_never)


def v4_points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``InceptionV4``: the stem ends with its last joined pair (Mixed5a)."""
    groups: list[list[str]] = [[]]
    stem = ""
    for path in children(network, "features"):
        kind = type(network.get_submodule(path)).__name__
        if kind.startswith("Reduction"):
            groups.append([])
        if kind.startswith(("Reduction", "Inception")):
            groups[-1].append(path)
        else:
            stem = path
    yield stem_point(stem)
    yield from stage_points(network, groups, _nothing, adds=_never)


def _nothing(unit: Unit, module: nn.Module) -> Iterator[Point]:
    yield from ()


def _never(module: nn.Module) -> bool:
    return False
