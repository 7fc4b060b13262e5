"""Augmentation of whole batches on the device.

All chance of an epoch is drawn at its beginning, on the CPU, from (seed, epoch): it is the same for
every candidate and on every device, and no step waits for a draw. Crops and flips are one gather
from the 8-bit images; the rest works on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from blocks.build import stream_seed
from spaces.training import NOTHING, Training, operations

# Shape letters: N images of an epoch, B images of a batch, C channels, H height, W width.

RATIOS = (3 / 4, 4 / 3)
MAGNITUDES = 31


class Augmentation:
    """What is done to the images of one epoch.

    Args:
        training: The settings.
        order: Numbers of the images, in the order in which they are trained on (N,).
        size: Height and width of an image.
        seed: Of all chance, with the epoch.
        epoch: From 1.
        device: Where the images are.
    """

    def __init__(
        self,
        training: Training,
        order: Tensor,
        size: tuple[int, int],
        *,
        seed: int,
        epoch: int,
        device: torch.device,
    ) -> None:
        self.training = training
        self.size = size
        self.device = device
        self._order = order.to(device)
        count = len(order)

        def generator(what: str) -> torch.Generator:
            return torch.Generator().manual_seed(stream_seed(seed, what, epoch))

        self._flips = _flips(training.flip, order, seed=seed, epoch=epoch, generator=generator)
        if self._flips is not None:
            self._flips = self._flips.to(device)
        self._offsets = self._centres = self._boxes = None
        if training.crop:
            drawn = torch.randint(2 * training.crop + 1, (count, 2), generator=generator("crop"))
            self._offsets = (drawn - training.crop).to(device)
        if training.cutout:
            drawn = torch.rand(count, 2, generator=generator("cutout"))
            self._centres = (drawn * torch.tensor(size)).floor().to(device)
        if training.resized_crop:
            drawn = torch.rand(count, 4, generator=generator("resized crop"))
            self._boxes = _boxes(drawn, training.resized_crop, size).to(device)
        self._operations = None
        if training.rand_augment != NOTHING:
            times, self._magnitude = operations(training.rand_augment)
            kinds = 2 * len(OPERATIONS)  # on the CPU: which kinds there are decides what is called
            self._operations = torch.randint(kinds, (times, count), generator=generator("kinds"))
        self._mixing = _Mixing(training, count // training.batch_size, seed=seed, epoch=epoch)

    def gathered(self, images_NHWC: Tensor, part: slice, *, alone: bool = False) -> Tensor:
        """The 8-bit images of a batch, cropped and flipped, (B, H, W, C).

        Args:
            images_NHWC: All training images; or, where ``alone``, those of the batch.
            part: The batch's place in the epoch.
            alone: Whether the images are the batch's alone.
        """
        chosen = self._order[part]
        if alone:
            chosen = torch.arange(len(chosen), device=self.device)
        if self._offsets is None and self._flips is None:
            batch = images_NHWC[chosen]
        else:
            batch = self._moved(images_NHWC, chosen, part)
        if self._operations is not None:
            batch = self._operated(batch, part)
        return batch

    def _moved(self, images_NHWC: Tensor, chosen: Tensor, part: slice) -> Tensor:
        """One gather: where every pixel of the batch comes from; black from outside."""
        height, width = self.size
        rows = torch.arange(height, device=self.device).expand(len(chosen), height)
        columns = torch.arange(width, device=self.device).expand(len(chosen), width)
        if self._flips is not None:
            columns = torch.where(self._flips[part, None], width - 1 - columns, columns)
        if self._offsets is None:
            return images_NHWC[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        rows = rows + self._offsets[part, :1]
        columns = columns + self._offsets[part, 1:]
        inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        batch = images_NHWC[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return batch * inside[..., None]

    def _operated(self, batch_BHWC: Tensor, part: slice) -> Tensor:
        """RandAugment: every image's own operations, those of one kind together."""
        assert self._operations is not None  # asked for only where there are some
        images = batch_BHWC.permute(0, 3, 1, 2)
        for drawn in self._operations[:, part]:
            changed = images.clone()
            for kind in drawn.unique().tolist():
                number, backwards = divmod(int(kind), 2)
                members = (drawn == kind).nonzero()[:, 0].to(self.device)
                strength, sign = self._magnitude / (MAGNITUDES - 1), -1 if backwards else 1
                changed[members] = OPERATIONS[number](images[members], strength, sign)
            images = changed
        return images.permute(0, 2, 3, 1)

    def finished(self, images_BCHW: Tensor, part: slice) -> Tensor:
        """Normalised images of a batch, with what works on numbers: resized crop and cutout."""
        if self._boxes is not None:
            grid = functional.affine_grid(self._boxes[part], list(images_BCHW.shape), False)
            images_BCHW = functional.grid_sample(
                images_BCHW, grid, padding_mode="reflection", align_corners=False
            ).contiguous(memory_format=torch.channels_last)
        if self._centres is not None:
            images_BCHW = images_BCHW.masked_fill(self._holes(part), 0)
        return images_BCHW

    def _holes(self, part: slice) -> Tensor:
        """Where cutout's squares are, (B, 1, H, W); they may reach over the edge."""
        assert self._centres is not None  # asked for only where there are some
        height, width = self.size
        first = self._centres[part] - self.training.cutout // 2
        last = first + self.training.cutout
        rows = torch.arange(height, device=self.device)
        columns = torch.arange(width, device=self.device)
        in_rows = (rows >= first[:, :1]) & (rows < last[:, :1])
        in_columns = (columns >= first[:, 1:]) & (columns < last[:, 1:])
        return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]

    def mixed(self, images_BCHW: Tensor, step: int) -> tuple[Tensor, float]:
        """A batch mixed with itself in reverse, and the share that is left of each image."""
        return self._mixing.mixed(images_BCHW, step)


def _within(numbers: Tensor, end: int) -> Tensor:
    return (numbers >= 0) & (numbers < end)


def _flips(
    how: str,
    order: Tensor,
    *,
    seed: int,
    epoch: int,
    generator: Callable[[str], torch.Generator],
) -> Tensor | None:
    """Which images are mirrored, in the order of the epoch (N,)."""
    if how == NOTHING:
        return None
    if how == "random":
        return torch.rand(len(order), generator=generator("flip")) < 0.5
    # Alternating: every image begins on a side of its own, and changes it each epoch.
    first = torch.Generator().manual_seed(stream_seed(seed, "first side"))
    sides = torch.randint(2, (int(order.max()) + 1,), generator=first)
    return (sides[order] + epoch) % 2 == 1


def _boxes(drawn_N4: Tensor, smallest: float, size: tuple[int, int]) -> Tensor:
    """Affine maps (N, 2, 3) from the whole image to a box of random area, shape and place."""
    area = smallest + (1 - smallest) * drawn_N4[:, 0]
    low, high = (math.log(ratio) for ratio in RATIOS)
    ratio = torch.exp(low + (high - low) * drawn_N4[:, 1])
    width = (area * ratio).sqrt().clamp(max=1.0)
    height = (area / ratio).sqrt().clamp(max=1.0)
    boxes = torch.zeros(len(drawn_N4), 2, 3)
    boxes[:, 0, 0], boxes[:, 1, 1] = width, height
    boxes[:, 0, 2] = (1 - width) * (2 * drawn_N4[:, 2] - 1)
    boxes[:, 1, 2] = (1 - height) * (2 * drawn_N4[:, 3] - 1)
    return boxes


class _Mixing:
    """Mixup and CutMix of an epoch: one draw a batch.

    Args:
        training: The settings.
        steps: Batches of the epoch.
        seed: Of the draws, with the epoch.
        epoch: From 1.
    """

    def __init__(self, training: Training, steps: int, *, seed: int, epoch: int) -> None:
        self.is_on = bool(training.mixup or training.cutmix)
        if not self.is_on:
            return
        chance = np.random.default_rng(stream_seed(seed, "mixing", epoch))
        coins = chance.random(steps) < 0.5
        both = bool(training.mixup and training.cutmix)
        self._cuts = coins if both else np.full(steps, bool(training.cutmix))
        alphas = np.where(self._cuts, training.cutmix, training.mixup)
        self._shares = chance.beta(alphas, alphas)
        self._places = chance.random((steps, 2))

    def mixed(self, images_BCHW: Tensor, step: int) -> tuple[Tensor, float]:
        """The batch mixed with itself in reverse, and the share left of each image."""
        if not self.is_on:
            return images_BCHW, 1.0
        share = float(self._shares[step])
        if not self._cuts[step]:
            return torch.lerp(images_BCHW.flip(0), images_BCHW, share), share
        height, width = images_BCHW.shape[2:]
        rows = _span(height, share, self._places[step, 0])
        columns = _span(width, share, self._places[step, 1])
        pasted = images_BCHW.clone()
        pasted[:, :, rows, columns] = images_BCHW.flip(0)[:, :, rows, columns]
        cut = (rows.stop - rows.start) * (columns.stop - columns.start)
        return pasted, 1 - cut / (height * width)


def _span(length: int, share: float, place: float) -> slice:
    """Where a patch of the area 1 - share lies along one side; cut off at the edges."""
    half = int(length * math.sqrt(1 - share)) // 2
    centre = int(length * place)
    return slice(max(0, centre - half), min(length, centre + half))


# RandAugment's fourteen operations (its paper, figure 2), at the strengths of torchvision. -------

Operation = Callable[[Tensor, float, int], Tensor]


def _enhanced(name: str) -> Operation:
    def apply(images: Tensor, strength: float, sign: int) -> Tensor:
        from torchvision.transforms.v2 import functional as images_of

        done: Tensor = getattr(images_of, f"adjust_{name}")(images, 1 + sign * 0.9 * strength)
        return done

    return apply


def _plain(name: str) -> Operation:
    def apply(images: Tensor, strength: float, sign: int) -> Tensor:
        from torchvision.transforms.v2 import functional as images_of

        done: Tensor = getattr(images_of, name)(images)
        return done

    return apply


def _affine(name: str) -> Operation:
    """Rotation (to 30 degrees), shear (to 0.3), translation (to 150 of 331 pixels)."""

    def apply(images: Tensor, strength: float, sign: int) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as images_of

        height, width = images.shape[-2:]
        amount = sign * strength
        shift = [0, 0]
        shear = [0.0, 0.0]
        angle = 30.0 * amount if name == "rotate" else 0.0
        if name == "shear_x":
            shear = [math.degrees(math.atan(0.3 * amount)), 0.0]
        elif name == "shear_y":
            shear = [0.0, math.degrees(math.atan(0.3 * amount))]
        elif name == "translate_x":
            shift = [int(150 / 331 * width * amount), 0]
        elif name == "translate_y":
            shift = [0, int(150 / 331 * height * amount)]
        done: Tensor = images_of.affine(
            images,
            angle=angle,
            translate=shift,
            scale=1.0,
            shear=shear,
            interpolation=InterpolationMode.NEAREST,
        )
        return done

    return apply


def _posterize(images: Tensor, strength: float, sign: int) -> Tensor:
    from torchvision.transforms.v2 import functional as images_of

    done: Tensor = images_of.posterize(images, bits=8 - round(4 * strength))
    return done


def _solarize(images: Tensor, strength: float, sign: int) -> Tensor:
    from torchvision.transforms.v2 import functional as images_of

    done: Tensor = images_of.solarize(images, threshold=round(255 * (1 - strength)))
    return done


def _identity(images: Tensor, strength: float, sign: int) -> Tensor:
    return images


OPERATIONS: tuple[Operation, ...] = (
    _identity,
    _plain("autocontrast"),
    _plain("equalize"),
    _posterize,
    _solarize,
    *(_enhanced(name) for name in ("saturation", "contrast", "brightness", "sharpness")),
    *(_affine(name) for name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")),
)
