"""Joining a block and a module of a backbone, whatever way the map lies in memory there."""

# Shape letters: B batch, C channels, H height, N tokens, P prefix tokens, W width.
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blocks.options import MapShape
from blocks.site import BEFORE, NHWC, SHORTCUT, TOKENS, Site


class Followed(nn.Module):
    """A module of the backbone, and a block on what it returns.

    Args:
        host: The module.
        attention: The block.
    """

    def __init__(self, host: nn.Module, attention: nn.Module) -> None:
        super().__init__()
        self.host = host
        self.attention = attention

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """The host's result, through the block."""
        output: Tensor = self.attention(self.host(*inputs, **named))
        return output


class Preceded(nn.Module):
    """A block on what a module of the backbone is given, and the module.

    Args:
        host: The module.
        attention: The block.
    """

    def __init__(self, host: nn.Module, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.host = host

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """What the host makes of the block's result."""
        output: Tensor = self.host(self.attention(x), *inputs, **named)
        return output


class OnShortcut(nn.Module):
    """A residual unit that adds its input as it is, and a block on what it adds.

    Args:
        host: The unit. One of timm's that say by ``has_skip`` whether they add their input, or a
            pre-activation unit without a projection.
        attention: The block.
    """

    def __init__(self, host: nn.Module, attention: nn.Module) -> None:
        super().__init__()
        self.host = host
        self.attention = attention
        self.pre_activated = not hasattr(host, "has_skip")
        if not self.pre_activated:
            host.has_skip = False  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """The unit's branch, and the block's result in place of the unit's input."""
        branch = self._pre_activated_branch(x) if self.pre_activated else self.host(x)
        output: Tensor = self.host.drop_path(branch) + self.attention(x)  # type: ignore[operator]
        return output

    def _pre_activated_branch(self, x: Tensor) -> Tensor:
        for name, layer in self.host.named_children():
            if name.startswith(("norm", "conv")):
                x = layer(x)
        return x


class ChannelsLastMap(nn.Module):
    """A block on a map (B, H, W, C); nothing is moved, the view is a map in channels-last order.

    Args:
        block: A block of maps (B, C, H, W).
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        output_BHWC: Tensor = self.block(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return output_BHWC


class TokenMap(nn.Module):
    """A block on the tokens of an image's pixels, as the map that they are; others pass by.

    Args:
        block: A block of maps (B, C, H, W).
        shape: The map.
        prefix: Tokens before those of the pixels.
    """

    def __init__(self, block: nn.Module, shape: MapShape, *, prefix: int) -> None:
        super().__init__()
        self.block = block
        self.size = (shape.height, shape.width)
        self.prefix = prefix

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Map (B, N, C) to the same shape."""
        batch, _, channels = x_BNC.shape
        map_BHWC = x_BNC[:, self.prefix :].reshape(batch, *self.size, channels)
        pixels_BNC = self.block(map_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        pixels_BNC = pixels_BNC.reshape(batch, -1, channels)
        if not self.prefix:
            joined: Tensor = pixels_BNC
            return joined
        return torch.cat((x_BNC[:, : self.prefix], pixels_BNC), dim=1)


def attach(network: nn.Module, site: Site, block: nn.Module) -> None:
    """Put a block to its site; the backbone's module there becomes its ``host``.

    Args:
        network: Changed in place.
        site: Where.
        block: Takes and returns a map (B, C, H, W) of the site's shape.
    """
    if site.layout == NHWC:
        block = ChannelsLastMap(block)
    elif site.layout == TOKENS:
        block = TokenMap(block, site.shape, prefix=site.prefix)
    parent_path, _, name = site.path.rpartition(".")
    parent = network.get_submodule(parent_path)
    host = getattr(parent, name)
    if host is None:  # a shortcut without a module
        setattr(parent, name, block)
        return
    joins = {BEFORE: Preceded, SHORTCUT: OnShortcut}
    setattr(parent, name, joins.get(site.side, Followed)(host, block))
