"""Where blocks can go: the sites of a backbone with the shape of the map at each.

stem = the input of the first stage (after max-pool or patch embedding); stage = after a stage's
last unit; in-block = in every unit, at one of the positions below (``standard`` unless said).
A table is plain data, so that spaces are drawn, checked and costed without torch.

Positions in a unit, after SENet's study of integration (Hu et al., arXiv:1709.01507, section 6.5):

========  =========================================================================================
standard  on the unit's branch, after its last norm, before the addition
pre       on the branch's input; the shortcut keeps the unit's input
post      on the unit's output, after the addition; of a stage's last unit it is ``stage``
identity  on the shortcut
inner     on the branch, after its 3x3 or depthwise convolution and before that one's norm (SimAM)
expanded  on the branch, after its depthwise convolution, norm and activation (coordinate attention)
own       where the backbone as published has attention, in the units that have it
========  =========================================================================================

Two positions of a unit may be one place: a unit without a shortcut has ``standard`` and ``post`` in
one. Such a place is one site, which answers to both. What each family has is in docs/backbones.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from blocks.errors import BackboneError, listing, suggestion
from blocks.formulas import Cost
from blocks.options import MapShape

STEM = "stem"
STAGE = "stage"
IN_BLOCK = "in-block"
PLACEMENTS = (STEM, STAGE, IN_BLOCK)
STANDARD, PRE, POST, IDENTITY = "standard", "pre", "post", "identity"
INNER, EXPANDED, OWN = "inner", "expanded", "own"
POSITIONS = (STANDARD, PRE, POST, IDENTITY, INNER, EXPANDED, OWN)
AFTER, BEFORE, SHORTCUT = "after", "before", "shortcut"
SHOWN = 24  # sites in a message
NCHW, NHWC, TOKENS = "NCHW", "NHWC", "tokens"

_GROUP = re.compile(
    r"(?:stage(?P<stage>\d+)\.)?(?:unit(?P<unit>\d+)\.)?"
    r"(?P<placement>stem|stage|in-block)(?:\.(?P<position>[a-z]+))?"
)


@dataclass(frozen=True)
class Point:
    """One place for a block in a network.

    Args:
        name: Its one name in architectures: "stem", "stage2", "stage2.unit1.standard".
        placement: "stem", "stage" or "in-block".
        stage: Number of the stage, from 1; 0 for the stem.
        unit: Number of the unit in its stage, from 1; 0 outside units.
        position: Side of the unit; empty outside units.
        path: The module of the backbone that the block goes to.
        side: "after": the block takes what the module returns; "before": what it is given;
            "shortcut": what a unit adds to its branch, where no module of its own makes that.
        layout: How the map lies in memory there: "NCHW", "NHWC", or "tokens", (N, pixels, C).
        prefix: Tokens before those of the pixels (the class token), which the block does not see.
        own: Whether the backbone as published has attention there.
        also: Other positions of the unit that are this place.
        grid: Height and width of the map that tokens are; (0, 0) where the map is one already.
    """

    name: str
    placement: str
    stage: int
    unit: int
    position: str
    path: str
    side: str = AFTER
    layout: str = NCHW
    prefix: int = 0
    own: bool = False
    also: tuple[str, ...] = ()
    grid: tuple[int, int] = (0, 0)

    @property
    def positions(self) -> tuple[str, ...]:
        """All positions of its unit that it is; none outside units."""
        named = (self.position, *self.also) if self.position else ()
        return (*named, OWN) if self.own and OWN not in named else named


@dataclass(frozen=True)
class Site(Point):
    """A point with the feature map that is there at a size of image.

    Args:
        shape: The feature map: channels, height, width.
    """

    shape: MapShape = field(kw_only=True)

    def answers_to(self, where: str) -> bool:
        """Whether a site's or a group's name means this site."""
        if where == self.name:
            return True
        if where in (f"stage{self.stage}.unit{self.unit}.{p}" for p in self.positions):
            return True
        group = _GROUP.fullmatch(where)
        return group is not None and self._is_in(group)

    def _is_in(self, group: re.Match[str]) -> bool:
        if group["stage"] is not None and int(group["stage"]) != self.stage:
            return False
        if group["unit"] is not None and int(group["unit"]) != self.unit:
            return False
        if group["placement"] != IN_BLOCK:
            return self.placement == group["placement"] and group["position"] is None
        return (group["position"] or STANDARD) in self.positions


@dataclass(frozen=True)
class SiteTable:
    """The sites of a backbone at one input shape, and what the backbone alone costs.

    Args:
        backbone: The backbone's name.
        input_shape: (channels, height, width) of one image.
        classes: Outputs of the network.
        sites: In the order in which the forward pass meets them.
        cost: Of the backbone without attention.
        own_attention: Modules of attention that the backbone itself has.
    """

    backbone: str
    input_shape: tuple[int, int, int]
    classes: int
    sites: tuple[Site, ...]
    cost: Cost
    own_attention: int = 0

    @property
    def stages(self) -> int:
        """How many stages the backbone has."""
        return max(site.stage for site in self.sites)

    def units(self, stage: int) -> int:
        """How many units a stage has; 0 where they are not known."""
        return max((site.unit for site in self.sites if site.stage == stage), default=0)

    @property
    def positions(self) -> tuple[str, ...]:
        """The positions at which some unit has a site, in the order of ``POSITIONS``."""
        return tuple(p for p in POSITIONS if self._at(f"{IN_BLOCK}.{p}"))

    @cached_property
    def _asked(self) -> dict[str, tuple[Site, ...]]:
        """The answers of ``_at``, of which a search asks for a few again and again."""
        return {}

    def _at(self, where: str) -> tuple[Site, ...]:
        if where not in self._asked:
            self._asked[where] = tuple(site for site in self.sites if site.answers_to(where))
        return self._asked[where]

    def expand(self, where: str) -> tuple[Site, ...]:
        """The sites that a placement names.

        "stem", "stage", "in-block" (at ``standard``), "in-block.pre"; "stage2.in-block" in the
        second stage alone, "stage2.unit1.in-block.pre" in one unit; or one site's own name.

        Raises:
            BackboneError: The backbone has no such site.
        """
        found = self._at(where)
        if not found:
            raise BackboneError(self._missing(where))
        return found

    def _missing(self, where: str) -> str:
        group = _GROUP.fullmatch(where)
        inside = group is not None and group["placement"] == IN_BLOCK
        if inside and not self.positions:
            return (
                f"{self.backbone} has no site {where!r}: in-block is not known for it, as its units"
                f" are not described here. Sites: {listing(self._names())}"
            )
        there = group is not None and int(group["stage"] or 1) <= self.stages
        if group is not None and there and inside and group["position"] in (None, *POSITIONS):
            at = f" in stage {group['stage']}" if group["stage"] else ""
            has = self._positions_of(group["stage"], group["unit"])
            return (
                f"{self.backbone} has no site {where!r}: its units{at} have no position"
                f" {group['position'] or STANDARD!r}. Positions: {listing(has) or 'none'}"
            )
        known = [p for p in (STEM, STAGE) if self._at(p)]
        known += [f"{IN_BLOCK}.{p}" if p != STANDARD else IN_BLOCK for p in self.positions]
        known = list(dict.fromkeys([*known, *self._names()]))
        more = f", ... (search blocks --sites {self.backbone})" if len(known) > SHOWN else ""
        return (
            f"{self.backbone} has no site {where!r}.{suggestion(where, known)}"
            f" Sites: {listing(known[:SHOWN])}{more}"
        )

    def _positions_of(self, stage: str | None, unit: str | None) -> list[str]:
        prefix = (f"stage{stage}." if stage else "") + (f"unit{unit}." if unit else "")
        return [p for p in POSITIONS if self._at(f"{prefix}{IN_BLOCK}.{p}")]

    def _names(self) -> Iterable[str]:
        return [site.name for site in self.sites]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SiteTable:
        """Read what ``to_json`` wrote."""
        sites = tuple(_site_from_json(row) for row in data["sites"])
        channels, height, width = data["input_shape"]
        return cls(
            data["backbone"],
            (channels, height, width),
            data["classes"],
            sites,
            Cost.from_json(data["cost"]),
            data["own_attention"],
        )


def _site_from_json(row: Mapping[str, Any]) -> Site:
    tuples = {name: tuple(row[name]) for name in ("also", "grid")}
    return Site(**{**row, **tuples, "shape": MapShape(**row["shape"])})
