"""Batches of a tree of images that is too large for memory: read and augmented while training.

Processes read ahead; timm's loader puts their images together and moves a batch to the device while
the one before is trained on (on a GPU by a stream of its own). All but the resized crop is done on
the device, as for data that fit there. Chance derives from (seed, epoch, image) alone: every block
sees the same order and the same draws at a seed, whatever the number of processes. For that reason
timm's ``PrefetchLoader`` is used and not its ``create_loader``, which draws order and augmentation
from the processes' own generators.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from blocks.build import stream_seed
from search.augmentation import RATIOS, Augmentation
from search.batches import finished, normalised, order_of, steps_of
from search.data import Data, Size
from search.devices import evaluation_batch
from search.formats.folders import decode, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from spaces.training import Training

READ_AHEAD = 2  # batches for each process

Augment = Callable[["Image"], Tensor]  # to uint8 (C, H, W)


def reader(size: Size, training: Training) -> Augment | None:
    """What turns an image file into 8-bit (3, H, W), where that is random: a resized crop.

    Crops, flips and the rest are done on the device, as for data that fit there.
    """
    if not training.resized_crop:
        return None
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(size, scale=(training.resized_crop, 1.0), ratio=RATIOS)
    made: Augment = v2.Compose([crop, v2.PILToTensor()])
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
    """

    def __init__(self, data: Data, device: torch.device, *, processes: int = 0) -> None:
        self.data = data
        self.device = device
        self.processes = processes
        self.classes = data.facts.classes
        self.count = data.facts.sizes[0]
        self.size: Size = data.facts.input_shape[1:]
        self.mean = tuple(255 * value for value in data.mean)
        self.deviation = tuple(255 * value for value in data.deviation)
        self._mean = torch.tensor(self.mean, device=device)
        self._scale = 1 / torch.tensor(self.deviation, device=device)

    def train(
        self, training: Training, *, seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """The batches of one epoch; see ``search.batches.Batches``."""
        steps = steps_of(self.count, training.batch_size)
        order = order_of(self.count, seed=seed, epoch=epoch)[: steps * training.batch_size]
        augmentation = Augmentation(
            replace(training, resized_crop=0),
            order,
            self.size,
            seed=seed,
            epoch=epoch,
            device=self.device,
        )
        paths, labels = self.data.files["train"], self.data.labels["train"].tolist()
        augment = reader(self.size, training)
        images: Dataset[tuple[Tensor, int]] = _Plain(paths, labels, self.size)
        if augment is not None:
            images = _Augmented(paths, labels, augment, seed, epoch)
        read = self._read(images, training.batch_size, sampler=order.tolist())
        for step, (pictures, target) in enumerate(read):
            part = slice(step * training.batch_size, (step + 1) * training.batch_size)
            moved = augmentation.gathered(pictures, part, alone=True)
            yield finished(
                augmentation, normalised(moved, self._mean, self._scale), target, part, step
            )

    def part(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of a whole split in its stored order, without augmentation."""
        labels = self.data.labels[split].tolist()
        images = _Plain(self.data.files[split], labels, self.size)
        for pictures, target in self._read(images, evaluation_batch(*self.size)):
            yield normalised(pictures, self._mean, self._scale), target

    def _read(
        self, images: Dataset[tuple[Tensor, int]], batch_size: int, **more: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """8-bit images (B, H, W, C) and labels (B,), on the device."""
        from timm.data.loader import PrefetchLoader, fast_collate

        if self.processes:
            # A fork of this process would copy the locks of its threads: a server without threads
            # is forked instead, which has imported all that is needed.
            server = multiprocessing.get_context("forkserver")
            server.set_forkserver_preload(["search.streaming", "torchvision.transforms.v2"])
            more |= {"multiprocessing_context": server, "prefetch_factor": READ_AHEAD}
        loader = DataLoader(
            images,
            batch_size,
            collate_fn=fast_collate,
            num_workers=self.processes,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader's own draws leave the global stream alone
            **more,
        )
        channels = self.data.facts.input_shape[0]
        levels = {"mean": (0.0,) * channels, "std": (1 / 255,) * channels}  # 0 to 255, as they are
        for pictures, labels in PrefetchLoader(
            loader, channels=channels, device=self.device, **levels
        ):
            yield pictures.to(torch.uint8).permute(0, 2, 3, 1), labels
