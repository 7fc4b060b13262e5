"""Training one network: SGD with Nesterov momentum, a cosine schedule, data resident on the device.

Chance is passed in: the order of the images in an epoch derives from (seed, epoch) alone, so it is
the same for every candidate at that seed. On a CPU with the same number of threads a training
repeats bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.build import stream_seed
from blocks.errors import DataError
from search.datasets import Data
from search.evaluation import loss_and_accuracy
from search.outcome import EpochResult
from search.peak import PeakMemory
from search.tuning import freeze, keep_frozen, parameter_groups
from spaces.candidate import Training

EVALUATION_BATCH = 512  # images


class Diverged(Exception):  # noqa: N818 - a way of ending, not an error
    """The loss is no longer a number."""

    def __init__(self, epoch: int, loss: float) -> None:
        super().__init__(
            f"training loss is {loss} in epoch {epoch}; a lower learning rate may help"
        )


@dataclass(frozen=True)
class DeviceData:
    """A data set on the device, normalised with the training part's mean and deviation.

    Args:
        images: Split -> (N, C, H, W), float32, channels last.
        labels: Split -> (N,).
        mean: Of each channel, of pixels from 0 to 255; what was taken off.
        deviation: Of each channel; what was divided by.
    """

    images: dict[str, Tensor]
    labels: dict[str, Tensor]
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def part(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A whole split in its stored order: (images, labels) of one batch after another."""
        parts = (torch.split(t[split], EVALUATION_BATCH) for t in (self.images, self.labels))
        return zip(*parts, strict=True)


def to_device(data: Data, device: torch.device) -> DeviceData:
    """Put a data set on a device and normalise each channel."""
    train = torch.from_numpy(data.images["train"]).to(torch.float64)
    mean = train.mean(dim=(0, 2, 3), keepdim=True).float()
    deviation = train.std(dim=(0, 2, 3), keepdim=True).float()

    def normalised(split: str) -> Tensor:
        images = (torch.from_numpy(data.images[split]).float() - mean) / deviation
        return images.to(device).contiguous(memory_format=torch.channels_last)

    labels = {split: torch.from_numpy(values).to(device) for split, values in data.labels.items()}
    images = {split: normalised(split) for split in data.images}
    return DeviceData(
        images, labels, tuple(mean.flatten().tolist()), tuple(deviation.flatten().tolist())
    )


def train(
    network: nn.Module,
    data: DeviceData,
    training: Training,
    *,
    seed: int,
    goes_on: Callable[[EpochResult], bool],
) -> None:
    """Train a network, reporting every epoch.

    Args:
        network: Trained in place; on the data's device.
        data: Normalised images.
        training: The settings.
        seed: Of the order of the images.
        goes_on: Told each epoch's result; False ends the training there.

    Raises:
        Diverged: The training loss is infinite or not a number.
        DataError: The batch is larger than the training part.
    """
    count = len(data.labels["train"])
    steps_per_epoch = count // training.batch_size
    if steps_per_epoch == 0:
        raise DataError(
            f"batch_size {training.batch_size} is more than the {count} training images; lower it"
        )
    freeze(network, training.freeze)
    optimiser = torch.optim.SGD(
        parameter_groups(network, training),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, T_max=steps_per_epoch * training.epochs
    )
    memory = PeakMemory(data.labels["train"].device)
    for epoch in range(1, training.epochs + 1):
        memory.restart()
        started = time.perf_counter()
        order = _order(count, seed=seed, epoch=epoch).to(data.labels["train"].device)
        batches = torch.split(order[: steps_per_epoch * training.batch_size], training.batch_size)
        train_loss, train_accuracy = _one_epoch(
            network, data, iter(batches), optimiser, schedule, training
        )
        if not math.isfinite(train_loss):
            raise Diverged(epoch, train_loss)
        train_seconds = time.perf_counter() - started
        loss, accuracy = loss_and_accuracy(network, data.part("validation"))
        result = EpochResult(
            epoch,
            train_loss,
            train_accuracy,
            loss if math.isfinite(loss) else math.inf,
            accuracy,
            float(schedule.get_last_lr()[0]),
            time.perf_counter() - started,
            steps_per_epoch * training.batch_size / train_seconds,
            memory.bytes(),
        )
        if not math.isfinite(loss):
            raise Diverged(epoch, loss)
        if not goes_on(result):
            return


def _order(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order of the training images in one epoch, from (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


def _one_epoch(
    network: nn.Module,
    data: DeviceData,
    batches: Iterator[Tensor],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    training: Training,
) -> tuple[float, float]:
    """Mean loss and accuracy of the epoch; sums stay on the device until its end."""
    network.train()
    keep_frozen(network, training.freeze)
    images, labels = data.images["train"], data.labels["train"]
    loss_sum = torch.zeros((), device=labels.device)
    right = torch.zeros((), device=labels.device, dtype=torch.int64)
    seen = steps = 0
    for batch in batches:
        target = labels[batch]
        inputs = images[batch].contiguous(memory_format=torch.channels_last)
        logits = network(inputs)
        loss = functional.cross_entropy(logits, target, label_smoothing=training.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        loss_sum += loss.detach()
        right += (logits.detach().argmax(dim=1) == target).sum()
        seen += len(batch)
        steps += 1
    return float(loss_sum) / steps, int(right) / seen
