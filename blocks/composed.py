"""Blocks made of blocks: side by side (``parallel``) or one after the other (``sequential``).

The literature on attention asks for such pairs: a channel gate beside a positional one, as in ECA
with coordinate attention, or self-attention beside CBAM. Both take any blocks of the table, with
options of their own; ``blocks.composition`` has the text that names them.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from blocks import registry
from blocks.composition import parse_members, read_blocks


def _members(blocks: str, channels: int) -> nn.ModuleList:
    members = parse_members(str(read_blocks(blocks)))
    return nn.ModuleList(registry.create(m.block, channels, **m.settings) for m in members)


class Sequential(nn.Module):
    """Hand the map from one block to the next.

    Args:
        channels: Channels of the feature map; kept by the output.
        blocks: The blocks in their order, such as "eca + coord".

    Raises:
        BlockError: A block or one of its options is unknown, or there are fewer than two.
    """

    def __init__(self, channels: int, *, blocks: str = "eca + coord") -> None:
        super().__init__()
        self.members = _members(blocks, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        for block in self.members:
            x_BCHW = block(x_BCHW)
        return x_BCHW


class Parallel(nn.Module):
    """Give the map to every block and combine what they return.

    Args:
        channels: Channels of the feature map; kept by the output.
        blocks: The blocks, such as "coord + eca".
        combine: "sum", "mean" or "max" of the blocks' maps, number by number; "concat": a 1x1
            convolution without bias of all their channels.

    Raises:
        BlockError: A block or one of its options is unknown, or there are fewer than two.
    """

    def __init__(self, channels: int, *, blocks: str = "coord + eca", combine: str = "sum") -> None:
        super().__init__()
        self.combine = combine
        self.members = _members(blocks, channels)
        if combine == "concat":
            width = channels * len(self.members)
            self.project = nn.Conv2d(width, channels, kernel_size=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        maps = [block(x_BCHW) for block in self.members]
        if self.combine == "concat":
            joined_BCHW: Tensor = self.project(torch.cat(maps, dim=1))
            return joined_BCHW
        if self.combine == "max":
            largest_BCHW: Tensor = reduce(torch.maximum, maps)
            return largest_BCHW
        sum_BCHW: Tensor = reduce(torch.add, maps)
        return sum_BCHW / len(maps) if self.combine == "mean" else sum_BCHW
