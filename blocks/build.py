"""From an architecture to a network: the only place where modules are joined.

The backbone's start depends on the seed alone and each block's on (seed, site), so that adding a
block leaves the backbone's first weights, and every other block's, as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blocks import registry
from blocks.architecture import Architecture, resolve
from blocks.attach import attach
from blocks.backbone import backbone, site_table
from blocks.identity import IdentityStart
from blocks.site import SHORTCUT


def stream_seed(*parts: object) -> int:
    """A seed of 63 bits for one stream of chance, named by its parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class MadeFor:
    """What a network's backbone was built for; on the network as its ``made_for``.

    Args:
        backbone: Its name.
        classes: Outputs.
        shape: (channels, height, width) of the images.
    """

    backbone: str
    classes: int
    shape: tuple[int, int, int]


def build_network(
    architecture: Architecture | Mapping[str, Any] | str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    input_size: tuple[int, int] | int | None = None,
    seed: int | None = None,
    pretrained: bool | str | Mapping[str, Tensor] = False,
) -> nn.Module:
    """Build the network that an architecture describes.

    Args:
        architecture: An architecture, resolved or not, or its JSON as data or text.
        num_classes: Outputs.
        in_channels: Channels of the images.
        input_size: (height, width) of the images; left out, the architecture's own.
        seed: Where the weights start, apart from the global generator; None draws from that.
        pretrained: Trained weights of the backbone alone: True (timm's, its default ones), a tag
            of timm's, the path of a checkpoint file, or tensors by name. They are loaded before
            blocks are inserted; a classifier of another size is drawn, as without them.

    Returns:
        A module that maps (N, in_channels, height, width) to (N, num_classes).

    Raises:
        ToolError: The backbone, a block, an option or a site is unknown or does not fit; or the
            weights cannot be read or are not this backbone's.
    """
    if not isinstance(architecture, Architecture):
        architecture = Architecture.from_json(architecture)
    height, width = _size(input_size, architecture)
    row = backbone(architecture.backbone)
    sites = site_table(architecture.backbone, (in_channels, height, width), num_classes)
    resolved = resolve(architecture, sites)
    with _Stream(seed, "backbone"):
        network = row.build(num_classes, in_channels, (height, width))
    made_for = MadeFor(row.name, num_classes, (in_channels, height, width))
    network.made_for = made_for  # type: ignore[assignment]
    if pretrained is not False:
        # It reads files with what is built here: loaded when it is needed.
        from blocks.pretrained import load_backbone, read_weights

        state = pretrained
        if isinstance(state, (bool, str)):
            state = read_weights(state, made_for)
        load_backbone(network, state, made_for)
    placed = [(sites.expand(placement.site)[0], placement) for placement in resolved.placements]
    # Inner modules first: attaching behind a stage moves its units one name deeper.
    # A unit's shortcut comes before what follows the unit, and so has the same path.
    placed.sort(key=lambda pair: (-pair[0].path.count("."), pair[0].side != SHORTCUT))
    for site, placement in placed:
        with _Stream(seed, "attention", site.name):
            block = registry.create(placement.block, site.shape.channels, **placement.settings)
        if placement.identity_start:
            block = IdentityStart(block)
        block.attention_site = site.name  # type: ignore[assignment]
        attach(network, site, block)
    return network


def _size(given: tuple[int, int] | int | None, architecture: Architecture) -> tuple[int, int]:
    if isinstance(given, int):
        return given, given
    if given is not None:
        return given
    if architecture.input_size is not None:
        return architecture.input_size
    return 32, 32


class _Stream:
    """Inside, torch's global generator runs the named stream; after, it goes on as before."""

    def __init__(self, seed: int | None, *stream: object) -> None:
        self.seed = None if seed is None else stream_seed(seed, *stream)

    def __enter__(self) -> None:
        if self.seed is not None:
            self.state = torch.random.get_rng_state()
            torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *exception: object) -> None:
        if self.seed is not None:
            torch.random.set_rng_state(self.state)
