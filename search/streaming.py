"""Batches of a tree of images that is too large for memory: read and augmented while training.

timm's transforms augment, torch's loader reads ahead in processes of its own. Chance derives from
(seed, epoch, image) alone: every block sees the same order and the same draws at a seed, whatever
the number of processes.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from blocks.build import stream_seed
from blocks.errors import DataError
from search.data import Data, Size
from search.formats.folders import decode, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from spaces.candidate import Training

EVALUATION_BATCH = 256
READ_AHEAD = 2  # batches for each process

Augment = Callable[["Image"], Tensor]  # to uint8 (C, H, W)


def usual_augmentation(size: Size) -> Augment:
    """Timm's random resized crop (bilinear) and horizontal flip, to 8-bit (3, H, W)."""
    from timm.data import create_transform

    made: Augment = create_transform(
        (3, *size),
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        hflip=0.5,
        use_prefetcher=True,  # 8-bit arrays, which are normalised on the device
    )
    return made


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Inside, every global generator that transforms draw from starts from this seed."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@dataclass(frozen=True)
class _Augmented(Dataset[tuple[Tensor, int]]):
    """Training images, each with draws of its own in this epoch."""

    paths: Sequence[str]
    labels: Sequence[int]
    augment: Augment
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = open_image(self.paths[index])
        with _drawn_from(stream_seed(self.seed, "augmentation", self.epoch, index)):
            made = torch.as_tensor(self.augment(image))
        return made, self.labels[index]


@dataclass(frozen=True)
class _Plain(Dataset[tuple[Tensor, int]]):
    """Images as evaluation sees them: the shorter side resized, the middle kept."""

    paths: Sequence[str]
    labels: Sequence[int]
    size: Size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(decode(self.paths[index], self.size)), self.labels[index]


class StreamedBatches:
    """A data set whose images are read while they are needed.

    Args:
        data: Whose images are files.
        device: Where batches go.
        processes: That read ahead; 0: this one reads.
        augmentation: Makes, of (height, width) and the training settings, what turns an image into
            8-bit (3, H, W), by the global generators' draws; None: random resized crop and flip.
    """

    def __init__(
        self,
        data: Data,
        device: torch.device,
        *,
        processes: int = 0,
        augmentation: Callable[[Size, Training], Augment] | None = None,
    ) -> None:
        self.data = data
        self.device = device
        self.processes = processes
        self.augmentation = augmentation
        self.classes = data.facts.classes
        self.size: Size = data.facts.input_shape[1:]
        self._mean = 255 * torch.tensor(data.mean, device=device)[:, None, None]
        self._deviation = 255 * torch.tensor(data.deviation, device=device)[:, None, None]

    def steps(self, batch_size: int) -> int:
        """Optimiser steps of one epoch; the last incomplete batch is left out.

        Raises:
            DataError: There is not one whole batch.
        """
        count = self.data.facts.sizes[0]
        if batch_size > count:
            raise DataError(
                f"batch_size {batch_size} is more than the {count} training images; lower it"
            )
        return count // batch_size

    def train(
        self, training: Training, *, seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch: float32 (B, C, H, W), normalised, channels last; labels (B,).

        Args:
            training: The settings.
            seed: Of the order and of the augmentation.
            epoch: From 1.
        """
        make = self.augmentation
        augment = make(self.size, training) if make else usual_augmentation(self.size)
        paths, labels = self.data.files["train"], self.data.labels["train"].tolist()
        order = torch.randperm(
            len(paths), generator=torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
        )
        used = order[: self.steps(training.batch_size) * training.batch_size].tolist()
        images = _Augmented(paths, labels, augment, seed, epoch)
        return self._batches(images, training.batch_size, sampler=used)

    def part(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of a whole split in its stored order, without augmentation."""
        labels = self.data.labels[split].tolist()
        images = _Plain(self.data.files[split], labels, self.size)
        return self._batches(images, EVALUATION_BATCH)

    def labels(self, split: str) -> Tensor:
        """Labels (N,) of a split, in its stored order."""
        return torch.from_numpy(self.data.labels[split]).to(self.device)

    def _batches(
        self, images: Dataset[tuple[Tensor, int]], batch_size: int, **more: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if self.processes:
            # A fork of this process would copy the locks of its threads: a server without threads
            # is forked instead, which has imported all that is needed.
            server = multiprocessing.get_context("forkserver")
            server.set_forkserver_preload(["search.streaming", "timm.data"])
            more |= {"multiprocessing_context": server, "prefetch_factor": READ_AHEAD}
        loader = DataLoader(
            images,
            batch_size,
            num_workers=self.processes,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader's own draws leave the global stream alone
            **more,
        )
        for pictures, labels in loader:
            on_device = pictures.to(self.device, non_blocking=True).float()
            normal = (on_device - self._mean) / self._deviation
            yield (
                normal.contiguous(memory_format=torch.channels_last),
                labels.to(self.device, non_blocking=True),
            )
