"""Squeeze-and-Excitation with richer spatial pooling: SPSE (a pyramid) and RGSE (a fixed grid).

Jin, Xie, Wei, Zhao, Chen and Tan, "Delving deep into spatial pooling for squeeze-and-excitation
networks", Pattern Recognition 121 (2022) 108159, as in the authors' code
(megvii-research/RG-SENet_SP-SENet): depthwise convolutions turn pooled grids into one number per
channel, then batch norm, ReLU and SE's two layers with biases.

Departs from the code where ``channels < reduction`` (the squeezed layer then is 1 wide) and in how
RGSE is told its grid: by a number of windows instead of a stage. RGSE stands on square maps of 7,
14, 28 or 56 pixels alone. On 7 x 7 its one window is the mean, without convolution and norm, but
the ReLU stays, as in the code.

The norm sees one number per image and channel, so that training needs two images at least (RGSE on
7 x 7 has no norm, and no such need).
"""

# Shape letters: B batch, C channels, G windows on a side, H height, W width.
from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from blocks.errors import SiteError
from blocks.gates import GATES
from blocks.norm import BatchNorm2d
from blocks.options import GRID_WINDOW, bottleneck_width

PYRAMID = (1, 2, 4)


def _depthwise(channels: int, side: int, *, bias: bool) -> nn.Conv2d:
    """One weight for each number of a (side, side) grid, per channel."""
    return nn.Conv2d(channels, channels, kernel_size=side, groups=channels, bias=bias)


class PyramidSqueezeExcite(nn.Module):
    """Rescale every channel by a gate from its means over 1, 4 and 16 parts of the map (SPSE).

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer is.
        gate: The gate function.
    """

    def __init__(self, channels: int, *, reduction: int = 16, gate: str = "sigmoid") -> None:
        super().__init__()
        self.gate = GATES[gate]
        squeezed = bottleneck_width(channels, reduction)
        self.fuse = nn.ModuleList(_depthwise(channels, side, bias=True) for side in PYRAMID)
        self.norm = BatchNorm2d(channels)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the channels of a map (B, C, H, W)."""
        described_BC = self.norm(self.describe(x_BCHW)).relu().flatten(1)
        gate_BC: Tensor = self.gate(self.excite(self.squeeze(described_BC).relu()))
        return x_BCHW * gate_BC[:, :, None, None]

    def describe(self, x_BCHW: Tensor) -> Tensor:
        """One number per channel before the norm, shape (B, C, 1, 1)."""
        whole_BC11, quarters_BC11, sixteenths_BC11 = (
            fuse(functional.adaptive_avg_pool2d(x_BCHW, side))
            for side, fuse in zip(PYRAMID, self.fuse, strict=True)
        )
        described_BC11: Tensor = whole_BC11 + quarters_BC11 + sixteenths_BC11
        return described_BC11


class GridSqueezeExcite(nn.Module):
    """Rescale every channel by a gate from its means over windows of 7 x 7 pixels (RGSE).

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer is.
        grid: Windows on each side of the map: 8, 4, 2 or 1 where it has 56, 28, 14 or 7 pixels.
        gate: The gate function.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, grid: int = 1, gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.gate = GATES[gate]
        self.grid = grid
        squeezed = bottleneck_width(channels, reduction)
        self.fuse: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        if grid > 1:
            self.fuse = _depthwise(channels, grid, bias=False)
            self.norm = BatchNorm2d(channels)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the channels of a map (B, C, 7 grid, 7 grid).

        Raises:
            SiteError: The map has another size.
        """
        height, width = x_BCHW.shape[2:]
        side = GRID_WINDOW * self.grid
        if (height, width) != (side, side):
            raise SiteError(
                f"rgse: a block with grid {self.grid} takes maps of {side} x {side}, not of"
                f" {height} x {width}"
            )
        windows_BCGG = functional.avg_pool2d(x_BCHW, GRID_WINDOW)
        described_BC = self.norm(self.fuse(windows_BCGG)).relu().flatten(1)
        gate_BC: Tensor = self.gate(self.excite(self.squeeze(described_BC).relu()))
        return x_BCHW * gate_BC[:, :, None, None]
