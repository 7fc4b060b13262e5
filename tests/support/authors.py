"""The networks that authors of attention blocks published, with the module names of their code.

Written down from reading the repositories named at each class, so that names, shapes and functions
of their weights can be had without the files. Each attention module does what the authors' does, in
their order: the maps are turned, the DCT is a stored basis, key and query are where they have them.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def conv(channels_in, channels, side, stride=1):
    return nn.Conv2d(channels_in, channels, side, stride=stride, padding=side // 2, bias=False)


# Attention ---------------------------------------------------------------------------------------


class Squeeze(nn.Module):
    """moskomule/senet.pytorch, senet/se_module.py."""

    def __init__(self, channels, planes):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 16, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 16, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


@functools.cache
def basis(channels, side, pairs):
    weight = torch.zeros(channels, side, side, device="cpu")
    part = channels // len(pairs)
    for i, (x, y) in enumerate(pairs):  # x down the rows, y along the columns
        x, y = x * (side // 7), y * (side // 7)
        for row in range(side):
            for column in range(side):
                value = wave(row, x, side) * wave(column, y, side)
                weight[i * part : (i + 1) * part, row, column] = value
    return weight


def wave(position, frequency, side):
    value = math.cos(math.pi * frequency * (position + 0.5) / side) / math.sqrt(side)
    return value if frequency == 0 else value * math.sqrt(2)


class Basis(nn.Module):
    def __init__(self, channels, side, pairs):
        super().__init__()
        self.register_buffer("weight", basis(channels, side, pairs).clone())


TOP_X = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
TOP_Y = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)
TOP16 = tuple(zip(TOP_X, TOP_Y, strict=True))


class Frequency(Squeeze):
    """cfzd/FcaNet, model/layer.py."""

    def __init__(self, channels, planes, pairs=TOP16):
        super().__init__(channels, planes)
        self.side = {64: 56, 128: 28, 256: 14, 512: 7}[planes]
        self.dct_layer = Basis(channels, self.side, pairs)

    def forward(self, x):
        pooled = x
        if x.shape[2:] != (self.side, self.side):
            pooled = functional.adaptive_avg_pool2d(x, self.side)
        described = (pooled * self.dct_layer.weight).sum(dim=(2, 3))
        return x * self.fc(described)[:, :, None, None]


class Efficient(nn.Module):
    """BangguWu/ECANet, models/eca_module.py."""

    def __init__(self, channels, planes, kernels=(3, 5, 7, 7)):
        super().__init__()
        size = kernels[int(math.log2(planes // 64))]
        self.conv = nn.Conv1d(1, 1, size, padding=(size - 1) // 2, bias=False)

    def forward(self, x):
        means = x.mean(dim=(2, 3))[:, None, :]
        return x * torch.sigmoid(self.conv(means)).transpose(1, 2)[..., None]


class ConvNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x):
        return self.bn(self.conv(x))


class MaxMeanGate(nn.Module):
    """The spatial gate of Jongchan/attention-module and landskape-ai/triplet-attention."""

    def __init__(self, name="spatial"):
        super().__init__()
        self.name = name
        self.add_module(name, ConvNorm())

    def forward(self, x):
        both = torch.stack((x.max(dim=1).values, x.mean(dim=1)), dim=1)
        return x * torch.sigmoid(getattr(self, self.name)(both))


class ChannelGate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, channels // 16),
            nn.ReLU(),
            nn.Linear(channels // 16, channels),
        )

    def forward(self, x):
        mean = self.mlp(functional.adaptive_avg_pool2d(x, 1))
        largest = self.mlp(functional.adaptive_max_pool2d(x, 1))
        return x * torch.sigmoid(mean + largest)[:, :, None, None]


class Cbam(nn.Module):
    """Jongchan/attention-module, MODELS/cbam.py."""

    def __init__(self, channels, planes):
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = MaxMeanGate()

    def forward(self, x):
        return self.SpatialGate(self.ChannelGate(x))


class Triplet(nn.Module):
    """landskape-ai/triplet-attention, MODELS/triplet_attention.py."""

    NAMES = ("ChannelGateH", "ChannelGateW", "SpatialGate")

    def __init__(self, channels, planes, gate="spatial", spatial=True):
        super().__init__()
        self.spatial = spatial
        for name in self.NAMES if spatial else self.NAMES[:2]:
            self.add_module(name, MaxMeanGate(gate))

    def forward(self, x):
        first, second, third = (getattr(self, name, None) for name in self.NAMES)
        rows = first(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)
        columns = second(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
        if not self.spatial:
            return (rows + columns) / 2
        return (third(x) + rows + columns) / 3


class NewTriplet(Triplet):
    """landskape-ai/triplet-attention, triplet_attention.py."""

    NAMES = ("cw", "hc", "hw")

    def __init__(self, channels, planes):
        super().__init__(channels, planes, gate="conv")


class Energy(nn.Module):
    """ZjjConan/SimAM, networks/attentions."""

    def forward(self, x):
        n = x.shape[2] * x.shape[3] - 1
        squares = (x - x.mean(dim=(2, 3), keepdim=True)) ** 2
        variance = squares.sum(dim=(2, 3), keepdim=True) / n
        return x * torch.sigmoid(squares / (4 * (variance + 0.1)) + 0.5)


# Residual networks of torchvision's names --------------------------------------------------------


class Unit(nn.Module):
    """A basic (two 3 x 3) or bottleneck unit; the attention has the authors' name for it."""

    def __init__(self, channels_in, planes, stride, wide, name, attention):
        super().__init__()
        channels = planes * 4 if wide else planes
        if wide:
            layers = [
                (channels_in, planes, 1, 1),
                (planes, planes, 3, stride),
                (planes, channels, 1, 1),
            ]
        else:
            layers = [(channels_in, planes, 3, stride), (planes, planes, 3, 1)]
        self.layers = len(layers)
        for n, (inputs, outputs, side, step) in enumerate(layers, start=1):
            self.add_module(f"conv{n}", conv(inputs, outputs, side, step))
            self.add_module(f"bn{n}", nn.BatchNorm2d(outputs))
        self.name = name
        if attention is Energy:
            self.conv2 = nn.Sequential(self.conv2, Energy())
        elif attention is not None:
            self.add_module(name, attention(channels, planes))
        self.downsample = None
        if stride > 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        out = x
        for n in range(1, self.layers + 1):
            out = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(out))
            out = out.relu() if n < self.layers else out
        if hasattr(self, self.name):
            out = getattr(self, self.name)(out)
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """The networks of SENet (PyTorch), ECA-Net, FcaNet, SimAM, CBAM and triplet attention."""

    def __init__(self, depth, name="", attention=None, classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels, wide = 64, depth >= 50
        for stage, units in enumerate(DEPTHS[depth]):
            planes, layer = 64 * 2**stage, []
            for unit in range(units):
                stride = 2 if stage and not unit else 1
                layer.append(Unit(channels, planes, stride, wide, name, attention))
                channels = planes * 4 if wide else planes
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, stride=2, padding=1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean(dim=(2, 3)))


# megvii-research/RG-SENet_SP-SENet, spse_resnet.py and rgse_resnet.py ----------------------------


class PooledUnit(nn.Module):
    def __init__(self, channels_in, planes, stride, grid):
        super().__init__()
        channels = 4 * planes
        self.grid = grid
        self.conv_conv1 = conv(channels_in, planes, 1)
        self.bn_bn1 = nn.BatchNorm2d(planes)
        self.conv_conv2 = conv(planes, planes, 3, stride)
        self.bn_bn2 = nn.BatchNorm2d(planes)
        self.conv_conv3 = conv(planes, channels, 1)
        self.bn_bn3 = nn.BatchNorm2d(channels)
        if grid:
            self.fc_spatial = nn.Sequential()
            side = 512 // planes
            if side > 1:
                fused = nn.Conv2d(
                    channels, channels, side, stride=side, groups=channels, bias=False
                )
                self.fc_spatial.add_module("fc_spatial", fused)
                self.fc_spatial.add_module("bn_spatial", nn.BatchNorm2d(channels))
        else:
            for side in (1, 2, 4):
                fused = nn.Conv2d(channels, channels, side, groups=channels)
                self.add_module(f"fc_spatial{side}", fused)
            self.fc_bn = nn.BatchNorm2d(channels)
        self.fc_reduction = nn.Linear(channels, channels // 16)
        self.fc_extention = nn.Linear(channels // 16, channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            self.shortcut.add_module("shortcut_conv", conv(channels_in, channels, 1, stride))
            self.shortcut.add_module("shortcut_bn", nn.BatchNorm2d(channels))

    def described(self, x):
        if self.grid:
            return self.fc_spatial(functional.avg_pool2d(x, 7, 7)).relu()
        parts = [
            getattr(self, f"fc_spatial{side}")(functional.adaptive_avg_pool2d(x, side))
            for side in (1, 2, 4)
        ]
        return self.fc_bn(parts[0] + parts[1] + parts[2]).relu()

    def forward(self, x):
        out = self.bn_bn1(self.conv_conv1(x)).relu()
        out = self.bn_bn2(self.conv_conv2(out)).relu()
        out = self.bn_bn3(self.conv_conv3(out))
        hidden = self.fc_reduction(self.described(out).flatten(1)).relu()
        gate = torch.sigmoid(self.fc_extention(hidden))[:, :, None, None]
        return (out * gate + self.shortcut(x)).relu()


class PooledResNet(nn.Module):
    def __init__(self, depth, *, grid, classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, units in enumerate(DEPTHS[depth], start=1):
            planes, layer = 32 * 2**stage, nn.Sequential()
            for unit in range(units):
                stride = 2 if stage > 1 and not unit else 1
                name = f"layer{stage}_block_{unit}"
                layer.add_module(name, PooledUnit(channels, planes, stride, grid))
                channels = 4 * planes
            self.add_module(f"layer{stage}", layer)
        self.fc = nn.Linear(channels, classes)

    forward = ResNet.forward


# Small images ------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """AttentionSeekers/CNNtention, models/attention/self_att.py."""

    def __init__(self, channels):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(1))
        self.key = nn.Conv2d(channels, channels, 1)
        self.query = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        key, query, value = (layer(x).flatten(2) for layer in (self.key, self.query, self.value))
        attention = torch.softmax(torch.bmm(query.transpose(1, 2), key), dim=-1)
        out = torch.bmm(value, attention.transpose(1, 2)).reshape(x.shape)
        return self.weights * out + x


class MultiHead(nn.Module):
    """AttentionSeekers/CNNtention, models/attention/multi_head_att.py: keys index the rows."""

    def __init__(self, channels, heads=8):
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.val = nn.Conv2d(channels, channels, 1)
        self.linear = nn.Conv2d(channels, channels, 1)
        self.weights = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        batch, channels, height, width = x.shape
        shape = (batch, self.heads, channels // self.heads, height * width)
        query, key, val = (layer(x).reshape(shape) for layer in (self.query, self.key, self.val))
        attention = torch.softmax(key.mT @ query * shape[2] ** -0.5, dim=-1)
        out = (attention @ val.mT).mT.reshape(x.shape)
        return self.weights * self.linear(out) + x


class SmallUnit(nn.Module):
    """A unit with the parameter-free shortcut, or with moskomule's projection and SE."""

    def __init__(self, channels_in, channels, stride, *, squeezed):
        super().__init__()
        self.conv1 = conv(channels_in, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = Squeeze(channels, channels) if squeezed else nn.Identity()
        self.same = channels_in == channels
        if squeezed and not self.same:
            self.downsample = nn.Sequential(
                conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        out = self.se(self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif not self.same:
            side = out.shape[1] // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        return (out + x).relu()


class SmallResNet(nn.Module):
    """ResNet-20 of CNNtention (``att1`` to ``att3`` behind the stages) or of moskomule (SE)."""

    def __init__(self, attention=None, *, squeezed=False):
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        channels_in = 16
        for stage, channels in enumerate((16, 32, 64), start=1):
            layer = []
            for unit in range(3):
                stride = 2 if stage > 1 and not unit else 1
                layer.append(SmallUnit(channels_in, channels, stride, squeezed=squeezed))
                channels_in = channels
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
            if attention is not None:
                self.add_module(f"att{stage}", attention(channels))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        for stage in (1, 2, 3):
            x = getattr(self, f"layer{stage}")(x)
            x = getattr(self, f"att{stage}", nn.Identity())(x)
        return self.fc(x.mean(dim=(2, 3)))
