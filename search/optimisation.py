"""The optimiser and the schedule of a training: timm's, and torch's fused kernels."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn
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

FUSED = ("sgd", "momentum", "adam", "adamw", "adagrad")


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
    from timm.optim import create_optimizer_v2

    more: dict[str, Any] = {"fused": True} if training.optimizer in FUSED else {}
    if OPTIMIZERS[training.optimizer]:
        more["momentum"] = training.momentum
    if training.optimizer == SGD:
        more["nesterov"] = training.momentum > 0
    optimiser: Optimizer = create_optimizer_v2(
        parameter_groups(network, training),
        opt=training.optimizer,
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        **more,
    )
    return optimiser


def make_schedule(optimiser: Optimizer, training: Training, steps: int) -> Schedule:
    """The schedule of an optimiser's learning rates over all steps of the training.

    It depends on the number of the step alone, so that a training can go on in its middle.

    Args:
        optimiser: Its groups' rates are the largest of the schedule.
        training: Names it.
        steps: Of the whole training.
    """
    from timm import scheduler

    warm = round(training.warmup * steps)
    rest = max(1, steps - warm)
    common: dict[str, Any] = {"warmup_t": warm, "warmup_prefix": True, "t_in_epochs": False}
    falling = {
        "t_initial": rest,
        "lr_min": training.final_learning_rate * training.learning_rate,
        **common,
    }
    make: Any
    if training.schedule in (STEP, CONSTANT):
        shares = milestones(training.milestones) if training.schedule == STEP else ()
        decay_steps = [round(share * steps) - warm for share in shares]
        stepped: Schedule = scheduler.MultiStepLRScheduler(
            optimiser, decay_t=decay_steps, decay_rate=training.milestone_decay, **common
        )
        return stepped
    make, more = {
        COSINE: (scheduler.CosineLRScheduler, {}),
        TANH: (scheduler.TanhLRScheduler, {}),
        POLYNOMIAL: (scheduler.PolyLRScheduler, {"power": 0.5}),
        LINEAR: (scheduler.PolyLRScheduler, {"power": 1.0}),
    }[training.schedule]
    smooth: Schedule = make(optimiser, **falling, **more)
    return smooth
