"""Blocks as their papers and authors state them, step by step, for comparison and for counting.

Maps are turned by permutations, pooled by torch's pools, scaled by every branch for itself and
multiplied by bases as large as they are. Parameters have the names of those in ``blocks``, so that
a state moves from one to the other.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from blocks.composition import parse_members
from blocks.frequency import parse_frequency, scaled_index
from blocks.gates import GATES
from blocks.options import eca_kernel_size


class SqueezeExcite(nn.Module):
    def __init__(self, channels, *, reduction=16, bias=False, gate="sigmoid"):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = GATES[gate]
        self.squeeze = nn.Linear(channels, hidden, bias=bias)
        self.excite = nn.Linear(hidden, channels, bias=bias)

    def forward(self, x):
        batch, channels = x.shape[:2]
        y = functional.adaptive_avg_pool2d(x, 1).view(batch, channels)
        y = self.gate(self.excite(torch.relu(self.squeeze(y))))
        return x * y.view(batch, channels, 1, 1).expand_as(x)


class EfficientChannel(nn.Module):
    def __init__(self, channels, *, kernel_size="auto", gate="sigmoid"):
        super().__init__()
        size = eca_kernel_size(channels) if kernel_size == "auto" else kernel_size
        self.gate = GATES[gate]
        self.conv = nn.Conv1d(1, 1, size, padding=(size - 1) // 2, bias=False)

    def forward(self, x):
        y = functional.adaptive_avg_pool2d(x, 1)
        y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * self.gate(y).expand_as(x)


class FrequencyChannel(nn.Module):
    """A basis per channel is a buffer of the map's size, and the map is multiplied by it."""

    def __init__(self, channels, *, size, frequency="top16", reduction=16, gate="sigmoid"):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = GATES[gate]
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)
        self.register_buffer("basis", self.bases(channels, size, frequency), persistent=False)

    @staticmethod
    def bases(channels, size, frequency):
        pairs = parse_frequency(frequency)
        group = channels // len(pairs)
        bases = torch.zeros(channels, *size, dtype=torch.float64)
        for i, (u, v) in enumerate(pairs):
            u, v = scaled_index(u, size[0], authors=False), scaled_index(v, size[1], authors=False)
            for row in range(size[0]):
                for column in range(size[1]):
                    value = cosine(row, u, size[0]) * cosine(column, v, size[1])
                    bases[i * group : (i + 1) * group, row, column] = value
        return bases.float()

    def forward(self, x):
        batch, channels = x.shape[:2]
        y = torch.sum(x * self.basis, dim=[2, 3])
        y = self.gate(self.excite(torch.relu(self.squeeze(y)))).view(batch, channels, 1, 1)
        return x * y.expand_as(x)


def cosine(position, frequency, size):
    value = math.cos(math.pi * frequency * (position + 0.5) / size) / math.sqrt(size)
    return value if frequency == 0 else value * math.sqrt(2)


class Energy(nn.Module):
    def __init__(self, channels, *, energy_lambda=1e-4):
        super().__init__()
        self.energy_lambda = energy_lambda

    def forward(self, x):
        n = x.shape[2] * x.shape[3] - 1
        squares = (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)
        variance = squares.sum(dim=[2, 3], keepdim=True) / n
        y = squares / (4 * (variance + self.energy_lambda)) + 0.5
        return x * torch.sigmoid(y)


class ConvolutionalBlock(nn.Module):
    def __init__(self, channels, *, reduction=16, kernel_size=7, norm=True):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=(kernel_size - 1) // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01) if norm else nn.Identity()

    def forward(self, x):
        size = x.shape[2:]
        logits = self.shared(functional.avg_pool2d(x, size, stride=size))
        logits = logits + self.shared(functional.max_pool2d(x, size, stride=size))
        x = x * torch.sigmoid(logits)[:, :, None, None].expand_as(x)
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(self.norm(self.spatial(pooled)))

    def shared(self, pooled):
        return self.excite(torch.relu(self.squeeze(pooled.flatten(1))))


class ChannelSqueezeExcite(nn.Module):
    def __init__(self, channels, *, reduction=2, gate="sigmoid"):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = GATES[gate]
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x):
        batch, channels = x.shape[:2]
        y = x.reshape(batch, channels, -1).mean(dim=2)
        y = self.gate(self.excite(torch.relu(self.squeeze(y))))
        return torch.mul(x, y.view(batch, channels, 1, 1))


class SpatialSqueezeExcite(nn.Module):
    def __init__(self, channels, *, gate="sigmoid"):
        super().__init__()
        self.gate = GATES[gate]
        self.squeeze = nn.Conv2d(channels, 1, 1)

    def forward(self, x):
        return torch.mul(x, self.gate(self.squeeze(x)))


class ConcurrentSqueezeExcite(nn.Module):
    def __init__(self, channels, *, reduction=2, combine="max", gate="sigmoid"):
        super().__init__()
        self.combine = {"max": torch.max, "add": torch.add, "mul": torch.mul}[combine]
        self.channel = ChannelSqueezeExcite(channels, reduction=reduction, gate=gate)
        self.spatial = SpatialSqueezeExcite(channels, gate=gate)

    def forward(self, x):
        return self.combine(self.channel(x), self.spatial(x))


class PyramidSqueezeExcite(nn.Module):
    def __init__(self, channels, *, reduction=16, gate="sigmoid"):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = GATES[gate]
        self.fuse = nn.ModuleList(
            nn.Conv2d(channels, channels, side, groups=channels) for side in (1, 2, 4)
        )
        self.norm = nn.BatchNorm2d(channels)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x):
        one, two, four = self.fuse
        y = one(functional.adaptive_avg_pool2d(x, 1))
        y = y + two(functional.adaptive_avg_pool2d(x, 2))
        y = y + four(functional.adaptive_avg_pool2d(x, 4))
        y = torch.relu(self.norm(y)).flatten(1)
        y = self.gate(self.excite(torch.relu(self.squeeze(y))))
        return x * y[:, :, None, None]


class GridSqueezeExcite(nn.Module):
    def __init__(self, channels, *, reduction=16, grid=1, gate="sigmoid"):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = GATES[gate]
        self.fuse, self.norm = nn.Identity(), nn.Identity()
        if grid > 1:
            self.fuse = nn.Conv2d(
                channels, channels, grid, stride=grid, groups=channels, bias=False
            )
            self.norm = nn.BatchNorm2d(channels)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x):
        y = torch.relu(self.norm(self.fuse(functional.avg_pool2d(x, 7, 7)))).flatten(1)
        y = self.gate(self.excite(torch.relu(self.squeeze(y))))
        return x * y[:, :, None, None]


class PixelAttention(nn.Module):
    """The matrix of all pairs of pixels, its softmax, the product with the values."""

    def __init__(self, channels, *, heads=1, scale=False, output=False):
        super().__init__()
        self.heads, self.scale = heads, scale
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.output = nn.Conv2d(channels, channels, 1) if output else nn.Identity()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        b, c, h, w = x.shape
        shape = (b, self.heads, c // self.heads, h * w)
        query, key, value = (f(x).reshape(shape) for f in (self.query, self.key, self.value))
        similarity = query.mT @ key
        if self.scale:
            similarity = similarity * (c // self.heads) ** -0.5
        out = value @ similarity.softmax(dim=-1).mT
        return self.gamma * self.output(out.reshape(x.shape))


class Residual(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x) + x


TURNS = {"cw": (0, 2, 1, 3), "hc": (0, 3, 2, 1), "hw": (0, 1, 2, 3)}  # each its own inverse


class Branch(nn.Module):
    """Turn, gate the turned map, turn back; SE ("before", "after", "inside" the gate) or none."""

    def __init__(
        self, turn, kernel_size=7, squeezed=None, reduction=None, se=None, weights=False, axis=None
    ):
        super().__init__()
        self.turn, self.se, self.weights, self.axis = turn, se, weights, axis
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=(kernel_size - 1) // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)
        if se is not None:
            hidden = max(1, squeezed // reduction)
            self.squeeze = nn.Linear(squeezed, hidden, bias=False)
            self.excite = nn.Linear(hidden, squeezed, bias=False)

    def forward(self, x):
        z = x.permute(self.turn).contiguous()
        if self.se == "before":
            z = z * torch.sigmoid(self.vector_logits(z))
        logits = self.norm(self.conv(torch.stack((z.max(dim=1).values, z.mean(dim=1)), dim=1)))
        if self.se == "inside":
            added = self.vector_logits(z)
            logits = logits + (torch.sigmoid(added) if self.weights else added)
        z = z * torch.sigmoid(logits)
        if self.se == "after":
            z = z * torch.sigmoid(self.vector_logits(z))
        return z.permute(self.turn).contiguous()

    def vector_logits(self, z):
        # Over what the turn has brought first, or over the channels, wherever they are now.
        axis = 1 if self.axis == "rotated" else self.turn.index(1)
        others = [dim for dim in (1, 2, 3) if dim != axis]
        logits = self.excite(torch.relu(self.squeeze(z.mean(dim=others))))
        shape = [logits.shape[0], 1, 1, 1]
        shape[axis] = logits.shape[1]
        return logits.reshape(shape)


class Triplet(nn.Module):
    def __init__(self, channels, *, kernel_size=7, spatial=True):
        super().__init__()
        self.turns = ("cw", "hc", "hw") if spatial else ("cw", "hc")
        for name in self.turns:
            self.add_module(name, Branch(TURNS[name], kernel_size))

    def forward(self, x):
        return joined([getattr(self, name)(x) for name in self.turns], "mean")


def joined(maps, combine):
    added = maps[0]
    for one in maps[1:]:
        added = added + one
    return added * (1 / len(maps)) if combine == "mean" else added


class TripSE(nn.Module):
    def __init__(
        self, channels, *, se, reduction=16, combine="mean", weights=False, axis="channels"
    ):
        super().__init__()
        self.combine = combine
        squeezed = {"cw": channels, "hc": channels, "hw": channels}
        axis, _, size = axis.partition(":")
        if axis == "rotated":
            squeezed["cw"], squeezed["hc"] = map(int, size.split("x"))
        for name, turn in TURNS.items():
            branch = Branch(
                turn,
                squeezed=squeezed[name],
                reduction=reduction,
                se=se,
                weights=weights,
                axis=axis,
            )
            self.add_module(name, branch)

    def forward(self, x):
        return joined([self.cw(x), self.hc(x), self.hw(x)], self.combine)


class TripSE1(TripSE):
    def __init__(self, channels, *, reduction=16, combine="mean"):
        super().__init__(channels, se=None, combine=combine)
        hidden = max(1, channels // reduction)
        self.se = nn.Module()
        self.se.squeeze = nn.Linear(channels, hidden, bias=False)
        self.se.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x):
        y = super().forward(x)
        gate = torch.sigmoid(self.se.excite(torch.relu(self.se.squeeze(y.mean(dim=(2, 3))))))
        return y * gate[:, :, None, None]


class Coordinate(nn.Module):
    def __init__(self, channels, *, reduction=32):
        super().__init__()
        width = max(8, channels // reduction)
        self.squeeze = nn.Conv2d(channels, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.excite_rows = nn.Conv2d(width, channels, 1)
        self.excite_columns = nn.Conv2d(width, channels, 1)

    def forward(self, x):
        height, width = x.shape[2:]
        rows = functional.adaptive_avg_pool2d(x, (None, 1))
        columns = functional.adaptive_avg_pool2d(x, (1, None)).permute(0, 1, 3, 2)
        y = self.norm(self.squeeze(torch.cat([rows, columns], dim=2)))
        y = y * functional.relu6(y + 3) / 6
        rows, columns = torch.split(y, [height, width], dim=2)
        rows = torch.sigmoid(self.excite_rows(rows))
        columns = torch.sigmoid(self.excite_columns(columns.permute(0, 1, 3, 2)))
        return x * columns * rows


def tripse(se):
    return lambda channels, **options: TripSE(channels, se=se, **options)


def multi_head(channels, *, heads=8):
    return PixelAttention(channels, heads=heads, scale=True, output=True)


# The blocks whose own code does fewer operations than their definition, which is what they cost.
class Composed(nn.Module):
    """Transcriptions one after the other, or their maps added up."""

    def __init__(self, channels, *, blocks, combine=None):
        super().__init__()
        assert combine in (None, "sum")
        self.combine = combine
        self.members = nn.ModuleList(
            TRANSCRIBED[m.block](channels, **m.settings) for m in parse_members(blocks)
        )

    def forward(self, x):
        if self.combine == "sum":
            return torch.stack([member(x) for member in self.members]).sum(dim=0)
        return nn.Sequential(*self.members)(x)


LITERAL = {
    "triplet": Triplet,
    "tripse1": TripSE1,
    "tripse2": tripse("before"),
    "tripse3": tripse("after"),
    "tripse4": tripse("inside"),
    "scse": ConcurrentSqueezeExcite,
}
TRANSCRIBED = {
    **LITERAL,
    "rgse": GridSqueezeExcite,
    "spse": PyramidSqueezeExcite,
    "simam": Energy,
    "se": SqueezeExcite,
    "eca": EfficientChannel,
    "fca": FrequencyChannel,
    "cbam": ConvolutionalBlock,
    "cse": ChannelSqueezeExcite,
    "sse": SpatialSqueezeExcite,
    "selfatt": PixelAttention,
    "mha": multi_head,
    "coord": Coordinate,
    "parallel": Composed,
    "sequential": Composed,
}
DEPENDS_ON_THE_SIZE = {"fca"}


def transcribed(name, channels, size, *, residual=False, **options):
    """The literal transcription of a block of the registry for maps of a (height, width)."""
    if name in DEPENDS_ON_THE_SIZE:
        options["size"] = size
    block = TRANSCRIBED[name](channels, **options)
    return Residual(block) if residual else block


def drawn(block, seed=0):
    """The block with all of its numbers drawn anew, in float64."""
    generator = torch.Generator().manual_seed(seed)
    block = block.double()
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                low = 0.5 if name.endswith(("norm.weight", "running_var")) else -0.5
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator).double())
    return block


def assert_equal_to_the_letter(block, literal, x):
    """Outputs, gradients and running statistics of a block and its literal transcription."""
    literal.double().load_state_dict(block.state_dict())
    literal.train(block.training)
    weights = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(9))
    close = {"rtol": 1e-9, "atol": 1e-11}
    found = []
    for module in (block, literal):
        given = x.clone().requires_grad_()
        out = module(given)
        (out * weights).sum().backward()
        gradients = {name: p.grad for name, p in module.named_parameters()}
        found.append((out.detach(), given.grad, gradients, module.state_dict()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **close)
