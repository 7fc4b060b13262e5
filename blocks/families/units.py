"""Points of one unit, by its stage, number and position."""

from __future__ import annotations

from dataclasses import dataclass

from blocks.site import AFTER, IN_BLOCK, NCHW, POST, STAGE, Point


@dataclass(frozen=True)
class Unit:
    """One unit of a stage.

    Args:
        stage: Number of the stage, from 1.
        number: Number of the unit in its stage, from 1.
        path: The unit's module.
        layout: How its maps lie in memory.
        prefix: Tokens before those of the pixels.
    """

    stage: int
    number: int
    path: str
    layout: str = NCHW
    prefix: int = 0

    def point(self, position: str, module: str, *, side: str = AFTER, own: bool = False) -> Point:
        """A point at a module of the unit; an empty name is the unit itself.

        Args:
            position: One of ``POSITIONS``.
            module: Path of the module in the unit.
            side: "after" the module or "before" it.
            own: Whether the backbone as published has attention there.
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
        )


def stage_point(
    stage: int,
    path: str,
    *,
    last_unit: int = 0,
    side: str = AFTER,
    layout: str = NCHW,
    prefix: int = 0,
) -> Point:
    """The point after a stage.

    Args:
        stage: Number of the stage, from 1.
        path: The module whose result (or, ``side`` "before", whose input) the stage's map is.
        last_unit: Number of the stage's last unit, whose ``post`` it is; 0 where it is none's.
        side: "after" the module or "before" it.
        layout: How the map lies in memory.
        prefix: Tokens before those of the pixels.
    """
    position = POST if last_unit else ""
    return Point(f"stage{stage}", STAGE, stage, last_unit, position, path, side, layout, prefix)
