"""Convolutional Block Attention Module: a channel gate, then a spatial gate.

Woo, Park, Lee and Kweon, "CBAM", ECCV 2018, arXiv:1807.06521, eq. 1-3, as in the authors' code
(Jongchan/attention-module): the shared layers have biases and the spatial convolution is followed
by batch norm (momentum 0.01, scale starting at 0, so that the spatial gate starts at 0.5), which
the paper's formula does not show; ``norm=False`` leaves it out. Biases start at 0 and the spatial
convolution with the fan-out variance, as theirs do.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.norm import BatchNorm2d
from blocks.options import bottleneck_width
from blocks.passes import PlaneConv2d, maximum, mean, rescale


class ConvolutionalBlockAttention(nn.Module):
    """Rescale channels by their mean and maximum, then pixels by theirs.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the shared squeezed layer is.
        kernel_size: Side of the spatial convolution, odd.
        norm: Whether batch norm follows the spatial convolution.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, kernel_size: int = 7, norm: bool = True
    ) -> None:
        super().__init__()
        squeezed = bottleneck_width(channels, reduction)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)
        self.spatial = PlaneConv2d(2, kernel_size)
        self.norm = BatchNorm2d(1, momentum=0.01) if norm else nn.Identity()
        nn.init.zeros_(self.squeeze.bias)
        nn.init.zeros_(self.excite.bias)
        nn.init.kaiming_normal_(self.spatial.weight, mode="fan_out")
        if isinstance(self.norm, nn.BatchNorm2d):
            nn.init.zeros_(self.norm.weight)

    def start_open(self) -> None:
        """Let the spatial gate take effect from the start (see ``blocks.identity``)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            nn.init.ones_(self.norm.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the channels and then the pixels of a map (B, C, H, W)."""
        refined_BCHW = rescale(x_BCHW, self.channel_gate(x_BCHW)[:, :, None, None])
        return rescale(refined_BCHW, self.spatial_gate(refined_BCHW))

    def channel_gate(self, x_BCHW: Tensor) -> Tensor:
        """A gate per channel, shape (B, C)."""
        logits_BC = self._shared(mean(x_BCHW, (2, 3)))
        logits_BC = logits_BC + self._shared(maximum(x_BCHW, (2, 3)).flatten(1))
        return logits_BC.sigmoid()

    def spatial_gate(self, x_BCHW: Tensor) -> Tensor:
        """A gate per pixel, shape (B, 1, H, W), from the maximum and the mean over channels."""
        pooled_B2HW = torch.cat((maximum(x_BCHW, 1), mean(x_BCHW, 1, keepdim=True)), dim=1)
        gate_B1HW: Tensor = self.norm(self.spatial(pooled_B2HW)).sigmoid()
        return gate_B1HW

    def _shared(self, pooled_BC: Tensor) -> Tensor:
        logits_BC: Tensor = self.excite(self.squeeze(pooled_BC).relu())
        return logits_BC
