"""Compositions of blocks as text: ``eca + coord``, ``se(reduction=8) + fca(frequency=top4)``.

Two blocks of the table are made of others: ``parallel`` gives the map to each and combines what
they return, ``sequential`` hands it on from one to the next. Their option ``blocks`` is this text,
so that a composition is plain data with one spelling wherever it is written. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.errors import BlockError, SiteError
from blocks.formulas import Cost, total
from blocks.frequency import frequency_name
from blocks.options import MapShape, Option, OptionValue

MAX_MEMBERS = 8
MAX_DEPTH = 3
MEANING = "the blocks that are joined, two or more, such as 'se(reduction=8) + eca'"
ALLOWED = "names of blocks joined by +, each with options of its own in parentheses"

_MEMBER = re.compile(r"([\w:.-]+)\s*(?:\((.*)\))?", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Member:
    """One block of a composition.

    Args:
        block: Its short name.
        options: Its options as (name, value) pairs, sorted by name.
    """

    block: str
    options: tuple[tuple[str, OptionValue], ...] = ()

    @property
    def settings(self) -> dict[str, OptionValue]:
        """The options that the block is built with: all but a checksum of its code."""
        return {name: value for name, value in self.options if name != "code"}

    def __str__(self) -> str:
        if not self.options:
            return self.block
        return f"{self.block}({', '.join(f'{n}={_written(n, v)}' for n, v in self.options)})"


def _written(name: str, value: OptionValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"({value})" if name == "blocks" else str(value)


def spelt(members: Sequence[Member]) -> str:
    """The text of a composition."""
    return " + ".join(str(member) for member in members)


def parse_members(text: str) -> tuple[Member, ...]:
    """Read a composition's text.

    Raises:
        BlockError: It is not blocks joined by plus signs, or not two to eight of them.
    """
    members = tuple(_member(part.strip(), text) for part in _split(text, "+"))
    if not 2 <= len(members) <= MAX_MEMBERS:
        raise BlockError(
            f"{text!r} has {len(members)} of the 2 to {MAX_MEMBERS} blocks that a composition"
            " joins; write 'eca + coord', or [eca, coord] inside a list of choices"
        )
    return members


def _split(text: str, separator: str) -> Iterator[str]:
    """Cut a text at a separator outside of parentheses."""
    depth = start = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
        if character == separator and depth == 0:
            yield text[start:place]
            start = place + 1
    if depth:
        raise BlockError(f"{text!r}: a parenthesis is missing")
    yield text[start:]


def _member(part: str, text: str) -> Member:
    match = _MEMBER.fullmatch(part)
    if match is None:
        raise BlockError(
            f"{text!r}: {part!r} is no block; write blocks joined by plus signs, with options in"
            " parentheses: 'se(reduction=8) + eca'"
        )
    return Member(match[1], tuple(sorted(_options(match[2] or "", text).items())))


def _options(inside: str, text: str) -> dict[str, OptionValue]:
    """Read ``name=value, name=value``; what stands between commas without ``=`` is one value."""
    settings: list[str] = []
    for part in _split(inside, ","):
        if "=" in part.partition("(")[0]:
            settings.append(part)
        elif settings:
            settings[-1] += f",{part}"
        elif part.strip():
            raise BlockError(f"{text!r}: {part.strip()!r} is no option; write name=value")
    pairs = [setting.partition("=") for setting in settings]
    options = {name.strip(): _value(value.strip()) for name, _, value in pairs}
    if len(options) < len(pairs):
        raise BlockError(f"{text!r}: an option is given twice in '({inside})'; keep one of them")
    return options


def _value(text: str) -> OptionValue:
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text


def read_blocks(given: Any) -> OptionValue:
    """A composition's text, from text or from names and (name, options) pairs in a list.

    Raises:
        BlockError: An item of the list is neither.
    """
    if isinstance(given, (bool, int, float, str)):
        return given
    items = list(given.items()) if isinstance(given, Mapping) else list(given)
    return spelt([_given_member(item) for item in items])


def _given_member(item: Any) -> Member:
    if isinstance(item, Member):
        return item
    if isinstance(item, str):
        return _member(item.strip(), item)
    try:
        ((name, options),) = item.items() if isinstance(item, Mapping) else (item,)
        settings = {str(k): read_blocks(v) for k, v in dict(options or {}).items()}
        return Member(str(name), tuple(sorted(settings.items())))
    except (TypeError, ValueError):
        raise BlockError(
            f"{item!r} is no block of a composition; give a name or a name with its options,"
            " ('se', {'reduction': 8})"
        ) from None


# What takes effect. ------------------------------------------------------------------------------


def _check(value: OptionValue) -> str | None:
    for member in parse_members(str(value)):
        _complete(member)
    if _depth(str(value)) > MAX_DEPTH:
        return f"{value!r} nests compositions more than {MAX_DEPTH} deep"
    return None


def _complete(member: Member) -> dict[str, OptionValue]:
    from blocks import registry

    if member.block == registry.NONE:
        raise BlockError(
            "'none' cannot be one of the blocks of a composition; for x + block(x) write"
            " residual: true"
        )
    return registry.spec(member.block).complete(member.settings)


def _depth(text: str) -> int:
    inner = (dict(member.options).get("blocks") for member in parse_members(text))
    return 1 + max((_depth(str(blocks)) for blocks in inner if blocks is not None), default=0)


def _at_map(member: Member, shape: MapShape) -> Member:
    """The member with the options that take effect at a map, under its one name."""
    from blocks import registry

    row, given = registry.identity(member.block, member.settings)
    return Member(row.name, tuple(sorted(row.in_use(given, shape).items())))


def _flat(members: Sequence[Member], block: str, **same: OptionValue) -> Iterator[Member]:
    """Members with compositions of the same kind, which change nothing, taken apart."""
    for member in members:
        options = dict(member.options)
        if member.block == block and {**options, **same} == options and "residual" not in options:
            yield from parse_members(str(options["blocks"]))
        else:
            yield member


def _in_sequence(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    members = [_at_map(member, shape) for member in parse_members(str(value))]
    return spelt(list(_flat(members, "sequential")))


def _in_parallel(
    value: OptionValue, shape: MapShape, others: Mapping[str, OptionValue]
) -> OptionValue:
    """Branches in the order of their spelling: sum, mean, maximum and a layer of all have none."""
    members = [_at_map(member, shape) for member in parse_members(str(value))]
    if others["combine"] in ("sum", "max"):
        members = list(_flat(members, "parallel", combine=others["combine"]))
    return spelt(sorted(members, key=str))


def impossible(shape: MapShape, options: Mapping[str, OptionValue]) -> str | None:
    """Why a composition cannot stand at a map: because one of its blocks cannot."""
    try:
        for member in parse_members(str(options["blocks"])):
            _at_map(member, shape)
    except SiteError as error:
        return str(error)
    return None


def parts(options: Mapping[str, OptionValue]) -> tuple[Member, ...]:
    """The blocks of a composition."""
    return parse_members(str(options["blocks"]))


def shown(text: str) -> str:
    """A composition for people: published names of frequencies where there are."""
    try:
        members = parse_members(text)
    except BlockError:
        return text
    named = []
    for member in members:
        options = [
            (n, frequency_name(str(v)) if n == "frequency" else v) for n, v in member.options
        ]
        named.append(Member(member.block, tuple(options)))
    return spelt(named)


# Costs. ------------------------------------------------------------------------------------------


def _members_cost(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    from blocks import registry

    costs = []
    for member in parts(options):
        row = registry.spec(member.block)
        if row.cost is None:
            raise BlockError(f"block {row.name} declares no cost formula")
        costs.append(row.cost(shape, row.complete(member.settings)))
    return total(costs)


def sequential_cost(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """Blocks one after the other: what they cost, and no more."""
    return _members_cost(shape, options)


def parallel_cost(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """Blocks side by side: n - 1 operations a number; n C^2 parameters where concatenated."""
    count, channels = len(parts(options)), shape.channels
    pixels = shape.height * shape.width
    if options["combine"] == "concat":
        weights = count * channels**2
        joined = Cost(weights, weights, weights * pixels, 2 * weights * pixels)
    else:
        division = 1 if options["combine"] == "mean" else 0
        joined = Cost(flops=(count - 1 + division) * channels * pixels)
    return _members_cost(shape, options) + joined


SEQUENCE = Option(
    "blocks",
    default="eca + coord",
    values=("eca + coord", "coord + eca", "se(reduction=4) + simam + cbam"),
    meaning=f"{MEANING}, in the order in which the map passes them",
    allowed=ALLOWED,
    check=_check,
    effect=_in_sequence,
    read=read_blocks,
)
BRANCHES = Option(
    "blocks",
    default="coord + eca",
    values=("coord + eca", "cbam + selfatt", "cbam + se(reduction=4) + simam"),
    meaning=MEANING,
    allowed=ALLOWED,
    check=_check,
    effect=_in_parallel,
    read=read_blocks,
)
