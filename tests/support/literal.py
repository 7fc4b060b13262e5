"""Blocks as their papers and authors state them, step by step, for comparison and for counting.

Maps are turned by permutations, every branch scales the map for itself. Parameters have the names
of those in ``blocks``, so that a state moves from one to the other.
"""

import torch
from torch import nn
from torch.nn import functional

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


# The blocks whose own code does fewer operations than their definition, which is what they cost.
LITERAL = {
    "triplet": Triplet,
    "tripse1": TripSE1,
    "tripse2": lambda channels, **options: TripSE(channels, se="before", **options),
    "tripse3": lambda channels, **options: TripSE(channels, se="after", **options),
    "tripse4": lambda channels, **options: TripSE(channels, se="inside", **options),
}


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
