"""The options of timm's own attention modules: their checks, and what of them takes effect.

Where timm has several arguments for one fact (a ratio, a divisor and a number of channels all set
one width), the options are all there and the fact alone, the number of channels, is the identity.
Pure arithmetic: no torch, no timm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from blocks.option_table import BIAS, GATE_NAMES, HEADS, REDUCTION, SCALE, choice, flag
from blocks.options import Check, MapShape, Option, OptionValue

Options = Mapping[str, OptionValue]
Condition = Callable[[MapShape, Options], bool]

AUTO = "auto"
MAP = "map"  # lambda's kernel_size: positions relative to all of the map
ANY_SIZE = "7x7"

# timm's celu is its elu, and its swish is silu; these build different functions.
ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "gelu", "gelu_tanh", "quick_gelu"),
    *("silu", "mish", "hardswish", "hard_mish", "sigmoid", "hardsigmoid", "tanh", "identity"),
)
GATES = (*GATE_NAMES, *(name for name in ACTIVATIONS if name not in GATE_NAMES))
NORMS = ("batchnorm2d", "groupnorm1", "layernorm2d", "rmsnorm2d")
NO_NORM = "none"
PADDINGS = ("zeros", "reflect", "replicate", "circular")


# Checks. -----------------------------------------------------------------------------------------


def _is_whole(value: OptionValue, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: OptionValue) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(float(value))


def _whole_from(least: int, *words: str) -> Check:
    kinds = "".join(f"neither {word!r} nor " for word in words) or "not "

    def check(value: OptionValue) -> str | None:
        fine = value in words or _is_whole(value, least)
        return None if fine else f"{value!r} is {kinds}a whole number from {least}"

    return check


def _odd_from(least: int, *words: str) -> Check:
    kinds = "".join(f"neither {word!r} nor " for word in words) or "not "

    def check(value: OptionValue) -> str | None:
        fine = value in words or (_is_whole(value, least) and int(value) % 2 == 1)
        return None if fine else f"{value!r} is {kinds}an odd number from {least}"

    return check


def _check_above_zero(value: OptionValue) -> str | None:
    return None if _is_number(value) and float(value) > 0 else f"{value!r} is not a number above 0"


def _check_number(value: OptionValue) -> str | None:
    return None if _is_number(value) else f"{value!r} is not a finite number"


def _check_rate(value: OptionValue) -> str | None:
    fine = _is_number(value) and 0 <= float(value) < 1
    return None if fine else f"{value!r} is not a number from 0 to below 1"


def _check_extent(value: OptionValue) -> str | None:
    fine = _is_whole(value, 0) and int(value) % 2 == 0
    return None if fine else f"{value!r} is not an even number from 0"


def _check_size(value: OptionValue) -> str | None:
    fine = isinstance(value, str) and re.fullmatch(r"[1-9]\d*x[1-9]\d*", value)
    return None if fine else f"{value!r} is no height and width"


def _check_kernels(value: OptionValue) -> str | None:
    parts = value.split("+") if isinstance(value, str) else []
    fine = len(parts) >= 2 and all(p.isdecimal() and int(p) >= 3 and int(p) % 2 for p in parts)
    return None if fine else f"{value!r} is no list of odd numbers from 3"


# What takes effect. ------------------------------------------------------------------------------


def with_default(option: Option, default: OptionValue) -> Option:
    """The option with another default, which is the value that stays out of the identity."""
    others = tuple(value for value in option.values if value != default)
    return replace(option, default=default, values=(default, *others), neutral=default)


def used_if(option: Option, condition: Condition) -> Option:
    """The option where a condition holds; where it does not, all values are the default."""
    effect = option.effect

    def in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
        return effect(value, shape, others) if condition(shape, others) else option.default

    return replace(option, effect=in_use)


def spelt_by(option: Option) -> Option:
    """The option whose effect is spelt out in another one, which alone is the identity."""

    def in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
        return option.default

    return replace(option, effect=in_use)


def _as_given(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    return value


def _as_float(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    return float(value)


def multiple_near(value: float, divisor: int, *, least: int = 0, share: float = 0.0) -> int:
    """The multiple of ``divisor`` nearest to a width, ties upwards, as timm rounds widths.

    Args:
        value: The width before rounding.
        divisor: What the result is a multiple of; the result is no less than it.
        least: A floor in the divisor's place; 0: none.
        share: The result is no less than this share of the value; it is then rounded up.
    """
    rounded = max(least or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < share * value else rounded


@dataclass(frozen=True)
class Width:
    """How a module sets the width of its squeezed layer.

    Args:
        reduction: How many times narrower it is by default (timm's 1 / rd_ratio).
        divisor: What the width is rounded to a multiple of by default.
        share: Of the width before rounding, the least that is kept.
        factor: Coordinate attention's extra factor; 0: it has none.
        splits: Whether the width grows with ``radix`` and is at least 32, as in split attention.
    """

    reduction: int
    divisor: int
    share: float = 0.0
    factor: float = 0.0
    splits: bool = False

    def channels(self, channels: int, options: Options) -> int:
        """The squeezed layer's channels at a site, as timm computes them."""
        if options["width"] != AUTO:
            return int(options["width"])
        wide = channels * int(options["radix"]) if self.splits else channels
        value = wide * (1 / float(options["reduction"]))
        if self.factor:
            value *= float(options["se_factor"])
        least = 32 if self.splits else 0
        return multiple_near(value, int(options["divisor"]), least=least, share=self.share)

    def options(self, *, reductions: tuple[int, ...], divisors: tuple[int, ...]) -> list[Option]:
        """The options that set the width; ``width`` is what they come to.

        Args:
            reductions: Worth trying.
            divisors: Worth trying.
        """

        def in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
            return self.channels(shape.channels, others)

        rows = [
            with_default(replace(_REDUCTION, values=reductions), self.reduction),
            replace(_WIDTH, effect=in_use),
            with_default(replace(_DIVISOR, values=divisors), self.divisor),
        ]
        if self.factor:
            rows.append(with_default(replace(_SE_FACTOR, values=(4.0,)), self.factor))
        return [row if row.name == "width" else spelt_by(row) for row in rows]


_REDUCTION = replace(
    REDUCTION,
    meaning="how many times narrower the squeezed layer is (1 / rd_ratio), before rounding",
    allowed="numbers above 0",
    check=_check_above_zero,
)
_WIDTH = Option(
    "width",
    default=AUTO,
    values=(AUTO, 12),
    meaning="channels of the squeezed layer (rd_channels); auto = by reduction and divisor",
    allowed="whole numbers from 1, auto",
    check=_whole_from(1, AUTO),
    neutral=AUTO,
)
_DIVISOR = Option(
    "divisor",
    default=8,
    values=(8,),
    meaning="what the squeezed layer's width is rounded to a multiple of (rd_divisor)",
    allowed="whole numbers from 1",
    check=_whole_from(1),
)
_SE_FACTOR = Option(
    "se_factor",
    default=2 / 3,
    values=(2 / 3,),
    meaning="a factor of the squeezed layer's width, before rounding",
    allowed="numbers above 0",
    check=_check_above_zero,
)


# The rows. ---------------------------------------------------------------------------------------


def _named(name: str, meaning: str, names: tuple[str, ...], default: str) -> Option:
    return with_default(choice(name, meaning, *names), default)


def activation(default: str = "relu") -> Option:
    """The function between the squeezing layers (act_layer)."""
    return _named("act", "the function after the squeezing layer", ACTIVATIONS, default)


def gate(default: str = "sigmoid") -> Option:
    """The function that makes the gate (gate_layer)."""
    return _named("gate", "the function that makes the gate from its logits", GATES, default)


def norm_layer(default: str, *, needed: bool = False) -> Option:
    """The norm, by timm's name (norm_layer)."""
    names = NORMS if needed else (NO_NORM, *NORMS)
    return _named("norm_layer", "the norm that follows the squeezing layer", names, default)


def switch(name: str, meaning: str, *, default: bool = False) -> Option:
    """An option that is on or off, and the default stays out of the identity."""
    return with_default(flag(name, meaning, default=default), default)


def bias(meaning: str, *, default: bool = False) -> Option:
    """Whether layers have biases."""
    return with_default(replace(BIAS, meaning=meaning), default)


def eca_kernel(channels: int, gamma: float, beta: float) -> int:
    """ECA's kernel in timm: an odd number near ``(log2 C + beta) / gamma``, and at least 3."""
    below = int(abs(math.log(channels, 2) + beta) / gamma)
    return max(below if below % 2 else below + 1, 3)


def kernel_of(channels: int, options: Options) -> int:
    """The kernel of ECA that a module gets."""
    if options["kernel_size"] != AUTO:
        return int(options["kernel_size"])
    return eca_kernel(channels, float(options["gamma"]), float(options["beta"]))


def _kernel_in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    return kernel_of(shape.channels, others)


def eca_options(*, least: int) -> list[Option]:
    """ECA's kernel: a number, or timm's formula with its two numbers."""
    return [
        Option(
            "kernel_size",
            default=AUTO,
            values=(AUTO, 5, 7),
            meaning="neighbouring channels that a gate sees; auto = the formula, at least 3",
            allowed=f"odd numbers from {least}, auto",
            check=_odd_from(least, AUTO),
            effect=_kernel_in_use,
            neutral=AUTO,
        ),
        spelt_by(
            Option(
                "gamma",
                default=2.0,
                values=(2.0, 1.0),
                meaning="the divisor in the formula of the kernel, (log2 C + beta) / gamma",
                allowed="numbers above 0",
                check=_check_above_zero,
                neutral=2.0,
            )
        ),
        spelt_by(
            Option(
                "beta",
                default=1.0,
                values=(1.0, 5.0),
                meaning="what the formula of the kernel adds to log2 C",
                allowed="finite numbers",
                check=_check_number,
                neutral=1.0,
            )
        ),
    ]


def odd_kernel(default: int, meaning: str, *, values: tuple[int, ...] = (3, 5, 7)) -> Option:
    """The side of a convolution's window."""
    option = Option(
        "kernel_size", default, values, meaning, allowed="odd numbers", check=_odd_from(1)
    )
    return with_default(option, default)


# Gather-excite: timm's ``extent`` 0 is the whole map, and so is any that reaches over all of it.


def _gathers(shape: MapShape, options: Options) -> bool:
    return bool(options["extra_params"])


def _pools(shape: MapShape, options: Options) -> bool:
    return not options["extra_params"]


def _squeezes(shape: MapShape, options: Options) -> bool:
    return bool(options["use_mlp"])


def _spans_the_map(shape: MapShape, options: Options) -> bool:
    return bool(options["extra_params"]) and options["extent"] == 0


def halvings(extent: int) -> int:
    """How many convolutions of stride 2 gather a context of this extent."""
    return extent.bit_length() - 1


def _activates(shape: MapShape, options: Options) -> bool:
    between = _gathers(shape, options) and halvings(int(options["extent"])) > 1
    return _squeezes(shape, options) or between


def _extent_in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    if value == 0:
        return 0
    if others["extra_params"]:
        return int(2 ** halvings(int(value)))
    return 0 if int(value) >= max(shape.height, shape.width) else value


def size_text(shape: MapShape) -> str:
    """A map's height and width as an option's value."""
    return f"{shape.height}x{shape.width}"


def _size_in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    return size_text(shape)


FEAT_SIZE = Option(
    "feat_size",
    default=ANY_SIZE,
    values=(ANY_SIZE, "14x14"),
    meaning="height x width of the map that it is made for; at a site the map itself sets it",
    allowed="height x width, such as 14x14",
    check=_check_size,
    effect=_size_in_use,
    neutral=ANY_SIZE,
)
MAX_POOL = switch("add_maxpool", "whether a map's largest number counts as much as its mean")


def gather_options(width: list[Option]) -> list[Option]:
    """Gather-excite's options; many of them count in one of its forms alone.

    Args:
        width: The options of the squeezed layer's width.
    """
    extent = Option(
        "extent",
        default=0,
        values=(0, 2, 4),
        meaning="pixels over which context is gathered; 0 = the whole map",
        allowed="even numbers from 0",
        check=_check_extent,
        effect=_extent_in_use,
        neutral=0,
    )
    return [
        switch("extra_params", "whether depthwise convolutions gather, not pooling"),
        extent,
        used_if(FEAT_SIZE, _spans_the_map),
        used_if(switch("norm", "whether batch norms follow them", default=True), _gathers),
        used_if(MAX_POOL, _pools),
        switch("use_mlp", "whether two squeezing layers follow", default=True),
        *(used_if(option, _squeezes) for option in width),
        used_if(activation(), _activates),
        gate(),
    ]


# Global context: timm's two flags are three blocks and, both off, none.


def _scales(shape: MapShape, options: Options) -> bool:
    return options["combine"] != "add"


COMBINE = with_default(
    choice(
        "combine",
        "how the context joins the map: as gates, added, or gates and then added",
        *("scale", "add", "both"),
    ),
    "scale",
)
USE_ATTN = switch(
    "use_attn", "whether a softmax over pixels weights the context, not the mean", default=True
)
CONTEXT_GATE = used_if(gate(), _scales)


# Strip attention without convolutions has nothing that they could set.


def _convolves(shape: MapShape, options: Options) -> bool:
    return bool(options["use_conv"])


def strip_options() -> list[Option]:
    """Strip attention's options."""
    return [
        switch("use_conv", "whether depthwise convolutions refine the strips", default=True),
        used_if(odd_kernel(3, "length of the strips' convolutions"), _convolves),
        used_if(bias("whether the strips' convolutions have biases"), _convolves),
        gate(),
    ]


# Selective kernels: a 5 x 5 window is, unless ``keep_3x3`` is off, a dilated 3 x 3 one.


def kernels_of(text: OptionValue) -> list[int]:
    """The sides of the paths' windows."""
    return [int(part) for part in str(text).split("+")]


def _stays_3x3(options: Options) -> bool:
    return bool(options["keep_3x3"]) or set(kernels_of(options["kernel_sizes"])) == {3}


def _keep_in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    return _stays_3x3(others)


def _dilation_in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    return 1 if _stays_3x3(others) else value


def _kernels_in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    """Dilated 3 x 3 windows by the side that they span; in order where the order is nothing."""
    sides = kernels_of(value)
    if _stays_3x3(others):
        sides = [int(others["dilation"]) * (side - 1) + 1 for side in sides]
    if not others["split_input"]:
        sides.sort()
    return "+".join(map(str, sides))


def whole(name: str, default: int, meaning: str, *values: int, least: int = 1) -> Option:
    """An option that is a whole number."""
    allowed = f"whole numbers from {least}"
    option = Option(name, default, values, meaning, allowed, check=_whole_from(least))
    return with_default(option, default)


GROUPS = whole("groups", 1, "groups of channels that the convolutions keep apart", 1, 2)
DILATION = whole("dilation", 1, "pixels from one tap of the convolutions to the next", 1, 2)
DROP_RATE = Option(
    "drop_rate",
    default=0.0,
    values=(0.0, 0.2),
    meaning="share of whole channels that are zeroed in training",
    allowed="numbers from 0 to below 1",
    check=_check_rate,
    effect=_as_float,
    neutral=0.0,
)


def selective_options(width: list[Option]) -> list[Option]:
    """Selective kernels' options.

    Args:
        width: The options of the squeezed layer's width.
    """
    kernels = Option(
        "kernel_sizes",
        default="3+5",
        values=("3+5", "3+7", "3+5+7+9"),
        meaning="sides of the paths' windows",
        allowed="two or more odd numbers from 3, such as 3+5",
        check=_check_kernels,
        effect=_kernels_in_use,
        neutral="3+5",
    )
    keep = switch("keep_3x3", "whether larger windows are dilated 3 x 3 ones", default=True)
    return [
        kernels,
        replace(DILATION, effect=_dilation_in_use),
        GROUPS,
        replace(keep, effect=_keep_in_use),
        switch("split_input", "whether each path sees its share of the channels", default=True),
        *width,
        activation(),
        norm_layer("batchnorm2d", needed=True),
        DROP_RATE,
    ]


# Split attention.


def _reaches(shape: MapShape, options: Options) -> bool:
    return int(options["kernel_size"]) > 1


def split_options(width: list[Option]) -> list[Option]:
    """Split attention's options.

    Args:
        width: The options of the squeezed layer's width.
    """
    padding = choice("padding_mode", "what is beyond the map's edge", *PADDINGS, neutral="zeros")
    return [
        odd_kernel(3, "side of the convolution's window"),
        used_if(DILATION, _reaches),
        GROUPS,
        bias("whether the convolution has biases"),
        used_if(padding, _reaches),
        whole("radix", 2, "splits of every channel that the gates choose between", 2, 1, 4),
        *width,
        activation(),
        norm_layer(NO_NORM),
        DROP_RATE,
    ]


# Attention between pixels.


def head_width(channels: int, options: Options) -> int:
    """Channels of a query in each head."""
    if options["dim_head"] != AUTO:
        return int(options["dim_head"])
    return multiple_near(channels * float(options["qk_ratio"]), 8, share=0.9) // int(
        options["heads"]
    )


def _head_width_in_use(value: OptionValue, shape: MapShape, others: Options) -> OptionValue:
    return head_width(shape.channels, others)


def pixel_options(*, heads: int, dim_head: int | str) -> list[Option]:
    """What lambda, bottleneck and halo attention share.

    Args:
        heads: Default number of heads.
        dim_head: Default channels of a query in each head.
    """
    plain = replace(HEADS, effect=_as_given)
    query = Option(
        "dim_head",
        default=dim_head,
        values=(dim_head, 4, 12),
        meaning="channels of a query and a key in each head; auto = by qk_ratio",
        allowed="whole numbers from 1, auto",
        check=_whole_from(1, AUTO),
        effect=_head_width_in_use,
    )
    ratio = Option(
        "qk_ratio",
        default=1.0,
        values=(1.0, 0.5),
        meaning="queries' channels in all heads, as a share of the map's; for dim_head auto",
        allowed="numbers above 0",
        check=_check_above_zero,
        neutral=1.0,
    )
    return [
        with_default(plain, heads),
        with_default(query, dim_head),
        spelt_by(ratio),
        bias("whether queries, keys and values have biases"),
    ]


def _positions_span_the_map(shape: MapShape, options: Options) -> bool:
    return options["kernel_size"] == MAP


def lambda_options() -> list[Option]:
    """Lambda layers' options."""
    window = Option(
        "kernel_size",
        default=9,
        values=(9, 3, MAP),
        meaning="side of the window in which positions count (r); map = all of the map",
        allowed="odd numbers, map",
        check=_odd_from(1, MAP),
        neutral=9,
    )
    return [
        *pixel_options(heads=4, dim_head=16),
        window,
        used_if(FEAT_SIZE, _positions_span_the_map),
    ]


SCALE_POSITIONS = switch("scale_pos_embed", "whether positions are scaled like similarities")
SCALE_ON = with_default(replace(SCALE, effect=_as_given), default=True)
