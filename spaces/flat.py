"""A space without its conditions: every setting that can be asked for, for who must ask for all.

``spaces.drawing.propose`` asks for a setting only where it matters. A model that knows only the
parameters that all trials share, and a proposal that a user writes down, need them all.
"""

from __future__ import annotations

from collections.abc import Iterator

from blocks.site import IN_BLOCK, STEM
from spaces.candidate import DataFacts
from spaces.drawing import inner_prefixes, sites_of
from spaces.parameters import Choice, Domain
from spaces.places import JOIN
from spaces.space import Space


def flat_domains(space: Space, data: DataFacts, *, fixed: bool = False) -> dict[str, Domain]:
    """Every setting of a space, with its values.

    Args:
        space: What may vary.
        data: The data set; the number of stages depends on its input shape.
        fixed: Whether settings of one value are wanted too.
    """
    attention = space.attention
    domains: dict[str, Domain] = {"backbone": space.backbones, **space.training}
    for prefix, places in _deciding(space, data):
        domains[f"{prefix}type"] = attention.blocks
        domains[f"{prefix}placement"] = places
        if any(IN_BLOCK in str(place).split(JOIN) for place in places.values):
            domains[f"{prefix}position"] = attention.positions
        if not prefix:
            domains["stages"] = attention.stages
        domains[f"{prefix}identity_start"] = attention.identity_start
        for block in attention.blocks.values:
            for name, choice in attention.options(str(block)):
                domains[f"{prefix}{name}"] = choice
    return {name: d for name, d in domains.items() if fixed or not d.is_fixed}


def _deciding(space: Space, data: DataFacts) -> Iterator[tuple[str, Choice]]:
    """What decides for itself: the start of its parameters' names, and where its block may go."""
    attention = space.attention
    if not (attention.per_stage or attention.per_unit):
        yield "", attention.placements
        return
    if STEM in attention.placements.values:
        yield f"{STEM}.", Choice((STEM,))
    inside = Choice(tuple(place for place in attention.placements.values if place != STEM))
    if not inside.values:
        return
    sides = space.training["input_size"].values  # type: ignore[union-attr]
    tables = [sites_of(str(b), data.at(int(s))) for b in space.backbones.values for s in sides]
    prefixes = (prefix for table in tables for prefix in inner_prefixes(space, table))
    for prefix in dict.fromkeys(prefixes):
        yield prefix, inside
