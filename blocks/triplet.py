"""Triplet attention: three gates, each on the map pooled along one of its three dimensions.

Misra, Nalamada, Arasanipalai and Hou, "Rotate to Attend: Convolutional Triplet Attention Module",
WACV 2021, arXiv:2010.03045, eq. 1-3, as in the authors' code (landskape-ai/triplet-attention): the
pooled planes are (C, W), (H, C) and (H, W), maximum before mean; batch norm has momentum 0.01.
Departs from it in how it is computed, not in what: the authors turn the map three times and scale
it three times; as every branch scales the same map, here it is pooled in place and scaled once by
the mean of the gates. Where a maximum is tied, its gradient is shared and not given to one of the
tied numbers. All norms start at scale 1, as in the authors' module; their ResNets start the norm
of the (H, W) gate at 0.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blocks.norm import BatchNorm2d
from blocks.passes import PlaneConv2d, maximum, mean, rescale

POOL_HEIGHT, POOL_WIDTH, POOL_CHANNELS = 2, 3, 1  # the dimension that a branch pools away


class PlaneGate(nn.Module):
    """One branch: a gate for every place of the plane that pooling along a dimension leaves.

    Pooled, the map keeps its layout with 2 numbers (maximum, mean) in the pooled dimension;
    logits and gates have 1 there, so that they scale the map by broadcasting.

    Args:
        pooled: The dimension that is pooled away: 2 leaves (C, W), 3 leaves (H, C), 1 (H, W).
        kernel_size: Side of the convolution over the plane, odd.
    """

    def __init__(self, pooled: int, *, kernel_size: int = 7) -> None:
        super().__init__()
        self.pooled = pooled
        self.conv = PlaneConv2d(2, kernel_size)
        self.norm = BatchNorm2d(1, momentum=0.01)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The gate of a map (B, C, H, W): the same shape with 1 in the pooled dimension."""
        return self.logits(self.pool(x_BCHW)).sigmoid()

    def pool(self, x_BCHW: Tensor) -> Tensor:
        """Maximum and mean: the map's shape with 2 in the pooled dimension."""
        both = maximum(x_BCHW, self.pooled), mean(x_BCHW, self.pooled, keepdim=True)
        return torch.cat(both, dim=self.pooled)

    def logits(self, maximum_and_mean: Tensor) -> Tensor:
        """What the sigmoid is taken of: the map's shape with 1 in the pooled dimension."""
        plane_B2PQ = maximum_and_mean.transpose(1, self.pooled)
        logits_B1PQ: Tensor = self.norm(self.conv(plane_B2PQ))
        return logits_B1PQ.transpose(1, self.pooled)


def scaled(x_BCHW: Tensor, gates: Sequence[Tensor], *, combine: str = "mean") -> Tensor:
    """Scale a map by the mean or the sum of gates, which is that of the maps scaled by each.

    Args:
        x_BCHW: The map.
        gates: At least two, of any shapes that broadcast to the map's.
        combine: "mean" or "sum".
    """
    if combine == "mean":
        gates = [gate / len(gates) for gate in gates]  # here: most gates are smaller than the map
    total = gates[0] + gates[1]
    for gate in gates[2:]:
        total = total + gate
    return rescale(x_BCHW, total)


class TripletAttention(nn.Module):
    """Rescale a map by the mean of a (C, W), an (H, C) and an (H, W) gate.

    Args:
        channels: Channels of the feature map; no weight depends on them.
        kernel_size: Side of the convolutions over the planes, odd.
        spatial: Whether there is the third gate, which pools the channels away.
    """

    def __init__(self, channels: int, *, kernel_size: int = 7, spatial: bool = True) -> None:
        super().__init__()
        self.cw = PlaneGate(POOL_HEIGHT, kernel_size=kernel_size)
        self.hc = PlaneGate(POOL_WIDTH, kernel_size=kernel_size)
        self.hw = PlaneGate(POOL_CHANNELS, kernel_size=kernel_size) if spatial else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        gates = [self.cw(x_BCHW), self.hc(x_BCHW)]
        if self.hw is not None:
            gates.append(self.hw(x_BCHW))
        return scaled(x_BCHW, gates)
