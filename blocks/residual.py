"""The outer residual that every block can have: x + block(x).

CNNtention's blocks have it by default; with the option ``residual`` every comparison can be made
with and without.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """Add a block's input to its output.

    Args:
        block: A module that keeps the shape of its input.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        output: Tensor = x_BCHW + self.block(x_BCHW)
        return output
