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
from typing import Any

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
from blocks.passes import differentiates, is_transformed, pays, rescale

LARGE_MAP = 2**25  # bytes, more than caches hold: then the product is made in pieces that they hold
PIECE = 2**20


def _constant(method: Any) -> Any:
    """Mark a method whose result the compiler is to take as it is, not to make at every step.

    As ``torch.compiler.assume_constant_result`` does, which imports all of the compiler for it.
    """
    method._dynamo_marked_constant = True
    return method


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
        self._kept: dict[tuple[tuple[int, int], torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the channels of a map (B, C, H, W)."""
        if self.alpha is None and pays(x_BCHW, "coefficients") and self._sees(x_BCHW):
            x_BCHW, described_BC = _Described.apply(x_BCHW, self.bases(x_BCHW))
        else:
            described_BC = self.describe(x_BCHW)
        gate_BC: Tensor = self.gate(self.excite(self.squeeze(described_BC).relu()))
        return rescale(x_BCHW, gate_BC.view(*gate_BC.shape, 1, 1))

    def describe(self, x_BCHW: Tensor) -> Tensor:
        """One DCT coefficient per channel, shape (B, C)."""
        seen_BCHW = x_BCHW
        if not self._sees(x_BCHW):
            seen_BCHW = functional.adaptive_avg_pool2d(x_BCHW, int(self.dct_size))
        return _coefficients(seen_BCHW, self.bases(seen_BCHW))

    def _sees(self, x_BCHW: Tensor) -> bool:
        """Whether the DCT is of the map as it is."""
        return self.dct_size == "map" or x_BCHW.shape[2:] == (self.dct_size, self.dct_size)

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
        if self.alpha is None:
            return self._constants(like_BCHW)[0]
        vertical_uH, horizontal_vW = self._constants(like_BCHW)
        weights_Guv = self.alpha.softmax(dim=1).view(-1, GRID, GRID).to(like_BCHW.dtype)
        bases_GHW = vertical_uH.mT @ weights_Guv @ horizontal_vW
        return bases_GHW.repeat_interleave(self.channels_per_group, dim=0)

    def _constants(self, like_BCHW: Tensor) -> tuple[Tensor, ...]:
        """What of the bases is the same for all maps like this one, kept from the first of them."""
        height, width = like_BCHW.shape[2:]
        if torch.compiler.is_exporting():  # a part of the graph, which must not change the block
            return tuple(part.to(like_BCHW) for part in self._made(height, width))
        # For the compiler the length of a range is a number, where a size may stand for any.
        size = (len(range(height)), len(range(width)))
        kept: tuple[Tensor, ...] = self._kept_for(size, like_BCHW.device, like_BCHW.dtype)
        return kept

    @_constant
    def _kept_for(
        self, size: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        key = (size, device, dtype)
        if key not in self._kept:
            with torch.inference_mode(False):  # kept for training too, whoever asks first
                self._kept[key] = tuple(
                    part.to(device=device, dtype=dtype) for part in self._made(*size)
                )
        return self._kept[key]

    def _made(self, height: int, width: int) -> tuple[Tensor, ...]:
        make = self._channel_bases if self.alpha is None else self._all_bases
        return make(height, width)

    def _channel_bases(self, height: int, width: int) -> tuple[Tensor]:
        """The basis of every channel, (C, H, W)."""
        groups_GHW = torch.stack(
            [
                self._basis(u, height)[:, None] * self._basis(v, width)[None, :]
                for u, v in self.pairs
            ]
        )
        return (groups_GHW.repeat_interleave(self.channels_per_group, dim=0),)

    def _all_bases(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The basis vectors of all frequencies of the grid, (7, H) and (7, W)."""
        vertical_uH = torch.stack([self._basis(u, height) for u in range(GRID)])
        return vertical_uH, torch.stack([self._basis(v, width) for v in range(GRID)])

    def _basis(self, index: int, size: int) -> Tensor:
        return dct_basis(scaled_index(index, size, authors=self.authors), size)


def _coefficients(x: Tensor, bases: Tensor) -> Tensor:
    """The sum of every channel times its basis, (B, C)."""
    if x.nbytes < LARGE_MAP or x.device.type != "cpu" or differentiates(x) or is_transformed():
        return (x * bases).sum(dim=(2, 3))
    images = max(1, PIECE // x[0].nbytes)
    product = torch.empty_like(x[:images])
    described = x.new_empty(x.shape[:2])
    for first in range(0, len(x), images):
        part = x[first : first + images]
        torch.mul(part, bases, out=product[: len(part)])
        torch.sum(product[: len(part)], dim=(2, 3), out=described[first : first + images])
    return described


class _Described(torch.autograd.Function):
    """The map with its coefficients (B, C), so that both gradients make one pass over the map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bases: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(bases)
        return x.view_as(x), _coefficients(x, bases)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, grad_described: Tensor) -> tuple[Tensor, None]:
        (bases,) = ctx.saved_tensors
        each = grad_described.unsqueeze(-1).unsqueeze(-1)
        if torch.is_grad_enabled():
            return torch.addcmul(grad_x, each, bases), None
        return grad_x.addcmul_(each, bases), None  # rescale has made it, and no one else has it
