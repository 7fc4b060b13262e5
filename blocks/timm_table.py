"""timm's own attention modules as blocks ``timm:NAME``: facts alone, without torch or timm.

The names are those of timm's ``create_attn``, whose modules can all keep the shape of a map. Each
row says what becomes of every parameter of timm's class: the options that set it, or why there is
none. A test holds this against the signatures of the installed timm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from blocks.errors import listing
from blocks.options import MapShape, Option, OptionValue
from blocks.spec import BlockSpec, Requirement
from blocks.timm_options import (
    COMBINE,
    CONTEXT_GATE,
    DROP_RATE,
    FEAT_SIZE,
    MAX_POOL,
    SCALE_ON,
    SCALE_POSITIONS,
    USE_ATTN,
    Options,
    Width,
    activation,
    bias,
    eca_options,
    gate,
    gather_options,
    head_width,
    kernel_of,
    kernels_of,
    lambda_options,
    norm_layer,
    odd_kernel,
    pixel_options,
    selective_options,
    split_options,
    strip_options,
    whole,
    with_default,
)

PREFIX = "timm:"
WRITTEN_FOR = "1.0.31"

# Why a parameter of timm's class is no option.
SITE = "the site's channels, which the block keeps"
KEEPS_SHAPE = "the block keeps the map's height and width"
FACTORY = "where and in which type numbers are kept, not what is computed"
SWALLOWED = "timm takes further arguments and ignores them"
NOTHING = "it changes nothing in timm's class"
NO_STRIDE = "it changes nothing at stride 1"


@dataclass(frozen=True)
class TimmModule:
    """A module of timm as a block.

    Args:
        spec: The block's row.
        timm_class: The class's name in ``timm.layers.create_attn``.
        options_of: Which options set a parameter of the class.
        reasons: Why the other parameters are no options.
        width: How the squeezed layer's width is set, where there is one.
    """

    spec: BlockSpec
    timm_class: str
    options_of: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str]
    width: Width | None = None


@dataclass(frozen=True)
class _Row:
    """A row as it is written below: options, and how timm calls them where it differs.

    ``renamed`` says a parameter's options, ``reasons`` why one has none; ``same_options`` are those
    of the block that it is another name of. Every other option is timm's parameter of its name.
    """

    name: str
    timm_class: str
    title: str
    paper: str
    options: tuple[Option, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    width: Width | None = None
    requirement: Requirement | None = None
    same_as: str = ""
    same_options: tuple[tuple[str, OptionValue], ...] = ()


# What a module asks of its site. -----------------------------------------------------------------


def _divisors(number: int, least: int = 1) -> str:
    return listing(n for n in range(least, number + 1) if number % n == 0) or "none"


def _whole_heads(shape: MapShape, options: Options) -> str | None:
    heads = int(options["heads"])
    if shape.channels % heads != 0:
        return (
            f"{shape.channels} channels cannot be split into {heads} equal heads;"
            f" heads that can: {_divisors(shape.channels)}"
        )
    if head_width(shape.channels, options) < 1:
        return f"qk_ratio {options['qk_ratio']} leaves {heads} heads no channel; set dim_head"
    return None


def _whole_blocks(shape: MapShape, options: Options, *, least: int) -> str | None:
    size = int(options["block_size"])
    if shape.height % size == 0 and shape.width % size == 0:
        return None
    fitting = [
        n
        for n in range(least, min(shape.height, shape.width) + 1)
        if shape.height % n == 0 and shape.width % n == 0
    ]
    return (
        f"a map of {shape.height} x {shape.width} pixels has no whole blocks of block_size {size};"
        f" those that fit: {listing(fitting) or 'none'}"
    )


def _halo(shape: MapShape, options: Options) -> str | None:
    return _whole_heads(shape, options) or _whole_blocks(shape, options, least=1)


def _bilinear(shape: MapShape, options: Options) -> str | None:
    width, groups = _BILINEAR_WIDTH.channels(shape.channels, options), int(options["groups"])
    if width % groups != 0:
        return f"{groups} groups do not divide the squeezed layer's {width} channels; set width"
    return _whole_blocks(shape, options, least=2)


def _circle(shape: MapShape, options: Options) -> str | None:
    kernel = kernel_of(shape.channels, options)
    if kernel // 2 <= shape.channels:
        return None
    return (
        f"kernel_size {kernel} goes more than once round {shape.channels} channels;"
        f" the largest that fits: {2 * shape.channels + 1}"
    )


def _paths(shape: MapShape, options: Options) -> str | None:
    paths, groups = len(kernels_of(options["kernel_sizes"])), int(options["groups"])
    if options["split_input"] and shape.channels % paths != 0:
        return (
            f"{shape.channels} channels cannot be split between {paths} paths;"
            " set split_input: false"
        )
    each = shape.channels // paths if options["split_input"] else shape.channels
    if each % groups == 0:
        return None
    return f"{groups} groups do not divide the {each} channels of a path; set groups: 1"


def _splits(shape: MapShape, options: Options) -> str | None:
    radix, groups = int(options["radix"]), int(options["groups"])
    width = _SPLIT_WIDTH.channels(shape.channels, options)
    if shape.channels % (radix * groups) != 0:
        return (
            f"{shape.channels} channels cannot be split into radix x groups = {radix * groups}"
            " equal parts"
        )
    if width % groups != 0:
        return f"{groups} groups do not divide the squeezed layer's {width} channels; set width"
    if width % radix != 0 and width < 32:
        return f"width {width} is neither a multiple of radix {radix} nor 32 or more"
    return _edge(shape, options)


def _edge(shape: MapShape, options: Options) -> str | None:
    reach = int(options["dilation"]) * (int(options["kernel_size"]) // 2)
    least = min(shape.height, shape.width)
    mode = options["padding_mode"]
    if (mode == "reflect" and reach >= least) or (mode == "circular" and reach > least):
        return (
            f"a window that reaches {reach} pixels beyond a map of {shape.height} x"
            f" {shape.width} pixels cannot be filled by padding_mode {mode}; set zeros"
        )
    return None


# The rows. ---------------------------------------------------------------------------------------

_WIDTH_OPTIONS = {"rd_ratio": "reduction", "rd_channels": "width", "rd_divisor": "divisor"}
_ACT, _GATE = {"act_layer": "act"}, {"gate_layer": "gate"}
_SKIP = {"has_skip": "residual"}
_CHANNELS = {"channels": SITE}
_IN_CHANNELS = {"in_channels": SITE}
_DIM = {"dim": SITE, "dim_out": SITE, "stride": KEEPS_SHAPE}
_QUERIES = {"num_heads": "heads", "qkv_bias": "bias"}
_CONVOLVING = {**_IN_CHANNELS, "out_channels": SITE, "stride": KEEPS_SHAPE}

_SE_WIDTH = Width(16, 8)
_ECA_WIDTH = Width(8, 8, share=0.9)
_GATHER_WIDTH = Width(16, 1)
_CONTEXT_WIDTH = Width(8, 1)
_CBAM_WIDTH = Width(16, 1)
_COORD_WIDTH = Width(16, 8, factor=2 / 3)
_SIMPLE_COORD_WIDTH = Width(4, 8, factor=2 / 3)
_SELECT_WIDTH = Width(16, 8, share=0.9)
_SPLIT_WIDTH = Width(4, 8, share=0.9, splits=True)
_NON_LOCAL_WIDTH = Width(8, 8, share=0.9)
_BILINEAR_WIDTH = Width(4, 8, share=0.9)

_CONTEXT = (*_CONTEXT_WIDTH.options(reductions=(2,), divisors=(16,)), activation())
_CBAM = (
    *_CBAM_WIDTH.options(reductions=(4,), divisors=(8,)),
    odd_kernel(7, "side of the spatial gate's convolution"),
    bias("whether the two squeezing layers have biases"),
    activation(),
)
_CBAM_NAMES = {**_WIDTH_OPTIONS, **_ACT, "spatial_kernel_size": "kernel_size", "mlp_bias": "bias"}
_COORD_BIAS = "whether the squeezing layers have biases"

_ROWS = (
    _Row(
        "se",
        "SEModule",
        "Squeeze-and-Excitation, widths rounded",
        "1709.01507",
        (
            *_SE_WIDTH.options(reductions=(4, 2), divisors=(32,)),
            MAX_POOL,
            bias("whether the two squeezing layers have biases", default=True),
            activation(),
            norm_layer("none"),
            gate(),
        ),
        {**_WIDTH_OPTIONS, **_ACT, **_GATE},
        _CHANNELS,
        _SE_WIDTH,
    ),
    _Row(
        "ese",
        "EffectiveSEModule",
        "Effective Squeeze-and-Excitation: one full layer",
        "1911.06667",
        (MAX_POOL, gate("hardsigmoid")),
        _GATE,
        {**_CHANNELS, "_": SWALLOWED},
    ),
    _Row(
        "eca",
        "EcaModule",
        "Efficient Channel Attention",
        "1910.03151",
        (*eca_options(least=1), gate()),
        _GATE,
        {
            **_CHANNELS,
            "use_mlp": "timm:ecam is the module with it",
            **dict.fromkeys(
                ("act_layer", "rd_ratio", "rd_channels", "rd_divisor"),
                "it changes nothing without use_mlp; timm:ecam has it",
            ),
        },
    ),
    _Row(
        "ecam",
        "EcaModule",
        "Efficient Channel Attention by two convolutions",
        "timm",
        (
            *eca_options(least=3),
            *_ECA_WIDTH.options(reductions=(4, 2), divisors=(32,)),
            activation(),
            gate(),
        ),
        {**_WIDTH_OPTIONS, **_ACT, **_GATE},
        {**_CHANNELS, "use_mlp": "always on; timm:eca is the module without it"},
        _ECA_WIDTH,
    ),
    _Row(
        "ceca",
        "CecaModule",
        "Efficient Channel Attention with the channels in a circle",
        "timm",
        (*eca_options(least=1), bias("whether the convolution has a bias"), gate()),
        # Of act_layer timm asks alone whether it is there: the convolution then has a bias.
        {**_GATE, "act_layer": "bias"},
        _CHANNELS,
        requirement=_circle,
    ),
    _Row(
        "ge",
        "GatherExcite",
        "Gather-Excite",
        "1810.12348",
        (*gather_options(_GATHER_WIDTH.options(reductions=(4,), divisors=(8,))),),
        {**_WIDTH_OPTIONS, **_ACT, **_GATE, "norm_layer": "norm"},
        _CHANNELS,
        _GATHER_WIDTH,
    ),
    _Row(
        "gc",
        "GlobalContext",
        "Global Context (GCNet)",
        "1904.11492",
        (USE_ATTN, COMBINE, *_CONTEXT, CONTEXT_GATE),
        {
            **_WIDTH_OPTIONS,
            **_ACT,
            **_GATE,
            "fuse_add": "combine",
            "fuse_scale": "combine",
        },
        {**_CHANNELS, "init_last_zero": NOTHING},
        _CONTEXT_WIDTH,
    ),
    _Row(
        "gca",
        "GlobalContext",
        "Global Context that is added; timm:gc with combine add",
        "1904.11492",
        (USE_ATTN, *_CONTEXT),
        {**_WIDTH_OPTIONS, **_ACT},
        {
            **_CHANNELS,
            "fuse_add": "always on; timm:gc has combine",
            "fuse_scale": "always off; timm:gc has combine",
            "gate_layer": "it changes nothing without fuse_scale; timm:gc has it",
            "init_last_zero": NOTHING,
        },
        _CONTEXT_WIDTH,
        same_as="gc",
        same_options=(("combine", "add"),),
    ),
    _Row(
        "cbam",
        "CbamModule",
        "Convolutional Block Attention Module, after a fashion",
        "1807.06521",
        (*_CBAM, gate()),
        {**_CBAM_NAMES, **_GATE},
        _CHANNELS,
        _CBAM_WIDTH,
    ),
    _Row(
        "lcbam",
        "LightCbamModule",
        "The same with means and maxima joined before the layers",
        "timm",
        _CBAM,
        _CBAM_NAMES,
        {**_CHANNELS, "gate_layer": f"{NOTHING}: both gates are sigmoids"},
        _CBAM_WIDTH,
    ),
    _Row(
        "coord",
        "CoordAttn",
        "Coordinate Attention",
        "2103.02907",
        (
            *_COORD_WIDTH.options(reductions=(2, 1), divisors=(16,)),
            bias(_COORD_BIAS),
            activation("hardswish"),
            norm_layer("batchnorm2d"),
            gate(),
        ),
        {**_WIDTH_OPTIONS, **_ACT, **_GATE, **_SKIP},
        _CHANNELS,
        _COORD_WIDTH,
    ),
    _Row(
        "scoord",
        "SimpleCoordAttn",
        "Coordinate Attention with one gate of both sums",
        "timm",
        (
            *_SIMPLE_COORD_WIDTH.options(reductions=(2, 1), divisors=(16,)),
            bias(_COORD_BIAS, default=True),
            activation("silu"),
            gate(),
        ),
        {**_WIDTH_OPTIONS, **_ACT, **_GATE, **_SKIP},
        _CHANNELS,
        _SIMPLE_COORD_WIDTH,
    ),
    _Row(
        "ela",
        "EfficientLocalAttn",
        "Efficient Local Attention",
        "2403.01123",
        (
            odd_kernel(7, "length of the strips' convolutions"),
            bias("whether the strips' convolutions have biases"),
            activation("silu"),
            norm_layer("groupnorm1"),
            gate(),
        ),
        {**_ACT, **_GATE, **_SKIP},
        _CHANNELS,
    ),
    _Row(
        "strip",
        "StripAttn",
        "Strip attention: gates from the means of rows and columns",
        "timm",
        (*strip_options(),),
        {**_GATE, **_SKIP},
        {**_CHANNELS, "_": SWALLOWED},
    ),
    _Row(
        "sk",
        "SelectiveKernel",
        "Selective Kernels (SKNet)",
        "1903.06586",
        (*selective_options(_SELECT_WIDTH.options(reductions=(4, 2), divisors=(32,))),),
        {
            **_WIDTH_OPTIONS,
            **_ACT,
            "kernel_size": "kernel_sizes",
            "drop_layer": "drop_rate",
        },
        {**_CONVOLVING, "aa_layer": NO_STRIDE},
        _SELECT_WIDTH,
        _paths,
    ),
    _Row(
        "splat",
        "SplitAttn",
        "Split Attention (ResNeSt)",
        "2004.08955",
        (*split_options(_SPLIT_WIDTH.options(reductions=(2, 1), divisors=(48,))),),
        {
            **_WIDTH_OPTIONS,
            **_ACT,
            "drop_layer": "drop_rate",
            "kwargs": "padding_mode",  # timm hands them to the convolution
        },
        {**_CONVOLVING, "padding": KEEPS_SHAPE},
        _SPLIT_WIDTH,
        _splits,
    ),
    _Row(
        "lambda",
        "LambdaLayer",
        "Lambda layer (LambdaNetworks)",
        "2102.08602",
        (*lambda_options(),),
        {**_QUERIES, "r": "kernel_size"},
        _DIM,
        requirement=_whole_heads,
    ),
    _Row(
        "bottleneck",
        "BottleneckAttn",
        "Attention between pixels (Bottleneck Transformers)",
        "2101.11605",
        (*pixel_options(heads=4, dim_head="auto"), SCALE_POSITIONS, FEAT_SIZE),
        _QUERIES,
        _DIM,
        requirement=_whole_heads,
    ),
    _Row(
        "halo",
        "HaloAttn",
        "Attention between the pixels of a block and around it (HaloNet)",
        "2103.12731",
        (
            *pixel_options(heads=8, dim_head="auto"),
            whole("block_size", 8, "side of a block of pixels; must divide the map", 8, 4),
            whole("halo_size", 3, "pixels around a block that it sees too", 3, 1, 0, least=0),
            SCALE_POSITIONS,
        ),
        _QUERIES,
        {**_DIM, "feat_size": NOTHING, "avg_down": NO_STRIDE},
        requirement=_halo,
    ),
    _Row(
        "nl",
        "NonLocalAttn",
        "Non-local attention between pixels",
        "1711.07971",
        (SCALE_ON, *_NON_LOCAL_WIDTH.options(reductions=(4, 2), divisors=(32,))),
        {**_WIDTH_OPTIONS, "use_scale": "scale"},
        {**_IN_CHANNELS, "_": SWALLOWED},
        _NON_LOCAL_WIDTH,
    ),
    _Row(
        "bat",
        "BatNonLocalAttn",
        "Grouped Bilinear Attentional Transforms",
        "CVPR 2020 (Chi et al.)",
        (
            whole("block_size", 7, "side of the matrices; must divide the map", 7, 2, least=2),
            whole("groups", 2, "groups of channels with matrices of their own", 2, 4),
            *_BILINEAR_WIDTH.options(reductions=(2, 8), divisors=(32,)),
            with_default(replace(DROP_RATE, values=(0.2, 0.0)), 0.2),
            activation(),
            norm_layer("batchnorm2d", needed=True),
        ),
        {**_WIDTH_OPTIONS, **_ACT},
        {**_IN_CHANNELS, "_": SWALLOWED},
        _BILINEAR_WIDTH,
        _bilinear,
    ),
)


def _module(row: _Row) -> TimmModule:
    spec = BlockSpec(
        PREFIX + row.name,
        "blocks.timm_adapter:TimmAttention",
        row.title,
        row.paper,
        row.options,
        same_as=PREFIX + row.same_as if row.same_as else "",
        same_options=row.same_options,
        fixed=(("module", row.name),),
    )
    if row.requirement is not None:
        spec = replace(spec, requirement=row.requirement)
    named = {option.name for option in row.options}
    renamed = {parameter: (option,) for parameter, option in row.renamed.items()}
    plain = {name: (name,) for name in named - set(row.renamed.values())}
    reasons = {**row.reasons, "device": FACTORY, "dtype": FACTORY}
    return TimmModule(spec, row.timm_class, {**plain, **renamed}, reasons, row.width)


MODULES: dict[str, TimmModule] = {row.name: _module(row) for row in _ROWS}
