"""The table of attention blocks: what there is, with which options, from which paper.

A block is a module ``(N, C, H, W) -> (N, C, H, W)``. Its class is loaded when the first one is
built, so reading this table needs no torch. A user's own block joins by the decorator
``register`` or by an installed entry point of the group ``attention_search.blocks``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from blocks import formulas
from blocks.errors import BlockError, SiteError, listing, suggestion
from blocks.frequency import parse_frequency
from blocks.options import (
    AUTHORS,
    BIAS,
    DCT_SIZE,
    ECA_KERNEL,
    ENERGY_LAMBDA,
    FREQUENCY,
    NORM,
    REDUCTION,
    SPATIAL_KERNEL,
    MapShape,
    Option,
    OptionValue,
)

if TYPE_CHECKING:
    from torch import nn

NONE = "none"
ENTRY_POINT_GROUP = "attention_search.blocks"

Formula = Callable[[MapShape, Mapping[str, OptionValue]], formulas.Cost]
Requirement = Callable[[MapShape, Mapping[str, OptionValue]], str | None]


def _no_requirement(shape: MapShape, options: Mapping[str, OptionValue]) -> str | None:
    return None


def _whole_groups(shape: MapShape, options: Mapping[str, OptionValue]) -> str | None:
    groups = len(parse_frequency(str(options["frequency"])))
    if shape.channels % groups == 0:
        return None
    return f"{shape.channels} channels cannot be split into {groups} equal frequency groups"


@dataclass(frozen=True)
class BlockSpec:
    """One row of the table.

    Args:
        name: The short name that spaces use.
        target: Where its class is, as "module:Class".
        title: Its full name.
        paper: The source, as an arXiv identifier.
        options: Its options.
        cost: Its closed cost formula; None: counted operator by operator.
        requirement: Says why it cannot stand at a map of this shape, or nothing.
        code: A checksum of a user's own class, part of the identity of networks that use it.
    """

    name: str
    target: str
    title: str
    paper: str
    options: tuple[Option, ...] = ()
    cost: Formula | None = None
    requirement: Requirement = _no_requirement
    code: str = ""

    def option(self, name: str) -> Option:
        """One of the block's options.

        Raises:
            BlockError: The block has no such option.
        """
        for option in self.options:
            if option.name == name:
                return option
        names = [option.name for option in self.options]
        has = f"Its options: {listing(names)}" if names else "It has no options"
        raise BlockError(f"{self.name} has no option {name!r}.{suggestion(name, names)} {has}")

    def complete(self, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Check options and fill in the defaults of the others.

        Raises:
            BlockError: An option is unknown or has a value that it cannot take.
        """
        for name, value in options.items():
            self.option(name).checked(value, block=self.name)
        return {o.name: options.get(o.name, o.default) for o in self.options}

    def in_use(self, options: Mapping[str, OptionValue], shape: MapShape) -> dict[str, OptionValue]:
        """The one spelling of all options that build the same network at a map of this shape.

        Raises:
            BlockError: An option is unknown or has a value that it cannot take.
            SiteError: The block cannot stand at a map of this shape.
        """
        complete = self.complete(options)
        problem = self.requirement(shape, complete)
        if problem is not None:
            raise SiteError(f"{self.name}: {problem}")
        effective = {o.name: o.effect(complete[o.name], shape, complete) for o in self.options}
        if self.code:
            effective["code"] = self.code
        neutral = {o.name: o.neutral for o in self.options if o.neutral is not None}
        return {
            name: value
            for name, value in effective.items()
            if name not in neutral or value != neutral[name]
        }

    def load(self) -> type[nn.Module]:
        """The block's class; imports torch."""
        module, _, name = self.target.partition(":")
        loaded: type[nn.Module] = getattr(importlib.import_module(module), name)
        return loaded


_BUILT_IN = (
    BlockSpec(
        "se",
        "blocks.squeeze_excite:SqueezeExcite",
        "Squeeze-and-Excitation",
        "1709.01507",
        (REDUCTION, BIAS),
        formulas.squeeze_excite,
    ),
    BlockSpec(
        "eca",
        "blocks.eca:EfficientChannelAttention",
        "Efficient Channel Attention",
        "1910.03151",
        (ECA_KERNEL,),
        formulas.efficient_channel,
    ),
    BlockSpec(
        "fca",
        "blocks.fca:FrequencyChannelAttention",
        "Frequency Channel Attention (FcaNet)",
        "2012.11879",
        (FREQUENCY, REDUCTION, DCT_SIZE, AUTHORS),
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
)

_BLOCKS: dict[str, BlockSpec] = {spec.name: spec for spec in _BUILT_IN}
_CLASSES: dict[str, type[nn.Module]] = {}


@cache
def _load_entry_points() -> None:
    """Import installed packages that offer blocks; their ``register`` calls add the rows."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        entry.load()


def names() -> tuple[str, ...]:
    """The blocks that can be chosen, ``none`` first."""
    _load_entry_points()
    return (NONE, *_BLOCKS)


def spec(name: str) -> BlockSpec:
    """The row of a block.

    Raises:
        BlockError: There is no such block.
    """
    _load_entry_points()
    if name == NONE:
        raise BlockError("'none' is no attention: it has no row, no options and no cost")
    if name not in _BLOCKS:
        near = suggestion(name, names())
        raise BlockError(f"unknown block {name!r}.{near} Blocks: {listing(names())}")
    return _BLOCKS[name]


def specs() -> tuple[BlockSpec, ...]:
    """All rows; ``none`` has no row."""
    _load_entry_points()
    return tuple(_BLOCKS.values())


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
    if channels < 1:
        raise BlockError(f"{name}: {channels} channels; a map has 1 or more")
    complete = row.complete({k: v for k, v in options.items() if k != "code" or not row.code})
    block = block_class(name)(channels, **complete)
    block.attention_block = (name, tuple(complete.items()))  # type: ignore[assignment]
    return block


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
        _BLOCKS[name] = BlockSpec(
            name,
            f"{block.__module__}:{block.__qualname__}",
            title or block.__name__,
            paper,
            _options_of(block, name) if options is None else options,
            cost,
            code=source,
        )
        _CLASSES[name] = block
        return block

    return add


def _source_checksum(block: type[Any]) -> str:
    try:
        source = inspect.getsource(block)
    except (OSError, TypeError):
        source = block.__qualname__
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _options_of(block: type[Any], name: str) -> tuple[Option, ...]:
    keyword_only = [
        parameter
        for parameter in inspect.signature(block).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for parameter in keyword_only:
        if parameter.default is inspect.Parameter.empty:
            raise BlockError(f"{name}.{parameter.name} has no default; give it one")
    return tuple(
        Option(p.name, p.default, (p.default,), "", f"values like {p.default!r}")
        for p in keyword_only
    )
