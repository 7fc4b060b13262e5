"""Training one network: the loop.

Batches come normalised and augmented from the device (``search.batches``); sums of loss and
accuracy stay there until an epoch's end. Chance is passed in: everything derives from
(seed, epoch), so that it is the same for every candidate at that seed, and a training that goes on
from a checkpoint does what an uninterrupted one does. On a CPU with the same number of threads it
repeats bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from search.batches import Batches, steps_of
from search.distributed import ALONE, Alone, Batch
from search.evaluation import loss_and_accuracy
from search.optimisation import Schedule, make_optimiser, make_schedule
from search.outcome import EpochResult
from search.peak import PeakMemory
from search.tuning import freeze, keep_frozen
from spaces.training import AUTO, BFLOAT16, Training

CHECK_EVERY_STEPS = 64  # on a GPU, where looking at the loss waits for it


class Diverged(Exception):  # noqa: N818 - a way of ending, not an error
    """The loss is no longer a number."""

    def __init__(self, epoch: int, loss: float) -> None:
        super().__init__(
            f"training loss is {loss} in epoch {epoch}; a lower learning rate may help"
        )


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a network computes at a precision (``Training.precision``)."""
    if precision == AUTO:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    else:
        fast = precision == BFLOAT16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


@dataclass
class Progress:
    """All that a training has come to: what a checkpoint holds.

    Args:
        network: What is trained.
        average: The moving average of its weights, where there is one.
        optimiser: With its moments.
        schedule: Of its rates; depends on the number of steps alone.
        results: Of the epochs that are done.
    """

    network: nn.Module
    average: Any
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    results: list[EpochResult]

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """As tensors and plain data."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "results": [result.__dict__ for result in self.results],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.results[:] = [EpochResult(**result) for result in state["results"]]


def begin(network: nn.Module, training: Training, steps: int) -> Progress:
    """The beginning of a training of so many steps in all."""
    freeze(network, training.freeze)
    optimiser = make_optimiser(network, training)
    average = None
    if training.weight_average:
        from timm.utils import ModelEmaV3

        average = ModelEmaV3(network, decay=training.weight_average, use_warmup=True)
    return Progress(network, average, optimiser, make_schedule(optimiser, training, steps), [])


def train(
    network: nn.Module,
    batches: Batches,
    training: Training,
    *,
    seed: int,
    goes_on: Callable[[EpochResult], bool],
    resumed: dict[str, Any] | None = None,
    kept: Callable[[Progress], None] = lambda progress: None,
    parts: int = 1,
    division: Alone = ALONE,
) -> nn.Module:
    """Train a network, reporting every epoch.

    Args:
        network: Trained in place; on the data's device.
        batches: Where images come from.
        training: The settings.
        seed: Of the order of the images, their augmentation and what the network draws.
        goes_on: Told each epoch's result; False ends the training there.
        resumed: The state (``Progress.state``) of a training of the same to go on from; the epochs
            it has done are not told again.
        kept: Called after every epoch that is not the last, to keep a checkpoint.
        parts: A batch is computed in so many parts, whose gradients are summed: for memory.
        division: Of each batch, where several processes train the network together.

    Returns:
        The network to evaluate: this one, or the average of its weights.

    Raises:
        Diverged: The loss is infinite or not a number.
        DataError: The batch is larger than the training part.
    """
    steps = steps_of(batches.count, training.batch_size)
    progress = begin(network, training, steps * training.epochs)
    if resumed is not None:
        progress.load(resumed)
    computed = division.wrap(network)
    memory = PeakMemory(batches.device)
    for epoch in range(len(progress.results) + 1, training.epochs + 1):
        memory.restart()
        started = _clock(batches.device)
        # What networks draw themselves (dropout, stochastic depth) derives from (seed, epoch) too.
        torch.manual_seed(division.seed(seed, epoch))
        drawn = batches.train(training, seed=seed, epoch=epoch)
        step = Step(progress, computed, training, parts, division)
        loss, accuracy = _one_epoch(step, drawn, epoch, done=(epoch - 1) * steps)
        seconds = _clock(batches.device) - started
        with arithmetic(training.precision, batches.device):
            validation = division.agreed(
                lambda: loss_and_accuracy(progress.evaluated, batches.part("validation"))
            )
        if not math.isfinite(validation[0]):
            raise Diverged(epoch, validation[0])
        result = EpochResult(
            epoch,
            loss,
            accuracy,
            *validation,
            learning_rate=float(progress.optimiser.param_groups[0]["lr"]),
            seconds=time.perf_counter() - started,
            images_per_second=steps * training.batch_size / seconds,
            peak_memory_bytes=memory.bytes(),
        )
        progress.results.append(result)
        if not division.agreed(partial(goes_on, result)):
            break
        if epoch < training.epochs and division.first:
            kept(progress)
    return progress.evaluated


def _clock(device: torch.device) -> float:
    """The time, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Step:
    """One step of the optimiser.

    Args:
        progress: Of the training.
        computed: Its network, as it is called in training.
        training: The settings.
        parts: A batch is computed in so many parts.
        division: Of a batch between processes.
    """

    progress: Progress
    computed: nn.Module
    training: Training
    parts: int = 1
    division: Alone = ALONE

    def begin(self) -> None:
        """Put the network to training."""
        self.progress.network.train()
        keep_frozen(self.progress.network, self.training.freeze)

    def take(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Learn from a batch; its mean loss, and how many images were classified right."""
        optimiser = self.progress.optimiser
        optimiser.zero_grad(set_to_none=True)
        with self.division.norms():
            loss, right = _gradients(self.computed, batch, self.training, self.parts)
        if self.training.clip_gradient:
            trained = [p for group in optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.training.clip_gradient)
        optimiser.step()
        return loss, right


def _one_epoch(step: Step, drawn: Iterator[Batch], epoch: int, *, done: int) -> tuple[float, float]:
    """Mean loss and accuracy of the epoch; sums stay on the device until its end."""
    progress, division = step.progress, step.division
    step.begin()
    sums = None
    seen = steps = 0
    for batch in map(division.share, drawn):
        progress.schedule.step_update(done + steps)
        loss, right = step.take(batch)
        steps += 1
        if progress.average is not None:
            progress.average.update(progress.network, step=done + steps)
        sums = torch.stack((loss, right)) if sums is None else sums + torch.stack((loss, right))
        seen += len(batch[1])
        if loss.device.type == "cpu" or steps % CHECK_EVERY_STEPS == 0:
            _check(division.mean(loss), epoch)
    progress.schedule.step_update(done + steps)
    assert sums is not None  # an epoch has a step, or steps_of would have refused it
    sums = division.mean(sums)
    _check(sums[0], epoch)
    return float(sums[0]) / steps, float(sums[1]) / seen


def _check(loss: Tensor, epoch: int) -> None:
    value = float(loss)
    if not math.isfinite(value):
        raise Diverged(epoch, value)


def _gradients(
    network: nn.Module, batch: Batch, training: Training, parts: int
) -> tuple[Tensor, Tensor]:
    """Add a batch's gradients; its mean loss, and how many images were classified right."""
    whole, share = len(batch[1]), batch[3]
    losses, right = [], []
    for images, labels, others in zip(*(t.chunk(parts) for t in batch[:3]), strict=True):
        # Around one forward pass alone: autocast keeps the weights that it has cast until it ends.
        with arithmetic(training.precision, images.device):
            logits = network(images).float()
        loss = _cross_entropy(logits, labels, others, share, training.label_smoothing)
        if parts > 1:
            loss = loss * (len(labels) / whole)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        right.append((logits.detach().argmax(dim=1) == labels).sum().float())
    if parts == 1:
        return losses[0], right[0]
    return torch.stack(losses).sum(), torch.stack(right).sum()


def _cross_entropy(
    logits: Tensor, labels: Tensor, others: Tensor, share: float, smoothing: float
) -> Tensor:
    """Against a mixture of two labels: the mixture of two losses, cross-entropy being linear."""
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if share == 1:
        return loss
    other = functional.cross_entropy(logits, others, label_smoothing=smoothing)
    return share * loss + (1 - share) * other
