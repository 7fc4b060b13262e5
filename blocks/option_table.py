"""The rows of the table of options: every option that a block can have, once.

An option has one name, one meaning and one set of allowed values for all blocks that have it.
Pure arithmetic: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from blocks.errors import BlockError
from blocks.frequency import (
    FREQUENCY_SETS,
    frequency_text,
    group_count,
    learnt_groups,
    parse_frequency,
    representative_index,
    scaled_index,
    shortest_equal,
)
from blocks.frequency import (
    GRID as FREQUENCY_GRID,
)
from blocks.options import (
    CHANNELS_AXIS,
    GRIDS,
    ROTATED_AXIS,
    Check,
    MapShape,
    Option,
    OptionValue,
    bottleneck_width,
    coordinate_width,
    dct_shape,
    eca_kernel_size,
    is_axis,
    rotated_axis,
    squeezed_sizes,
    window_grid,
)

GATE_NAMES = ("sigmoid", "hardsigmoid", "tanh", "relu")


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
        group_count(str(value))
    except BlockError as error:
        return str(error)
    return None


def _check_dct_size(value: OptionValue) -> str | None:
    if value == "map" or (_is_int(value) and int(value) >= 1):
        return None
    return f"{value!r} is neither 'map' nor a whole number from 1"


def _check_grid(value: OptionValue) -> str | None:
    return None if _is_int(value) and value in GRIDS else f"{value!r} is none of them"


def _check_axis(value: OptionValue) -> str | None:
    return None if is_axis(value) else f"{value!r} is none of them"


def _widest_reduction(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """The largest reduction that gives the same squeezed width at this channel count."""
    return shape.channels // bottleneck_width(shape.channels, int(value))


def _branch_reduction(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """The largest reduction with the same width in every branch; beyond the largest side, that."""
    sizes = squeezed_sizes(shape, others["axis"])
    widths = {size: bottleneck_width(size, int(value)) for size in sizes}
    bounds = [size // width for size, width in widths.items() if width > 1]
    return min(bounds) if bounds else max(sizes)


def _coordinate_reduction(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """The largest reduction of the same width, but at the floor of 8 channels, which has none, 32.

    Wide maps reach the floor later than at 32; there it is the smallest reduction that does.
    """
    width = coordinate_width(shape.channels, int(value))
    return shape.channels // width if width > 8 else max(32, shape.channels // 9 + 1)


def _kernel_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    return eca_kernel_size(shape.channels) if value == "auto" else value


def _frequency_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """Spell the frequencies out, each as the smallest one with its DCT index on this map."""
    height, width = dct_shape(shape, others["dct_size"])
    authors = bool(others["authors"])
    groups = learnt_groups(str(value))
    if groups is not None:  # where all frequencies are one, there is nothing to learn
        constant = _all_one(height, authors) and _all_one(width, authors)
        return "0,0" if constant else f"nas{groups}"
    in_use = tuple(
        (
            representative_index(u, height, authors=authors),
            representative_index(v, width, authors=authors),
        )
        for u, v in parse_frequency(str(value))
    )
    return frequency_text(shortest_equal(in_use))


def _all_one(size: int, authors: bool) -> bool:
    """Whether all frequencies of the 7-grid are the mean on a map of this length."""
    return all(scaled_index(index, size, authors=authors) == 0 for index in range(FREQUENCY_GRID))


def _dct_size_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    same = value == "map" or (shape.height == shape.width == value)
    return "map" if same else value


def _authors_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """The authors' rule is spelt out in given frequencies; learnt ones depend on it in themselves.

    It is another rule than ours only under 7 pixels, and learnt frequencies of a map where it makes
    all of them the mean are given ones.
    """
    sides = dct_shape(shape, others["dct_size"])
    learnt = learnt_groups(str(others["frequency"])) is not None
    return bool(value) and learnt and min(sides) < FREQUENCY_GRID <= max(sides)


def _lambda_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """One number, however it is written; on a map of one pixel it has no effect."""
    return float(value) if shape.height * shape.width > 1 else 1e-4


def _grid_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """The map alone decides; where no grid fits, the block is refused before it is asked."""
    return window_grid(shape) or value


def _axis_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """The map alone gives the size of rotated branches, whatever size was written."""
    return CHANNELS_AXIS if value == CHANNELS_AXIS else rotated_axis(shape)


def _heads_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """A single pixel attends to itself alone, in however many heads."""
    return value if shape.height * shape.width > 1 else 1


def _scale_in_use(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """Nothing to scale between a pixel and itself, nor by the root of one channel."""
    return bool(value) and shape.height * shape.width > 1 and shape.channels > 1


REDUCTION = Option(
    "reduction",
    default=16,
    values=(4, 8, 16, 32),
    meaning="how many times narrower the squeezed layer is; width = max(1, channels // reduction)",
    allowed="whole numbers from 1",
    check=_check_positive_int,
    effect=_widest_reduction,
)
WIDE_REDUCTION = replace(REDUCTION, default=2, values=(2, 4, 8, 16))
BRANCH_REDUCTION = replace(REDUCTION, effect=_branch_reduction)
COORDINATE_REDUCTION = Option(
    "reduction",
    default=32,
    values=(4, 32),  # from 8 on all are 8 wide at 64 channels
    meaning="how many times narrower the squeezed layer is; width = max(8, channels // reduction)",
    allowed="whole numbers from 1",
    check=_check_positive_int,
    effect=_coordinate_reduction,
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
    values=("top1", "top2", "top4", "top8", "top16", "low2", "low16", "bot2", "bot16", "nas"),
    meaning="DCT frequencies that describe a channel: a published set, pairs 'u,v+u,v', or nas",
    allowed=(
        f"{', '.join(FREQUENCY_SETS)}, nas (learnt; nas4: in 4 groups), or pairs of 0 to 6 such as"
        " '0,0+6,0'"
    ),
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
    effect=_authors_in_use,
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


GRID = Option(
    "grid",
    default=1,
    values=GRIDS,
    meaning="windows of 7 x 7 on each side of the map; at a site the map itself sets it",
    allowed=", ".join(str(grid) for grid in GRIDS),
    check=_check_grid,
    effect=_grid_in_use,
)
HEADS = Option(
    "heads",
    default=8,
    values=(2, 4, 8),
    meaning="groups of channels that attend on their own; they must divide the channels",
    allowed="whole numbers from 1",
    check=_check_positive_int,
    effect=_heads_in_use,
)


SPATIAL = Option(
    "spatial",
    default=True,
    values=(True, False),
    meaning="whether there is the third gate, the one of pixels (no_spatial in the authors' code)",
    allowed="true, false",
    check=_check_bool,
    neutral=True,
)


def _one_of(*allowed: str) -> Check:
    def check(value: OptionValue) -> str | None:
        return None if value in allowed else f"{value!r} is none of them"

    return check


def flag(name: str, meaning: str, *, default: bool = False) -> Option:
    """An option that is on or off, and off stays out of the identity."""
    return Option(
        name,
        default=default,
        values=(default, not default),
        meaning=meaning,
        allowed="true, false",
        check=_check_bool,
        neutral=False,
    )


def choice(name: str, meaning: str, *values: str, neutral: str | None = None) -> Option:
    """An option with a few words to choose from, the first of them by default."""
    return Option(
        name,
        default=values[0],
        values=values,
        meaning=meaning,
        allowed=", ".join(values),
        check=_one_of(*values),
        neutral=neutral,
    )


RESIDUAL = flag("residual", "whether the block's input is added to its output")
GATE = choice(
    "gate", "the function that makes the gate from its logits", *GATE_NAMES, neutral="sigmoid"
)
SCALE = replace(
    flag("scale", "whether similarities are divided by sqrt(channels) before the softmax"),
    effect=_scale_in_use,
)
MAP_COMBINE = choice(
    "combine",
    "how the channel-gated and the pixel-gated map are joined",
    *("max", "add", "mul"),
    neutral="max",
)
BRANCH_COMBINE = choice(
    "combine", "how the three branches are joined", *("mean", "sum"), neutral="mean"
)
BLOCK_COMBINE = choice(
    "combine",
    "how what the blocks return is joined; concat = a 1x1 convolution back to the channels",
    *("sum", "mean", "max", "concat"),
)
WEIGHTS = flag("weights", "whether SE's part is added after a sigmoid of its own")
AXIS = Option(
    "axis",
    default=CHANNELS_AXIS,
    values=(CHANNELS_AXIS, ROTATED_AXIS),
    meaning="what SE squeezes in a branch: channels, or what its rotation brings first (height,"
    " width, channels), for one size of the map alone; at a site the map sets it",
    allowed="channels, rotated, or with the size of the map such as rotated:14x14",
    check=_check_axis,
    effect=_axis_in_use,
    neutral=CHANNELS_AXIS,
)
