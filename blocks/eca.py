"""Efficient Channel Attention: channel gates from neighbouring channels' means.

Wang, Wu, Zhu, Li, Zuo and Hu, "ECA-Net", CVPR 2020, arXiv:1910.03151, eq. 9 and 12. The released
ECA-Net50 sets its kernels by hand (3, 5, 5, 7); ``auto`` is the paper's formula.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from torch import Tensor, nn

from blocks.gates import GATES
from blocks.options import eca_kernel_size
from blocks.passes import mean


class EfficientChannelAttention(nn.Module):
    """Rescale every channel by a gate computed from the means of its neighbours.

    Args:
        channels: Channels of the feature map; kept by the output.
        kernel_size: Neighbours that a gate sees, an odd number; "auto": the paper's formula.
        gate: The gate function.
    """

    def __init__(
        self, channels: int, *, kernel_size: int | str = "auto", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.gate = GATES[gate]
        size = eca_kernel_size(channels) if kernel_size == "auto" else int(kernel_size)
        self.conv = nn.Conv1d(1, 1, kernel_size=size, padding=size // 2, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the channels of a map (B, C, H, W)."""
        mean_B1C = mean(x_BCHW, (2, 3), keepdim=True).squeeze(-1).mT
        gate_B1C = self.gate(self.conv(mean_B1C))
        return x_BCHW * gate_B1C.mT.unsqueeze(-1)
