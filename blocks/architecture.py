"""What a network is, as frozen plain data: a backbone and the blocks at its sites.

An architecture can be written with groups of sites and nominal options ("in-block", r = 16), and
is resolved against a backbone's table of sites into its canonical form: one placement per site,
options as they take effect there. Canonical architectures are equal exactly when they build the
same network, and have one digest. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from blocks import composition, registry
from blocks.errors import BlockError, SiteError
from blocks.formulas import Cost, identity_cost, total
from blocks.frequency import frequency_name
from blocks.options import MapShape, OptionValue
from blocks.plain import Settled, text_digest
from blocks.site import IN_BLOCK, STAGE, STANDARD, SiteTable
from blocks.spec import Formula

DIGEST_VERSION = 1
IDENTITY_WORDS = "from identity"

Options = tuple[tuple[str, OptionValue], ...]


@dataclass(frozen=True, order=True)
class Placement:
    """A block at a site.

    Args:
        site: A site's name, or a group of sites: "stem", "stage", "in-block".
        block: The block's short name.
        options: Its options, as a mapping or as (name, value) pairs.
        identity_start: Whether it starts as the identity, by a learnt number of its own.
    """

    site: str
    block: str
    options: Options = ()
    identity_start: bool = False

    def __post_init__(self) -> None:
        pairs = dict(self.options).items()
        object.__setattr__(self, "options", tuple(sorted(pairs)))

    @property
    def settings(self) -> dict[str, OptionValue]:
        """The options that the block is built with: all but a checksum of its code."""
        return {name: value for name, value in self.options if name != "code"}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        content = {"site": self.site, "block": self.block, "options": dict(self.options)}
        return content | ({"identity_start": True} if self.identity_start else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Placement:
        """Read what ``to_json`` wrote."""
        unknown = set(data) - {"site", "block", "options", "identity_start"}
        if unknown:
            raise KeyError(*unknown)
        start = data.get("identity_start", False)
        if not isinstance(start, bool):
            raise TypeError(f"identity_start is {start!r}")
        options = dict(data.get("options", {}))
        return cls(data["site"], data["block"], tuple(options.items()), start)


@dataclass(frozen=True)
class Architecture:
    """A backbone with blocks at its sites.

    Args:
        backbone: The backbone's name.
        placements: Kept sorted by site, so that the order of writing does not matter.
        input_size: (height, width) of the images; None until it is resolved.
    """

    backbone: str
    placements: tuple[Placement, ...] = ()
    input_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # Options of one name may be of different types ("auto" and 3), which have no order.
        in_order = sorted(self.placements, key=lambda p: (p.site, p.block, repr(p.options)))
        object.__setattr__(self, "placements", tuple(in_order))

    @cached_property
    def digest(self) -> str:
        """The identity of a resolved architecture, the same in every study and space.

        Raises:
            BlockError: The architecture has not been resolved.
        """
        if self.input_size is None:
            raise BlockError("an architecture has a digest once it is resolved against its sites")
        return text_digest(f"a{DIGEST_VERSION}", self.content.canonical)

    @cached_property
    def content(self) -> Settled:
        """As plain data that is not to be changed."""
        return Settled(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "backbone": self.backbone,
            "input_size": list(self.input_size) if self.input_size else None,
            "placements": [placement.to_json() for placement in self.placements],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Architecture:
        """Read what ``to_json`` wrote, as data or as JSON text.

        Raises:
            BlockError: The data is no architecture.
        """
        try:
            content = json.loads(data) if isinstance(data, str) else data
            unknown = set(content) - {"backbone", "placements", "input_size"}
            if unknown:
                raise KeyError(*unknown)
            size = content.get("input_size")
            return cls(
                str(content["backbone"]),
                tuple(Placement.from_json(row) for row in content.get("placements", ())),
                (int(size[0]), int(size[1])) if size else None,
            )
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise BlockError(
                "an architecture needs 'backbone' and 'placements', each placement 'site', 'block'"
                f" and 'options', and 'identity_start: true' where it has one; given: {data!r}"
            ) from error


def resolve(architecture: Architecture, sites: SiteTable) -> Architecture:
    """The canonical form: concrete sites, options as they take effect at each one's map.

    Raises:
        BlockError: A block or option is unknown or has a value that it cannot take.
        BackboneError: The backbone has no such site.
        SiteError: A block cannot stand at a site's map, or two blocks are at one site.
    """
    placed: dict[str, Placement] = {}
    for placement in architecture.placements:
        if placement.block == registry.NONE:
            continue
        spec, given = registry.identity(placement.block, placement.settings)
        in_use: dict[MapShape, Options] = {}
        for site in sites.expand(placement.site):
            if site.name in placed:
                raise SiteError(
                    f"{sites.backbone}: two blocks at site {site.name}, {placed[site.name].block}"
                    f" and {placement.block}; keep one of them"
                )
            if site.shape not in in_use:
                try:
                    in_use[site.shape] = tuple(spec.in_use(given, site.shape).items())
                except SiteError as error:
                    raise SiteError(f"{error} at site {site.name} of {sites.backbone}") from None
            options = in_use[site.shape]
            placed[site.name] = Placement(site.name, spec.name, options, placement.identity_start)
    _, height, width = sites.input_shape
    return Architecture(architecture.backbone, tuple(placed.values()), (height, width))


def architecture_cost(architecture: Architecture, sites: SiteTable) -> Cost:
    """What a resolved architecture costs: the backbone's count plus each block's closed formula.

    Raises:
        BlockError: A block has no closed formula; ``blocks.cost.measure_cost`` counts it.
    """
    shapes = {site.name: site.shape for site in sites.sites}
    costs = [sites.cost]
    for placement in architecture.placements:
        formula = registry.spec(placement.block).cost
        if formula is None:
            raise BlockError(f"block {placement.block} declares no cost formula")
        shape = shapes.get(placement.site) or _site_shape(placement.site, sites)
        start = placement.identity_start
        costs.append(_placement_cost(formula, placement.block, placement.options, start, shape))
    return total(costs)


def _site_shape(where: str, sites: SiteTable) -> MapShape:
    (site,) = sites.expand(where)
    return site.shape


@lru_cache(maxsize=65536)
def _placement_cost(
    formula: Formula, block: str, options: Options, identity_start: bool, shape: MapShape
) -> Cost:
    """What a block costs at a map; a search asks for few of them again and again."""
    settings = Placement("", block, options).settings
    cost = formula(shape, registry.spec(block).complete(settings))
    return cost + identity_cost(shape) if identity_start else cost


def identity_parameters(architecture: Architecture) -> int:
    """How many of its parameters are the learnt numbers of blocks that start as the identity."""
    return sum(placement.identity_start for placement in architecture.placements)


def has_closed_cost(architecture: Architecture) -> bool:
    """Whether every block of it declares a cost formula."""
    return all(registry.has_formula(p.block, p.settings) for p in architecture.placements)


def label(architecture: Architecture) -> str:
    """A short name for people, such as ``resnet20 + se in-block reduction=16``."""
    groups: dict[tuple[str, str, bool], list[Placement]] = {}
    for placement in architecture.placements:
        key = (placement.block, _group_of(placement.site), placement.identity_start)
        groups.setdefault(key, []).append(placement)
    parts = [
        " ".join([block, group, *_option_words(placements), *([IDENTITY_WORDS] * start)])
        for (block, group, start), placements in groups.items()
    ]
    return (
        " + ".join([architecture.backbone, *parts]) if parts else f"{architecture.backbone} (none)"
    )


def _group_of(site: str) -> str:
    _, in_unit, rest = site.partition(".unit")
    if in_unit:
        position = rest.partition(".")[2]
        return IN_BLOCK if position == STANDARD else f"{IN_BLOCK}.{position}"
    return STAGE if site.startswith(STAGE) else site


def _option_words(placements: list[Placement]) -> list[str]:
    words = []
    for name in sorted({name for placement in placements for name, _ in placement.options}):
        values = [dict(placement.options).get(name) for placement in placements]
        shown = [_shown(name, str(value)) for value in values]
        distinct = list(dict.fromkeys(shown))
        words.append(f"{name}={'/'.join(distinct)}")
    return words


def _shown(name: str, value: str) -> str:
    if name == "frequency":
        return frequency_name(value)
    return composition.shown(value) if name == "blocks" else value
