"""The energy that FcaNet's frequency groups pick up, beside what there was to be picked up.

Qin, Zhang, Wu and Li, "FcaNet", arXiv:2012.11879, eq. 2-6: group i of the channels is described by
one coefficient of its two-dimensional DCT. The bases are orthonormal, so by Parseval the squares of
all coefficients of a channel sum up to the sum of its squared pixels, and

    share_i = sum over images and the group's channels of f^2 / sum of x^2

is the part of the group's energy that its frequency holds, comparable between frequencies and maps.
The spectrum is the same share for all pairs of the 7-grid over all channels. For learnt frequencies
(``nas``) f is the coefficient of the weighted basis, and its square is divided by the basis' norm.
"""

# Shape letters: B batch, C channels, G groups, H height, W width; u, v vertical and horizontal
# frequency of the 7-grid.
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.fca import FrequencyChannelAttention, dct_basis
from blocks.frequency import GRID, Pairs, scaled_index


@dataclass(frozen=True)
class FrequencyShares:
    """What the groups of one block pick up.

    Args:
        pairs: (u, v) of each group; of learnt ones the pair with the largest weight.
        weights: Learnt: softmax weight of that pair; empty where frequencies were given.
        shares: Share of the group's energy in its own coefficient.
        energies: Share of the map's energy that is in the group's channels.
        means: Share of the same channels' energy in their mean, frequency (0, 0).
        spectrum_uv: Share of all channels' energy at every pair of the grid.
        distinct: Different pairs of the grid on this map: 49 from 7 x 7 pixels on.
        size: Height and width of the map that the DCT is of.
    """

    pairs: Pairs
    weights: tuple[float, ...]
    shares: tuple[float, ...]
    energies: tuple[float, ...]
    means: tuple[float, ...]
    spectrum_uv: Tensor
    distinct: int
    size: tuple[int, int]


def frequency_blocks(root: nn.Module) -> list[FrequencyChannelAttention]:
    """The frequency attention in a block, however deep."""
    return [module for module in root.modules() if isinstance(module, FrequencyChannelAttention)]


class FrequencyTally:
    """Energies summed up batch by batch; an observer of ``run_observed``.

    Args:
        block: The block that is observed.
    """

    def __init__(self, block: FrequencyChannelAttention) -> None:
        self.block = block
        self.images = 0

    def __call__(self, x_BCHW: Tensor, _: Tensor, labels_B: Tensor) -> None:
        """Take in one batch."""
        seen = x_BCHW.float()
        if self.block.dct_size != "map":
            seen = functional.adaptive_avg_pool2d(seen, int(self.block.dct_size))
        bases_CHW = self.block.bases(seen)
        norm_C = bases_CHW.square().sum((1, 2))
        picked_C = ((seen * bases_CHW).sum((2, 3)).square() / norm_C).sum(0)
        spectrum_Cuv = self._coefficients(seen).square().sum(0)
        sums = (picked_C, seen.square().sum((0, 2, 3)), spectrum_Cuv)
        if not self.images:
            self.size = (seen.shape[2], seen.shape[3])
            self.sums = [torch.zeros_like(each, dtype=torch.float64) for each in sums]
        self.images += len(seen)
        for total, each in zip(self.sums, sums, strict=True):
            total += each.double()

    def _coefficients(self, seen: Tensor) -> Tensor:
        """Every channel's coefficient at every pair of the grid, (B, C, u, v)."""
        vertical_uH, horizontal_vW = (
            torch.stack([dct_basis(index, size) for index in self._indices(size)]).to(seen)
            for size in seen.shape[2:]
        )
        return vertical_uH @ seen @ horizontal_vW.mT

    def _indices(self, size: int) -> list[int]:
        return [scaled_index(index, size, authors=self.block.authors) for index in range(GRID)]

    def shares(self) -> FrequencyShares:
        """What the images so far say.

        Raises:
            ValueError: There were none.
        """
        if not self.images:
            raise ValueError("no image has been seen")
        picked_C, energy_C, spectrum_Cuv = self.sums
        groups = len(energy_C) // self.block.channels_per_group
        picked_G, energy_G, mean_G = (
            each.view(groups, -1).sum(1) for each in (picked_C, energy_C, spectrum_Cuv[:, 0, 0])
        )
        pairs, weights = self._pairs()
        distinct = [len(set(self._indices(size))) for size in self.size]
        return FrequencyShares(
            pairs,
            weights,
            tuple((picked_G / energy_G).tolist()),
            tuple((energy_G / energy_G.sum()).tolist()),
            tuple((mean_G / energy_G).tolist()),
            spectrum_Cuv.sum(0) / energy_C.sum(),
            distinct[0] * distinct[1],
            self.size,
        )

    def _pairs(self) -> tuple[Pairs, tuple[float, ...]]:
        alpha = self.block.alpha
        if alpha is None:
            return self.block.pairs, ()
        weights, indices = alpha.detach().softmax(dim=1).max(dim=1)
        pairs = tuple((index // GRID, index % GRID) for index in indices.tolist())
        return pairs, tuple(weights.tolist())
