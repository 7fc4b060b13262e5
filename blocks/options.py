"""The options of blocks as data: allowed values, meaning, and what of them takes effect at a site.

One table serves the registry, the reader of spaces, the catalogue and the conformance tests.
Pure arithmetic: no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blocks.errors import BlockError

OptionValue = bool | int | float | str

GRID_WINDOW = 7
GRIDS = (1, 2, 4, 8)
CHANNELS_AXIS = "channels"
ROTATED_AXIS = "rotated"


@dataclass(frozen=True)
class MapShape:
    """The feature map at a site: channels, height and width in pixels."""

    channels: int
    height: int
    width: int


Check = Callable[[OptionValue], str | None]
Effect = Callable[[OptionValue, MapShape, Mapping[str, OptionValue]], OptionValue]
Read = Callable[[Any], OptionValue]


def _unchanged(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    return value


def _anything(value: OptionValue) -> str | None:
    return None


def _as_given(value: Any) -> OptionValue:
    plain: OptionValue = value
    return plain


@dataclass(frozen=True)
class Option:
    """One option of a block.

    Args:
        name: Its name, the same for every block that has it.
        default: The value when none is given.
        values: Values worth trying; documentation and conformance tests use them.
        meaning: One line for the catalogue.
        allowed: What a value may be, in words, for messages.
        check: Says what is wrong with a value, or nothing; or raises a BlockError that says it
            all.
        effect: Maps a value to the one spelling of all values that build the same network at a
            map of this shape. The result is itself a legal value.
        read: Turns a convenient way to give a value, such as a list, into the value.
        neutral: A value that is left out of an architecture's identity, so that an option added to
            a block later does not change the digests of what was stored before.
    """

    name: str
    default: OptionValue
    values: tuple[OptionValue, ...]
    meaning: str
    allowed: str
    check: Check = _anything
    effect: Effect = _unchanged
    read: Read = _as_given
    neutral: OptionValue | None = None

    def checked(self, given: Any, *, block: str) -> OptionValue:
        """Return the value, or say why it cannot be.

        Raises:
            BlockError: The value is not allowed.
        """
        try:
            value = self.read(given)
            problem = self.check(value)
        except BlockError as error:
            raise BlockError(f"{block}.{self.name}: {error}") from None
        if problem is not None:
            allowed = "" if "Allowed: " in problem else f"; allowed: {self.allowed}"
            raise BlockError(f"{block}.{self.name}: {problem}{allowed}")
        return value


def bottleneck_width(channels: int, reduction: int) -> int:
    """Width of a squeezed layer: ``channels // reduction``, and at least 1.

    The papers leave ``channels < reduction`` open (their code makes an empty layer there); a width
    of 1 is this project's stated deviation.
    """
    return max(1, channels // reduction)


def coordinate_width(channels: int, reduction: int) -> int:
    """Width of coordinate attention's squeezed layer: ``channels // reduction``, and at least 8."""
    return max(8, channels // reduction)


def eca_kernel_size(channels: int) -> int:
    """ECA's kernel for a channel count: the odd number nearest to ``(log2 C + 1) / 2``.

    Wang et al., arXiv:1910.03151, eq. 12 with gamma = 2 and b = 1; ties go upwards, as in the
    authors' code.
    """
    below = int(abs((math.log2(channels) + 1) / 2))
    return below if below % 2 else below + 1


def window_grid(shape: MapShape) -> int | None:
    """Windows of 7 x 7 pixels on each side of a map that RGSE can stand at; None at others."""
    grid = shape.height // GRID_WINDOW
    fits = shape.height == shape.width == GRID_WINDOW * grid and grid in GRIDS
    return grid if fits else None


def dct_shape(shape: MapShape, dct_size: OptionValue) -> tuple[int, int]:
    """Height and width of the map that FcaNet's DCT sees."""
    if dct_size == "map":
        return shape.height, shape.width
    return int(dct_size), int(dct_size)


_ROTATED = re.compile(rf"{ROTATED_AXIS}:([1-9]\d{{0,4}})x([1-9]\d{{0,4}})")


def is_axis(value: OptionValue) -> bool:
    """Whether this is "channels", "rotated", or "rotated" with a map's size: "rotated:14x14"."""
    return value in (CHANNELS_AXIS, ROTATED_AXIS) or _ROTATED.fullmatch(str(value)) is not None


def rotated_size(axis: str) -> tuple[int, int]:
    """Height and width in "rotated:HEIGHTxWIDTH".

    Raises:
        BlockError: There is no size, on which the weights depend.
    """
    match = _ROTATED.fullmatch(axis)
    if match is None:
        raise BlockError(
            f"axis {axis!r}: weights of rotated branches depend on the map's height and width;"
            f" write them, such as {ROTATED_AXIS}:14x14, or place the block at a site, whose map"
            " gives them"
        )
    return int(match[1]), int(match[2])


def rotated_axis(shape: MapShape) -> str:
    """The spelling of "rotated" at a map; one number has one axis."""
    if shape.channels == shape.height == shape.width == 1:
        return CHANNELS_AXIS
    return f"{ROTATED_AXIS}:{shape.height}x{shape.width}"


def squeezed_sizes(shape: MapShape, axis: OptionValue) -> tuple[int, int, int]:
    """The dimension that SE squeezes in TripSE2 to TripSE4's branches cw, hc and hw."""
    if axis == CHANNELS_AXIS:
        return shape.channels, shape.channels, shape.channels
    return shape.height, shape.width, shape.channels
