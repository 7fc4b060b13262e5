"""Evaluating one candidate at one seed: the unit of work of a worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from blocks.architecture import Architecture
from blocks.backbone import site_table
from blocks.build import MadeFor, build_network
from blocks.found import found_architecture
from blocks.pretrained import State, read_identified
from search.batches import Batches, resident
from search.data import Data
from search.data_place import assigned_data
from search.measure import measure_latency
from search.outcome import (
    COMPLETE,
    DIVERGED,
    FAILED,
    PRUNED,
    Assignment,
    EpochResult,
    Outcome,
)
from search.training import Diverged, evaluate, train
from spaces.metrics import SPEED
from spaces.training import Training

Measured = tuple[tuple[str, str, float], ...]  # (split, metric, value)

_on_device: dict[tuple[Data, str], Batches] = {}


def device_data(data: Data, device: torch.device) -> Batches:
    """A data set as a training takes it, put on the device once per process."""
    key = (data, str(device))
    if key not in _on_device:
        _on_device[key] = _batches(data, device)
    return _on_device[key]


def sized_data(assignment: Assignment) -> Data:
    """The data of an assignment, at the size that its network takes."""
    data = assigned_data(assignment)
    size = Architecture.from_json(assignment.architecture).input_size
    return data.resized(size) if size else data


def _batches(data: Data, device: torch.device) -> Batches:
    if not data.streams:
        return resident(data, device)
    from search.streaming import StreamedBatches

    # On a processor, processes that read would take from those that train.
    processes = torch.get_num_threads() if device.type == "cuda" else 0
    return StreamedBatches(data, device, processes=processes)


@lru_cache(maxsize=2)
def _start(identity: str, path: str, made_for: MadeFor) -> State:
    """Trained weights, read once per process."""
    return read_identified(identity, path, made_for)


def evaluate_candidate(
    assignment: Assignment, *, device: torch.device, goes_on: Callable[[EpochResult], bool]
) -> Outcome:
    """Build, train and measure one candidate.

    Args:
        assignment: What to evaluate.
        device: Where.
        goes_on: Told each epoch's result; False prunes the trial there.

    Returns:
        The outcome; a mistake of the code is an outcome too (failed, with its traceback).
    """
    started = time.perf_counter()
    epochs: list[EpochResult] = []

    def note(result: EpochResult) -> bool:
        epochs.append(result)
        return goes_on(result)

    def ended(state: str, **more: Any) -> Outcome:
        seconds = time.perf_counter() - started
        return Outcome(state, tuple(epochs), seconds=seconds, **more)

    if assignment.trained:
        return ended(COMPLETE, **_timed(assignment, device))
    try:
        measurements, found = _trained(assignment, device, note, epochs)
    except Diverged as error:
        return ended(DIVERGED, error=str(error))
    except Exception as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return ended(FAILED, error=line, traceback=traceback.format_exc())
    if len(epochs) < Training.from_json(assignment.training).epochs:
        return ended(PRUNED, measurements=measurements)
    timed = _timed(assignment, device) if assignment.latency else {}
    measurements += timed.pop("measurements", ())
    return ended(COMPLETE, measurements=measurements, found=found, **timed)


def _timed(assignment: Assignment, device: torch.device) -> dict[str, Any]:
    """What an outcome says of its network's latency: a training is not lost where this fails.

    New networks are timed, of the candidate and of its backbone without attention: their weights
    do not matter, and what was trained stays as it is.
    """
    try:
        architecture = Architecture.from_json(assignment.architecture)
        facts = assigned_data(assignment).facts.of_size(architecture.input_size)
        bare = Architecture(architecture.backbone, (), architecture.input_size)
        network, baseline = (
            build_network(
                one,
                num_classes=facts.classes,
                in_channels=facts.input_shape[0],
                seed=assignment.seed,
            )
            for one in (architecture, bare)
        )
        latency = measure_latency(network, baseline, facts.input_shape, device=device)
    except Exception as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"error": f"trained, but its latency could not be measured: {line}"}
    numbers = latency.numbers()
    if not architecture.placements:
        numbers["latency_ratio"] = 1.0  # it is the baseline: what was measured is chance
    measured = tuple((SPEED, name, value) for name, value in numbers.items())
    return {"measurements": measured, "latency": latency.made()}


def _trained(
    assignment: Assignment,
    device: torch.device,
    note: Callable[[EpochResult], bool],
    epochs: list[EpochResult],
) -> tuple[Measured, Mapping[str, Any] | None]:
    """What was measured, and the architecture that learnt choices have come to."""
    training = Training.from_json(assignment.training)
    images = sized_data(assignment)
    data, facts = device_data(images, device), images.facts
    architecture = Architecture.from_json(assignment.architecture)
    made_for = MadeFor(architecture.backbone, facts.classes, facts.input_shape)
    identity = training.pretrained
    start = _start(identity, assignment.weights, made_for) if identity else False
    network = build_network(
        architecture,
        num_classes=facts.classes,
        in_channels=facts.input_shape[0],
        seed=assignment.seed,
        pretrained=start,
    )
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = train(network, data, training, seed=assignment.seed, goes_on=note)
    last = epochs[-1]
    best = max(epochs, key=lambda result: (result.accuracy, -result.epoch))
    measured = [
        ("validation", "accuracy", last.accuracy),
        ("validation", "loss", last.loss),
        ("validation", "best_accuracy", best.accuracy),
        ("validation", "best_epoch", float(best.epoch)),
        ("train", "loss", last.train_loss),
        ("train", "accuracy", last.train_accuracy),
        ("train", "seconds_per_epoch", sum(e.seconds for e in epochs) / len(epochs)),
    ]
    found = None
    if len(epochs) == training.epochs:
        loss, accuracy = evaluate(network, data, "test")
        measured += [("test", "accuracy", accuracy), ("test", "loss", loss)]
        sites = site_table(architecture.backbone, facts.input_shape, facts.classes)
        found = found_architecture(network, architecture, sites)
    return tuple(measured), found.to_json() if found else None
