"""timm's own attention modules under the contract of a block.

Wightman, "PyTorch Image Models", github.com/huggingface/pytorch-image-models, ``timm.layers``. The
module inside is timm's: a state of timm's loads into ``.module``. What departs from calling timm:

- the width of a squeezed layer is computed here, by timm's rule, and given as a number;
- ECA's kernel can be set although timm takes it from the channels alone (``blocks.timm_table``);
- split attention pads its convolution so that the map keeps its size at any dilation;
- gather-excite's parts are put together here: timm 1.0.31 hands them wrong arguments and can build
  neither its default form nor the one with convolutions;
- maps that a module cannot take are refused with a message, not by an assertion.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import timm
from timm import layers
from torch import Tensor, nn

from blocks.errors import BlockError, SiteError
from blocks.options import MapShape, OptionValue
from blocks.timm_options import (
    AUTO,
    MAP,
    NO_NORM,
    Options,
    halvings,
    head_width,
    kernel_of,
    kernels_of,
)
from blocks.timm_table import MODULES, WRITTEN_FOR, TimmModule

Arguments = dict[str, Any]
FACTORY = importlib.import_module("timm.layers.create_attn")  # timm.layers has its function alone
UNBOUNDED = 1 << 30  # pixels; a block that is built alone does not know its map


class TimmAttention(nn.Module):
    """One of timm's attention modules.

    Args:
        channels: Channels of the feature map; kept by the output.
        module: Its name in timm's ``create_attn``.
        **options: The options of its row in ``blocks.timm_table``; the others take their defaults.

    Raises:
        BlockError: The installed timm lacks the module or an argument of it, or the options do not
            fit the channels.
    """

    def __init__(self, channels: int, *, module: str, **options: OptionValue) -> None:
        super().__init__()
        row = MODULES[module]
        complete = row.spec.complete(options)
        side = int(complete.get("block_size", UNBOUNDED))
        problem = row.spec.requirement(MapShape(channels, side, side), complete)
        if problem is not None:
            raise BlockError(f"{row.spec.name}: {problem}")
        self.name = row.spec.name
        self.block_size = int(complete.get("block_size", 1))
        self.map_size = _map_size(module, complete)
        self.module = _BUILDERS.get(module, _build)(row, channels, complete)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape.

        Raises:
            SiteError: The module was made for maps of another size.
        """
        height, width = x_BCHW.shape[2:]
        if self.map_size is not None and (height, width) != self.map_size:
            raise SiteError(
                f"{self.name} was made for maps of {self.map_size[0]} x {self.map_size[1]} pixels,"
                f" not {height} x {width}; give feat_size: {height}x{width}"
            )
        if height % self.block_size != 0 or width % self.block_size != 0:
            raise SiteError(
                f"{self.name}: a map of {height} x {width} pixels has no whole blocks of"
                f" block_size {self.block_size}"
            )
        output: Tensor = self.module(x_BCHW)
        return output


def _size(options: Options) -> tuple[int, int]:
    height, _, width = str(options["feat_size"]).partition("x")
    return int(height), int(width)


def _map_size(module: str, options: Options) -> tuple[int, int] | None:
    """Height and width of the only maps that a module can take, where it is so."""
    tied = module == "bottleneck" or (module == "lambda" and options["kernel_size"] == MAP)
    return _size(options) if tied else None


# From options to timm's arguments. ---------------------------------------------------------------

_SPELT_IN_THE_WIDTH = ("rd_ratio", "rd_divisor", "se_factor")


def _norm(name: OptionValue) -> Any:
    return None if name == NO_NORM else layers.get_norm_layer(str(name))


def _drop(rate: OptionValue) -> Any:
    return partial(nn.Dropout2d, float(rate)) if float(rate) > 0 else None


_CONVERTED: dict[str, Callable[[OptionValue], Any]] = {
    "act_layer": lambda name: layers.get_act_layer(str(name)),
    "norm_layer": _norm,
    "drop_layer": _drop,
}


def _arguments(row: TimmModule, channels: int, options: Options) -> Arguments:
    """The arguments that options stand for one by one."""
    arguments: Arguments = {}
    for parameter, (option,) in row.options_of.items():
        if option in options and parameter not in _SPELT_IN_THE_WIDTH:
            convert = _CONVERTED.get(parameter)
            value = options[option]
            arguments[parameter] = value if convert is None else convert(value)
    if row.width is not None:
        arguments["rd_channels"] = row.width.channels(channels, options)
    return arguments


def _build(row: TimmModule, channels: int, options: Options) -> nn.Module:
    arguments = _arguments(row, channels, options)
    if "dim_head" in options:
        arguments["dim_head"] = head_width(channels, options)
    if "feat_size" in arguments:
        arguments["feat_size"] = _size(options)
    return _timm_module(row, channels, arguments)


def _timm_module(row: TimmModule, channels: int | None, arguments: Mapping[str, Any]) -> nn.Module:
    """Call timm's class.

    Raises:
        BlockError: The installed timm lacks the class or one of the arguments.
    """
    cure = f"install timm {WRITTEN_FOR} or newer"
    found = getattr(FACTORY, row.timm_class, None)
    installed = f"{row.spec.name}: the installed timm {timm.__version__} has"
    if found is None:
        raise BlockError(f"{installed} no {row.timm_class}; {cure}")
    known = inspect.signature(found).parameters
    for name in arguments:
        if name not in known and name not in row.options_of.get("kwargs", ()):
            raise BlockError(f"{installed} no argument {name} of {row.timm_class}; {cure}")
    built: nn.Module = found(channels, **arguments)
    return built


def _eca(row: TimmModule, channels: int, options: Options) -> nn.Module:
    """Without channels, timm takes the kernel that it is given."""
    arguments = {"kernel_size": kernel_of(channels, options), "gate_layer": options["gate"]}
    return _timm_module(row, None, arguments)


def _circular_eca(row: TimmModule, channels: int, options: Options) -> nn.Module:
    arguments: Arguments = {"kernel_size": kernel_of(channels, options)}
    arguments["gate_layer"] = options["gate"]
    if options["bias"]:
        arguments["act_layer"] = nn.ReLU  # never applied; its presence brings the bias
    return _timm_module(row, None, arguments)


def _eca_by_two(row: TimmModule, channels: int, options: Options) -> nn.Module:
    """Here timm needs the channels: a kernel is set by the ``beta`` for which its rule gives it."""
    arguments = _arguments(row, channels, options)
    kernel = arguments.pop("kernel_size")
    if kernel != AUTO:
        arguments["gamma"], arguments["beta"] = 1, kernel + 0.5 - math.log(channels, 2)
    return _timm_module(row, channels, {**arguments, "use_mlp": True})


def _global_context(row: TimmModule, channels: int, options: Options) -> nn.Module:
    arguments = _arguments(row, channels, options)
    combine = options.get("combine", "add")  # timm:gca has no such option and adds
    arguments["fuse_add"] = combine != "scale"
    arguments["fuse_scale"] = combine != "add"
    return _timm_module(row, channels, arguments)


def _selective(row: TimmModule, channels: int, options: Options) -> nn.Module:
    arguments = _arguments(row, channels, options)
    arguments["kernel_size"] = kernels_of(options["kernel_sizes"])
    return _timm_module(row, channels, arguments)


def _split(row: TimmModule, channels: int, options: Options) -> nn.Module:
    """Give timm the squeezed width of one split; what is no multiple of the splits, as a ratio."""
    arguments = _arguments(row, channels, options)
    arguments["padding_mode"] = arguments.pop("kwargs")
    arguments["padding"] = int(options["dilation"]) * (int(options["kernel_size"]) // 2)
    width, radix = arguments.pop("rd_channels"), int(options["radix"])
    if width % radix == 0:
        arguments["rd_channels"] = width // radix
    else:
        arguments |= {"rd_ratio": width / (channels * radix), "rd_divisor": 1}
    return _timm_module(row, channels, arguments)


def _lambda(row: TimmModule, channels: int, options: Options) -> nn.Module:
    arguments = _arguments(row, channels, options)
    arguments["dim_head"] = head_width(channels, options)
    arguments["feat_size"] = _size(options)
    if options["kernel_size"] == MAP:
        arguments["r"] = None
    return _timm_module(row, channels, arguments)


def _gather_excite(row: TimmModule, channels: int, options: Options) -> nn.Module:
    assert row.width is not None
    arguments = {name: options[name] for name in ("extent", "add_maxpool")}
    arguments |= {"gate_layer": options["gate"], "use_mlp": False}
    block = _timm_module(row, channels, arguments)
    if options["extra_params"]:
        block.gather = _gather(channels, options)
    if options["use_mlp"]:
        act_layer = layers.get_act_layer(str(options["act"]))
        width = row.width.channels(channels, options)
        block.mlp = layers.ConvMlp(channels, width, act_layer=act_layer)
    return block


def _gather(channels: int, options: Options) -> nn.Module:
    """Depthwise convolutions: one as large as the map, or a chain that halves it."""
    gather = nn.Sequential()
    halving = halvings(int(options["extent"])) if options["extent"] else 0
    for i in range(1, max(1, halving) + 1):
        kernel, stride = (3, 2) if halving else (_size(options), 1)
        convolution = layers.create_conv2d(
            channels, channels, kernel_size=kernel, stride=stride, depthwise=True
        )
        gather.add_module(f"conv{i}", convolution)
        if options["norm"]:
            gather.add_module(f"norm{i}", nn.BatchNorm2d(channels))
        if i < halving:
            gather.add_module(f"act{i}", layers.get_act_layer(str(options["act"]))(inplace=True))
    return gather


_BUILDERS: dict[str, Callable[[TimmModule, int, Options], nn.Module]] = {
    "eca": _eca,
    "ecam": _eca_by_two,
    "ceca": _circular_eca,
    "ge": _gather_excite,
    "gc": _global_context,
    "gca": _global_context,
    "sk": _selective,
    "splat": _split,
    "lambda": _lambda,
}
