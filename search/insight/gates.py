"""What a block does to channels and pixels: its effective gain, and how much of it is the class.

Hu, Shen and Sun, "Squeeze-and-Excitation Networks", arXiv:1709.01507, section 6.4 and figure 6,
look at SE's gates: alike for all classes in early layers, different between them in late ones. Not
every block has a gate to look at, so here it is measured from outside, on any block that maps x to
y of the same shape. The gain of an image's channel is the number g for which g x is nearest to y,

    g_bc = sum_hw y x / sum_hw x^2     (least squares over the pixels),

and the gain of a pixel the same over the channels. Of a block that scales channels (se, eca, fca,
...) the first is its gate exactly; an outer residual adds 1, and an identity start mixes it with 1.
``by_channels`` and ``by_pixels`` say how much of y such gains explain: the share of y's energy that
g x has, 1 for a pure channel gate and a pure pixel gate.

Class specificity is eta squared of a one-way analysis of variance (Fisher): of the variance of a
channel's gain between images, the share that lies between classes. K classes and N images give
about (K - 1) / (N - 1) by chance alone.
"""

# Shape letters: B batch, C channels, H height, K classes, W width.
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Of the mean energy of an image's channels or pixels: below, one has no gain. Where a block adds to
# the map (self-attention), what it adds to next to nothing is no multiple that says anything.
FAINT = 1e-3
CONSTANT = 1e-5  # a deviation of this share of the mean is rounding


def _gain(x: Tensor, y: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The gain along dimensions, NaN where the input is nothing; and the output's energy in g x."""
    energy, product = (x * x).sum(dims), (x * y).sum(dims)
    rest = tuple(range(1, energy.dim()))
    seen = energy > FAINT * energy.mean(rest, keepdim=True)
    gain = product / energy.where(seen, 1)
    return gain.where(seen, torch.nan), (gain * product).where(seen, 0).flatten(1).sum(1)


def channel_gain(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """The gain of each channel, (B, C); NaN where the channel is zero."""
    return _gain(x_BCHW, y_BCHW, (2, 3))[0]


def spatial_gain(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """The gain of each pixel, (B, H, W); NaN where all channels are zero."""
    return _gain(x_BCHW, y_BCHW, (1,))[0]


@dataclass(frozen=True)
class GainStatistics:
    """What a block did over many images.

    Args:
        images: How many.
        mean_C: Of each channel's gain over images; NaN where it was zero on all.
        deviation_C: Its standard deviation over images.
        specificity_C: eta squared; NaN where the gain is constant.
        specificity: The same of all channels: their variances between classes over their variances;
            NaN where no channel's gain varies.
        by_chance: About what images of classes without any difference would give.
        class_mean_KC: Mean gain per class.
        map_HW: Mean gain of each pixel.
        class_map_KHW: The same per class.
        by_channels: Share of the output's energy that gains of channels explain.
        by_pixels: Share that gains of pixels explain.
    """

    images: int
    mean_C: Tensor
    deviation_C: Tensor
    specificity_C: Tensor
    specificity: float
    by_chance: float
    class_mean_KC: Tensor
    map_HW: Tensor
    class_map_KHW: Tensor
    by_channels: float
    by_pixels: float


class GainTally:
    """Gains summed up batch by batch; an observer of ``run_observed``.

    Args:
        classes: How many there are.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.images = 0
        self.energy = torch.zeros(3, dtype=torch.float64)  # of the output, in channels, in pixels

    def __call__(self, x_BCHW: Tensor, y_BCHW: Tensor, labels_B: Tensor) -> None:
        """Take in one batch."""
        x_BCHW, y_BCHW = x_BCHW.float(), y_BCHW.float()
        gain_BC, in_channels_B = _gain(x_BCHW, y_BCHW, (2, 3))
        gain_BHW, in_pixels_B = _gain(x_BCHW, y_BCHW, (1,))
        if not self.images:
            self._begin(gain_BC, gain_BHW)
        self.images += len(x_BCHW)
        energies = ((y_BCHW * y_BCHW).sum(), in_channels_B.sum(), in_pixels_B.sum())
        self.energy += torch.stack(energies).double().cpu()
        shifted = gain_BC.double() - self.shift_C
        self.channels.add(shifted, labels_B)
        self.pixels.add(gain_BHW.double(), labels_B)

    def _begin(self, gain_BC: Tensor, gain_BHW: Tensor) -> None:
        # Sums of squares lose nothing where the numbers are near zero.
        self.shift_C = gain_BC.double().nanmean(dim=0).nan_to_num(1.0)
        self.channels = _Sums(self.classes, gain_BC)
        self.pixels = _Sums(self.classes, gain_BHW)

    def statistics(self) -> GainStatistics:
        """What the images so far say.

        Raises:
            ValueError: There were none.
        """
        if not self.images:
            raise ValueError("no image has been seen")
        sums = self.channels
        count_C = sums.count.sum(0)
        mean_C = sums.sum.sum(0) / count_C
        total_C = (sums.square.sum(0) - count_C * mean_C**2).clamp(min=0)
        between_C = (sums.mean() ** 2 * sums.count).nansum(0) - count_C * mean_C**2
        deviation_C = (total_C / count_C).sqrt()
        varies_C = deviation_C > CONSTANT * (mean_C + self.shift_C).abs()
        between_C = between_C.clamp(min=0).where(varies_C, 0)
        total_C = total_C.where(varies_C, 0)
        present = int((sums.count.sum(1) > 0).sum())
        energy = self.energy.where(self.energy > 0, torch.nan)
        return GainStatistics(
            self.images,
            mean_C + self.shift_C,
            deviation_C,
            between_C / total_C,
            float(between_C.sum() / total_C.sum()),
            (present - 1) / max(self.images - 1, 1),
            sums.mean() + self.shift_C,
            self.pixels.sum.sum(0) / self.pixels.count.sum(0),
            self.pixels.mean(),
            float(energy[1] / energy[0]),
            float(energy[2] / energy[0]),
        )


class _Sums:
    """Counts, sums and sums of squares by class, of numbers that may be missing."""

    def __init__(self, classes: int, like: Tensor) -> None:
        shape = (classes, *like.shape[1:])
        self.count, self.sum, self.square = (
            torch.zeros(shape, dtype=torch.float64, device=like.device) for _ in range(3)
        )

    def add(self, values: Tensor, labels_B: Tensor) -> None:
        there = ~values.isnan()
        values = values.where(there, 0)
        self.count.index_add_(0, labels_B, there.double())
        self.sum.index_add_(0, labels_B, values)
        self.square.index_add_(0, labels_B, values**2)

    def mean(self) -> Tensor:
        """By class; NaN where there was none."""
        return self.sum / self.count


def shrunk(maps: Tensor, side: int) -> Tensor:
    """Maps (..., H, W) averaged down to at most ``side`` pixels; missing numbers do not count."""
    height, width = (min(side, size) for size in maps.shape[-2:])
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    there = (~planes.isnan()).to(planes.dtype)
    pooled, share = (
        functional.adaptive_avg_pool2d(each, (height, width))
        for each in (planes.nan_to_num(0.0), there)
    )
    return (pooled / share).reshape(*maps.shape[:-2], height, width)
