"""Operators on maps whose gradients pass over the map as seldom as they can.

The numbers are torch's own; what differs is what their gradients read, write and allocate, which is
what a block costs. torch's gradient of a mean writes a map of equal numbers, here it is a view
without numbers of its own; that of a maximum makes maps of booleans, here it is made in one buffer;
that of a convolution of two planes into one is, on a CPU, ten times as slow as the same numbers by
a convolution forward. Every gradient can be differentiated again. Where nothing is differentiated,
and for the compiler, which joins the steps by itself, these are torch's own operators.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

# The least work, in numbers of the map (a convolution: times its kernel's), for which a gradient of
# our own pays: below, calling Python in the backward pass costs more than the passes it saves.
# Measured on one thread of a CPU.
PAYS_FROM = {
    "mean": 2**15,
    "maximum": 2**14,
    "rescale": 2**19,
    "coefficients": 2**18,
    "convolution": 2**16,
}

# In half precision the sum of a large map is beyond the largest number, its mean is not.
_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def differentiates(x: Tensor) -> bool:
    """Whether gradients with respect to a tensor are recorded, by autograd alone.

    Not by the compiler, and not under ``torch.func``, which differentiate torch's own operators:
    a function with a gradient of its own that both could take costs 30 microseconds more a step.
    """
    return x.requires_grad and torch.is_grad_enabled() and not is_transformed()


def pays(x: Tensor, operator: str, work: int = 1) -> bool:
    """Whether an operator's gradient of our own is wanted and faster than torch's.

    Args:
        x: The map that it is applied to.
        operator: A key of ``PAYS_FROM``.
        work: Products that each number of the map takes part in.
    """
    return x.numel() * work >= PAYS_FROM[operator] and differentiates(x)


def is_transformed() -> bool:
    """Whether the compiler traces this, or a transform of ``torch.func`` runs it."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def by_definition(x: Tensor) -> bool:
    """Whether the plain steps are wanted: to be transformed, and to be counted."""
    return is_transformed() or x.is_meta


def mean(x: Tensor, dim: int | tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    """The mean along dimensions.

    Args:
        x: The map.
        dim: The dimensions that are pooled away.
        keepdim: Whether they stay, with one number each.
    """
    if not pays(x, "mean"):
        return x.mean(dim, keepdim=keepdim)
    dims = (dim,) if isinstance(dim, int) else dim
    numbers = math.prod(x.shape[d] for d in dims)
    total = x.sum(dims, keepdim=keepdim, dtype=_WIDE.get(x.dtype))
    return (total / numbers).to(x.dtype)


def maximum(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The maximum along dimensions, which stay with one number each.

    Numbers that share the maximum share its gradient, as in ``Tensor.amax``.

    Args:
        x: The map.
        dim: The dimensions that are pooled away.
    """
    if not pays(x, "maximum"):
        return x.amax(dim, keepdim=True)
    peak: Tensor = _Maximum.apply(x, dim)
    return peak


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        peak = x.amax(dim, keepdim=True)
        ctx.save_for_backward(x, peak)
        ctx.dim = dim
        return peak

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, peak = ctx.saved_tensors
        if torch.is_grad_enabled():
            share = (x == peak).to(x.dtype)
            return share * (grad / share.sum(ctx.dim, keepdim=True)), None
        # 1 where the maximum is, else 0: comparing in place keeps floats, and no booleans are made.
        share = torch.empty_like(x).copy_(peak).eq_(x)
        return share.mul_(grad / share.sum(ctx.dim, keepdim=True)), None


def rescale(x: Tensor, gate: Tensor) -> Tensor:
    """A map times a gate that broadcasts to it.

    Args:
        x: The map.
        gate: As many dimensions as the map, of its size or 1.
    """
    if not pays(x, "rescale"):
        return x * gate
    scaled: Tensor = _Rescale.apply(x, gate)
    return scaled


class _Rescale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gate = ctx.saved_tensors
        product = grad * x
        grad_gate = product.sum_to_size(gate.shape)
        if torch.is_grad_enabled() or gate.shape == product.shape:
            return grad * gate, grad_gate
        return torch.mul(grad, gate, out=product), grad_gate  # a new map costs more than the pass


class PlaneConv2d(nn.Conv2d):
    """A convolution of few planes into one, without bias, that keeps their size.

    Args:
        planes: Planes that go in.
        kernel_size: Side of the kernel, odd.
    """

    def __init__(self, planes: int, kernel_size: int) -> None:
        super().__init__(planes, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, planes_BPHW: Tensor) -> Tensor:
        """Map (B, planes, H, W) to (B, 1, H, W)."""
        kernel = self.kernel_size[0] * self.kernel_size[1]
        on_cpu = planes_BPHW.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if not (on_cpu and pays(planes_BPHW, "convolution", kernel)):
            return super().forward(planes_BPHW)
        plane: Tensor = _PlaneConvolution.apply(planes_BPHW, self.weight)
        return plane


class _PlaneConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(planes, weight)
        return functional.conv2d(planes, weight, padding=weight.shape[-1] // 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        planes, weight = ctx.saved_tensors
        half = weight.shape[-1] // 2
        turned = weight.flip(2, 3).transpose(0, 1)
        grad_planes = functional.conv2d(grad, turned, padding=half)
        grad_weight = conv2d_weight(  # type: ignore[no-untyped-call]
            planes, weight.shape, grad, padding=half
        )
        return grad_planes, grad_weight
