"""One training by several processes: shares of a batch, averaged gradients, one word on all else.

Every process draws the whole batch, as one process would, and takes its own rows of it: order,
augmentation and mixed-in images are then those of one process. torch's DistributedDataParallel
averages the gradients. Batch norms take mean and variance over the whole batch. The first process
evaluates, decides and writes; the others are told.
"""

# Shape letters: B images of a batch, C channels.

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from blocks.build import stream_seed

T = TypeVar("T")
Batch = tuple[Tensor, Tensor, Tensor, float]

HOST = "127.0.0.1"
TIMEOUT = timedelta(hours=2)  # the first process evaluates meanwhile; a dead one is noticed sooner


class Alone:
    """A training by one process: nothing is shared."""

    processes = 1
    first = True

    def share(self, batch: Batch) -> Batch:
        """The part of a batch that is this process's."""
        return batch

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are those of all processes."""
        return network

    def norms(self) -> AbstractContextManager[Any]:
        """Inside, batch norms in training see the whole batch."""
        return nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        return value

    def agreed(self, said: Callable[[], T]) -> T:
        """What the first process says, for all."""
        return said()

    def seed(self, seed: int, epoch: int) -> int:
        """Of what a network draws itself."""
        return stream_seed(seed, "training", epoch)


ALONE = Alone()


class Together(Alone):
    """A training by all processes of torch's default group.

    Args:
        rank: Of this process, from 0.
        processes: How many there are.
    """

    def __init__(self, rank: int, processes: int) -> None:
        self.rank = rank
        self.processes = processes
        self.first = rank == 0

    def share(self, batch: Batch) -> Batch:
        """The rows of a batch that are this process's; all processes have as many.

        Raises:
            ValueError: The batch cannot be shared evenly.
        """
        images, labels, others, share = batch
        rows, left = divmod(len(labels), self.processes)
        if left:
            raise ValueError(
                f"a batch of {len(labels)} images cannot be shared by {self.processes} processes;"
                f" give a batch_size that is a multiple of {self.processes}"
            )
        own = slice(self.rank * rows, (self.rank + 1) * rows)
        return images[own], labels[own], others[own], share

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with averaged gradients; weights and buffers are the first process's."""
        # Norms are synchronised, so that buffers are equal without a broadcast at each step.
        return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)

    def norms(self) -> AbstractContextManager[Any]:
        """Inside, batch norms in training see the whole batch."""
        return _WholeBatchNorms()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        summed = value.clone()
        dist.all_reduce(summed)
        return summed / self.processes

    def agreed(self, said: Callable[[], T]) -> T:
        """What the first process says, for all."""
        words: list[Any] = [said() if self.first else None]
        dist.broadcast_object_list(words, src=0)
        answer: T = words[0]
        return answer

    def seed(self, seed: int, epoch: int) -> int:
        """Of what a network draws itself: the first process's is that of one process."""
        own = () if self.first else (self.rank,)
        return stream_seed(seed, "training", epoch, *own)


def open_store(port: int = 0) -> Any:
    """Where processes of this machine find each other.

    Args:
        port: Of the first process's store; 0: this is the first process, which makes it.
    """
    store_of_torch: Any = dist.TCPStore  # type: ignore[attr-defined]
    return store_of_torch(HOST, port, is_master=not port, wait_for_workers=False, timeout=TIMEOUT)


def join(store: Any, rank: int, processes: int, device: str) -> Together:
    """Become one of the processes that train together; returns when all are there.

    Args:
        store: As ``open_store`` gives it.
        rank: Of this process, from 0.
        processes: How many there will be.
        device: "cpu" (they speak by gloo) or "cuda" (by NCCL).
    """
    dist.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        store=store,
        rank=rank,
        world_size=processes,
        timeout=TIMEOUT,
    )
    return Together(rank, processes)


# Batch norms over the whole batch. ----------------------------------------------------------------


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient of every process reaches every summand."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        summed = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed


def _summed(value: Tensor) -> Tensor:
    result: Tensor = _Sum.apply(value)
    return result


class _WholeBatchNorms(TorchFunctionMode):
    """Inside, ``functional.batch_norm`` in training is that of the whole batch.

    It reaches every norm that calls the function, whatever its class: torch's, timm's with an
    activation, and those of users' blocks.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.batch_norm:
            return whole_batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def whole_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm`` with the statistics of all processes in training.

    Args:
        input: This process's share (B, C, ...); all shares are equally large.
        running_mean: Brought up to date in training (C,).
        running_var: The same, of the unbiased variance.
        weight: What the normed map is multiplied by (C,).
        bias: What is then added (C,).
        training: Whether the batch's statistics are taken, else the running ones.
        momentum: Share of the batch in the running statistics.
        eps: Added to the variance.
    """
    if not training:
        return functional.batch_norm(
            input, running_mean, running_var, weight, bias, False, momentum, eps
        )
    spread = [1, -1, *([1] * (input.ndim - 2))]
    others = [dimension for dimension in range(input.ndim) if dimension != 1]
    x = input.float() if input.dtype != torch.float64 else input  # half precision sums badly
    count = x.numel() // x.shape[1] * dist.get_world_size()
    mean_C = _summed(x.sum(others)) / count
    centred = x - mean_C.view(spread)
    variance_C = _summed(centred.square().sum(others)) / count
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased_C = variance_C * (count / max(1, count - 1))
            running_var.lerp_(unbiased_C.to(running_var.dtype), momentum)
    scale_C = (variance_C + eps).rsqrt()
    if weight is not None:
        scale_C = scale_C * weight
    normed = centred * scale_C.view(spread)
    if bias is not None:
        normed = normed + bias.view(spread)
    return normed.to(input.dtype)
