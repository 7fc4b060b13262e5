"""Frequency channel attention (FcaNet): channel gates from DCT coefficients of the map.

Qin, Zhang, Wu and Li, "FcaNet: Frequency Channel Attention Networks", ICCV 2021,
arXiv:2012.11879, eq. 2-6. SE with the mean of a channel replaced by one coefficient of its
orthonormal two-dimensional DCT-II; contiguous groups of channels take different frequencies.
With frequency (0, 0) the descriptor is sqrt(H W) times the mean, as in the authors' code.

Departs from the authors' code in two stated ways: the bases follow the map at hand instead of a
size fixed for every stage (``dct_size`` pools first, as they do), and on maps under 7 pixels the
frequencies are rescaled so that none vanishes (``authors=True`` keeps their rule).

The paper also searches the frequencies (FcaNet-NAS), without code or indices. Here ``nas`` does it
in one training, as differentiable architecture search does (Liu, Simonyan and Yang, "DARTS",
arXiv:1806.09055, eq. 2): each group's descriptor is the mean of all 49 coefficients weighted by
softmax(alpha), and ``selected`` names the largest of each, which make an ordinary block.
"""

# Shape letters: B batch, C channels, G frequency groups, H height, W width.
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.errors import BlockError, SiteError
from blocks.frequency import (
    GRID,
    frequency_text,
    group_count,
    learnt_groups,
    parse_frequency,
    scaled_index,
)
from blocks.gates import GATES
from blocks.options import bottleneck_width


def dct_basis(index: int, size: int) -> Tensor:
    """One orthonormal DCT-II basis vector, shape (size,), float64."""
    positions = torch.arange(size, dtype=torch.float64) + 0.5
    scale = math.sqrt(1 / size) if index == 0 else math.sqrt(2 / size)
    return torch.cos(math.pi * index * positions / size) * scale


class FrequencyChannelAttention(nn.Module):
    """Rescale every channel by a gate computed from one DCT coefficient per channel.

    Args:
        channels: Channels of the feature map; kept by the output.
        frequency: A published set ("top16") or pairs "u,v+u,v" (u vertical) on the 7-grid; group i
            of the channels takes pair i. "nas": every one of 16 groups ("nas4": of 4) learns the
            weights ``alpha`` of all pairs, shape (groups, 49).
        reduction: How many times narrower the squeezed layer is.
        dct_size: "map": the DCT of the map itself; a number: of the map pooled to that side.
        authors: Scale frequencies by the authors' integer rule on maps under 7 pixels too.
        gate: The gate function.

    Raises:
        SiteError: The channels cannot be split equally among the frequencies.
    """

    def __init__(
        self,
        channels: int,
        *,
        frequency: str = "top16",
        reduction: int = 16,
        dct_size: int | str = "map",
        authors: bool = False,
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.gate = GATES[gate]
        learnt = learnt_groups(frequency)
        groups = group_count(frequency)
        if channels % groups:
            raise SiteError(
                f"fca: {channels} channels cannot be split into {groups} equal frequency groups;"
                " choose fewer frequencies or a number that divides the channels"
            )
        self.channels_per_group = channels // groups
        self.pairs = () if learnt else parse_frequency(frequency)
        self.alpha = nn.Parameter(torch.zeros(groups, GRID**2)) if learnt else None
        self.dct_size = dct_size
        self.authors = authors
        squeezed = bottleneck_width(channels, reduction)
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.excite = nn.Linear(squeezed, channels, bias=False)
        self._bases: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}
        self._grids: dict[tuple[int, int, torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the channels of a map (B, C, H, W)."""
        gate_BC: Tensor = self.gate(self.excite(self.squeeze(self.describe(x_BCHW)).relu()))
        return x_BCHW * gate_BC[:, :, None, None]

    def describe(self, x_BCHW: Tensor) -> Tensor:
        """One DCT coefficient per channel, shape (B, C)."""
        seen_BCHW = x_BCHW
        if self.dct_size != "map" and x_BCHW.shape[2:] != (self.dct_size, self.dct_size):
            seen_BCHW = functional.adaptive_avg_pool2d(x_BCHW, int(self.dct_size))
        bases_CHW = self.bases(seen_BCHW)
        return (seen_BCHW * bases_CHW).sum(dim=(2, 3))

    def selected(self) -> str:
        """The frequencies with the largest weights, one pair a group: the choice of a training.

        Raises:
            BlockError: The frequencies were given, not learnt.
        """
        if self.alpha is None:
            raise BlockError("fca: its frequencies were given; only those of 'nas' are learnt")
        best = self.alpha.argmax(dim=1).tolist()
        return frequency_text(tuple((index // GRID, index % GRID) for index in best))

    def bases(self, like_BCHW: Tensor) -> Tensor:
        """The DCT basis of every channel for a map like this one, shape (C, H, W)."""
        height, width = like_BCHW.shape[2:]
        if self.alpha is not None:
            weights_Guv = self.alpha.softmax(dim=1).view(-1, GRID, GRID)
            vertical_uH, horizontal_vW = self.grids(like_BCHW)
            bases_GHW: Tensor = vertical_uH.mT @ weights_Guv.to(like_BCHW.dtype) @ horizontal_vW
            return bases_GHW.repeat_interleave(self.channels_per_group, dim=0)
        key = (height, width, like_BCHW.device, like_BCHW.dtype)
        if key not in self._bases:
            with torch.inference_mode(False):  # kept for training too, whoever asks first
                groups_GHW = torch.stack([self._basis(u, v, height, width) for u, v in self.pairs])
                self._bases[key] = groups_GHW.repeat_interleave(self.channels_per_group, dim=0).to(
                    device=like_BCHW.device, dtype=like_BCHW.dtype
                )
        return self._bases[key]

    def grids(self, like_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The basis vectors of all frequencies for a map like this one, (7, H) and (7, W)."""
        height, width = like_BCHW.shape[2:]
        key = (height, width, like_BCHW.device, like_BCHW.dtype)
        if key not in self._grids:
            with torch.inference_mode(False):
                self._grids[key] = tuple(
                    torch.stack([dct_basis(i, size) for i in self._indices(size)]).to(like_BCHW)
                    for size in (height, width)
                )
        vertical_uH, horizontal_vW = self._grids[key]
        return vertical_uH, horizontal_vW

    def _indices(self, size: int) -> list[int]:
        return [scaled_index(index, size, authors=self.authors) for index in range(GRID)]

    def _basis(self, u: int, v: int, height: int, width: int) -> Tensor:
        vertical_H = dct_basis(scaled_index(u, height, authors=self.authors), height)
        horizontal_W = dct_basis(scaled_index(v, width, authors=self.authors), width)
        return vertical_H[:, None] * horizontal_W[None, :]
