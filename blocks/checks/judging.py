"""What checks judge by, and how they run a block forward and backward."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.subject import ConformanceError


def require_map(where: str, out: object, x_BCHW: Tensor) -> None:
    """A finite map of the input's shape and type came out."""
    if not isinstance(out, Tensor):
        raise ConformanceError(f"{where}: {type(out).__name__} came out; needed: a tensor")
    if out.shape != x_BCHW.shape:
        raise ConformanceError(
            f"{where}: {tuple(out.shape)} came out; needed: the input's shape,"
            f" {tuple(x_BCHW.shape)}"
        )
    if out.dtype != x_BCHW.dtype:
        raise ConformanceError(
            f"{where}: {out.dtype} came out; needed: the input's type, {x_BCHW.dtype}"
        )
    if not torch.isfinite(out).all():
        broken = int((~torch.isfinite(out)).sum())
        raise ConformanceError(
            f"{where}: {broken} of {out.numel()} numbers are NaN or infinite; needed: none"
        )


def require_close(where: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Two maps agree: within the tolerance, times the largest number where that is above 1."""
    if found.shape != expected.shape:
        raise ConformanceError(
            f"{where}: {tuple(found.shape)} came out; needed: {tuple(expected.shape)}"
        )
    allowed = tolerance * max(1.0, float(expected.detach().abs().max()))
    difference = float((found.detach().to(expected.dtype) - expected.detach()).abs().max())
    if not difference <= allowed:
        raise ConformanceError(
            f"{where}: differs by up to {difference:.2g}; needed: {allowed:.2g} at most"
        )


def passed_back(block: nn.Module, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Run forward and backward; the output and the input's gradient."""
    leaf = x_BCHW.clone().requires_grad_()
    weights = torch.randn(
        x_BCHW.shape, dtype=x_BCHW.dtype, generator=torch.Generator().manual_seed(2)
    )
    out = block(leaf.clone())  # a copy, since blocks that write to their input have their own check
    if not out.requires_grad:
        raise ConformanceError("its output has no gradient; needed: one that reaches the input")
    (out * weights.to(out)).sum().backward()
    return out, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def mode_name(training: bool) -> str:
    """The mode in a word."""
    return "training" if training else "evaluation"
