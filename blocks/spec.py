"""One row of the table of blocks: its options, what of them takes effect, and what it costs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blocks.composition import Member
from blocks.errors import BlockError, SiteError, listing, suggestion
from blocks.formulas import Cost
from blocks.option_table import RESIDUAL
from blocks.options import MapShape, Option, OptionValue

if TYPE_CHECKING:
    from torch import nn

Formula = Callable[[MapShape, Mapping[str, OptionValue]], Cost]
Requirement = Callable[[MapShape, Mapping[str, OptionValue]], str | None]


Parts = Callable[[Mapping[str, OptionValue]], "tuple[Member, ...]"]


def _no_requirement(shape: MapShape, options: Mapping[str, OptionValue]) -> str | None:
    return None


def _no_parts(options: Mapping[str, OptionValue]) -> tuple[Member, ...]:
    return ()


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
        same_as: The block that it is another name of, in an architecture's identity.
        same_options: Options of that block that this one does not have.
        parts: The blocks that it is made of, for a composition.
        fixed: Arguments that the row gives to the class beside the options.
    """

    name: str
    target: str
    title: str
    paper: str
    options: tuple[Option, ...] = ()
    cost: Formula | None = None
    requirement: Requirement = _no_requirement
    code: str = ""
    same_as: str = ""
    same_options: tuple[tuple[str, OptionValue], ...] = ()
    parts: Parts = _no_parts
    fixed: tuple[tuple[str, OptionValue], ...] = ()

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
        given = {n: self.option(n).checked(v, block=self.name) for n, v in options.items()}
        return {o.name: given.get(o.name, o.default) for o in self.options}

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

    def module_options(self, complete: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """What the class itself takes: all options but the outer residual, and what is fixed."""
        own = {name: value for name, value in complete.items() if name != RESIDUAL.name}
        return {**own, **dict(self.fixed)}


def with_residual(spec: BlockSpec, *, default: bool = False) -> BlockSpec:
    """Give a block the option of an outer residual, x + block(x), which every block has."""
    inner = spec.cost

    def cost(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
        assert inner is not None  # kept only where there is one
        added = shape.channels * shape.height * shape.width if options[RESIDUAL.name] else 0
        return inner(shape, options) + Cost(flops=added)

    option = replace(RESIDUAL, default=default, values=(default, not default), neutral=default)
    return replace(spec, options=(*spec.options, option), cost=None if inner is None else cost)
