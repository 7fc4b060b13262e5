"""The attention that was inserted into a network, and running it under observation."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH = 256

# Told the input and output of a module (B, C, H, W) and the labels of the batch (B,).
Observer = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Placed:
    """A block in a network: the whole of what stands at a site, or a member of a composition.

    Args:
        site: The site's name.
        part: Which member of the composition; empty for the whole.
        block: The block's name.
        module: The module; the whole holds an outer residual and an identity start.
    """

    site: str
    part: str
    block: str
    module: nn.Module

    @property
    def key(self) -> str:
        """Its name among all of the network: "stage2", "stage2/1" for a member."""
        return f"{self.site}/{self.part}" if self.part else self.site

    @property
    def stage(self) -> int:
        """Number of its stage, 0 for the stem."""
        found = re.match(r"stage(\d+)", self.site)
        return int(found[1]) if found else 0


def placed_blocks(network: nn.Module) -> list[Placed]:
    """What ``blocks.build`` inserted, in the order of the network's modules."""
    return [
        placed
        for module in network.modules()
        if hasattr(module, "attention_site")
        for placed in _parts(str(module.attention_site), module)
    ]


def _parts(site: str, root: nn.Module) -> Iterator[Placed]:
    """The whole at a site, named after the first block in it, and then the members."""
    named = [(path, m) for path, m in root.named_modules() if hasattr(m, "attention_block")]
    name = str(named[0][1].attention_block[0]) if named else type(root).__name__
    yield Placed(site, "", name, root)
    for path, module in named[1:]:
        yield Placed(site, _part(path), str(module.attention_block[0]), module)


def _part(path: str) -> str:
    """The path "block.members.0" is "1": the first member."""
    words = [word for word in path.split(".") if word not in ("block", "members")]
    return ".".join(str(int(word) + 1) if word.isdigit() else word for word in words)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside: evaluation mode, and no gradients of parameters; after, all is as it was."""
    modes = [(module, module.training) for module in network.modules()]
    wanted = [(p, p.requires_grad) for p in network.parameters()]
    network.eval()
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def run_observed(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    observers: Sequence[tuple[nn.Module, Observer]] = (),
    *,
    batch: int = BATCH,
) -> Tensor:
    """Run a network in evaluation mode; observers see the inputs and outputs of their modules.

    An input is copied before its module runs, since a block may change it in place.

    Args:
        network: The network.
        images: Normalised, (N, C, H, W).
        labels: Class numbers (N,).
        observers: Module and what is told of it at each batch.
        batch: Images of one pass.

    Returns:
        The probabilities of the classes, (N, classes).
    """
    current: list[Tensor] = []
    before: dict[int, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        before[id(module)] = inputs[0].detach().clone()

    handles = []
    for module, observer in observers:

        def tell(module: nn.Module, _: object, output: Tensor, told: Observer = observer) -> None:
            told(before[id(module)], output.detach(), current[0])

        handles += [module.register_forward_pre_hook(note), module.register_forward_hook(tell)]
    shares = []
    try:
        with evaluating(network), torch.no_grad():
            for start in range(0, len(images), batch):
                current[:] = [labels[start : start + batch]]
                shares.append(network(images[start : start + batch]).float().softmax(dim=1))
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(shares)
