"""Points of one unit, by its stage, number and position; and of stages of units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from blocks.site import AFTER, IN_BLOCK, NCHW, POST, STAGE, STANDARD, STEM, Point


@dataclass(frozen=True)
class Unit:
    """One unit of a stage.

    Args:
        stage: Number of the stage, from 1.
        number: Number of the unit in its stage, from 1.
        path: The unit's module.
        layout: How its maps lie in memory.
        prefix: Tokens before those of the pixels.
        grid: Height and width of the map that tokens are.
    """

    stage: int
    number: int
    path: str
    layout: str = NCHW
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)

    def point(
        self,
        position: str,
        module: str,
        *,
        side: str = AFTER,
        own: bool = False,
        also: tuple[str, ...] = (),
    ) -> Point:
        """A point at a module of the unit; an empty name is the unit itself.

        Args:
            position: One of ``POSITIONS``.
            module: Path of the module in the unit.
            side: "after" the module, "before" it, or on the unit's "shortcut".
            own: Whether the backbone as published has attention there.
            also: Other positions of the unit that are this place.
        """
        return Point(
            f"stage{self.stage}.unit{self.number}.{position}",
            IN_BLOCK,
            self.stage,
            self.number,
            position,
            f"{self.path}.{module}" if module else self.path,
            side,
            self.layout,
            self.prefix,
            own,
            also,
            self.grid,
        )


def stem_point(
    path: str,
    *,
    side: str = AFTER,
    layout: str = NCHW,
    prefix: int = 0,
    grid: tuple[int, int] = (0, 0),
) -> Point:
    """The point at the input of the first stage.

    Args:
        path: The module whose result (or, ``side`` "before", whose input) the map is.
        side: "after" the module or "before" it.
        layout: How the map lies in memory.
        prefix: Tokens before those of the pixels.
        grid: Height and width of the map that tokens are.
    """
    return Point(STEM, STEM, 0, 0, "", path, side, layout, prefix, grid=grid)


def stage_point(
    stage: int,
    path: str,
    *,
    last_unit: int = 0,
    side: str = AFTER,
    layout: str = NCHW,
    prefix: int = 0,
    own: bool = False,
    also: tuple[str, ...] = (),
    grid: tuple[int, int] = (0, 0),
) -> Point:
    """The point after a stage.

    Args:
        stage: Number of the stage, from 1.
        path: The module whose result (or, ``side`` "before", whose input) the stage's map is.
        last_unit: Number of the stage's last unit, whose ``post`` it is; 0 where it is none's.
        side: "after" the module or "before" it.
        layout: How the map lies in memory.
        prefix: Tokens before those of the pixels.
        own: Whether the backbone as published has attention there.
        also: Other positions of the last unit that are this place.
        grid: Height and width of the map that tokens are.
    """
    name, position = f"stage{stage}", POST if last_unit else ""
    return Point(
        name, STAGE, stage, last_unit, position, path, side, layout, prefix, own, also, grid
    )


UnitPoints = Callable[[Unit, nn.Module], Iterable[Point]]


def stage_points(
    network: nn.Module,
    stages: Iterable[list[str]],
    points: UnitPoints,
    *,
    ends: Iterable[str] = (),
    adds: Callable[[nn.Module], bool] = lambda unit: True,
) -> Iterator[Point]:
    """The points of all units, stage by stage, with ``post`` and ``stage``.

    Args:
        network: The network.
        stages: The paths of each stage's units.
        points: The points of one unit apart from ``post``.
        ends: The modules that end the stages; left out, their last units.
        adds: Whether a unit has a shortcut; its ``standard`` and ``post`` are one place if not.
    """
    last = list(ends)
    for stage, paths in enumerate(stages, start=1):
        for number, path in enumerate(paths, start=1):
            unit, module = Unit(stage, number, path), network.get_submodule(path)
            yield from points(unit, module)
            if number == len(paths):
                end = last[stage - 1] if last else path
                also = () if adds(module) else (STANDARD,)
                yield stage_point(stage, end, last_unit=number, also=also)
            elif adds(module):
                yield unit.point(POST, "")
            else:
                yield unit.point(STANDARD, "", also=(POST,))


def children(network: nn.Module, path: str) -> list[str]:
    """The paths of a module's children."""
    return [f"{path}.{name}" for name, _ in network.get_submodule(path).named_children()]
