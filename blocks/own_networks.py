"""The networks that no library has, as plain data; ``timm_models`` registers them with timm."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OwnNetwork:
    """One network whose code is here.

    Args:
        name: The name in spaces.
        timm_name: The name under which timm makes it, once ``blocks.timm_models`` is imported.
        source: Its class, as "module:class" of ``blocks``.
        family: The adapter that lists where blocks attach.
        title: One line for the catalogue.
        settings: Arguments of the class beside ``num_classes`` and ``in_channels``.
        small: Whether it is made for small images (32 x 32) as in CIFAR papers.
    """

    name: str
    timm_name: str
    source: str
    family: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    small: bool = True

    def build(self, num_classes: int, in_channels: int, **settings: Any) -> nn.Module:
        """Build it.

        Args:
            num_classes: Outputs.
            in_channels: Channels of the images.
            settings: Arguments of the class that replace those of the table.
        """
        module, _, name = self.source.partition(":")
        made = getattr(importlib.import_module(f"blocks.{module}"), name)
        chosen = {**self.settings, **settings}
        network: nn.Module = made(num_classes=num_classes, in_channels=in_channels, **chosen)
        return network


def _resnet(depth: int, *, projection: bool) -> OwnNetwork:
    shortcuts = (
        "projection shortcuts (option B)"
        if projection
        else "parameter-free shortcuts (He et al., option A)"
    )
    return OwnNetwork(
        f"resnet{depth}-b" if projection else f"resnet{depth}",
        f"cifar_resnet{depth}_b" if projection else f"cifar_resnet{depth}",
        "cifar_resnet:CifarResNet",
        "residual:cifar_points",
        f"CIFAR ResNet-{depth}, {shortcuts}",
        {"units": (depth - 2) // 6, "projection": projection},
    )


def _wide(depth: int, widen: int) -> OwnNetwork:
    return OwnNetwork(
        f"wrn{depth}-{widen}",
        f"cifar_wrn{depth}_{widen}",
        "cifar_preact:WideResNet",
        "preact:points",
        f"CIFAR Wide ResNet {depth}-{widen} (Zagoruyko and Komodakis)",
        {"depth": depth, "widen": widen},
    )


OWN_NETWORKS: tuple[OwnNetwork, ...] = (
    *(
        _resnet(depth, projection=projection)
        for depth in (20, 32, 44, 56, 110)
        for projection in (False, True)
    ),
    *(_wide(depth, widen) for depth, widen in ((16, 4), (28, 10), (40, 2))),
    OwnNetwork(
        "preact-resnet18",
        "cifar_preact_resnet18",
        "cifar_preact:PreActResNet18",
        "preact:points",
        "CIFAR pre-activation ResNet-18, 64 to 512 channels",
    ),
    OwnNetwork(
        "mobilenext_100",
        "mobilenext_100",
        "mobilenext:MobileNeXt",
        "sandglass:points",
        "MobileNeXt of width 1.0, sandglass units",
        small=False,
    ),
)
