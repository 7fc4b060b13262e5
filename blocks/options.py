"""The options of blocks as data: allowed values, meaning, and what of them takes effect at a site.

One table serves the registry, the reader of spaces, the catalogue and the conformance tests.
Pure arithmetic: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from blocks.errors import BlockError
from blocks.frequency import (
    FREQUENCY_SETS,
    frequency_text,
    parse_frequency,
    representative_index,
    shortest_equal,
)

OptionValue = bool | int | float | str


@dataclass(frozen=True)
class MapShape:
    """The feature map at a site: channels, height and width in pixels."""

    channels: int
    height: int
    width: int


Check = Callable[[OptionValue], str | None]
Effect = Callable[[OptionValue, MapShape, Mapping[str, OptionValue]], OptionValue]


def _unchanged(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    return value


def _anything(value: OptionValue) -> str | None:
    return None


@dataclass(frozen=True)
class Option:
    """One option of a block.

    Args:
        name: Its name, the same for every block that has it.
        default: The value when none is given.
        values: Values worth trying; documentation and conformance tests use them.
        meaning: One line for the catalogue.
        allowed: What a value may be, in words, for messages.
        check: Says what is wrong with a value, or nothing.
        effect: Maps a value to the one spelling of all values that build the same network at a
            map of this shape. The result is itself a legal value.
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
    neutral: OptionValue | None = None

    def checked(self, value: OptionValue, *, block: str) -> OptionValue:
        """Return the value, or say why it cannot be.

        Raises:
            BlockError: The value is not allowed.
        """
        problem = self.check(value)
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


def eca_kernel_size(channels: int) -> int:
    """ECA's kernel for a channel count: the odd number nearest to ``(log2 C + 1) / 2``.

    Wang et al., arXiv:1910.03151, eq. 12 with gamma = 2 and b = 1; ties go upwards, as in the
    authors' code.
    """
    below = int(abs((math.log2(channels) + 1) / 2))
    return below if below % 2 else below + 1


def _is_int(value: OptionValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_positive_int(value: OptionValue) -> str | None:
    return None if _is_int(value) and int(value) >= 1 else f"{value!r} is not a whole number from 1"


def _check_odd(value: OptionValue) -> str | None:
    if _is_int(value) and int(value) >= 1 and int(value) % 2 == 1:
        return None
    return f"{value!r} is not an odd number"


def _check_odd_or_auto(value: OptionValue) -> str | None:
    return None if value == "auto" else _check_odd(value)


def _check_bool(value: OptionValue) -> str | None:
    return None if isinstance(value, bool) else f"{value!r} is neither true nor false"


def _check_positive(value: OptionValue) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
        return None
    return f"{value!r} is not a number above 0"


def _check_frequency(value: OptionValue) -> str | None:
    try:
        parse_frequency(str(value))
    except BlockError as error:
        return str(error)
    return None


def _check_dct_size(value: OptionValue) -> str | None:
    if value == "map" or (_is_int(value) and int(value) >= 1):
        return None
    return f"{value!r} is neither 'map' nor a whole number from 1"


def _widest_reduction(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """The largest reduction that gives the same squeezed width at this channel count."""
    return shape.channels // bottleneck_width(shape.channels, int(value))


def _kernel_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    return eca_kernel_size(shape.channels) if value == "auto" else value


def dct_shape(shape: MapShape, dct_size: OptionValue) -> tuple[int, int]:
    """Height and width of the map that FcaNet's DCT sees."""
    if dct_size == "map":
        return shape.height, shape.width
    return int(dct_size), int(dct_size)


def _frequency_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """Spell the frequencies out, each as the smallest one with its DCT index on this map."""
    height, width = dct_shape(shape, others["dct_size"])
    authors = bool(others["authors"])
    in_use = tuple(
        (
            representative_index(u, height, authors=authors),
            representative_index(v, width, authors=authors),
        )
        for u, v in parse_frequency(str(value))
    )
    return frequency_text(shortest_equal(in_use))


def _dct_size_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    same = value == "map" or (shape.height == shape.width == value)
    return "map" if same else value


def _never(value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]) -> OptionValue:
    """The authors' rule is spelt out in the frequencies themselves; nothing else depends on it."""
    return False


def _lambda_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """One number, however it is written; on a map of one pixel it has no effect."""
    return float(value) if shape.height * shape.width > 1 else 1e-4


REDUCTION = Option(
    "reduction",
    default=16,
    values=(4, 8, 16, 32),
    meaning="how many times narrower the squeezed layer is; width = max(1, channels // reduction)",
    allowed="whole numbers from 1",
    check=_check_positive_int,
    effect=_widest_reduction,
)
BIAS = Option(
    "bias",
    default=False,
    values=(False, True),
    meaning="whether the two squeezing layers have biases (the authors' Caffe models do)",
    allowed="true, false",
    check=_check_bool,
    neutral=False,
)
ECA_KERNEL = Option(
    "kernel_size",
    default="auto",
    values=("auto", 3, 7, 9),
    meaning="neighbouring channels that a gate sees; auto = the paper's formula",
    allowed="odd numbers, auto",
    check=_check_odd_or_auto,
    effect=_kernel_in_use,
)
SPATIAL_KERNEL = Option(
    "kernel_size",
    default=7,
    values=(3, 5, 7),
    meaning="side of the spatial gate's convolution",
    allowed="odd numbers",
    check=_check_odd,
)
FREQUENCY = Option(
    "frequency",
    default="top16",
    values=("top1", "top2", "top4", "top8", "top16", "low2", "low16", "bot2", "bot16"),
    meaning="DCT frequencies that describe a channel: a published set or pairs 'u,v+u,v'",
    allowed=f"{', '.join(FREQUENCY_SETS)}, or pairs of 0 to 6 such as '0,0+6,0'",
    check=_check_frequency,
    effect=_frequency_in_use,
)
DCT_SIZE = Option(
    "dct_size",
    default="map",
    values=("map", 7),
    meaning="side that the map is pooled to before the DCT; map = none, bases follow the map",
    allowed="map, whole numbers from 1",
    check=_check_dct_size,
    effect=_dct_size_in_use,
    neutral="map",
)
AUTHORS = Option(
    "authors",
    default=False,
    values=(False, True),
    meaning="the authors' frequency scaling on maps under 7 pixels too (all become the mean)",
    allowed="true, false",
    check=_check_bool,
    effect=_never,
    neutral=False,
)
ENERGY_LAMBDA = Option(
    "energy_lambda",
    default=1e-4,
    values=(1e-4, 0.1),
    meaning="the regulariser of SimAM's energy (0.1 in the authors' ImageNet runs)",
    allowed="numbers above 0",
    check=_check_positive,
    effect=_lambda_in_use,
)
NORM = Option(
    "norm",
    default=True,
    values=(True, False),
    meaning="batch norm after the spatial convolution (the authors' code; the formula has none)",
    allowed="true, false",
    check=_check_bool,
    neutral=True,
)
