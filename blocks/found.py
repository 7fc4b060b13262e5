"""What a training has found: the ordinary architecture that learnt choices have come to.

FcaNet's frequencies can be left to the training (``frequency: nas``). Its result is the network in
which every group of channels has the one frequency that it gives the largest weight: an ordinary
architecture, to be trained anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from blocks import registry
from blocks.architecture import Architecture, resolve
from blocks.composition import Member, spelt
from blocks.fca import FrequencyChannelAttention
from blocks.identity import IdentityStart
from blocks.options import OptionValue
from blocks.residual import Residual
from blocks.site import SiteTable


def found_architecture(
    network: nn.Module, architecture: Architecture, sites: SiteTable
) -> Architecture | None:
    """The resolved architecture with what the network has learnt in the place of ``nas``.

    Args:
        network: Trained, as ``blocks.build`` made it of the architecture.
        architecture: What it was made of.
        sites: Of its backbone at its input.

    Returns:
        The architecture, resolved; None where nothing of it was learnt.
    """
    resolved = resolve(architecture, sites)
    blocks = {
        str(module.attention_site): module
        for module in network.modules()
        if hasattr(module, "attention_site")
    }
    placements = tuple(
        replace(
            placement,
            options=_pairs(_settled(placement.block, placement.settings, blocks[placement.site])),
        )
        for placement in resolved.placements
    )
    found = resolve(replace(resolved, placements=placements), sites)
    return None if found == resolved else found


def _pairs(options: Mapping[str, OptionValue]) -> tuple[tuple[str, OptionValue], ...]:
    return tuple(sorted(options.items()))


def _settled(
    block: str, options: Mapping[str, OptionValue], module: nn.Module
) -> dict[str, OptionValue]:
    """A block's options with the frequencies that its module has come to."""
    while isinstance(module, IdentityStart | Residual):
        module = module.block
    settled = dict(options)
    if isinstance(module, FrequencyChannelAttention) and module.alpha is not None:
        settled["frequency"] = module.selected()
    members = registry.spec(block).parts(options)
    if members:
        inner = module.get_submodule("members").children()
        settled["blocks"] = spelt(
            [
                Member(member.block, _pairs(_settled(member.block, member.settings, child)))
                for member, child in zip(members, inner, strict=True)
            ]
        )
    return settled
