"""Batches of images on the device, normalised, in an order and with an augmentation of their own.

Whatever a batch is made of derives from (seed, epoch) and the training settings alone, so that it
is the same for every candidate at that seed. Data that fit are kept on the device as 8-bit images;
nothing is loaded, copied or decoded while a network trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from blocks.build import stream_seed
from blocks.errors import DataError
from search.augmentation import Augmentation
from search.data import Data
from search.devices import evaluation_batch
from spaces.training import Training

# Shape letters: N images of a split, B images of a batch, C channels, H height, W width.


class Batches(Protocol):
    """Where a training takes its images from.

    Args:
        count: Training images.
        classes: How many there are.
        device: Where batches are.
        mean: Of each channel of the training images, of pixels from 0 to 255.
        deviation: The same.
    """

    count: int
    classes: int
    device: torch.device
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def train(
        self, training: Training, *, seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """The batches of one epoch, augmented.

        Yields:
            Normalised float32 images (B, C, H, W), channels last; class numbers (B,); class
            numbers (B,) of the images mixed into them; the share of the first, 1 where none are.
        """

    def part(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A whole split in its stored order, as (images, labels), not augmented."""


def steps_of(count: int, batch_size: int) -> int:
    """Optimiser steps in an epoch; an incomplete last batch is left out.

    Raises:
        DataError: The batch is larger than the training part.
    """
    if batch_size > count:
        raise DataError(
            f"batch_size {batch_size} is more than the {count} training images; lower it"
        )
    return count // batch_size


def order_of(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order of the training images in one epoch, from (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


def normalised(images_BHWC: Tensor, mean_C: Tensor, scale_C: Tensor) -> Tensor:
    """Float images (B, C, H, W), channels last, of zero mean and unit deviation."""
    images = (images_BHWC - mean_C).mul_(scale_C).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)  # as most are already


def finished(
    augmentation: Augmentation, images_BCHW: Tensor, labels_B: Tensor, part: slice, step: int
) -> tuple[Tensor, Tensor, Tensor, float]:
    """A normalised batch with what is still to be done to it, as ``Batches.train`` gives it."""
    inputs, share = augmentation.mixed(augmentation.finished(images_BCHW, part), step)
    return inputs, labels_B, labels_B.flip(0) if share < 1 else labels_B, share


class ResidentBatches:
    """Batches of a data set that lies on the device, as 8-bit images.

    Args:
        images: Split -> 8-bit images (N, C, H, W).
        labels: Split -> class numbers (N,).
        classes: How many classes there are.
        mean: Per channel, of the training part, in units of the 8-bit images (C,).
        deviation: The same.
        device: Where.
    """

    def __init__(
        self,
        images: dict[str, Tensor],
        labels: dict[str, Tensor],
        *,
        classes: int,
        mean: Tensor,
        deviation: Tensor,
        device: torch.device,
    ) -> None:
        # Pixels first, channels last: a gather of whole images is then in the network's layout.
        self.images = {
            split: part.permute(0, 2, 3, 1).contiguous().to(device)
            for split, part in images.items()
        }
        self.labels = {split: part.to(device) for split, part in labels.items()}
        self.classes = classes
        self.device = device
        self.count = len(labels["train"])
        self.mean = tuple(mean.tolist())
        self.deviation = tuple(deviation.tolist())
        self._mean = mean.float().to(device)
        self._scale = (1 / deviation).float().to(device)

    def train(
        self, training: Training, *, seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """The batches of one epoch, augmented; see ``Batches``."""
        steps = steps_of(self.count, training.batch_size)
        order = order_of(self.count, seed=seed, epoch=epoch)[: steps * training.batch_size]
        images = self.images["train"]
        height, width = images.shape[1:3]
        augmentation = Augmentation(
            training, order, (height, width), seed=seed, epoch=epoch, device=self.device
        )
        labels = self.labels["train"][order.to(self.device)]
        for step in range(steps):
            part = slice(step * training.batch_size, (step + 1) * training.batch_size)
            normal = normalised(augmentation.gathered(images, part), self._mean, self._scale)
            yield finished(augmentation, normal, labels[part], part, step)

    def part(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A whole split in its stored order; see ``Batches``."""
        images, labels = self.images[split], self.labels[split]
        size = evaluation_batch(images.shape[1], images.shape[2])
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            yield normalised(images[part], self._mean, self._scale), labels[part]


def resident(data: Data, device: torch.device) -> ResidentBatches:
    """Put a data set on a device."""
    return ResidentBatches(
        {split: torch.from_numpy(images) for split, images in data.images.items()},
        {split: torch.from_numpy(labels) for split, labels in data.labels.items()},
        classes=data.facts.classes,
        mean=255 * torch.tensor(data.mean, dtype=torch.float64),
        deviation=255 * torch.tensor(data.deviation, dtype=torch.float64),
        device=device,
    )
