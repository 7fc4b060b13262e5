"""The residual networks of CIFAR papers: three stages of 16, 32 and 64 channels.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
arXiv:1512.03385, section 4.2. ``resnet20`` has the paper's parameter-free shortcuts (option A:
every second pixel, zeros for the new channels, half of them on each side); ``resnet20-b`` has
projections (option B), which several attention papers use instead. 269,722 and 272,474 parameters
at 3 channels and 10 classes; at depths 32, 44, 56 and 110 option A has 464,154, 658,586, 853,018
and 1,727,962.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

STAGE_CHANNELS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are new.

    Args:
        new_channels: How many channels the output has more than the input.
    """

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.before = new_channels // 2
        self.after = new_channels - new_channels // 2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Halve a map (B, C, H, W) and pad its channels with zeros."""
        return functional.pad(x_BCHW[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _shortcut(channels: int, out_channels: int, stride: int, *, projection: bool) -> nn.Module:
    if channels == out_channels and stride == 1:
        return nn.Identity()
    if not projection:
        return PaddedShortcut(out_channels - channels)
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the first convolution.
        projection: Whether a shortcut that changes shape has weights.
    """

    def __init__(
        self, channels: int, out_channels: int, *, stride: int = 1, projection: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(channels, out_channels, stride, projection=projection)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H / stride, W / stride)."""
        branch_BCHW = self.bn1(self.conv1(x_BCHW)).relu()
        branch_BCHW = self.bn2(self.conv2(branch_BCHW))
        summed_BCHW: Tensor = branch_BCHW + self.shortcut(x_BCHW)
        return summed_BCHW.relu()


class CifarResNet(nn.Module):
    """A residual network for small images.

    Args:
        units: Residual units per stage; the depth is 6 units + 2.
        num_classes: Outputs.
        in_channels: Channels of the images.
        projection: Whether shortcuts that change shape have weights (option B).
    """

    def __init__(
        self, units: int, *, num_classes: int = 10, in_channels: int = 3, projection: bool = False
    ) -> None:
        super().__init__()
        first = STAGE_CHANNELS[0]
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.act1 = nn.ReLU()
        channels = first
        stages = []
        for index, width in enumerate(STAGE_CHANNELS):
            strides = [1 if index == 0 else 2] + [1] * (units - 1)
            stage = []
            for stride in strides:
                stage.append(ResidualUnit(channels, width, stride=stride, projection=projection))
                channels = width
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(channels, num_classes)
        self._initialise()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class logits of images (B, C, H, W), shape (B, num_classes)."""
        features_BCHW = self.act1(self.bn1(self.conv1(x_BCHW)))
        features_BCHW = self.layer3(self.layer2(self.layer1(features_BCHW)))
        logits: Tensor = self.fc(features_BCHW.mean(dim=(2, 3)))
        return logits

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
