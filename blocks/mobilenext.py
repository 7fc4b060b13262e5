"""MobileNeXt: residual units between wide maps, with depthwise convolutions at both ends.

Zhou, Hou, Chen, Feng and Yan, "Rethinking Bottleneck Structure for Efficient Mobile Network
Design", ECCV 2020, arXiv:2007.02269, section 3.2 (the sandglass unit) and table 1 (the network).
Where the paper and the authors' published code (yitu-opensource/MobileNeXt) differ, this is the
code: the bottleneck is the input's channels over the ratio, but at least a sixth of the output's,
then rounded to a multiple of 16; only units that keep the channels have a shortcut; a unit that
changes them has no depthwise convolution where it keeps the size, and the last alone where it
halves it. The first two units and the very last have both. 3,535,416 parameters and 311,342,592
multiply-accumulates at 224 x 224 and 1000 classes (published: 3.4M in the paper, 3.5M in the
authors' table; 300M).
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import math

from torch import Tensor, nn

# Bottleneck's ratio, channels, units, stride of the first (table 1).
ROWS = (
    (2, 96, 1, 2),
    (6, 144, 1, 1),
    (6, 192, 3, 2),
    (6, 288, 3, 2),
    (6, 384, 4, 1),
    (6, 576, 4, 2),
    (6, 960, 3, 1),
    (6, 1280, 1, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


def rounded(channels: float, divisor: int) -> int:
    """The nearest multiple of a divisor, raised by one where that loses more than a tenth."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def bottleneck_channels(channels: int, out_channels: int, ratio: int) -> int:
    """Channels in a sandglass unit's waist, as the authors' code has them."""
    narrow = channels // ratio
    return narrow if narrow >= out_channels / 6 else rounded(math.ceil(out_channels / 6), 16)


class Depthwise(nn.Sequential):
    """A 3x3 depthwise convolution, its norm, and a ReLU6 where it is the unit's first.

    Args:
        channels: Of the map; kept.
        stride: Of the convolution.
        activation: Whether a ReLU6 follows.
    """

    def __init__(self, channels: int, *, stride: int = 1, activation: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)
        if activation:
            self.act = nn.ReLU6()


class Pointwise(nn.Sequential):
    """A 1x1 convolution, its norm, and a ReLU6 where the map is wide.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
        activation: Whether a ReLU6 follows.
    """

    def __init__(self, channels: int, out_channels: int, *, activation: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        if activation:
            self.act = nn.ReLU6()


class Sandglass(nn.Module):
    """Depthwise, reduce, expand, depthwise; a shortcut where the shape stays.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
        waist: Channels between the 1x1 convolutions.
        stride: Of the last depthwise convolution.
        first: Whether the first depthwise convolution is there.
        last: Whether the last depthwise convolution is there.
        shortcut: Whether the input is added.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        waist: int,
        *,
        stride: int = 1,
        first: bool = True,
        last: bool = True,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential()
        if first:
            self.branch.add_module("first", Depthwise(channels, activation=True))
        self.branch.add_module("reduce", Pointwise(channels, waist, activation=False))
        self.branch.add_module("expand", Pointwise(waist, out_channels, activation=True))
        if last:
            self.branch.add_module("last", Depthwise(out_channels, stride=stride))
        self.shortcut = nn.Identity() if shortcut else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H / stride, W / stride)."""
        branch_BCHW: Tensor = self.branch(x_BCHW)
        if self.shortcut is None:
            return branch_BCHW
        summed_BCHW: Tensor = branch_BCHW + self.shortcut(x_BCHW)
        return summed_BCHW


class MobileNeXt(nn.Module):
    """A 3x3 convolution of stride 2 and eight stages of sandglass units, one per row of table 1.

    Args:
        width: Multiplies every width; the last is 1280 at least.
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(
        self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        super().__init__()
        channels = rounded(STEM_CHANNELS * width, 8)
        self.stem = nn.Sequential()
        self.stem.add_module(
            "conv", nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        )
        self.stem.add_module("norm", nn.BatchNorm2d(channels))
        self.stem.add_module("act", nn.ReLU6())
        self.stages = nn.Sequential()
        for ratio, wanted, units, stride in ROWS:
            out_channels = rounded(wanted * width, 8)
            if wanted == LAST_CHANNELS and width < 1:
                out_channels = LAST_CHANNELS
            self.stages.append(_stage(channels, out_channels, ratio, units, stride))
            channels = out_channels
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(channels, num_classes)
        self._initialise()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class logits of images (B, C, H, W), shape (B, num_classes)."""
        features_BCHW = self.stages(self.stem(x_BCHW))
        logits: Tensor = self.fc(self.dropout(features_BCHW.mean(dim=(2, 3))))
        return logits

    def _initialise(self) -> None:
        """Deviation sqrt(2 / (side * side * out_channels)), as the authors' code has it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                outputs = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / outputs))
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


def _stage(channels: int, out_channels: int, ratio: int, units: int, stride: int) -> nn.Sequential:
    waist = bottleneck_channels(channels, out_channels, ratio)
    # The network's first unit, and rows of one unit that keep the size, are whole.
    whole = ratio == 2 or (units == 1 and stride == 1) or channels == out_channels
    shortcut = channels == out_channels and stride == 1 and units > 1
    stage = nn.Sequential(
        Sandglass(
            channels,
            out_channels,
            waist,
            stride=stride,
            first=whole,
            last=whole or stride == 2,
            shortcut=shortcut,
        )
    )
    waist = bottleneck_channels(out_channels, out_channels, ratio)
    for _ in range(units - 1):
        stage.append(Sandglass(out_channels, out_channels, waist, shortcut=True))
    return stage
