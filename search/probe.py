"""How many images a second a network trains and evaluates here, while others may do the same."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch

from search.batches import Batches
from search.evaluation import loss_and_accuracy
from search.outcome import Assignment
from search.training import Step, arithmetic, begin
from search.trial import assigned_network, device_data, sized_data
from spaces.training import Training

WARM_STEPS = 5
WARM_SECONDS = 3.0  # a network whose steps are this slow is not warmed up further
SYNCHRONISE_EVERY = 4  # steps; the clock of a GPU's work is read after them

_made: dict[str, tuple[Step, Batches]] = {}


def probe(
    assignment: Assignment, device: torch.device, *, seconds: float, evaluation: float = 0.0
) -> dict[str, Any]:
    """Train a network for some seconds; 0: get ready for it, and say what memory was free.

    Args:
        assignment: What to train; its weights are thrown away.
        device: Where.
        seconds: For how long.
        evaluation: For how long it is then evaluated.

    Returns:
        ``images`` trained on in ``seconds``; ``evaluated`` images in ``evaluation`` seconds;
        ``ready``: seconds until a network was built and warm, 0 where it was before; ``free`` bytes
        of a GPU's memory before anything was put there, None on a processor.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    started = time.perf_counter()
    ready = 0.0
    if assignment.label not in _made:
        _made[assignment.label] = _prepared(assignment, device)
        ready = time.perf_counter() - started
        _train(*_made[assignment.label], seconds=0.0, least=WARM_STEPS, most=WARM_SECONDS)
    images, spent, evaluated, looked = 0, 0.0, 0, 0.0
    if seconds:
        images, spent = _train(*_made[assignment.label], seconds=seconds, least=1)
    if evaluation:
        evaluated, looked = _evaluate(*_made[assignment.label], seconds=evaluation)
    return {
        "images": images,
        "seconds": spent,
        "evaluated": evaluated,
        "evaluation": looked,
        "ready": ready,
        "free": free,
    }


def _prepared(assignment: Assignment, device: torch.device) -> tuple[Step, Batches]:
    training = Training.from_json(assignment.training)
    data = sized_data(assignment)
    batches = device_data(data, device)
    network = assigned_network(assignment, training, data.facts, device)
    steps = batches.count // training.batch_size * training.epochs
    return Step(begin(network, training, steps), network, training), batches


def _train(
    step: Step, batches: Batches, *, seconds: float, least: int, most: float = float("inf")
) -> tuple[int, float]:
    """(images, seconds) of training at least so long and so many steps, or for the most seconds."""
    training, steps, images = step.training, 0, 0
    step.begin()
    _wait(batches.device)
    started = time.perf_counter()
    with arithmetic(training.precision, batches.device):
        for epoch in itertools.count(1):
            for batch in batches.train(training, seed=0, epoch=epoch):
                step.take(batch)
                steps, images = steps + 1, images + len(batch[1])
                if steps % SYNCHRONISE_EVERY == 0 or batches.device.type == "cpu":
                    _wait(batches.device)
                    spent = time.perf_counter() - started
                    if (spent >= seconds and steps >= least) or spent >= most:
                        return images, spent
    raise AssertionError("epochs have no end")


def _evaluate(step: Step, batches: Batches, *, seconds: float) -> tuple[int, float]:
    """(images, seconds) of evaluating at least so long, after a first pass that is not counted."""
    images, labels = next(iter(batches.part("validation")))
    part = [(images[: 4 * step.training.batch_size], labels[: 4 * step.training.batch_size])]
    network = step.progress.evaluated
    with arithmetic(step.training.precision, batches.device):
        loss_and_accuracy(network, part)
        started = time.perf_counter()
        for passes in itertools.count(1):
            loss_and_accuracy(network, part)
            spent = time.perf_counter() - started
            if spent >= seconds:
                return passes * len(part[0][1]), spent
    raise AssertionError("passes have no end")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
