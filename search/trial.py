"""Evaluating one candidate at one seed: the unit of work of a worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from blocks.architecture import Architecture
from blocks.backbone import site_table
from blocks.build import MadeFor, build_network, stream_seed
from blocks.found import found_architecture
from blocks.pretrained import State, read_identified
from search.datasets import load_data
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
from search.recording import about_weights, from_curve, from_splits, keep_weights
from search.training import DeviceData, Diverged, to_device, train
from spaces.candidate import Candidate, DataFacts, Training
from spaces.metrics import SPEED

_on_device: dict[tuple[str, str], DeviceData] = {}


def device_data(name: str, device: torch.device) -> DeviceData:
    """A data set on a device, loaded once per process."""
    key = (name, str(device))
    if key not in _on_device:
        _on_device[key] = to_device(load_data(name), device)
    return _on_device[key]


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
        said = _trained(assignment, device, note, epochs)
    except Diverged as error:
        return ended(DIVERGED, error=str(error))
    except Exception as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return ended(FAILED, error=line, traceback=traceback.format_exc())
    if len(epochs) < Training.from_json(assignment.training).epochs:
        return ended(PRUNED, **said)
    return ended(COMPLETE, **_with_latency(said, assignment, device))


def _with_latency(
    said: dict[str, Any], assignment: Assignment, device: torch.device
) -> dict[str, Any]:
    """What is said of a training, and of its network's latency where that is wanted."""
    if not assignment.latency:
        return said
    timed = _timed(assignment, device)
    measurements = said["measurements"] + timed.pop("measurements", ())
    errors = [part["error"] for part in (said, timed) if "error" in part]
    return {**said, **timed, "measurements": measurements, "error": "; ".join(errors)}


def _timed(assignment: Assignment, device: torch.device) -> dict[str, Any]:
    """What an outcome says of its network's latency: a training is not lost where this fails.

    New networks are timed, of the candidate and of its backbone without attention: their weights
    do not matter, and what was trained stays as it is.
    """
    try:
        facts = load_data(assignment.data).facts
        architecture = Architecture.from_json(assignment.architecture)
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
) -> dict[str, Any]:
    """What an outcome says of a training: its numbers, answers, weights and findings."""
    training = Training.from_json(assignment.training)
    data = device_data(assignment.data, device)
    facts = load_data(assignment.data).facts
    architecture = Architecture.from_json(assignment.architecture)
    network = _built(assignment, architecture, training, facts)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.manual_seed(stream_seed(assignment.seed, "training"))
    train(network, data, training, seed=assignment.seed, goes_on=note)
    complete = len(epochs) == training.epochs
    measured, answers = from_splits(network, data, facts.classes, complete=complete)
    said: dict[str, Any] = {"measurements": from_curve(epochs) + measured, "answers": answers}
    if not complete:
        return said
    sites = site_table(architecture.backbone, facts.input_shape, facts.classes)
    found = found_architecture(network, architecture, sites)
    said["found"] = found.to_json() if found else None
    if assignment.keep:
        digest = Candidate(architecture, training, facts, assignment.label).digest
        about = about_weights(assignment, facts, digest, mean=data.mean, deviation=data.deviation)
        said |= keep_weights(network, assignment.keep, about)
    return said


def _built(
    assignment: Assignment, architecture: Architecture, training: Training, facts: DataFacts
) -> nn.Module:
    """The network as its training finds it."""
    made_for = MadeFor(architecture.backbone, facts.classes, facts.input_shape)
    identity = training.pretrained
    return build_network(
        architecture,
        num_classes=facts.classes,
        in_channels=facts.input_shape[0],
        seed=assignment.seed,
        pretrained=_start(identity, assignment.weights, made_for) if identity else False,
    )
