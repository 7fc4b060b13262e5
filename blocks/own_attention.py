"""The attention that published backbones have of their own: found by class, counted, taken out.

Squeeze-and-excitation and its kin count; the self-attention of transformers, the batch-wise
normalisation of ConvNeXt v2 and the like are what those backbones are, and do not.
"""

from __future__ import annotations

from torch import nn

from blocks.errors import BackboneError, listing

# timm's classes that map a map to one of the same shape, so that the identity can replace them.
REMOVABLE = frozenset(
    (
        *("SEModule", "SqueezeExcite", "SqueezeExciteCl", "EffectiveSEModule", "SEBlock"),
        *("EcaModule", "CecaModule", "CbamModule", "LightCbamModule", "GatherExcite"),
        *("GlobalContext", "CoordAttn", "SimpleCoordAttn", "EfficientLocalAttn", "StripAttn"),
        *("NonLocalAttn", "BatNonLocalAttn"),
    )
)
# Classes whose attention chooses between convolutions, or is part of one.
FIXED = frozenset(("SplitAttn", "SelectiveKernel", "GhostModuleV2", "GhostModuleV3"))


class Removed(nn.Identity):
    """Where a backbone's own attention stood; it returns what it is given."""


def stands_in(module: object) -> bool:
    """Whether a module is a backbone's own attention, or marks where that stood."""
    return isinstance(module, Removed) or type(module).__name__ in REMOVABLE


def _fixed(network: nn.Module) -> list[str]:
    """The classes of attention that cannot be taken out, one for each module of it."""
    kinds = [
        type(module).__name__
        for module in network.modules()
        if getattr(module, "mode", "shortcut") == "shortcut"  # GhostNet-v3's first two have none
    ]
    return [kind for kind in kinds if kind in FIXED]


def count_own(network: nn.Module) -> int:
    """Modules of its own attention that a network still has."""
    removable = sum(type(module).__name__ in REMOVABLE for module in network.modules())
    return removable + len(_fixed(network))


def remove_own(network: nn.Module, name: str) -> None:
    """Replace a network's own attention by the identity.

    Args:
        network: Changed in place.
        name: The backbone's name, for messages.

    Raises:
        BackboneError: There is none, or it cannot be taken out.
    """
    fixed = sorted(set(_fixed(network)))
    if fixed:
        raise BackboneError(
            f"{name}-plain cannot be made: the attention of {name} is part of its convolutions"
            f" ({listing(fixed)}); choose a backbone without"
        )
    found = [path for path, module in network.named_modules() if stands_in(module)]
    if not found:
        raise BackboneError(f"{name} has no attention of its own to take out; write {name}")
    for path in found:
        parent, _, child = path.rpartition(".")
        setattr(network.get_submodule(parent), child, Removed())
