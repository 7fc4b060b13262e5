"""Pre-activation residual networks for small images: Wide ResNets and the pre-activation ResNet-18.

He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016, arXiv:1603.05027;
Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146. A unit is norm,
ReLU, 3x3 convolution, norm, ReLU, 3x3 convolution; where its shape changes, the shortcut is a 1x1
convolution of what the first norm and ReLU give. At 3 channels and 10 classes WRN-28-10 has
36,479,194 parameters and the pre-activation ResNet-18 11,171,146, as in the code in common use;
that one classifies the sum of the last unit as it is, while the papers have a norm and ReLU there
(``final_norm``; 1,024 parameters more). Wide ResNets are without their optional dropout.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class PreActivationUnit(nn.Module):
    """Two 3x3 convolutions, each behind its norm and ReLU, and a shortcut.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the first convolution and the shortcut.
    """

    def __init__(self, channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.changes = channels != out_channels or stride != 1
        self.shortcut: nn.Module = nn.Identity()
        if self.changes:
            self.shortcut = nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H / stride, W / stride)."""
        active_BCHW = self.bn1(x_BCHW).relu()
        branch_BCHW = self.conv2(self.bn2(self.conv1(active_BCHW)).relu())
        summed_BCHW: Tensor = branch_BCHW + self.shortcut(active_BCHW if self.changes else x_BCHW)
        return summed_BCHW


class PreActivationResNet(nn.Module):
    """A pre-activation residual network for small images: a 3x3 convolution and stages of units.

    Args:
        units: Units per stage.
        widths: Channels of each stage; the first keeps the image's size, the others halve it.
        stem_channels: Channels of the first convolution.
        num_classes: Outputs.
        in_channels: Channels of the images.
        final_norm: Whether a norm and ReLU follow the last unit.
    """

    def __init__(
        self,
        units: int,
        widths: Sequence[int],
        *,
        stem_channels: int,
        num_classes: int = 10,
        in_channels: int = 3,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, stem_channels, 3, padding=1, bias=False)
        sources = [stem_channels, *widths[:-1]]
        self.stages = nn.Sequential(
            *(
                _stage(source, width, units, stride=1 if index == 0 else 2)
                for index, (source, width) in enumerate(zip(sources, widths, strict=True))
            )
        )
        last = widths[-1]
        self.norm = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU()) if final_norm else nn.Identity()
        self.fc = nn.Linear(last, num_classes)
        self._initialise()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class logits of images (B, C, H, W), shape (B, num_classes)."""
        features_BCHW = self.norm(self.stages(self.conv1(x_BCHW)))
        logits: Tensor = self.fc(features_BCHW.mean(dim=(2, 3)))
        return logits

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.kaiming_normal_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)


def _stage(channels: int, width: int, units: int, *, stride: int) -> nn.Sequential:
    first = PreActivationUnit(channels, width, stride=stride)
    return nn.Sequential(first, *(PreActivationUnit(width, width) for _ in range(units - 1)))


class WideResNet(PreActivationResNet):
    """WRN-depth-widen: three stages of 16, 32 and 64 channels, each times ``widen``.

    Args:
        depth: Of the network, 6 units + 4.
        widen: How many times wider than a ResNet of CIFAR (the paper's k).
        num_classes: Outputs.
        in_channels: Channels of the images.
    """

    def __init__(
        self, depth: int, widen: int, *, num_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__(
            (depth - 4) // 6,
            (16 * widen, 32 * widen, 64 * widen),
            stem_channels=16,
            num_classes=num_classes,
            in_channels=in_channels,
        )


class PreActResNet18(PreActivationResNet):
    """Four stages of two units, 64 to 512 channels.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        final_norm: Whether a norm and ReLU follow the last unit, as in the paper.
    """

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 3, final_norm: bool = False
    ) -> None:
        super().__init__(
            2,
            (64, 128, 256, 512),
            stem_channels=64,
            num_classes=num_classes,
            in_channels=in_channels,
            final_norm=final_norm,
        )
