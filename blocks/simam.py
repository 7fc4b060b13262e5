"""SimAM: a gate for every number of the map, without parameters.

Yang, Zhang, Li and Xie, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural
Networks", ICML 2021, eq. 5 and the authors' code. The variance is the unbiased one (divided by
H W - 1). Departs from the code on a map of one pixel, where theirs is NaN: the gate is
sigmoid(0.5), as it is for a constant channel.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from blocks.passes import by_definition, differentiates


class SimpleAttention(nn.Module):
    """Rescale every number by how far it stands out from its channel.

    Args:
        channels: Channels of the feature map; the block needs no weights, so any number does.
        energy_lambda: The regulariser of the energy (the paper's lambda).
    """

    def __init__(self, channels: int, *, energy_lambda: float = 1e-4) -> None:
        super().__init__()
        self.energy_lambda = energy_lambda

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gate every number of a map (B, C, H, W)."""
        if x_BCHW.shape[2] * x_BCHW.shape[3] == 1:
            return x_BCHW * (1 / (1 + math.exp(-0.5)))
        if by_definition(x_BCHW) or x_BCHW.dtype in (torch.float16, torch.bfloat16):
            return gated_by_energy(x_BCHW, self.energy_lambda)
        if differentiates(x_BCHW):
            gated_BCHW: Tensor
            gated_BCHW = _EnergyGate.apply(x_BCHW, self.energy_lambda)
            return gated_BCHW
        return _energy_gate(x_BCHW, self.energy_lambda)[0].mul_(x_BCHW)


def gated_by_energy(x_BCHW: Tensor, energy_lambda: float) -> Tensor:
    """The definition, step by step; the compiler and second derivatives take this."""
    pixels = x_BCHW.shape[2] * x_BCHW.shape[3]
    squares_BCHW = (x_BCHW - x_BCHW.mean(dim=(2, 3), keepdim=True)).square()
    variance_BC11 = squares_BCHW.sum(dim=(2, 3), keepdim=True) / (pixels - 1)
    inverse_energy_BCHW = squares_BCHW / (4 * (variance_BC11 + energy_lambda)) + 0.5
    return x_BCHW * inverse_energy_BCHW.sigmoid()


def _energy_gate(x_BCHW: Tensor, energy_lambda: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gate, in one buffer, each channel's mean and the factor 1 / (4 (v + lambda))."""
    pixels = x_BCHW.shape[2] * x_BCHW.shape[3]
    mean_BC11 = x_BCHW.mean(dim=(2, 3), keepdim=True)
    gate_BCHW = x_BCHW - mean_BC11
    gate_BCHW.mul_(gate_BCHW)
    variance4_BC11 = gate_BCHW.sum(dim=(2, 3), keepdim=True).mul_(4 / (pixels - 1))
    factor_BC11 = variance4_BC11.add_(4 * energy_lambda).reciprocal_()
    return gate_BCHW.mul_(factor_BC11).add_(0.5).sigmoid_(), mean_BC11, factor_BC11


class _EnergyGate(torch.autograd.Function):
    """The definition in two buffers, and its gradient in three.

    With d = x - mean, k = 1 / (4 (v + lambda)), s = sigmoid(k d^2 + 1/2) and r = g x s (1 - s), the
    gradient of x s is g s + e - mean(e), where e = 2 k d (r - 4 k sum(r d^2) / (n - 1)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, energy_lambda: float) -> Tensor:
        gate, mean, factor = _energy_gate(x, energy_lambda)
        ctx.energy_lambda = energy_lambda
        ctx.save_for_backward(x, gate, mean, factor)
        return x * gate

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, gate, mean, factor = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = gated_by_energy(x, ctx.energy_lambda)
            return torch.autograd.grad(plain, x, grad, create_graph=True)[0], None
        pixels = x.shape[2] * x.shape[3]
        through = grad * gate
        inner = through * x
        inner.addcmul_(inner, gate, value=-1)
        deviation = x - mean
        inner.mul_(deviation)  # r d
        sums = (inner * deviation).sum(dim=(2, 3), keepdim=True)
        deviation.mul_(4 * factor * sums / (pixels - 1)).add_(inner.mean(dim=(2, 3), keepdim=True))
        return through.add_(inner.sub_(deviation).mul_(2 * factor)), None
