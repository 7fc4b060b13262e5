"""Evaluating one candidate at one seed: the unit of work of a worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from blocks.architecture import Architecture
from blocks.backbone import site_table
from blocks.build import MadeFor, build_network
from blocks.found import found_architecture
from blocks.pretrained import State, read_identified
from search.batches import Batches, resident
from search.checkpoint import Checkpoint, training_identity
from search.data import Data
from search.datasets import load_data
from search.distributed import ALONE, Alone
from search.failures import MAX_HALVINGS, MISTAKE, NOT_A_NUMBER, OUT_OF_MEMORY
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
from search.training import Diverged, arithmetic, train
from spaces.candidate import Candidate, DataFacts
from spaces.metrics import SPEED
from spaces.training import Training

_on_device: dict[tuple[Data, str], Batches] = {}


def device_data(data: Data, device: torch.device) -> Batches:
    """A data set as a training takes it, put on the device once per process."""
    key = (data, str(device))
    if key not in _on_device:
        _on_device[key] = _batches(data, device)
    return _on_device[key]


def assigned_data(assignment: Assignment) -> Data:
    """The data of an assignment, loaded once per process."""
    size = (assignment.data_size, assignment.data_size) if assignment.data_size else None
    split = assignment.data_split
    return load_data(assignment.data, assignment.data_folder, size=size, split=split)


def sized_data(assignment: Assignment) -> Data:
    """The data of an assignment, at the size that its network takes."""
    size = Architecture.from_json(assignment.architecture).input_size
    data = assigned_data(assignment)
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


NO_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")  # in lower case


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the processor, had too little memory; torch has several words."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)


class NoMemoryError(Exception):
    """A batch does not fit the memory, also not in parts."""

    def __init__(self, error: BaseException, parts: int) -> None:
        line = _line(error)
        if parts > 1:
            line += f" (also with the batch in {parts} parts)"
        super().__init__(line)
        self.said: dict[str, Any] = {"error": line}
        if parts > 1:
            self.said["made"] = {"batch in parts": parts}


def _line(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def evaluate_candidate(
    assignment: Assignment,
    *,
    device: torch.device,
    goes_on: Callable[[EpochResult], bool],
    provenance: Mapping[str, Any] | None = None,
    division: Alone = ALONE,
) -> Outcome:
    """Build, train and measure one candidate.

    Args:
        assignment: What to evaluate.
        device: Where.
        goes_on: Told each epoch's result; False prunes the trial there.
        provenance: Versions, device and threads: a checkpoint of others is not gone on from.
        division: Where several processes evaluate it together; the first one's outcome counts.

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
    checkpoint = Checkpoint(
        assignment.checkpoint, training_identity(assignment, dict(provenance or {}))
    )
    try:
        said = _trained(assignment, device, note, epochs, checkpoint, division)
    except Diverged as error:
        return ended(DIVERGED, error=str(error), cause=NOT_A_NUMBER)
    except NoMemoryError as error:
        return ended(FAILED, **error.said, traceback=traceback.format_exc(), cause=OUT_OF_MEMORY)
    except Exception as error:
        line = _line(error)
        return ended(FAILED, error=line, traceback=traceback.format_exc(), cause=MISTAKE)
    if checkpoint.problem:
        said["made"] = {**(said.get("made") or {}), "checkpoint": checkpoint.problem}
    if len(epochs) < Training.from_json(assignment.training).epochs:
        return ended(PRUNED, **said)
    if not division.first:
        return ended(COMPLETE)
    timed = _timed(assignment, device) if assignment.latency else {}
    said["measurements"] += timed.pop("measurements", ())
    errors = [one["error"] for one in (said, timed) if "error" in one]
    return ended(COMPLETE, **{**said, **timed, "error": "; ".join(errors)})


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
        return {"error": f"trained, but its latency could not be measured: {_line(error)}"}
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
    checkpoint: Checkpoint,
    division: Alone,
) -> dict[str, Any]:
    """What an outcome says of a training: its numbers, answers, weights and findings.

    Where the device has too little memory for a batch, it is computed in two parts, then in four:
    the effective batch stays, and the outcome says it. Several processes do not: they would have to
    run short of memory at the same step.

    Raises:
        NoMemoryError: Four parts do not fit either.
    """
    training = Training.from_json(assignment.training)
    most = 1 if division.processes > 1 else min(2**MAX_HALVINGS, training.batch_size)
    parts = 1
    while True:
        try:
            said = _evaluated(
                assignment, training, device, note, epochs, checkpoint, parts, division
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if 2 * parts > most:
                raise NoMemoryError(error, parts) from error
            parts *= 2
        else:
            break
        epochs.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if parts > 1:
        said["made"] = {**said.get("made", {}), "batch in parts": parts}
    return said


def _evaluated(
    assignment: Assignment,
    training: Training,
    device: torch.device,
    note: Callable[[EpochResult], bool],
    epochs: list[EpochResult],
    checkpoint: Checkpoint,
    parts: int,
    division: Alone,
) -> dict[str, Any]:
    """A whole training, and what its network then says."""
    images = sized_data(assignment)
    data, facts = device_data(images, device), images.facts
    architecture = Architecture.from_json(assignment.architecture)
    network = assigned_network(assignment, training, facts, device)
    said: dict[str, Any] = {}
    resumed = checkpoint.read()
    if resumed is not None:
        epochs += [EpochResult(**result) for result in resumed["results"]]
        said["made"] = {"went on after epoch": len(epochs)}
    network = train(
        network,
        data,
        training,
        seed=assignment.seed,
        goes_on=note,
        resumed=resumed,
        kept=checkpoint.keep,
        parts=parts,
        division=division,
    )
    if not division.first:
        return {}
    complete = len(epochs) == training.epochs
    with arithmetic(training.precision, device):
        measured, answers = from_splits(network, data, facts.classes, complete=complete)
    said |= {"measurements": from_curve(epochs) + measured, "answers": answers}
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


def assigned_network(
    assignment: Assignment, training: Training, facts: DataFacts, device: torch.device
) -> nn.Module:
    """The network of an assignment as its training finds it, on a device."""
    architecture = Architecture.from_json(assignment.architecture)
    made_for = MadeFor(architecture.backbone, facts.classes, facts.input_shape)
    identity = training.pretrained
    network = build_network(
        architecture,
        num_classes=facts.classes,
        in_channels=facts.input_shape[0],
        seed=assignment.seed,
        pretrained=_start(identity, assignment.weights, made_for) if identity else False,
    )
    placed: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
