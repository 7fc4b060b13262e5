"""timm's training recipe, built from its own pieces as its train script puts them together.

timm's wheel has no train.py. Here are its `ImageDataset` on a folder of PNGs, `create_loader` with
its prefetcher, `create_optimizer_v2`, `create_scheduler_v2` and `AverageMeter`, and the body of the
script's `train_one_epoch`: prefetched batches, loss on the host for the meter, a step, an update of
the schedule. Random resized crops and flips are what both sides are given.
"""

import time

import torch
from PIL import Image
from timm.data import ImageDataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter
from torch import nn

SMALLEST = 0.35


def write_pngs(data, folder, count):
    """The first training images as PNG files, a folder a class."""
    for number in range(count):
        place = folder / str(int(data.labels["train"][number]))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images["train"][number, 0]).save(place / f"{number:05}.png")


def make_loader(folder, data, *, batch_size, processes, device):
    """As the script makes it, for these images."""
    return create_loader(
        ImageDataset(str(folder), input_img_mode="L"),
        input_size=data.facts.input_shape,
        batch_size=batch_size,
        is_training=True,
        scale=(SMALLEST, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=0.0,
        interpolation="bilinear",
        mean=data.mean,
        std=data.deviation,
        num_workers=processes,
        pin_memory=device.type == "cuda",
        device=device,
        persistent_workers=processes > 0,
    )


class Recipe:
    """A training that goes on epoch after epoch."""

    def __init__(self, network, loader, device, *, epochs):
        self.network = network.to(device)
        self.loader = loader
        self.device = device
        self.optimiser = create_optimizer_v2(
            self.network, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        self.scheduler, _ = create_scheduler_v2(
            self.optimiser,
            sched="cosine",
            num_epochs=epochs,
            step_on_epochs=False,
            updates_per_epoch=len(loader),
        )
        self.criterion = nn.CrossEntropyLoss()
        self.updates = 0

    def epoch(self):
        """Train one epoch; images per second."""
        self.network.train()
        losses = AverageMeter()
        started = time.perf_counter()
        seen = 0
        for images, labels in self.loader:
            loss = self.criterion(self.network(images), labels)
            loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad()
            losses.update(loss.item(), len(labels))
            self.updates += 1
            self.scheduler.step_update(num_updates=self.updates, metric=losses.avg)
            seen += len(labels)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return seen / (time.perf_counter() - started)
