"""The optimiser and the schedule of a training: timm's, and torch's fused kernels.

Where timm's would be torch's own, and for the cosine, timm is not loaded: it takes a worker longer
than torch itself does, most of that for torch's compiler, which torchvision asks for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn, optim
from torch.optim import Optimizer

from search.tuning import parameter_groups
from spaces.training import (
    CONSTANT,
    COSINE,
    LINEAR,
    OPTIMIZERS,
    POLYNOMIAL,
    SGD,
    STEP,
    TANH,
    Training,
    milestones,
)

# What timm makes of these names is torch's, and has a fused kernel.
TORCHS: dict[str, type[Optimizer]] = {
    "sgd": optim.SGD,
    "momentum": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
}
FUSED = (*TORCHS, "adagrad")


class Schedule(Protocol):
    """Sets the learning rate of every group of parameters."""

    def step_update(self, num_updates: int) -> None:
        """Set the rates for the step after so many."""


def make_optimiser(network: nn.Module, training: Training) -> Optimizer:
    """The optimiser of a network's trained parameters.

    Args:
        network: After ``search.tuning.freeze``.
        training: Names it, and its rates.
    """
    settings: dict[str, Any] = {
        "lr": training.learning_rate,
        "weight_decay": training.weight_decay,
    }
    if OPTIMIZERS[training.optimizer]:
        settings["momentum"] = training.momentum
    if training.optimizer == SGD:
        settings["nesterov"] = training.momentum > 0
    if training.optimizer in FUSED:
        settings["fused"] = True
    groups = parameter_groups(network, training)
    if training.optimizer in TORCHS:
        return _without_compiler(TORCHS[training.optimizer], groups, settings)
    from timm.optim import create_optimizer_v2

    optimiser: Optimizer = create_optimizer_v2(groups, opt=training.optimizer, **settings)
    return optimiser


def _without_compiler(
    kind: type[Optimizer], groups: list[dict[str, Any]], settings: Mapping[str, Any]
) -> Optimizer:
    """One of torch's optimisers, that does not import torch's compiler at its first step.

    That import takes as long as torch's own. An optimiser asks for it in two places, to be kept out
    of compiled graphs; nothing is compiled here. A torch that asks elsewhere imports it as before.
    """
    for method in filter(inspect.isfunction, vars(Optimizer).values()):
        kept_out = getattr(method, "__wrapped__", None)  # as functools.wraps leaves it
        if kept_out is not None and not hasattr(kept_out, "__dynamo_disable"):
            kept_out.__dynamo_disable = kept_out
    optimiser = kind(groups, **settings)
    step = kind.profile_hook_step(torch.no_grad()(inspect.unwrap(kind.step)))
    optimiser.step = partial(step, optimiser)  # type: ignore[method-assign]
    return optimiser


class Cosine:
    """A linear rise, then half a cosine down: what ``timm.scheduler.CosineLRScheduler`` sets.

    Loshchilov and Hutter, "SGDR", ICLR 2017, arXiv:1608.03983, eq. 5, without restarts.

    Args:
        optimiser: Its groups' rates are the largest of the schedule.
        warm: Steps of the rise, from 0.
        rest: Steps after them.
        lowest: The rate at the end, of all groups.
    """

    def __init__(self, optimiser: Optimizer, *, warm: int, rest: int, lowest: float) -> None:
        self.optimiser = optimiser  # its groups are others once its state was loaded
        for group in optimiser.param_groups:  # kept with the optimiser's state, as timm keeps it
            group.setdefault("initial_lr", group["lr"])
        self.warm, self.rest, self.lowest = warm, rest, lowest
        self.step_update(0)

    def step_update(self, num_updates: int) -> None:
        """Set the rates for the step after so many."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(group["initial_lr"], num_updates)

    def _rate(self, highest: float, step: int) -> float:
        if step < self.warm:
            return step * (highest / self.warm)
        gone = step - self.warm
        if gone >= self.rest:
            return self.lowest
        falling = 0.5 * (highest - self.lowest)
        return self.lowest + falling * (1 + math.cos(math.pi * gone / self.rest))


def make_schedule(optimiser: Optimizer, training: Training, steps: int) -> Schedule:
    """The schedule of an optimiser's learning rates over all steps of the training.

    It depends on the number of the step alone, so that a training can go on in its middle.

    Args:
        optimiser: Its groups' rates are the largest of the schedule.
        training: Names it.
        steps: Of the whole training.
    """
    warm = round(training.warmup * steps)
    rest = max(1, steps - warm)
    lowest = training.final_learning_rate * training.learning_rate
    if training.schedule == COSINE:
        return Cosine(optimiser, warm=warm, rest=rest, lowest=lowest)
    from timm import scheduler

    common: dict[str, Any] = {"warmup_t": warm, "warmup_prefix": True, "t_in_epochs": False}
    falling = {"t_initial": rest, "lr_min": lowest, **common}
    make: Any
    if training.schedule in (STEP, CONSTANT):
        shares = milestones(training.milestones) if training.schedule == STEP else ()
        decay_steps = [round(share * steps) - warm for share in shares]
        stepped: Schedule = scheduler.MultiStepLRScheduler(
            optimiser, decay_t=decay_steps, decay_rate=training.milestone_decay, **common
        )
        return stepped
    make, more = {
        TANH: (scheduler.TanhLRScheduler, {}),
        POLYNOMIAL: (scheduler.PolyLRScheduler, {"power": 0.5}),
        LINEAR: (scheduler.PolyLRScheduler, {"power": 1.0}),
    }[training.schedule]
    smooth: Schedule = make(optimiser, **falling, **more)
    return smooth
