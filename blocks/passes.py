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

# In half precision the sum of a large map is beyond the largest number, its mean is not.
_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def differentiates(x: Tensor) -> bool:
    """Whether gradients with respect to a tensor are recorded, and not by the compiler."""
    return x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def by_definition(x: Tensor) -> bool:
    """Whether the plain steps are wanted: by the compiler, which joins them, and to be counted."""
    return torch.compiler.is_compiling() or x.is_meta


def mean(x: Tensor, dim: int | tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    """The mean along dimensions.

    Args:
        x: The map.
        dim: The dimensions that are pooled away.
        keepdim: Whether they stay, with one number each.
    """
    if not differentiates(x):
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
    if not differentiates(x):
        return x.amax(dim, keepdim=True)
    peak: Tensor = _Maximum.apply(x, dim)
    return peak


class _Maximum(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        return x.amax(dim, keepdim=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.dim = inputs[1]

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
    if not differentiates(x):
        return x * gate
    scaled: Tensor = _Rescale.apply(x, gate)
    return scaled


class _Rescale(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gate: Tensor) -> Tensor:
        return x * gate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

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
        on_cpu = planes_BPHW.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if not (on_cpu and differentiates(planes_BPHW)):
            return super().forward(planes_BPHW)
        plane: Tensor = _PlaneConvolution.apply(planes_BPHW, self.weight)
        return plane


class _PlaneConvolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(planes: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(planes, weight, padding=weight.shape[-1] // 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

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
