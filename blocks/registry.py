"""The table of attention blocks: what there is, with which options, from which paper.

A block is a module ``(N, C, H, W) -> (N, C, H, W)``. Its class is loaded when the first one is
built, so reading this table needs no torch. A user's own block joins by the decorator
``register`` or by an installed entry point of the group ``attention_search.blocks``. Beside the
table stand timm's own modules, ``timm:NAME``, which are used in the same way.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from blocks import composition, formulas
from blocks.composition import BRANCHES, SEQUENCE
from blocks.errors import BlockError, listing, suggestion
from blocks.frequency import group_count
from blocks.option_table import (
    AUTHORS,
    AXIS,
    BIAS,
    BLOCK_COMBINE,
    BRANCH_COMBINE,
    BRANCH_REDUCTION,
    COORDINATE_REDUCTION,
    DCT_SIZE,
    ECA_KERNEL,
    ENERGY_LAMBDA,
    FREQUENCY,
    GATE,
    GRID,
    HEADS,
    MAP_COMBINE,
    NORM,
    REDUCTION,
    RESIDUAL,
    SCALE,
    SPATIAL,
    SPATIAL_KERNEL,
    WEIGHTS,
    WIDE_REDUCTION,
)
from blocks.options import (
    GRID_WINDOW,
    GRIDS,
    MapShape,
    Option,
    OptionValue,
    window_grid,
)
from blocks.spec import BlockSpec, Formula, with_residual
from blocks.timm_table import MODULES as TIMM_MODULES
from blocks.timm_table import PREFIX as TIMM

if TYPE_CHECKING:
    from torch import nn

NONE = "none"
ENTRY_POINT_GROUP = "attention_search.blocks"
RESIDUAL_BY_DEFAULT = ("selfatt", "mha")


def _whole_groups(shape: MapShape, options: Mapping[str, OptionValue]) -> str | None:
    groups = group_count(str(options["frequency"]))
    if shape.channels % groups == 0:
        return None
    return f"{shape.channels} channels cannot be split into {groups} equal frequency groups"


def _whole_windows(shape: MapShape, options: Mapping[str, OptionValue]) -> str | None:
    if window_grid(shape) is not None:
        return None
    sizes = listing(f"{GRID_WINDOW * grid} x {GRID_WINDOW * grid}" for grid in GRIDS)
    return (
        f"a map of {shape.height} x {shape.width} pixels has no grid of whole 7 x 7 windows;"
        f" maps that have: {sizes}"
    )


def _whole_heads(shape: MapShape, options: Mapping[str, OptionValue]) -> str | None:
    if shape.channels % int(options["heads"]) == 0:
        return None
    return f"{shape.channels} channels cannot be split into {options['heads']} equal heads"


_BUILT_IN = (
    BlockSpec(
        "se",
        "blocks.squeeze_excite:SqueezeExcite",
        "Squeeze-and-Excitation",
        "1709.01507",
        (REDUCTION, BIAS, GATE),
        formulas.squeeze_excite,
    ),
    BlockSpec(
        "eca",
        "blocks.eca:EfficientChannelAttention",
        "Efficient Channel Attention",
        "1910.03151",
        (ECA_KERNEL, GATE),
        formulas.efficient_channel,
    ),
    BlockSpec(
        "fca",
        "blocks.fca:FrequencyChannelAttention",
        "Frequency Channel Attention (FcaNet)",
        "2012.11879",
        (FREQUENCY, REDUCTION, DCT_SIZE, AUTHORS, GATE),
        formulas.frequency_channel,
        _whole_groups,
    ),
    BlockSpec(
        "simam",
        "blocks.simam:SimpleAttention",
        "SimAM, a simple parameter-free attention module",
        "ICML 2021 (Yang et al.)",
        (ENERGY_LAMBDA,),
        formulas.energy,
    ),
    BlockSpec(
        "cbam",
        "blocks.cbam:ConvolutionalBlockAttention",
        "Convolutional Block Attention Module",
        "1807.06521",
        (REDUCTION, SPATIAL_KERNEL, NORM),
        formulas.convolutional_block,
    ),
    BlockSpec(
        "cse",
        "blocks.concurrent:ChannelSqueezeExcite",
        "Spatial squeeze and channel excitation (cSE)",
        "1803.02579",
        (WIDE_REDUCTION, GATE),
        formulas.channel_squeeze_excite,
        same_as="se",
        same_options=(("bias", True),),
    ),
    BlockSpec(
        "sse",
        "blocks.concurrent:SpatialSqueezeExcite",
        "Channel squeeze and spatial excitation (sSE)",
        "1803.02579",
        (GATE,),
        formulas.spatial_squeeze_excite,
    ),
    BlockSpec(
        "scse",
        "blocks.concurrent:ConcurrentSqueezeExcite",
        "Concurrent spatial and channel squeeze and excitation (scSE)",
        "1808.08127",
        (WIDE_REDUCTION, MAP_COMBINE, GATE),
        formulas.concurrent_squeeze_excite,
    ),
    BlockSpec(
        "spse",
        "blocks.spatial_pooling:PyramidSqueezeExcite",
        "Squeeze-and-Excitation with spatial pyramid pooling (SPSE)",
        "Pattern Recognition 121 (2022) 108159 (Jin et al.)",
        (REDUCTION, GATE),
        formulas.pyramid_squeeze_excite,
    ),
    BlockSpec(
        "rgse",
        "blocks.spatial_pooling:GridSqueezeExcite",
        "Squeeze-and-Excitation with pooling over a grid of 7 x 7 windows (RGSE)",
        "Pattern Recognition 121 (2022) 108159 (Jin et al.)",
        (REDUCTION, GRID, GATE),
        formulas.grid_squeeze_excite,
        _whole_windows,
    ),
    BlockSpec(
        "selfatt",
        "blocks.self_attention:SelfAttention",
        "Self-attention between pixels (CNNtention)",
        "github.com/AttentionSeekers/CNNtention",
        (SCALE,),
        formulas.self_attention,
    ),
    BlockSpec(
        "mha",
        "blocks.self_attention:MultiHeadAttention",
        "Multi-head self-attention between pixels (CNNtention)",
        "github.com/AttentionSeekers/CNNtention",
        (HEADS,),
        formulas.multi_head_attention,
        _whole_heads,
    ),
    BlockSpec(
        "coord",
        "blocks.coordinate:CoordinateAttention",
        "Coordinate Attention",
        "2103.02907",
        (COORDINATE_REDUCTION,),
        formulas.coordinate,
    ),
    BlockSpec(
        "triplet",
        "blocks.triplet:TripletAttention",
        "Triplet Attention",
        "2010.03045",
        (SPATIAL_KERNEL, SPATIAL),
        formulas.triplet,
    ),
    BlockSpec(
        "tripse1",
        "blocks.tripse:TripSE1",
        "TripSE1, triplet attention and then Squeeze-and-Excitation",
        "2505.05943",
        (REDUCTION, BRANCH_COMBINE),
        formulas.triplet_then_squeeze,
    ),
    BlockSpec(
        "tripse2",
        "blocks.tripse:TripSE2",
        "TripSE2, triplet attention with Squeeze-and-Excitation before every gate",
        "2505.05943",
        (BRANCH_REDUCTION, BRANCH_COMBINE, AXIS),
        formulas.triplet_of_squeezed,
    ),
    BlockSpec(
        "tripse3",
        "blocks.tripse:TripSE3",
        "TripSE3, triplet attention with Squeeze-and-Excitation after every gate",
        "2505.05943",
        (BRANCH_REDUCTION, BRANCH_COMBINE, AXIS),
        formulas.triplet_of_squeezed,
    ),
    BlockSpec(
        "tripse4",
        "blocks.tripse:TripSE4",
        "TripSE4, triplet attention with Squeeze-and-Excitation inside every gate",
        "2505.05943",
        (BRANCH_REDUCTION, BRANCH_COMBINE, WEIGHTS, AXIS),
        formulas.triplet_plus_squeeze,
    ),
    BlockSpec(
        "parallel",
        "blocks.composed:Parallel",
        "Blocks side by side, combined",
        "a composition of blocks",
        (BRANCHES, BLOCK_COMBINE),
        composition.parallel_cost,
        composition.impossible,
        parts=composition.parts,
    ),
    BlockSpec(
        "sequential",
        "blocks.composed:Sequential",
        "Blocks one after the other",
        "a composition of blocks",
        (SEQUENCE,),
        composition.sequential_cost,
        composition.impossible,
        parts=composition.parts,
    ),
)

_BLOCKS: dict[str, BlockSpec] = {
    spec.name: with_residual(spec, default=spec.name in RESIDUAL_BY_DEFAULT) for spec in _BUILT_IN
}
_ADAPTED: dict[str, BlockSpec] = {
    module.spec.name: with_residual(module.spec) for module in TIMM_MODULES.values()
}
_CLASSES: dict[str, type[nn.Module]] = {}


@cache
def _load_entry_points() -> None:
    """Import installed packages that offer blocks; their ``register`` calls add the rows."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        entry.load()


def names() -> tuple[str, ...]:
    """The blocks of this project and of users that can be chosen, ``none`` first."""
    _load_entry_points()
    return (NONE, *_BLOCKS)


def adapted_names() -> tuple[str, ...]:
    """The names of timm's own modules, which can be chosen as well: ``timm:se`` and so on."""
    return tuple(_ADAPTED)


def spec(name: str) -> BlockSpec:
    """The row of a block.

    Raises:
        BlockError: There is no such block.
    """
    _load_entry_points()
    if name == NONE:
        raise BlockError("'none' is no attention: it has no row, no options and no cost")
    row = _BLOCKS.get(name) or _ADAPTED.get(name)
    if row is None:
        raise BlockError(_unknown(name))
    return row


def _unknown(name: str) -> str:
    if name.lower().startswith(TIMM):
        near = suggestion(name, adapted_names())
        return f"unknown timm module {name!r}.{near} timm's modules: {listing(adapted_names())}"
    of_timm = [known for known in adapted_names() if known == TIMM + name]
    near = suggestion(TIMM + name, of_timm) or suggestion(name, names())
    return (
        f"unknown block {name!r}.{near} Blocks: {listing(names())};"
        f" and timm's own modules as {TIMM}NAME, such as {TIMM}gc"
    )


def specs() -> tuple[BlockSpec, ...]:
    """All rows of the table; ``none`` has no row."""
    _load_entry_points()
    return tuple(_BLOCKS.values())


def identity(
    name: str, options: Mapping[str, OptionValue]
) -> tuple[BlockSpec, Mapping[str, OptionValue]]:
    """The row and the options under which a block enters an architecture's identity.

    Raises:
        BlockError: The block is unknown, or an option of another name of it.
    """
    row = spec(name)
    if not row.same_as:
        return row, options
    return spec(row.same_as), {**row.complete(options), **dict(row.same_options)}


def has_formula(name: str, options: Mapping[str, OptionValue]) -> bool:
    """Whether a block's cost is known by closed formula, with all blocks that it is made of.

    Raises:
        BlockError: The block or an option is unknown, or a value is not allowed.
    """
    row = spec(name)
    members = row.parts(row.complete(options))
    return row.cost is not None and all(has_formula(m.block, m.settings) for m in members)


def adapted_specs() -> tuple[BlockSpec, ...]:
    """The rows of timm's own modules."""
    return tuple(_ADAPTED.values())


def block_class(name: str) -> type[nn.Module]:
    """The class of a block; imports torch on first use."""
    row = spec(name)
    if name not in _CLASSES:
        _CLASSES[name] = row.load()
    return _CLASSES[name]


def create(name: str, channels: int, **options: OptionValue) -> nn.Module:
    """Build one attention block.

    Args:
        name: The block's short name; ``none`` builds the identity.
        channels: Channels of the feature map; the output has as many.
        **options: The block's options; those left out take their defaults.

    Returns:
        A module that maps (N, C, H, W) to the same shape.

    Raises:
        BlockError: The block or an option is unknown, or a value is not allowed.
    """
    from torch import nn

    if name == NONE:
        if options:
            raise BlockError(f"none has no option {next(iter(options))!r}: it has no options")
        return nn.Identity()
    row = spec(name)
    complete = row.complete({k: v for k, v in options.items() if k != "code" or not row.code})
    block = assemble(row, block_class(name), channels, complete)
    block.attention_block = (name, tuple(complete.items()))  # type: ignore[assignment]
    return block


def assemble(
    row: BlockSpec, block: type[nn.Module], channels: int, complete: Mapping[str, OptionValue]
) -> nn.Module:
    """Build a block from its row and class, whether they are in the table or not.

    Args:
        row: What is stated of it.
        block: Its class.
        channels: Channels of the feature map.
        complete: A value for every option of the row.

    Raises:
        BlockError: There are no channels.
    """
    from blocks.norm import name_norms
    from blocks.residual import Residual

    if channels < 1:
        raise BlockError(f"{row.name}: {channels} channels; a map has 1 or more")
    module = block(channels, **row.module_options(complete))
    name_norms(module, row.name)
    return Residual(module) if complete[RESIDUAL.name] else module


def register(
    name: str,
    *,
    title: str = "",
    paper: str = "",
    options: tuple[Option, ...] | None = None,
    cost: Formula | None = None,
) -> Callable[[type[Any]], type[Any]]:
    """Add a user's own block to the table, as a class decorator.

    Args:
        name: The short name that spaces will use.
        title: The block's full name.
        paper: Its source.
        options: Its options; left out, they are read off the keyword-only parameters, which then
            need defaults.
        cost: Its closed cost formula; left out, its cost is counted operator by operator.

    Raises:
        BlockError: The name is taken or cannot be used, or a parameter has no default.
    """

    def add(block: type[Any]) -> type[Any]:
        source = _source_checksum(block)
        if name == NONE or (name in _BLOCKS and _BLOCKS[name].code != source):
            raise BlockError(f"block name {name!r} is taken; choose another name in register(...)")
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
            raise BlockError(f"block name {name!r} may hold letters, digits, '-' and '_' alone")
        _BLOCKS[name] = describe(block, name, title, paper, options, cost)
        _CLASSES[name] = block
        return block

    return add


def describe(
    block: type[Any],
    name: str,
    title: str = "",
    paper: str = "",
    options: tuple[Option, ...] | None = None,
    cost: Formula | None = None,
) -> BlockSpec:
    """The row that a user's class gets; arguments as in ``register``.

    Raises:
        BlockError: The class takes no channels, or a parameter has no default.
    """
    return with_residual(
        BlockSpec(
            name,
            f"{block.__module__}:{block.__qualname__}",
            title or block.__name__,
            paper,
            _options_of(block, name) if options is None else options,
            cost,
            code=_source_checksum(block),
        )
    )


def row_of_class(block: type[Any]) -> BlockSpec | None:
    """The row under which a class is in the table, if it is."""
    found = (name for name, known in _CLASSES.items() if known is block)
    return next((_BLOCKS[name] for name in found), None)


def _source_checksum(block: type[Any]) -> str:
    try:
        source = inspect.getsource(block)
    except (OSError, TypeError):
        source = block.__qualname__
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _options_of(block: type[Any], name: str) -> tuple[Option, ...]:
    parameters = list(inspect.signature(block).parameters.values())
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not by_position:
        raise BlockError(
            f"{name}: its class takes no channels; write `def __init__(self, channels, *, ...)`"
        )
    keyword_only = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    for parameter in (*by_position[1:], *keyword_only):
        if parameter.default is inspect.Parameter.empty:
            raise BlockError(f"{name}.{parameter.name} has no default; give it one")
    return tuple(
        Option(p.name, p.default, (p.default,), "", f"values like {p.default!r}")
        for p in keyword_only
    )
