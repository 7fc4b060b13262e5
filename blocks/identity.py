"""A block that starts as the identity: x + g (block(x) - x), with a learnt g that starts at 0.

For backbones with trained weights: with every block in place the network still computes what it
did, and the first steps decide how much of each block it takes. The idea of a residual branch that
a learnt scalar opens is that of Zhang et al. (self-attention GAN, arXiv:1805.08318) and Bachlechner
et al. (ReZero, arXiv:2003.04887); here it weighs what the block changes, so that g = 1 is the block
itself.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

PARAMETERS = 1


class IdentityStart(nn.Module):
    """Mix a block's input and output by a learnt number.

    Where a block has a start of its own that changes nothing (CBAM's norm at scale 0, the gamma of
    self-attention), its method ``start_open`` puts it to 1: behind a closed ``strength`` it would
    never receive a gradient.

    Args:
        block: A module that keeps the shape of its input.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.strength = nn.Parameter(torch.zeros(1))
        for module in block.modules():
            start_open: Callable[[], None] | None = getattr(module, "start_open", None)
            if start_open is not None:
                start_open()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        kind = x_BCHW.dtype  # under autocast, map and parameter differ
        return torch.lerp(x_BCHW, self.block(x_BCHW).to(kind), self.strength.to(kind))
