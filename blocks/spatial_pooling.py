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

# Shape letters: B batch, C channels, H height, S pieces, T pixels, W width.
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.errors import SiteError
from blocks.gates import GATES
from blocks.norm import BatchNorm2d
from blocks.options import GRID_WINDOW, bottleneck_width
from blocks.passes import by_definition, mean

PYRAMID = (1, 2, 4)


def _depthwise(channels: int, side: int, *, bias: bool) -> nn.Conv2d:
    """One weight for each number of a (side, side) grid, per channel."""
    return nn.Conv2d(channels, channels, kernel_size=side, groups=channels, bias=bias)


def part_weights(parts: int, height: int, width: int) -> Tensor:
    """What each pixel adds to the means over parts x parts pieces, shape (parts^2, H W), float64.

    The pieces are those of torch's adaptive pooling: they overlap where the sides do not divide.
    """
    sides = []
    for size in (height, width):
        weights = torch.zeros(parts, size, dtype=torch.float64)
        for part in range(parts):
            start, end = part * size // parts, -(-(part + 1) * size // parts)
            weights[part, start:end] = 1 / (end - start)
        sides.append(weights)
    rows, columns = sides
    return (rows[:, None, :, None] * columns[None, :, None, :]).reshape(-1, height * width)


@lru_cache(maxsize=64)
def _part_weights(
    parts: tuple[int, ...], height: int, width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    with torch.inference_mode(False):  # kept for training too, whoever asks first
        every = torch.cat([part_weights(each, height, width) for each in parts])
        return every.to(device=device, dtype=dtype)


def weighted_parts(x_BCHW: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Depthwise convolutions of the means over pieces, added, shape (B, C).

    Both are linear, so the weights are spread over the pixels first and the map is read once.

    Args:
        x_BCHW: The map.
        weights: For the means over k x k pieces each, shape (C, 1, k, k).
    """
    height, width = x_BCHW.shape[2:]
    taps_CS = torch.cat([weight.flatten(1) for weight in weights], dim=1)
    parts = tuple(weight.shape[-1] for weight in weights)
    # A tensor without numbers, as in blocks.memory, must leave nothing behind.
    weights_of = _part_weights if type(x_BCHW) is Tensor else _part_weights.__wrapped__
    spread_ST = weights_of(parts, height, width, x_BCHW.device, taps_CS.dtype)
    weights_CHW = (taps_CS @ spread_ST).view(-1, height, width)
    return (x_BCHW * weights_CHW).sum(dim=(2, 3))


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
        return x_BCHW * gate_BC.unsqueeze(-1).unsqueeze(-1)

    def describe(self, x_BCHW: Tensor) -> Tensor:
        """One number per channel before the norm, shape (B, C, 1, 1)."""
        if by_definition(x_BCHW):
            whole_BC11, quarters_BC11, sixteenths_BC11 = (
                fuse(functional.adaptive_avg_pool2d(x_BCHW, side))
                for side, fuse in zip(PYRAMID, self.fuse, strict=True)
            )
            described_BC11: Tensor = whole_BC11 + quarters_BC11 + sixteenths_BC11
            return described_BC11
        described_BC = weighted_parts(x_BCHW, [fuse.get_parameter("weight") for fuse in self.fuse])
        for fuse in self.fuse:
            described_BC = described_BC + fuse.get_parameter("bias")
        return described_BC[:, :, None, None]


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
        described_BC = self.describe(x_BCHW).relu()
        gate_BC: Tensor = self.gate(self.excite(self.squeeze(described_BC).relu()))
        return x_BCHW * gate_BC.unsqueeze(-1).unsqueeze(-1)

    def describe(self, x_BCHW: Tensor) -> Tensor:
        """One number per channel, shape (B, C)."""
        if self.grid == 1:
            return mean(x_BCHW, (2, 3))
        if by_definition(x_BCHW):
            described_BC11 = self.fuse(functional.avg_pool2d(x_BCHW, GRID_WINDOW))
        else:
            described_BC = weighted_parts(x_BCHW, [self.fuse.get_parameter("weight")])
            described_BC11 = described_BC[:, :, None, None]
        normed_BC: Tensor = self.norm(described_BC11).flatten(1)
        return normed_BC
