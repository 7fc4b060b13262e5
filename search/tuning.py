"""What of a network is trained, and how fast: frozen parts, and attention at a rate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from blocks.pretrained import classifier_tensors
from spaces.training import BACKBONE, NORMS, NOTHING, WEIGHTS, Training


def attention_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks that were inserted, each with its identity gate where it has one."""
    return (module for module in network.modules() if hasattr(module, "attention_site"))


def _attention_parts(network: nn.Module) -> set[int]:
    """The identities of all modules of blocks."""
    return {id(part) for block in attention_blocks(network) for part in block.modules()}


def _backbone_norms(network: nn.Module) -> list[nn.Module]:
    inserted = _attention_parts(network)
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and id(m) not in inserted]


def freeze(network: nn.Module, what: str) -> None:
    """Take the gradient from the parameters that are not to be trained.

    Args:
        network: As ``build_network`` gives it; changed in place.
        what: As ``Training.freeze`` has it.
    """
    if what == NORMS:
        for norm in _backbone_norms(network):
            norm.requires_grad_(False)
    elif what == BACKBONE:
        classifier = classifier_tensors(network.made_for)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in classifier)
        for block in attention_blocks(network):
            block.requires_grad_(True)


def keep_frozen(network: nn.Module, what: str) -> None:
    """Put the backbone's batch norms to evaluation mode, where anything of it is frozen.

    They then use their running statistics, as they were, and do not change them: the backbone
    computes in training what it computes in evaluation.
    """
    if what != NOTHING:
        for norm in _backbone_norms(network):
            norm.eval()


def parameter_groups(network: nn.Module, training: Training) -> list[dict[str, Any]]:
    """The parameters that are trained, by learning rate and decay; the backbone's come first.

    Args:
        network: After ``freeze``.
        training: Says the rates.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    inserted: set[int] = set()
    if training.attention_learning_rate != 1:
        inserted = {id(p) for block in attention_blocks(network) for p in block.parameters()}
    rate = training.learning_rate * training.attention_learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) not in inserted]},
        {"params": [p for p in trained if id(p) in inserted], "lr": rate},
    ]
    if training.decayed == WEIGHTS:
        groups = [part for group in groups for part in _by_decay(group)]
    return [group for group in groups if group["params"]]


def _by_decay(group: dict[str, Any]) -> list[dict[str, Any]]:
    """A group in two: weights, and biases, norms and the like, which do not decay."""
    weights = [p for p in group["params"] if p.ndim > 1]
    others = [p for p in group["params"] if p.ndim <= 1]
    return [{**group, "params": weights}, {**group, "params": others, "weight_decay": 0.0}]
