"""SimAM: a gate for every number of the map, without parameters.

Yang, Zhang, Li and Xie, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural
Networks", ICML 2021, eq. 5 and the authors' code. The variance is the unbiased one (divided by
H W - 1). Departs from the code on a map of one pixel, where theirs is NaN: the gate is
sigmoid(0.5), as it is for a constant channel.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import math

from torch import Tensor, nn


class SimpleAttention(nn.Module):
    """Rescale every number by how far it stands out from its channel.

    Args:
        channels: Channels of the feature map; the block needs no weights, so any number does.
        energy_lambda: The regulariser of the energy (the paper's lambda).
    """

    def __init__(self, channels: int, *, energy_lambda: float = 1e-4) -> None:
        super().__init__()
        self.energy_lambda = energy_lambda

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate every number of a map (B, C, H, W)."""
        pixels = x_BCHW.shape[2] * x_BCHW.shape[3]
        if pixels == 1:
            return x_BCHW * (1 / (1 + math.exp(-0.5)))
        deviation_BCHW = (x_BCHW - x_BCHW.mean(dim=(2, 3), keepdim=True)).square()
        variance_BC11 = deviation_BCHW.sum(dim=(2, 3), keepdim=True) / (pixels - 1)
        inverse_energy_BCHW = deviation_BCHW / (4 * (variance_BC11 + self.energy_lambda)) + 0.5
        return x_BCHW * inverse_energy_BCHW.sigmoid()
