"""Concurrent spatial and channel squeeze and excitation: cSE, sSE and both at once, scSE.

Roy, Navab and Wachinger, MICCAI 2018, arXiv:1803.02579, eq. 2-5, and IEEE TMI 2019,
arXiv:1808.08127, as in the authors' code (ai-med/squeeze_and_excitation): all layers have biases
and the default reduction is 2. The published 33,280 parameters (eight blocks of 64 channels) leave
the biases out; with them there are 34,056.

scSE takes the larger of the two maps, as the authors' code and the TMI paper do. ``combine="add"``
is the MICCAI paper's sum; "mul" the product of the two maps, so of the second degree in the input.
Departs from the authors' code where ``channels < reduction``: the squeezed layer then is 1 wide.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blocks.gates import GATES
from blocks.squeeze_excite import SqueezeExcite

COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max": torch.maximum,
    "add": torch.add,
    "mul": torch.mul,
}


class ChannelSqueezeExcite(SqueezeExcite):
    """Rescale every channel by a gate from its mean (cSE): SE with biases, half as wide inside.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer is.
        gate: The gate function.
    """

    def __init__(self, channels: int, *, reduction: int = 2, gate: str = "sigmoid") -> None:
        super().__init__(channels, reduction=reduction, bias=True, gate=gate)


class SpatialSqueezeExcite(nn.Module):
    """Rescale every pixel by a gate from a weighted sum of its channels (sSE).

    Args:
        channels: Channels of the feature map; kept by the output.
        gate: The gate function.
    """

    def __init__(self, channels: int, *, gate: str = "sigmoid") -> None:
        super().__init__()
        self.gate = GATES[gate]
        self.squeeze = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the pixels of a map (B, C, H, W)."""
        gate_B1HW: Tensor = self.gate(self.squeeze(x_BCHW))
        return x_BCHW * gate_B1HW


class ConcurrentSqueezeExcite(nn.Module):
    """Gate channels and pixels side by side and join the two maps (scSE).

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer of the channel gate is.
        combine: How the two maps are joined: "max", "add" or "mul".
        gate: The function of both gates.
    """

    def __init__(
        self, channels: int, *, reduction: int = 2, combine: str = "max", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.combine = COMBINE[combine]
        self.channel = ChannelSqueezeExcite(channels, reduction=reduction, gate=gate)
        self.spatial = SpatialSqueezeExcite(channels, gate=gate)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.combine(self.channel(x_BCHW), self.spatial(x_BCHW))
