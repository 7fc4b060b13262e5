"""What a network costs: parameters, MACs and FLOPs, counted on the meta device in evaluation mode.

The whole network by ``measure_cost``, its stages and blocks by ``cost_by_part``.

Attention blocks of the registry cost their closed formula (``blocks.formulas``), so that one piece
of mathematics costs the same however its code is spelt. All else is counted operator by operator
by the table stated there: convolutions, linear layers and matrix products as ``macs``; those twice,
plus element-wise operations, pooling and normalisation, as ``flops``. Moving and reshaping numbers
is free. An operator that is in no table is named in a warning, not silently counted as nothing.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from blocks import registry
from blocks.errors import BlockError
from blocks.formulas import BATCH_NORM_FLOPS, SIGMOID_FLOPS, Cost, total
from blocks.options import MapShape
from blocks.parts import Clock, End

aten = torch.ops.aten

# Operations per number of the output. Composite functions are written out: hard-swish is an
# addition, two comparisons, a multiplication and a division; GELU x/2 (1 + erf(x / sqrt 2)).
ELEMENTWISE: dict[Any, int] = {
    **dict.fromkeys(
        (
            *(aten.add, aten.add_, aten.sub, aten.sub_, aten.rsub, aten.mul, aten.mul_),
            *(aten.div, aten.div_, aten.neg, aten.abs, aten.square, aten.reciprocal),
            *(aten.exp, aten.exp_, aten.log, aten.sqrt, aten.sqrt_, aten.tanh, aten.tanh_),
            *(aten.erf, aten.sin, aten.cos, aten.pow, aten.maximum, aten.minimum),
            *(aten.relu, aten.relu_, aten.clamp_min, aten.clamp_max, aten.clamp_min_),
            *(aten.gt, aten.lt, aten.ge, aten.le, aten.eq, aten.ne),
            *(aten.log2, aten.log1p, aten.expm1, aten.floor, aten.ceil, aten.round, aten.sign),
        ),
        1,
    ),
    **dict.fromkeys((aten.rsqrt, aten.clamp, aten.clamp_, aten.hardtanh, aten.hardtanh_), 2),
    **dict.fromkeys((aten.leaky_relu, aten.leaky_relu_, aten._prelu_kernel), 2),
    aten.addcmul: 2,
    **dict.fromkeys((aten.lerp, aten.elu, aten.elu_, aten.softplus), 3),
    **dict.fromkeys((aten.sigmoid, aten.sigmoid_), SIGMOID_FLOPS),
    **dict.fromkeys((aten.hardsigmoid, aten.hardsigmoid_), 4),
    **dict.fromkeys((aten.silu, aten.silu_, aten.hardswish, aten.hardswish_), 5),
    **dict.fromkeys((aten.gelu, aten.gelu_, aten.mish, aten.mish_), 5),
    aten.glu: 5,  # the sigmoid of one half times the other
    # Largest, subtract, exp, sum, divide.
    **dict.fromkeys((aten._softmax, aten._log_softmax, aten._safe_softmax), 5),
}

# Numbers are moved, renamed or made, not computed.
FREE: frozenset[Any] = frozenset(
    (
        *(aten.view, aten._unsafe_view, aten.reshape, aten.t, aten.transpose, aten.permute),
        *(aten.expand, aten.slice, aten.select, aten.squeeze, aten.unsqueeze, aten.flatten),
        *(aten.cat, aten.stack, aten.split, aten.split_with_sizes, aten.chunk, aten.unbind),
        *(
            aten.constant_pad_nd,
            aten.reflection_pad2d,
            aten.replication_pad2d,
            aten.clone,
            aten.copy_,
            aten._to_copy,
            aten.alias,
            aten.detach,
        ),
        *(aten.empty, aten.empty_like, aten.zeros, aten.zeros_like, aten.ones, aten.ones_like),
        *(aten.full, aten.full_like, aten.arange, aten.scalar_tensor, aten.lift_fresh, aten.eye),
        *(aten.index, aten.gather, aten.roll, aten.flip, aten.repeat, aten.as_strided),
        aten.as_strided_,
        *(aten.new_zeros, aten.new_empty, aten.native_dropout, aten.contiguous, aten.fill_),
        *(aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle, aten.unfold),
        *(aten.upsample_nearest2d, aten._upsample_nearest_exact2d, aten.resolve_conj),
        *(aten.squeeze_, aten.unsqueeze_, aten.as_strided_, aten.new_ones, aten.new_full),
        *(aten.where, aten.masked_fill, aten.index_select, aten.embedding, aten.diagonal),
    )
)


def _size(result: Any) -> int:
    """How many numbers an operator returned (its first tensor)."""
    first = result if isinstance(result, Tensor) else result[0]
    return int(first.numel())


def _convolution(args: Sequence[Any], result: Any) -> tuple[int, int]:
    x, weight, bias, transposed = args[0], args[1], args[2], args[6]
    per_number = math.prod(weight.shape[1:])
    macs = (x.numel() if transposed else _size(result)) * per_number
    return macs, _size(result) if bias is not None else 0


def _matrix_product(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return _size(result) * int(args[0].shape[-1]), 0


def _added_matrix_product(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return _size(result) * int(args[1].shape[-1]), _size(result)


def _attention(args: Sequence[Any], result: Any) -> tuple[int, int]:
    query, key, value = args[:3]
    pairs = math.prod(query.shape[:-1]) * int(key.shape[-2])
    scaling_and_softmax = 6 * pairs
    return pairs * (int(query.shape[-1]) + int(value.shape[-1])), scaling_and_softmax


def _mean(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return 0, int(args[0].numel())


def _sum(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return 0, int(args[0].numel()) - _size(result)


def _variance(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return 0, 4 * int(args[0].numel())


def _norm(args: Sequence[Any], result: Any) -> tuple[int, int]:
    # A square of each number, their sum, and its root.
    return 0, 2 * int(args[0].numel())


def _batch_norm(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return 0, BATCH_NORM_FLOPS * _size(result)


def _layer_norm(args: Sequence[Any], result: Any) -> tuple[int, int]:
    # Mean, subtract, square, mean, divide, and scale and shift where it has weights.
    affine = 2 if args[2] is not None else 0
    return 0, (5 + affine) * _size(result)


def _group_norm(args: Sequence[Any], result: Any) -> tuple[int, int]:
    affine = 2 if args[1] is not None else 0
    return 0, (5 + affine) * _size(result)


def _window(kernel: Any) -> int:
    sides = [kernel] * 2 if isinstance(kernel, int) else list(kernel)
    return math.prod(sides if len(sides) == 2 else sides * 2)


def _max_pool(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return 0, _size(result) * (_window(args[1]) - 1)


def _average_pool(args: Sequence[Any], result: Any) -> tuple[int, int]:
    return 0, _size(result) * _window(args[1])


def _adaptive_average_pool(args: Sequence[Any], result: Any) -> tuple[int, int]:
    numbers = math.prod(args[0].shape[:-2])
    for size, parts in zip(args[0].shape[-2:], result.shape[-2:], strict=True):
        numbers *= sum(-(-(i + 1) * size // parts) - i * size // parts for i in range(parts))
    return 0, int(numbers)


def _adaptive_max_pool(args: Sequence[Any], result: Any) -> tuple[int, int]:
    _, compared = _adaptive_average_pool(args, result[0])
    return 0, compared - _size(result)


def _bilinear(args: Sequence[Any], result: Any) -> tuple[int, int]:
    # Three weighted means of two numbers: two multiplications and an addition each.
    return 0, 9 * _size(result)


def _bicubic(args: Sequence[Any], result: Any) -> tuple[int, int]:
    # Five weighted means of four numbers: four multiplications and three additions each.
    return 0, 35 * _size(result)


Count = Callable[[Sequence[Any], Any], tuple[int, int]]  # (macs, other operations)

COUNTED: dict[Any, Count] = {
    aten.convolution: _convolution,
    **dict.fromkeys((aten.mm, aten.bmm, aten.mv, aten.dot), _matrix_product),
    **dict.fromkeys((aten.addmm, aten.baddbmm), _added_matrix_product),
    **dict.fromkeys(
        (
            aten._scaled_dot_product_flash_attention_for_cpu,
            aten._scaled_dot_product_fused_attention_overrideable,
            aten._scaled_dot_product_flash_attention,
            aten._scaled_dot_product_efficient_attention,
        ),
        _attention,
    ),
    aten.mean: _mean,
    **dict.fromkeys((aten.sum, aten.amax, aten.amin, aten.max, aten.min, aten.cumsum), _sum),
    **dict.fromkeys((aten.var, aten.std, aten.var_mean), _variance),
    aten.linalg_vector_norm: _norm,
    **dict.fromkeys(
        (
            aten.native_batch_norm,
            aten._native_batch_norm_legit_no_training,
            aten._native_batch_norm_legit,
            aten.cudnn_batch_norm,
        ),
        _batch_norm,
    ),
    aten.native_layer_norm: _layer_norm,
    aten.native_group_norm: _group_norm,
    aten.max_pool2d_with_indices: _max_pool,
    aten.avg_pool2d: _average_pool,
    aten._adaptive_avg_pool2d: _adaptive_average_pool,
    aten.adaptive_max_pool2d: _adaptive_max_pool,
    aten.upsample_bilinear2d: _bilinear,
    aten.upsample_bicubic2d: _bicubic,
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up operators as they run, except inside blocks that have a closed formula.

    Args:
        clock: Says to which part of the network they belong.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.clock = clock
        self.costs: defaultdict[str, Cost] = defaultdict(Cost)
        self.uncounted: Counter[str] = Counter()
        self.suspended = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.suspended:
            self._add(func.overloadpacket, args, result)
        return result

    def _add(self, packet: Any, args: tuple[Any, ...], result: Any) -> None:
        if packet in COUNTED:
            macs, others = COUNTED[packet](args, result)
            self.costs[self.clock.part] += Cost(macs=macs, flops=2 * macs + others)
        elif packet in ELEMENTWISE:
            if any(isinstance(a, Tensor) and a.is_floating_point() for a in args):
                self.costs[self.clock.part] += Cost(flops=ELEMENTWISE[packet] * _size(result))
        elif packet not in FREE:
            self.uncounted[str(packet)] += 1


def measure_cost(network: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Count what one image costs, in evaluation mode, without running a number.

    Args:
        network: Any network of images; it is copied, not changed.
        input_shape: (channels, height, width) of one image.

    Returns:
        The cost for a batch of one.

    Warns:
        UserWarning: Operators were met that are in no table; they are named.
    """
    return total(list(cost_by_part(network, input_shape).values()))


def cost_by_part(
    network: nn.Module, input_shape: tuple[int, int, int], ends: Sequence[End] = ()
) -> dict[str, Cost]:
    """Count what one image costs in each stage and each block; they add up to ``measure_cost``.

    Args:
        network: Any network of images; it is copied, not changed.
        input_shape: (channels, height, width) of one image.
        ends: Where its stages end (``blocks.parts``); left out, the backbone is one part, "head".

    Returns:
        A cost for a batch of one by the part's name, a block's being "block at SITE", in the order
        in which they run. What a block costs is not in the stage that it stands in.

    Warns:
        UserWarning: Operators were met that are in no table; they are named.
    """
    on_meta = copy.deepcopy(network).to("meta").eval()
    clock = Clock(ends)
    counter = _Counter(clock)
    for module in on_meta.modules():
        if hasattr(module, "attention_block"):
            _count_by_formula(module, counter)
    clock.watch(on_meta)
    with torch.no_grad(), counter:
        on_meta(torch.empty(1, *input_shape, device="meta"))
    if counter.uncounted:
        warnings.warn(
            f"operators that are in no cost table, counted as 0: {', '.join(counter.uncounted)}",
            stacklevel=3,
        )
    for part, parameter in clock.parameters(network, on_meta):
        size = parameter.numel()
        counter.costs[part] += Cost(size, size if parameter.requires_grad else 0)
    return {part: counter.costs[part] for part in clock.parts if part in counter.costs}


def _count_by_formula(module: nn.Module, counter: _Counter) -> None:
    """Let a block of the registry cost its closed formula where it has one."""
    name, options = module.attention_block  # type: ignore[misc]
    settings = dict(options)
    formula = registry.spec(str(name)).cost
    if formula is None or not registry.has_formula(str(name), settings):
        return

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counter.suspended += 1

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counter.suspended -= 1
        if counter.suspended:  # a block inside of one whose formula holds it
            return
        cost = formula(MapShape(*inputs[0].shape[1:]), settings)
        counter.costs[counter.clock.part] += Cost(macs=cost.macs, flops=cost.flops)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


def block_cost(name: str, shape: MapShape, options: Mapping[str, Any]) -> Cost:
    """What one block costs at a map: its closed formula, else counted.

    Raises:
        BlockError: The block is unknown or cannot take these options.
        SiteError: The block cannot stand at a map of this shape.
    """
    row = registry.spec(name)
    if row.cost is not None and registry.has_formula(name, options):
        return row.cost(shape, row.complete(options))
    in_use = {k: v for k, v in row.in_use(options, shape).items() if k != "code"}
    with torch.device("meta"):
        block = registry.create(name, shape.channels, **in_use)
    try:
        return measure_cost(block, (shape.channels, shape.height, shape.width))
    except RuntimeError as error:
        raise BlockError(f"{name} cannot run at a map of {shape}: {error}") from error
