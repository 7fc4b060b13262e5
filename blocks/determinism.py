"""Which operators of a network cannot repeat themselves on a GPU, found without one.

torch lists them under ``torch.use_deterministic_algorithms``
(https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html): those that
raise an error on CUDA in that mode. A network's operators are those of a forward and backward pass
on the meta device with the mode on, where torch's functions take the way that they take on CUDA:
``functional.interpolate``, for one, is spelt out in operators that can repeat themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

Arguments = Mapping[str, Any]


def _always(arguments: Arguments) -> bool:
    return True


def _weighted(arguments: Arguments) -> bool:
    return arguments.get("weights") is not None


def _not_a_sum(arguments: Arguments) -> bool:
    return arguments.get("reduce") not in ("sum", "mean")


def _largest(arguments: Arguments) -> bool:
    return arguments.get("mode") == 2


# Operator -> (its name for people, when it cannot).
LISTED: dict[str, tuple[str, Callable[[Arguments], bool]]] = {
    "avg_pool3d_backward": ("torch.nn.AvgPool3d", _always),
    "_adaptive_avg_pool2d_backward": ("torch.nn.AdaptiveAvgPool2d", _always),
    "_adaptive_avg_pool3d_backward": ("torch.nn.AdaptiveAvgPool3d", _always),
    "adaptive_max_pool2d_backward": ("torch.nn.AdaptiveMaxPool2d", _always),
    "adaptive_max_pool3d_backward": ("torch.nn.AdaptiveMaxPool3d", _always),
    "fractional_max_pool2d_backward": ("torch.nn.FractionalMaxPool2d", _always),
    "fractional_max_pool3d_backward": ("torch.nn.FractionalMaxPool3d", _always),
    "max_unpool2d": ("torch.nn.MaxUnpool2d", _always),
    "max_unpool3d": ("torch.nn.MaxUnpool3d", _always),
    "upsample_linear1d_backward": ("linear upsampling", _always),
    "upsample_bilinear2d_backward": ("bilinear upsampling", _always),
    "_upsample_bilinear2d_aa_backward": ("bilinear upsampling", _always),
    "upsample_bicubic2d_backward": ("bicubic upsampling", _always),
    "_upsample_bicubic2d_aa_backward": ("bicubic upsampling", _always),
    "upsample_trilinear3d_backward": ("trilinear upsampling", _always),
    "reflection_pad1d_backward": ("torch.nn.ReflectionPad1d", _always),
    "reflection_pad2d_backward": ("torch.nn.ReflectionPad2d", _always),
    "reflection_pad3d_backward": ("torch.nn.ReflectionPad3d", _always),
    "nll_loss2d_forward": ("torch.nn.NLLLoss of maps", _always),
    "_ctc_loss_backward": ("torch.nn.CTCLoss", _always),
    "_embedding_bag": ("torch.nn.EmbeddingBag of maxima", _largest),
    "put": ("torch.Tensor.put", _always),
    "put_": ("torch.Tensor.put_", _always),
    "histc": ("torch.histc", _always),
    "bincount": ("torch.bincount with weights", _weighted),
    "median.dim": ("torch.median along a dimension", _always),
    "nanmedian.dim": ("torch.nanmedian along a dimension", _always),
    "grid_sampler_2d_backward": ("torch.nn.functional.grid_sample", _always),
    "grid_sampler_3d_backward": ("torch.nn.functional.grid_sample", _always),
    "scatter_reduce": ("torch.Tensor.scatter_reduce", _not_a_sum),
    "scatter_reduce_": ("torch.Tensor.scatter_reduce_", _not_a_sum),
}


def unrepeatable(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """What of a network cannot be trained bit for bit alike on a GPU; empty where all can.

    Args:
        network: A block or a whole network; it is moved to the meta device.
        input_shape: (channels, height, width) of one image or map.

    Raises:
        RuntimeError: It cannot be run without numbers.
        NotImplementedError: The same.
    """
    operators = _Operators()
    moved = network.to("meta").train()
    with _deterministic(), torch.enable_grad(), operators:
        maps = torch.empty(2, *input_shape, device="meta", requires_grad=True)
        try:
            output = moved(maps.clone())  # a block may write to what it is given
            output.backward(torch.empty_like(output))
        except RuntimeError as error:  # of some, torch says it on the meta device too
            if not operators.found or "deterministic implementation" not in str(error):
                raise
    return tuple(dict.fromkeys(operators.found))


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators of the list that run in this context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self._note(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: Arguments) -> None:
        _, _, name = str(func).partition(".")  # aten.median.dim -> median.dim
        row = LISTED.get(name) or LISTED.get(name.partition(".")[0])
        if row is None or func.namespace != "aten":
            return
        words, cannot = row
        named = [argument.name for argument in func._schema.arguments]
        if cannot({**dict(zip(named, args, strict=False)), **kwargs}):
            self.found.append(words)


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
