"""Self-attention between the pixels of a map, with one head or several.

The blocks of CNNtention (AttentionSeekers/CNNtention, ResNet-20 on CIFAR-10): query, key and value
are 1x1 convolutions of full width with biases, every pixel is a token, and a learnt scalar gamma,
0 at the start, weighs the result. The attention is that of Vaswani et al., arXiv:1706.03762, eq. 1;
the scalar that of Zhang et al., arXiv:1805.08318, whose narrower queries are not used here. The
outer residual of the authors' code, x + ..., is the option ``residual`` of the registry, which is
on by default for these two blocks: the classes give the weighted part alone.

One head takes softmax(Q^T K) as it is, as the authors do; ``scale=True`` divides by sqrt(C) first.
Departs from the authors' multi-head code, where every pixel is indexed by its key and attends over
queries: here it is the standard form, the same function with the names query and key exchanged.

A matrix of H W x H W weights that is much larger than the map is never stored where torch has a
fused kernel (on the CPU always; on a GPU at widths of a head that its kernels take).
"""

# Shape letters: B batch, C channels, D channels of a head, H height, N heads, T tokens (pixels),
# W width.
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.errors import SiteError


def few_pixels(head_channels: int, device: torch.device) -> int:
    """Up to how many pixels two plain products are faster than the fused kernel.

    The fused kernel never stores the weights, and computes them a second time for the gradients.
    On a CPU that pays from four times as many pixels as channels, and from 2,048 numbers a head
    (tests/benchmarks; measured at widths of 8 to 256 on one thread). Elsewhere weights larger than
    the map are not stored.

    Args:
        head_channels: Channels of a head.
        device: Where the map is.
    """
    if device.type != "cpu":
        return head_channels
    return max(4 * head_channels, min(256, 2048 // head_channels))


def tokens(x_BCHW: Tensor, heads: int) -> Tensor:
    """A map as the tokens of each head, shape (B, N, T, D): contiguous channels form a head.

    In memory a token's numbers stand side by side, as fused kernels want them; for a map in
    channels-last order this moves nothing where there is one head.
    """
    batch, channels, height, width = x_BCHW.shape
    x_BNDT = x_BCHW.reshape(batch, heads, channels // heads, height * width)
    return x_BNDT.mT.contiguous()


def attend(
    query_BCHW: Tensor, key_BCHW: Tensor, value_BCHW: Tensor, heads: int, scale: float
) -> Tensor:
    """softmax(scale Q^T K) of every pair of pixels, applied to V, in the map's shape."""
    batch, channels, height, width = value_BCHW.shape
    if height * width > few_pixels(channels // heads, value_BCHW.device):
        fused_BNTD = functional.scaled_dot_product_attention(
            tokens(query_BCHW, heads),
            tokens(key_BCHW, heads),
            tokens(value_BCHW, heads),
            scale=scale,
        )
        return fused_BNTD.mT.reshape(value_BCHW.shape)
    shape = (batch, heads, channels // heads, height * width)
    query_BNDT, key_BNDT, value_BNDT = (
        each.reshape(shape) for each in (query_BCHW, key_BCHW, value_BCHW)
    )
    similarity_BNTT = query_BNDT.mT @ key_BNDT
    if scale != 1:
        similarity_BNTT = similarity_BNTT * scale
    return (value_BNDT @ similarity_BNTT.softmax(dim=-1).mT).reshape(value_BCHW.shape)


def attention_weights(
    query_BCHW: Tensor,
    key_BCHW: Tensor,
    heads: int,
    scale: float,
    queries: slice = slice(None),
) -> Tensor:
    """softmax(scale Q^T K) itself, which ``attend`` may never store, shape (B, N, queries, T).

    Args:
        query_BCHW: The map of queries.
        key_BCHW: The map of keys.
        heads: Groups of channels.
        scale: Of the similarities.
        queries: Which pixels ask, in rows from the top left.
    """
    query_BNTD, key_BNTD = (tokens(each, heads) for each in (query_BCHW, key_BCHW))
    similarity_BNTT = query_BNTD[:, :, queries] @ key_BNTD.mT
    return (similarity_BNTT * scale).softmax(dim=-1)


class SelfAttention(nn.Module):
    """Every pixel becomes a mean of all pixels' values, weighted by similarity and by gamma.

    Args:
        channels: Channels of the feature map; kept by the output.
        scale: Whether similarities are divided by sqrt(channels) before the softmax.
    """

    def __init__(self, channels: int, *, scale: bool = False) -> None:
        super().__init__()
        self.scale = channels**-0.5 if scale else 1.0
        self.query = nn.Conv2d(channels, channels, kernel_size=1)
        self.key = nn.Conv2d(channels, channels, kernel_size=1)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def start_open(self) -> None:
        """Let attention take effect from the start: gamma 1 (see ``blocks.identity``)."""
        nn.init.ones_(self.gamma)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        attended_BCHW = attend(
            self.query(x_BCHW), self.key(x_BCHW), self.value(x_BCHW), 1, self.scale
        )
        return self.gamma * attended_BCHW

    def attention_weights(self, x_BCHW: Tensor, queries: slice = slice(None)) -> Tensor:
        """How much each pixel takes from every pixel, shape (B, 1, queries, H W), to look at."""
        return attention_weights(self.query(x_BCHW), self.key(x_BCHW), 1, self.scale, queries)


class MultiHeadAttention(nn.Module):
    """Self-attention in groups of channels, joined by one more 1x1 convolution.

    Args:
        channels: Channels of the feature map; kept by the output.
        heads: Groups of channels that attend on their own; similarities are divided by the square
            root of a group's channels.

    Raises:
        SiteError: The channels cannot be split equally among the heads.
    """

    def __init__(self, channels: int, *, heads: int = 8) -> None:
        super().__init__()
        if channels % heads:
            raise SiteError(
                f"mha: {channels} channels cannot be split into {heads} equal heads; choose a"
                " number that divides the channels"
            )
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.query = nn.Conv2d(channels, channels, kernel_size=1)
        self.key = nn.Conv2d(channels, channels, kernel_size=1)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.output = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def start_open(self) -> None:
        """Let attention take effect from the start: gamma 1 (see ``blocks.identity``)."""
        nn.init.ones_(self.gamma)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        attended_BCHW = attend(
            self.query(x_BCHW), self.key(x_BCHW), self.value(x_BCHW), self.heads, self.scale
        )
        joined_BCHW: Tensor = self.output(attended_BCHW)
        return self.gamma * joined_BCHW

    def attention_weights(self, x_BCHW: Tensor, queries: slice = slice(None)) -> Tensor:
        """How much each pixel takes from every pixel, shape (B, N, queries, H W), to look at."""
        query_BCHW, key_BCHW = self.query(x_BCHW), self.key(x_BCHW)
        return attention_weights(query_BCHW, key_BCHW, self.heads, self.scale, queries)
