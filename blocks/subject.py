"""A block that is put to the conformance suite: how to build it and what to feed it.

A subject is a row of the table with its builder, or a user's class that is in no table. Weights are
drawn anew, since the first ones hide faults: CBAM's norm starts with scale 0. Every parameter is
drawn by its own name, so that two blocks of one function have the same numbers.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from blocks import registry
from blocks.errors import BlockError, ToolError, listing
from blocks.facts import ALIAS_CHANNELS, Facts, facts_of
from blocks.options import MapShape, OptionValue
from blocks.spec import BlockSpec

Options = Mapping[str, OptionValue]
DEFAULTS: Options = MappingProxyType({})

CHANNELS = 32
REFUSALS = (ToolError, ValueError)  # a block's own words about what it cannot do

Size = tuple[int, int]  # height and width in pixels
# Maps that a check turns to where the one that it would like is refused.
SIZES_TO_TRY: tuple[Size, ...] = ((6, 7), (14, 14), (7, 7), (8, 8), (16, 16), (28, 28), (56, 56))


class ConformanceError(Exception):
    """A block fails a check: which, with what, what came out and what is needed."""


class NotCheckedError(Exception):
    """A check cannot be made here: why, and the cure."""


@dataclass(frozen=True)
class Subject:
    """A block under examination.

    Args:
        row: Its options and what else is stated of it.
        make: Builds it from a number of channels and a value for every option.
        channels: Channels of the maps of most checks.
        option_channels: Channels of the map on which option values are compared.
        facts: What is stated of it beyond its row.
    """

    row: BlockSpec
    make: Callable[[int, Options], nn.Module]
    channels: int = CHANNELS
    option_channels: int = ALIAS_CHANNELS
    facts: Facts = field(default_factory=Facts)

    @property
    def aliases_are_stated(self) -> bool:
        """Whether option values are compared on the map that aliases are stated for."""
        return self.option_channels == ALIAS_CHANNELS

    def options_at(self, size: Size, channels: int, options: Options) -> dict[str, OptionValue]:
        """All options at a map: those given, the others as they take effect there."""
        at_the_map = self.row.in_use(options, MapShape(channels, *size))
        at_the_map.pop("code", None)
        completed = {n for n, v in options.items() if str(at_the_map.get(n)).startswith(f"{v}:")}
        given = {n: v for n, v in options.items() if n not in completed}  # rotated -> rotated:14x14
        return self.row.complete({**at_the_map, **given})

    def fresh(
        self,
        size: Size,
        options: Options = DEFAULTS,
        *,
        channels: int | None = None,
        seed: int = 0,
    ) -> nn.Module:
        """The block for a map as it starts, its first weights drawn from a seed."""
        count = channels or self.channels
        torch.manual_seed(seed)
        return self.make(count, self.options_at(size, count, options))

    def built(
        self,
        size: Size,
        options: Options = DEFAULTS,
        *,
        channels: int | None = None,
        draw: int = 0,
    ) -> nn.Module:
        """The block for a map, in evaluation mode, with all of its numbers drawn anew."""
        return randomised(self.fresh(size, options, channels=channels), draw).eval()

    def maps(
        self,
        batch: int,
        size: Size,
        *,
        channels: int | None = None,
        seed: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """A batch of random maps, shape (B, C, H, W); the same at every call."""
        generator = torch.Generator().manual_seed(seed)
        count = channels or self.channels
        return torch.randn(batch, count, *size, dtype=dtype, generator=generator)

    def map_size(
        self,
        wanted: Size = SIZES_TO_TRY[0],
        options: Options = DEFAULTS,
        *,
        channels: int | None = None,
    ) -> Size:
        """The wanted size of a map where the block runs on it, else the first on which it does.

        Raises:
            ConformanceError: It runs on none of those tried; with its words about the last one.
        """
        sizes = tuple(dict.fromkeys((wanted, *SIZES_TO_TRY)))
        last: Exception | None = None
        for size in sizes:
            try:
                self.run(size, options, channels=channels)
            except Exception as error:
                last = error
            else:
                return size
        tried = listing(f"{height} x {width}" for height, width in sizes)
        raise ConformanceError(
            f"{self.at(1, sizes[-1], options, channels=channels)}: {words_of(last)}; needed: a map"
            f" that it takes (tried: {tried})"
        )

    def run(
        self, size: Size, options: Options = DEFAULTS, *, channels: int | None = None
    ) -> Tensor:
        """What the block gives for one map in evaluation mode."""
        block = self.built(size, options, channels=channels)
        with torch.no_grad():
            output: Tensor = block(self.maps(1, size, channels=channels))
        return output

    def refusal(self, size: Size, *, channels: int | None = None) -> str | None:
        """The block's own words about why it cannot stand at a map, or nothing where it can.

        Raises:
            ConformanceError: It stops without words of its own.
        """
        try:
            self.run(size, channels=channels)
        except REFUSALS as error:
            return str(error)
        except Exception as error:
            raise ConformanceError(
                f"{self.at(1, size, channels=channels)}: stops with {words_of(error)}; needed: a"
                " map of the same shape, or a SiteError that says which maps it takes"
            ) from error
        return None

    def at(
        self,
        batch: int,
        size: Size,
        options: Options = DEFAULTS,
        *,
        channels: int | None = None,
    ) -> str:
        """Where something was seen: the block, its options and the shape of the batch."""
        shape = " x ".join(map(str, (batch, channels or self.channels, *size)))
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{self.row.name}{f' ({given})' if given else ''} at {shape}"

    def unreachable(self, block: nn.Module, *, training: bool) -> set[str]:
        """Parameters of which it is stated that no gradient reaches them, blocks inside it too."""
        found = set()
        for path, part in block.named_modules():
            facts = self.facts if not path else facts_of(_block_name(part))
            for name, _ in part.named_parameters():
                own = name.removeprefix("block.")  # of the outer residual
                if any(fact.covers(own, training=training) for fact in facts.unreachable):
                    found.add(f"{path}.{name}" if path else name)
        return found


def _block_name(module: nn.Module) -> str:
    stated = getattr(module, "attention_block", None)
    return "" if stated is None else str(stated[0])


def subject_of(name: str, channels: int | None = None) -> Subject:
    """A block of the table.

    Raises:
        BlockError: There is no such block.
    """

    def make(count: int, options: Options) -> nn.Module:
        return registry.create(name, count, **options)

    return _with_channels(Subject(registry.spec(name), make, facts=facts_of(name)), channels)


def subject_of_class(block: type[nn.Module], channels: int | None = None) -> Subject:
    """A user's class, by its own row where it is registered; it is not registered by this.

    Raises:
        BlockError: It is no module, takes no channels, or has a parameter without default.
    """
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise BlockError(
            f"{block!r} is not a block: a class that inherits from nn.Module is needed"
        )
    row = registry.row_of_class(block)
    if row is not None:
        return subject_of(row.name, channels)
    row = registry.describe(block, block.__name__)
    return _with_channels(Subject(row, partial(registry.assemble, row, block)), channels)


def _with_channels(subject: Subject, channels: int | None) -> Subject:
    if channels is None:
        return subject
    if channels < 1:
        raise BlockError(f"{channels} channels; a map has 1 or more")
    return Subject(subject.row, subject.make, channels, channels, subject.facts)


def randomised(block: nn.Module, draw: int = 0) -> nn.Module:
    """Draw a block's parameters and running statistics anew, each by its own name.

    Scales of norms and variances lie between 0.5 and 1.5, all else between -0.5 and 0.5. Other
    buffers may be constants of the method, such as a DCT's bases, and stay.

    Args:
        block: The block, which is changed.
        draw: Which of many draws.
    """
    with torch.no_grad():
        for path, part in block.named_modules():
            positive = ("weight", "running_var") if _is_norm(part) else ()
            own = {**dict(part.named_parameters(recurse=False)), **_statistics(part)}
            for name, tensor in own.items():
                if tensor.is_floating_point() and not tensor.is_meta:
                    generator = torch.Generator().manual_seed(
                        zlib.crc32(f"{path}.{name}{draw or ''}".encode())
                    )
                    drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                    tensor.copy_(drawn + (0.5 if name in positive else -0.5))
    return block


def _is_norm(module: nn.Module) -> bool:
    return hasattr(module, "running_var") or "Norm" in type(module).__name__


def _statistics(module: nn.Module) -> dict[str, Tensor]:
    names = ("running_mean", "running_var")
    return {name: b for name, b in module.named_buffers(recurse=False) if name in names}


def words_of(error: Exception | None) -> str:
    """An exception in one line."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
