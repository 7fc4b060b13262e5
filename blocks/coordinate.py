"""Coordinate attention: a gate per row and one per column of every channel.

Hou, Zhou and Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021,
arXiv:2103.02907, eq. 4-9, as in the authors' code (houqb/CoordAttention): the squeezed width is
max(8, C // r), all three convolutions have biases, one batch norm serves rows and columns, and the
activation is hard-swish. Departs from it in nothing but names: ``squeeze``, ``norm``,
``excite_rows`` and ``excite_columns`` are the authors' ``conv1``, ``bn1``, ``conv2`` and ``conv3``
(``conv_h`` and ``conv_w`` in another file of theirs), and the first weights are PyTorch's own, not
those of the authors' MobileNetV2. timm's ``CoordAttn`` is another block: no biases, other widths.
"""

# Shape letters: B batch, C channels, H height, W width, L = H + W, M squeezed channels.
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.norm import BatchNorm2d
from blocks.options import coordinate_width
from blocks.passes import mean, rescale


class CoordinateAttention(nn.Module):
    """Rescale every number by its row's and its column's gate, each from that line's mean.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer is, which has 8 channels or more.
    """

    def __init__(self, channels: int, *, reduction: int = 32) -> None:
        super().__init__()
        squeezed = coordinate_width(channels, reduction)
        self.squeeze = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.norm = BatchNorm2d(squeezed)
        self.excite_rows = nn.Conv2d(squeezed, channels, kernel_size=1)
        self.excite_columns = nn.Conv2d(squeezed, channels, kernel_size=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the rows and columns of a map (B, C, H, W)."""
        rows_BCH1, columns_BC1W = self.gates(x_BCHW)
        return rescale(rescale(x_BCHW, rows_BCH1), columns_BC1W)

    def gates(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Gates of the rows, shape (B, C, H, 1), and of the columns, shape (B, C, 1, W)."""
        means_BCL1 = torch.cat(
            (mean(x_BCHW, 3, keepdim=True), mean(x_BCHW, 2).unsqueeze(-1)), dim=2
        )
        both_BML1 = functional.hardswish(self.norm(self.squeeze(means_BCL1)))
        height = x_BCHW.shape[2]
        rows_BMH1, columns_BMW1 = both_BML1[:, :, :height], both_BML1[:, :, height:]
        rows_BCH1: Tensor = self.excite_rows(rows_BMH1).sigmoid()
        columns_BC1W: Tensor = self.excite_columns(columns_BMW1).sigmoid().mT
        return rows_BCH1, columns_BC1W
