"""Where self-attention between pixels looks: its weights, their entropy, and how far they reach.

The weights are softmax(scale Q^T K) (Vaswani et al., arXiv:1706.03762, eq. 1), which the blocks
never store when they run: ``attention_weights`` of a block makes them anew. A query's entropy is
-sum_k p_k log p_k in nats; divided by the log of the number of keys it is 1 for uniform attention
and 0 for attention to one pixel. Its distance is sum_k p_k |r_q - r_k| in pixels of the map, as in
Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929, appendix D.7; as a share, of
the distance between opposite corners. Both are means over queries and images.
"""

# Shape letters: B batch, H height, N heads, Q queries, T tokens (pixels), W width.
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

NUMBERS_AT_ONCE = 2**24


class PixelAttention(Protocol):
    """A block that says its weights; a user's own block joins by this method."""

    attention_weights: Callable[[Tensor, slice], Tensor]


def attention_blocks(root: nn.Module) -> list[Any]:
    """The modules in a block that say their attention weights, however deep."""
    return [module for module in root.modules() if hasattr(module, "attention_weights")]


def entropy(weights: Tensor) -> Tensor:
    """Of each distribution along the last dimension, in nats."""
    each: Tensor = torch.special.entr(weights)
    return each.sum(dim=-1)


def relative_entropy(entropy_nats: float, keys: int) -> float:
    """As a share of what uniform attention to so many keys has; NaN with one key."""
    return entropy_nats / math.log(keys) if keys > 1 else math.nan


def pixel_distances(height: int, width: int) -> Tensor:
    """Between the centres of all pairs of pixels, in pixels, (T, T)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places_T2 = torch.stack((rows.flatten(), columns.flatten()), dim=1).double()
    return torch.cdist(places_T2, places_T2)


def diagonal(height: int, width: int) -> float:
    """Between the centres of opposite corners, in pixels."""
    return math.hypot(height - 1, width - 1)


@dataclass(frozen=True)
class AttentionSummary:
    """Where the heads of one block look.

    Args:
        images: How many.
        size: Height and width of the map.
        entropy_N: Mean over queries and images, in nats.
        distance_N: Mean over queries and images, in pixels of the map.
        uniform_distance: What uniform attention would have.
        received_BNHW: For each image what a pixel is given by all queries, on average: 1 / T where
            attention is uniform.
        centre_BNHW: For each image where the query in the middle looks.
    """

    images: int
    size: tuple[int, int]
    entropy_N: Tensor
    distance_N: Tensor
    uniform_distance: float
    received_BNHW: Tensor
    centre_BNHW: Tensor


class AttentionTally:
    """Weights taken in batch by batch; an observer of ``run_observed``.

    Args:
        block: The block that is observed.
    """

    def __init__(self, block: PixelAttention) -> None:
        self.block = block
        self.images = 0
        self.received: list[Tensor] = []
        self.centre: list[Tensor] = []

    def __call__(self, x_BCHW: Tensor, _: Tensor, labels_B: Tensor) -> None:
        """Take in one batch, some queries at a time: all weights of a large map do not fit."""
        batch, height, width = len(x_BCHW), *x_BCHW.shape[2:]
        keys, middle = height * width, (height // 2) * width + width // 2
        distances_TT = pixel_distances(height, width).to(x_BCHW)
        one_BNQT = self.block.attention_weights(x_BCHW, slice(middle, middle + 1))
        heads = one_BNQT.shape[1]
        if not self.images:
            self.size = (height, width)
            self.sums_2N = torch.zeros(2, heads, dtype=torch.float64)
            self.uniform = float(distances_TT.mean())
        received_BNT = torch.zeros_like(one_BNQT[:, :, 0])
        step = max(1, NUMBERS_AT_ONCE // (batch * heads * keys))
        for start in range(0, keys, step):
            some = slice(start, start + step)
            weights_BNQT = self.block.attention_weights(x_BCHW, some)
            reach_BNQ = (weights_BNQT * distances_TT[some]).sum(dim=-1)
            sums = [each.sum((0, 2)) for each in (entropy(weights_BNQT), reach_BNQ)]
            self.sums_2N += torch.stack(sums).double().cpu() / keys
            received_BNT += weights_BNQT.sum(dim=2) / keys
        self.images += batch
        shape = (batch, heads, height, width)
        self.received.append(received_BNT.reshape(shape))
        self.centre.append(one_BNQT.reshape(shape))

    def summary(self) -> AttentionSummary:
        """What the images so far say.

        Raises:
            ValueError: There were none.
        """
        if not self.images:
            raise ValueError("no image has been seen")
        entropy_N, distance_N = self.sums_2N / self.images
        return AttentionSummary(
            self.images,
            self.size,
            entropy_N,
            distance_N,
            self.uniform,
            torch.cat(self.received),
            torch.cat(self.centre),
        )
