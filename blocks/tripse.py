"""TripSE1 to TripSE4: triplet attention joined with Squeeze-and-Excitation in four ways.

arXiv:2505.05943, without published code; where the description leaves a choice, this is the one
made here: three branches as in ``blocks.triplet`` (7 x 7, batch norm), averaged as there (``sum``
is an option), SE without biases, 16 times narrower and never under 1 wide. In TripSE2 to TripSE4
every branch has an SE of its own over the map's channels, not over the dimension that the branch's
rotation brings to their place (``axis="rotated:HxW"``, ``blocks.rotated``): the weights then do not
depend on the input's size. There is no further SE after the branches. As in ``blocks.triplet``
nothing is turned, and the map is scaled once.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from blocks.options import CHANNELS_AXIS, bottleneck_width
from blocks.passes import mean
from blocks.rotated import RotatedPlanePlusSqueeze, RotatedPlaneThenSqueeze, RotatedSqueezeThenPlane
from blocks.squeeze_excite import SqueezeExcite
from blocks.triplet import POOL_CHANNELS, POOL_HEIGHT, POOL_WIDTH, PlaneGate, scaled


class TripSE1(nn.Module):
    """Triplet attention, then Squeeze-and-Excitation on its output.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer is.
        combine: "mean" or "sum" of the three branches.
    """

    def __init__(self, channels: int, *, reduction: int = 16, combine: str = "mean") -> None:
        super().__init__()
        self.combine = combine
        self.cw = PlaneGate(POOL_HEIGHT)
        self.hc = PlaneGate(POOL_WIDTH)
        self.hw = PlaneGate(POOL_CHANNELS)
        self.se = SqueezeExcite(channels, reduction=reduction)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        gates = [self.cw(x_BCHW), self.hc(x_BCHW), self.hw(x_BCHW)]
        output: Tensor = self.se(scaled(x_BCHW, gates, combine=self.combine))
        return output


class SqueezedPlaneGate(PlaneGate):
    """A branch of triplet attention with the two layers of an SE over the map's channels.

    Args:
        pooled: The dimension that is pooled away.
        channels: Channels of the feature map.
        reduction: How many times narrower the squeezed layer is.
    """

    def __init__(self, pooled: int, *, channels: int, reduction: int) -> None:
        super().__init__(pooled)
        squeezed = bottleneck_width(channels, reduction)
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.excite = nn.Linear(squeezed, channels, bias=False)

    def channel_logits(self, mean_BC: Tensor) -> Tensor:
        """SE's two layers, shape (B, C, 1, 1)."""
        logits_BC: Tensor = self.excite(self.squeeze(mean_BC).relu())
        return logits_BC[:, :, None, None]

    def channel_means(self, x_BCHW: Tensor, maximum_and_mean: Tensor) -> Tensor:
        """Means of the channels, shape (B, C), by way of the pooled means where they have them."""
        if self.pooled == POOL_CHANNELS:
            return mean(x_BCHW, (2, 3))
        return self._mean_half(maximum_and_mean).mean(dim=(2, 3))

    def _mean_half(self, maximum_and_mean: Tensor) -> Tensor:
        return maximum_and_mean.narrow(self.pooled, 1, 1)


class SqueezeThenPlane(SqueezedPlaneGate):
    """TripSE2's branch: SE on its input, then the plane's gate of what SE gives."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """All that the branch scales the map by; broadcasts to the map's shape."""
        if self.pooled == POOL_CHANNELS:
            channel_BC11 = self.channel_logits(mean(x_BCHW, (2, 3))).sigmoid()
            return channel_BC11 * self.logits(self.pool(x_BCHW * channel_BC11)).sigmoid()
        # A factor above 0 that is the same all along what is pooled moves out of mean and maximum.
        pooled = self.pool(x_BCHW)
        channel_BC11 = self.channel_logits(self.channel_means(x_BCHW, pooled)).sigmoid()
        return channel_BC11 * self.logits(pooled * channel_BC11).sigmoid()


class PlaneThenSqueeze(SqueezedPlaneGate):
    """TripSE3's branch: the plane's gate, then SE on what it gives."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """All that the branch scales the map by; broadcasts to the map's shape."""
        pooled = self.pool(x_BCHW)
        gate = self.logits(pooled).sigmoid()
        mean_BC = self._means_after(x_BCHW, gate, pooled)
        return gate * self.channel_logits(mean_BC).sigmoid()

    def _means_after(self, x_BCHW: Tensor, gate: Tensor, maximum_and_mean: Tensor) -> Tensor:
        """Means of the channels of the scaled map, which is never made."""
        if self.pooled == POOL_CHANNELS:
            pixels = x_BCHW.shape[2] * x_BCHW.shape[3]
            sums_BC1 = torch.matmul(x_BCHW.flatten(2), gate.flatten(2).mT)
            return sums_BC1.squeeze(-1) / pixels
        return (self._mean_half(maximum_and_mean) * gate).mean(dim=(2, 3))


class PlanePlusSqueeze(SqueezedPlaneGate):
    """TripSE4's branch: logits of the plane and of SE are added; the sigmoid makes one gate.

    Args:
        pooled: The dimension that is pooled away.
        channels: Channels of the feature map.
        reduction: How many times narrower the squeezed layer is.
        weights: Whether SE's sigmoid is taken before they are added.
    """

    def __init__(self, pooled: int, *, channels: int, reduction: int, weights: bool) -> None:
        super().__init__(pooled, channels=channels, reduction=reduction)
        self.weights = weights

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The gate; broadcasts to the map's shape."""
        pooled = self.pool(x_BCHW)
        added_BC11 = self.channel_logits(self.channel_means(x_BCHW, pooled))
        if self.weights:
            added_BC11 = added_BC11.sigmoid()
        return (self.logits(pooled) + added_BC11).sigmoid()


class ThreeBranches(nn.Module):
    """Scale a map by the mean or the sum of three branches that have SE layers of their own.

    Args:
        branch: Makes the branch that pools a dimension away.
        combine: "mean" or "sum" of the three branches.
    """

    def __init__(self, branch: Callable[[int], PlaneGate], *, combine: str) -> None:
        super().__init__()
        self.combine = combine
        self.cw = branch(POOL_HEIGHT)
        self.hc = branch(POOL_WIDTH)
        self.hw = branch(POOL_CHANNELS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        gates = [self.cw(x_BCHW), self.hc(x_BCHW), self.hw(x_BCHW)]
        return scaled(x_BCHW, gates, combine=self.combine)


class TripSE2(ThreeBranches):
    """Squeeze-and-Excitation at the start of every branch of triplet attention.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layers are.
        combine: "mean" or "sum" of the three branches.
        axis: What SE squeezes: "channels", or "rotated:HxW" for maps of H x W pixels alone.

    Raises:
        BlockError: The axis is "rotated" without a size.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        combine: str = "mean",
        axis: str = CHANNELS_AXIS,
    ) -> None:
        sizes = {"channels": channels, "reduction": reduction}
        branch: Callable[[int], PlaneGate] = partial(SqueezeThenPlane, **sizes)
        if axis != CHANNELS_AXIS:
            branch = partial(RotatedSqueezeThenPlane, **sizes, axis=axis)
        super().__init__(branch, combine=combine)


class TripSE3(ThreeBranches):
    """Squeeze-and-Excitation at the end of every branch of triplet attention.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layers are.
        combine: "mean" or "sum" of the three branches.
        axis: What SE squeezes: "channels", or "rotated:HxW" for maps of H x W pixels alone.

    Raises:
        BlockError: The axis is "rotated" without a size.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        combine: str = "mean",
        axis: str = CHANNELS_AXIS,
    ) -> None:
        sizes = {"channels": channels, "reduction": reduction}
        branch: Callable[[int], PlaneGate] = partial(PlaneThenSqueeze, **sizes)
        if axis != CHANNELS_AXIS:
            branch = partial(RotatedPlaneThenSqueeze, **sizes, axis=axis)
        super().__init__(branch, combine=combine)


class TripSE4(ThreeBranches):
    """One gate per branch from the logits of triplet attention and of SE, added.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layers are.
        combine: "mean" or "sum" of the three branches.
        weights: Whether SE's part is added after a sigmoid of its own.
        axis: What SE squeezes: "channels", or "rotated:HxW" for maps of H x W pixels alone.

    Raises:
        BlockError: The axis is "rotated" without a size.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        combine: str = "mean",
        weights: bool = False,
        axis: str = CHANNELS_AXIS,
    ) -> None:
        sizes = {"channels": channels, "reduction": reduction}
        branch: Callable[[int], PlaneGate] = partial(PlanePlusSqueeze, **sizes, weights=weights)
        if axis != CHANNELS_AXIS:
            branch = partial(RotatedPlanePlusSqueeze, **sizes, axis=axis, weights=weights)
        super().__init__(branch, combine=combine)
