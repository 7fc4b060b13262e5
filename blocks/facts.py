"""What is stated of blocks beyond their rows: values that are one function, and lost gradients.

The conformance suite (``blocks.conformance``) takes every statement to the test, in both
directions: a value that is stated as an alias and is none fails, and so does one that is an alias
and is not stated. A block that is not named here has nothing to state. Plain data: no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from blocks.options import OptionValue

ALIAS_CHANNELS = 64
ALIAS_SIZE = (14, 14)  # the map that aliases are stated for


@dataclass(frozen=True)
class Alias:
    """Values of an option that build one function on 64 channels at 14 x 14.

    Args:
        option: The option's name.
        values: At least two; they need not be among the values worth trying.
        why: What makes them one.
    """

    option: str
    values: tuple[OptionValue, ...]
    why: str


@dataclass(frozen=True)
class Unreachable:
    """Parameters whose gradient is 0 by mathematics.

    Args:
        parameters: Their names in the block, with ``*`` for any text.
        why: What takes the gradient away.
        training_only: Whether it is so in training alone.
    """

    parameters: str
    why: str
    training_only: bool = False

    def covers(self, parameter: str, *, training: bool) -> bool:
        """Whether this is said of a parameter in this mode."""
        return (training or not self.training_only) and fnmatchcase(parameter, self.parameters)


@dataclass(frozen=True)
class Facts:
    """What is stated of one block.

    Args:
        aliases: Option values that are one function.
        unreachable: Parameters without gradient.
        counted: Why its operators do not add up to its declared cost, where they do not: a block
            costs what its definition says, also where its code does with fewer operations.
        excused: Checks that it fails, with the reason why that is as it should be.
    """

    aliases: tuple[Alias, ...] = ()
    unreachable: tuple[Unreachable, ...] = ()
    counted: str = ""
    excused: tuple[tuple[str, str], ...] = ()

    def are_aliases(self, option: str, one: OptionValue, other: OptionValue) -> bool:
        """Whether two values of an option are stated to be one function."""
        return any(
            alias.option == option and _holds(alias.values, one) and _holds(alias.values, other)
            for alias in self.aliases
        )

    def alias_values(self, option: str) -> Iterable[OptionValue]:
        """All values of an option that some alias names."""
        return (value for alias in self.aliases if alias.option == option for value in alias.values)


def _holds(values: Iterable[OptionValue], wanted: OptionValue) -> bool:
    """Whether a value is among others; True is not 1."""
    return any(type(value) is type(wanted) and value == wanted for value in values)


_ROUNDED = (
    Alias("reduction", (20, 21), "64 // 20 = 64 // 21 = 3: widths are whole numbers"),
    Alias("reduction", (64, 65, 1000), "no layer is narrower than 1"),
)
_ROUNDED_AND_FLOORED = (
    Alias("reduction", (8, 16, 32, 1000), "coordinate attention is not narrower than 8"),
)
_ONE_SOFTMAX = Unreachable(
    "key.bias", "one number added to all similarities of a pixel leaves its softmax as it is"
)
_NORM_FOLLOWS = "a norm in training takes away what is added to a whole channel"
_SHARED_WORK = (
    "its code scales the map once where the definition does so in every branch; the declared cost"
    " is the definition's"
)
_FUSED = "its code leaves the attention to one fused operator; the declared cost is spelt out"

_ONE_SOFTMAX_OF_PIXELS = Unreachable(
    "module.conv_attn.bias", "one number added to the logits of all pixels leaves their softmax"
)
_RELU6 = (
    "options-differ",
    "relu6 is relu on the maps of this check, whose squeezed numbers are under 6; the tests of the"
    " adapter tell them apart",
)
_TIMM_ORDER = ("channels-last", "timm's code returns its own order of memory")

FACTS: dict[str, Facts] = {
    "se": Facts(_ROUNDED),
    "eca": Facts((Alias("kernel_size", ("auto", 3), "the formula gives 3 at 64 channels"),)),
    "fca": Facts(
        (
            *_ROUNDED,
            Alias("frequency", ("top1", "low1", "0,0"), "the first pair of both is (0, 0)"),
            Alias("frequency", ("top2", "low2", "0,0+0,1"), "both are (0, 0) and (0, 1)"),
            Alias("dct_size", ("map", 14), "the map has 14 pixels already"),
            Alias("authors", (False, True), "the rules differ on maps under 7 pixels alone"),
        )
    ),
    "cbam": Facts(_ROUNDED),
    "cse": Facts(_ROUNDED),
    "scse": Facts(_ROUNDED, counted=_SHARED_WORK),
    "spse": Facts(
        _ROUNDED, unreachable=(Unreachable("fuse.*.bias", _NORM_FOLLOWS, training_only=True),)
    ),
    "rgse": Facts(_ROUNDED),
    "selfatt": Facts(unreachable=(_ONE_SOFTMAX,), counted=_FUSED),
    "mha": Facts(unreachable=(_ONE_SOFTMAX,), counted=_FUSED),
    "coord": Facts(
        _ROUNDED_AND_FLOORED,
        unreachable=(Unreachable("squeeze.bias", _NORM_FOLLOWS, training_only=True),),
    ),
    "triplet": Facts(counted=_SHARED_WORK),
    "tripse1": Facts(_ROUNDED, counted=_SHARED_WORK),
    "tripse2": Facts(_ROUNDED, counted=_SHARED_WORK),
    "tripse3": Facts(_ROUNDED, counted=_SHARED_WORK),
    "tripse4": Facts(_ROUNDED, counted=_SHARED_WORK),
    # timm's modules are as timm has them.
    "timm:ge": Facts(
        (
            Alias("feat_size", ("7x7", "14x14"), "at a site the map sets it"),
            Alias("norm", (True, False), "without convolutions there is nothing to norm"),
        )
    ),
    "timm:gc": Facts(unreachable=(_ONE_SOFTMAX_OF_PIXELS,), excused=(_RELU6,)),
    "timm:gca": Facts(unreachable=(_ONE_SOFTMAX_OF_PIXELS,), excused=(_RELU6,)),
    "timm:ela": Facts(excused=(_RELU6,)),
    "timm:sk": Facts(excused=(_TIMM_ORDER,)),
    "timm:splat": Facts(excused=(_TIMM_ORDER,)),
    "timm:lambda": Facts(
        (
            Alias("feat_size", ("7x7", "14x14"), "at a site the map sets it"),
            Alias("qk_ratio", (1.0, 0.5), "the width of a head, given, decides"),
        ),
        excused=(_TIMM_ORDER,),
    ),
    "timm:bottleneck": Facts(excused=(_TIMM_ORDER,)),
    "timm:halo": Facts(excused=(_TIMM_ORDER,)),
    "timm:nl": Facts(
        unreachable=(
            Unreachable("module.g.bias", _NORM_FOLLOWS, training_only=True),
            Unreachable("module.z.bias", _NORM_FOLLOWS, training_only=True),
            Unreachable("module.p.bias", "it adds one number to a pixel's similarities"),
        )
    ),
    "timm:bat": Facts(excused=(_TIMM_ORDER,)),
}


def facts_of(block: str) -> Facts:
    """What is stated of a block; of most there is nothing to state."""
    return FACTS.get(block, Facts())
