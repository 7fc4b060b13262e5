"""Squeeze-and-Excitation: channel gates from globally pooled features.

Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507, eq. 2-4.
Departs from the authors' Caffe models in the default of ``bias`` (theirs have biases; without
them the parameters are the paper's 2/r sum C^2), and from all of them where ``channels <
reduction``: the squeezed layer then is 1 wide. Unlike timm's ``SEModule`` the width is not rounded
to a multiple of 8, so that every reduction builds another network.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from torch import Tensor, nn

from blocks.gates import GATES
from blocks.options import bottleneck_width
from blocks.passes import mean


class SqueezeExcite(nn.Module):
    """Rescale every channel by a gate in (0, 1) computed from its spatial mean.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer is (the paper's r).
        bias: Whether the two layers have biases.
        gate: The gate function.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, bias: bool = False, gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.gate = GATES[gate]
        squeezed = bottleneck_width(channels, reduction)
        self.squeeze = nn.Linear(channels, squeezed, bias=bias)
        self.excite = nn.Linear(squeezed, channels, bias=bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the channels of a map (B, C, H, W)."""
        return x_BCHW * self.channel_gate(x_BCHW)

    def channel_gate(self, x_BCHW: Tensor) -> Tensor:
        """A gate per channel, shape (B, C, 1, 1)."""
        gate_BC: Tensor = self.gate(self.excite(self.squeeze(mean(x_BCHW, (2, 3))).relu()))
        return gate_BC.unsqueeze(-1).unsqueeze(-1)
