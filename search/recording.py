"""What is recorded of a trained network: its numbers, its answers, and its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Protocol

from torch import nn

from blocks.weight_file import write_trained
from search.convergence import AREA, curve_area
from search.evaluation import Evaluation, Parts, evaluate
from search.outcome import Answers, Assignment, EpochResult
from search.provenance import checksum, versions
from spaces.candidate import DataFacts

Measured = tuple[tuple[str, str, float], ...]  # (split, metric, value)


class Splits(Protocol):
    """What gives the images of a split."""

    def part(self, split: str) -> Parts:
        """The whole split in its stored order."""


def from_curve(epochs: Sequence[EpochResult]) -> Measured:
    """The numbers of a trial that its learning curve holds; its accuracy is the last epoch's."""
    last = epochs[-1]
    best = max(epochs, key=lambda result: (result.accuracy, -result.epoch))
    speeds = [e.images_per_second for e in epochs if e.images_per_second is not None]
    peaks = [e.peak_memory_bytes for e in epochs if e.peak_memory_bytes is not None]
    measured = [
        ("validation", "accuracy", last.accuracy),
        ("validation", "loss", last.loss),
        ("validation", "best_accuracy", best.accuracy),
        ("validation", "best_epoch", float(best.epoch)),
        ("validation", AREA, curve_area([e.accuracy for e in epochs])),
        ("train", "loss", last.train_loss),
        ("train", "accuracy", last.train_accuracy),
        ("train", "seconds_per_epoch", fmean(e.seconds for e in epochs)),
    ]
    if speeds:
        measured.append(("train", "images_per_second", median(speeds)))
    if peaks:
        measured.append(("train", "peak_memory_bytes", max(peaks)))
    return tuple(measured)


def from_splits(
    network: nn.Module, data: Splits, classes: int, *, complete: bool
) -> tuple[Measured, tuple[Answers, ...]]:
    """What a network answers once its training has ended.

    Args:
        network: As it is to be judged: of the last epoch, or its weight average.
        data: Gives validation and, once and for complete trials alone, test.
        classes: How many there are.
        complete: Whether it was trained to its end.
    """
    validation = evaluate(network, data.part("validation"), classes=classes)
    measured = [("validation", "calibration_error", validation.calibration_error)]
    answers = [validation.answers("validation")]
    if complete:
        test = evaluate(network, data.part("test"), classes=classes)
        measured += _measured_on_test(test)
        answers.append(test.answers("test"))
    return tuple(row for row in measured if not math.isnan(row[2])), tuple(answers)


def _measured_on_test(test: Evaluation) -> list[tuple[str, str, float]]:
    return [
        ("test", "accuracy", test.accuracy),
        ("test", "loss", test.loss if math.isfinite(test.loss) else math.inf),
        ("test", "calibration_error", test.calibration_error),
    ]


def keep_weights(network: nn.Module, path: str, about: Mapping[str, str]) -> dict[str, Any]:
    """Write a network's final weights; what an outcome says of them.

    A training is not lost where this fails: the outcome says why.
    """
    try:
        write_trained(network, path, about)
        kept = {"sha256": checksum(path), "bytes": Path(path).stat().st_size}
    except OSError as error:
        return {"error": f"trained, but its weights could not be kept: {error}"}
    return {"kept": kept}


def about_weights(
    assignment: Assignment,
    facts: DataFacts,
    digest: str,
    *,
    mean: Iterable[float],
    deviation: Iterable[float],
) -> dict[str, str]:
    """What a file of final weights says of itself, as safetensors wants it: words by words.

    Nothing of it is of chance or of the clock: equal trainings give equal files.

    Args:
        assignment: What was trained.
        facts: Of the data.
        digest: The candidate's.
        mean: Of each channel, of pixels from 0 to 255, that images are to be freed of.
        deviation: Of each channel, that they are then to be divided by.
    """
    content = {
        "architecture": assignment.architecture,
        "training": assignment.training,
        "num_classes": facts.classes,
        "in_channels": facts.input_shape[0],
        "input_shape": list(facts.input_shape),
        "data": facts.name,
        "split_digest": facts.split_digest,
        "digest": digest,
        "seed": assignment.seed,
        "mean": list(mean),
        "deviation": list(deviation),
        "tool": f"attention-search {versions()['attention-search']}",
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in content.items()}
