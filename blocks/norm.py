"""Batch norm that says which block cannot train on a single number per channel, and the cure."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from torch import Tensor, nn

from blocks.errors import SiteError


class BatchNorm2d(nn.BatchNorm2d):
    """Torch's batch norm; only its refusal of one number per channel has other words.

    The variance of one number is 0, so that its normed value would be the same for all inputs:
    training needs two images, or a map of more than one number.
    """

    block = ""

    def forward(self, input: Tensor) -> Tensor:
        """Norm a map (B, C, H, W).

        Raises:
            SiteError: In training there is one number per channel.
        """
        batch, _, height, width = input.shape
        if self.training and batch * height * width == 1:
            raise SiteError(
                f"{self.block or 'this block'}: in training its batch norm needs more than one"
                " number per channel, and one image gives one here; train on batches of 2 images"
                " or more, or call eval() first"
            )
        return super().forward(input)


def name_norms(module: nn.Module, block: str) -> None:
    """Tell the norms of a block whose they are; those of a block inside it know already."""
    for part in module.modules():
        if isinstance(part, BatchNorm2d) and not part.block:
            part.block = block
