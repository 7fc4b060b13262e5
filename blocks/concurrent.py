"""Concurrent spatial and channel squeeze and excitation: cSE, sSE and both at once, scSE.

Roy, Navab and Wachinger, MICCAI 2018, arXiv:1803.02579, eq. 2-5, and IEEE TMI 2019,
arXiv:1808.08127, as in the authors' code (ai-med/squeeze_and_excitation): all layers have biases
and the default reduction is 2. The published 33,280 parameters (eight blocks of 64 channels) leave
the biases out; with them there are 34,056.

scSE takes the larger of the two maps, as the authors' code and the TMI paper do. ``combine="add"``
is the MICCAI paper's sum; "mul" the product of the two maps, so of the second degree in the input.
Departs from the authors' code where ``channels < reduction``: the squeezed layer then is 1 wide.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from blocks.gates import GATES
from blocks.passes import differentiates, is_transformed, rescale
from blocks.squeeze_excite import SqueezeExcite


def larger(x: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """The larger of a map's products with two gates, number by number.

    Args:
        x: The map.
        one: A gate that broadcasts to the map.
        other: Another one.
    """
    if not differentiates(x):
        first = x * one
        in_place = not (torch.is_grad_enabled() or is_transformed())
        return torch.maximum(first, x * other, out=first if in_place else None)
    joined: Tensor = _Larger.apply(x, one, other)
    return joined


class _Larger(torch.autograd.Function):
    """Equal products share the gradient, as in ``torch.maximum``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, one: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward(x, one, other)
        return torch.maximum(x * one, x * other)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, one, other = ctx.saved_tensors
        if torch.is_grad_enabled():
            parts = [saved.view_as(saved) for saved in (x, one, other)]  # the gates depend on x
            joined = torch.maximum(parts[0] * parts[1], parts[0] * parts[2])
            return torch.autograd.grad(joined, parts, grad, create_graph=True)
        half = (x * one).sub_(x * other).sign_().mul_(0.5)  # 1/2 where the first is larger, or -1/2
        through = grad * x
        of_one = (through * half).add_(through, alpha=0.5)
        grad_one = of_one.sum_to_size(one.shape)
        grad_other = through.sub_(of_one).sum_to_size(other.shape)
        torch.mul(half, one - other, out=of_one)
        return of_one.add_((one + other).mul_(0.5)).mul_(grad), grad_one, grad_other


COMBINE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "max": larger,
    "add": lambda x, one, other: rescale(x, one + other),
    "mul": lambda x, one, other: rescale(rescale(x.square(), one), other),
}


class ChannelSqueezeExcite(SqueezeExcite):
    """Rescale every channel by a gate from its mean (cSE): SE with biases, half as wide inside.

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer is.
        gate: The gate function.
    """

    def __init__(self, channels: int, *, reduction: int = 2, gate: str = "sigmoid") -> None:
        super().__init__(channels, reduction=reduction, bias=True, gate=gate)


class SpatialSqueezeExcite(nn.Module):
    """Rescale every pixel by a gate from a weighted sum of its channels (sSE).

    Args:
        channels: Channels of the feature map; kept by the output.
        gate: The gate function.
    """

    def __init__(self, channels: int, *, gate: str = "sigmoid") -> None:
        super().__init__()
        self.gate = GATES[gate]
        self.squeeze = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate the pixels of a map (B, C, H, W)."""
        return x_BCHW * self.pixel_gate(x_BCHW)

    def pixel_gate(self, x_BCHW: Tensor) -> Tensor:
        """A gate per pixel, shape (B, 1, H, W)."""
        gate_B1HW: Tensor = self.gate(self.squeeze(x_BCHW))
        return gate_B1HW


class ConcurrentSqueezeExcite(nn.Module):
    """Gate channels and pixels side by side and join the two maps (scSE).

    Args:
        channels: Channels of the feature map; kept by the output.
        reduction: How many times narrower the squeezed layer of the channel gate is.
        combine: How the two maps are joined: "max", "add" or "mul".
        gate: The function of both gates.
    """

    def __init__(
        self, channels: int, *, reduction: int = 2, combine: str = "max", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.combine = COMBINE[combine]
        self.channel = ChannelSqueezeExcite(channels, reduction=reduction, gate=gate)
        self.spatial = SpatialSqueezeExcite(channels, gate=gate)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        by_channel_BC11 = self.channel.channel_gate(x_BCHW)
        by_pixel_B1HW = self.spatial.pixel_gate(x_BCHW)
        return self.combine(x_BCHW, by_channel_BC11, by_pixel_B1HW)
