"""Where blocks can go: the sites of a backbone with the shape of the map at each.

stem = the input of the first stage (after max-pool); stage = after a stage's last unit; in-block =
inside every residual unit, at ``standard``: after the branch's last norm, before the addition.
A table is plain data, so that spaces are drawn, checked and costed without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from blocks.errors import BackboneError, listing, suggestion
from blocks.formulas import Cost
from blocks.options import MapShape

STEM = "stem"
STAGE = "stage"
IN_BLOCK = "in-block"
PLACEMENTS = (STEM, STAGE, IN_BLOCK)
STANDARD = "standard"


@dataclass(frozen=True)
class Site:
    """One place for a block.

    Args:
        name: Its one name in architectures: "stem", "stage2", "stage2.unit1.standard".
        placement: "stem", "stage" or "in-block".
        stage: Number of the stage, from 1; 0 for the stem.
        unit: Number of the residual unit in its stage, from 1; 0 outside units.
        position: Side of the residual unit; empty outside units.
        path: The module of the backbone that the block follows.
        shape: The feature map there.
    """

    name: str
    placement: str
    stage: int
    unit: int
    position: str
    path: str
    shape: MapShape


@dataclass(frozen=True)
class SiteTable:
    """The sites of a backbone at one input shape, and what the backbone alone costs.

    Args:
        backbone: The backbone's name.
        input_shape: (channels, height, width) of one image.
        classes: Outputs of the network.
        sites: In the order in which the forward pass meets them.
        cost: Of the backbone without attention.
    """

    backbone: str
    input_shape: tuple[int, int, int]
    classes: int
    sites: tuple[Site, ...]
    cost: Cost

    @property
    def stages(self) -> int:
        """How many stages the backbone has."""
        return max(site.stage for site in self.sites)

    def expand(self, where: str) -> tuple[Site, ...]:
        """The sites that a placement names: "stem", "stage", "in-block", or one site's own name.

        "stage2.in-block" is in-block in the second stage alone.

        Raises:
            BackboneError: The backbone has no such site.
        """
        stage, _, group = where.rpartition(".")
        found = tuple(
            site
            for site in self.sites
            if where in (site.name, site.placement)
            or (group == site.placement and stage == f"stage{site.stage}")
        )
        if not found:
            known = [*PLACEMENTS, *(site.name for site in self.sites)]
            raise BackboneError(
                f"{self.backbone} has no site {where!r}.{suggestion(where, known)}"
                f" Sites: {listing(known)}"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SiteTable:
        """Read what ``to_json`` wrote."""
        sites = tuple(Site(**{**row, "shape": MapShape(**row["shape"])}) for row in data["sites"])
        channels, height, width = data["input_shape"]
        return cls(
            data["backbone"],
            (channels, height, width),
            data["classes"],
            sites,
            Cost.from_json(data["cost"]),
        )
