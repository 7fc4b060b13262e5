"""Branches of TripSE2 to TripSE4 with SE over the dimension that a branch's rotation brings first.

arXiv:2505.05943, the second reading of its description: in each branch SE works on the turned map,
so over the height in the (C, W) branch, over the width in the (H, C) branch and over the channels
in the (H, W) branch, which is always the dimension that the branch pools away. As in
``blocks.triplet`` nothing is turned. The weights of two branches depend on the size of the map.
"""

# Shape letters: B batch, C channels, H height, W width, N the squeezed dimension.
from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from blocks.errors import SiteError
from blocks.options import bottleneck_width, rotated_size
from blocks.triplet import POOL_CHANNELS, POOL_HEIGHT, POOL_WIDTH, PlaneGate


class RotatedPlaneGate(PlaneGate, ABC):
    """A branch of triplet attention with the two layers of an SE over the dimension it pools.

    Args:
        pooled: The dimension that is pooled away and squeezed.
        channels: Channels of the feature map.
        reduction: How many times narrower the squeezed layer is.
        axis: "rotated:HxW" with the map's height and width.

    Raises:
        BlockError: The axis has no size.
    """

    def __init__(self, pooled: int, *, channels: int, reduction: int, axis: str) -> None:
        super().__init__(pooled)
        self.size = rotated_size(axis)
        numbers = {POOL_CHANNELS: channels, POOL_HEIGHT: self.size[0], POOL_WIDTH: self.size[1]}
        squeezed = bottleneck_width(numbers[pooled], reduction)
        self.squeeze = nn.Linear(numbers[pooled], squeezed, bias=False)
        self.excite = nn.Linear(squeezed, numbers[pooled], bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """All that the branch scales the map by; broadcasts to the map's shape.

        Raises:
            SiteError: The map has another size.
        """
        height, width = x_BCHW.shape[2:]
        if (height, width) != self.size:
            raise SiteError(
                f"a block with axis rotated:{self.size[0]}x{self.size[1]} takes maps of"
                f" {self.size[0]} x {self.size[1]}, not of {height} x {width}"
            )
        return self.gate(x_BCHW)

    @abstractmethod
    def gate(self, x_BCHW: Tensor) -> Tensor:
        """All that the branch scales a map of its size by."""

    def vector_logits(self, x_BCHW: Tensor) -> Tensor:
        """SE's logits of a map: N numbers in the pooled dimension, 1 in the other two."""
        mean_BN = x_BCHW.mean(dim=[dim for dim in (1, 2, 3) if dim != self.pooled])
        logits_BN: Tensor = self.excite(self.squeeze(mean_BN).relu())
        return logits_BN[:, :, None, None].transpose(1, self.pooled)


class RotatedSqueezeThenPlane(RotatedPlaneGate):
    """TripSE2's branch: SE on its input, then the plane's gate of what SE gives."""

    def gate(self, x_BCHW: Tensor) -> Tensor:
        """The vector's gate times the plane's."""
        vector = self.vector_logits(x_BCHW).sigmoid()
        return vector * self.logits(self.pool(x_BCHW * vector)).sigmoid()


class RotatedPlaneThenSqueeze(RotatedPlaneGate):
    """TripSE3's branch: the plane's gate, then SE on what it gives."""

    def gate(self, x_BCHW: Tensor) -> Tensor:
        """The plane's gate times the vector's."""
        plane = self.logits(self.pool(x_BCHW)).sigmoid()
        return plane * self.vector_logits(x_BCHW * plane).sigmoid()


class RotatedPlanePlusSqueeze(RotatedPlaneGate):
    """TripSE4's branch: logits of the plane and of SE are added; the sigmoid makes one gate.

    Args:
        pooled: The dimension that is pooled away and squeezed.
        channels: Channels of the feature map.
        reduction: How many times narrower the squeezed layer is.
        axis: "rotated:HxW" with the map's height and width.
        weights: Whether SE's sigmoid is taken before they are added.
    """

    def __init__(
        self, pooled: int, *, channels: int, reduction: int, axis: str, weights: bool
    ) -> None:
        super().__init__(pooled, channels=channels, reduction=reduction, axis=axis)
        self.weights = weights

    def gate(self, x_BCHW: Tensor) -> Tensor:
        """One gate for every number of the map."""
        added = self.vector_logits(x_BCHW)
        if self.weights:
            added = added.sigmoid()
        return (self.logits(self.pool(x_BCHW)) + added).sigmoid()
