"""One trial as tables for the terminal: its numbers, its classes, its learning curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from search import output
from search.convergence import EPOCHS, SECONDS
from search.kept import size_words
from search.learnt import sites_words
from search.show import latency_words

SPLITS = ("validation", "test")
SPLIT_METRICS = ("accuracy", "loss", "calibration_error")
EPOCH_COLUMNS = (
    *("epoch", "train loss", "loss", "accuracy"),
    *("images/s", "peak memory", "seconds"),
)


def trial_tables(data: Mapping[str, Any]) -> Iterator[Table | Text]:
    """The tables of one trial, and the traceback of its last attempt where that left one.

    Args:
        data: As ``search.show.one_trial_data`` gives it.
    """
    title = f"{data['study']}, trial {data['number']}: {data['state']}"
    yield output.table(title, ("", data["label"]), _facts(data))
    attention = sites_words(data["architecture"]["placements"])
    if attention:
        yield output.table("Attention", ("sites", "block", "options"), attention)
    if "found" in data:
        rows = list(data["found_sites"].items())
        yield output.table("Found by its training", ("site", "frequencies"), rows)
    splits = _splits(data)
    if splits:
        yield output.table("Measured", ("split", "accuracy", "loss", "calibration error"), splits)
    for split in SPLITS:
        if split in data["classes"]:
            title = f"Classes, {split}"
            columns = ("class", "images", "right", "recall", "taken for it", "precision")
            yield output.table(title, columns, _classes(data["classes"][split]))
    if data["curve"]:
        yield output.table("Epochs", EPOCH_COLUMNS, _epochs(data["curve"]))
    yield from _attempts(data["attempts"])


def _anew(data: Mapping[str, Any]) -> str:
    """The trials that train what this one's training has found."""
    if "found" not in data:
        return ""
    numbers = ", ".join(map(str, data["found_trials"]))
    return f"trained anew as trial {numbers}" if numbers else "not trained anew"


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> Iterator[Table | Text]:
    """How its attempts ended, where one of them did not succeed."""
    if not any(attempt["kind"] for attempt in attempts):
        return
    rows = [
        (a["number"], _moment(a["started"]), a["ending"] or "running", a["cause"]) for a in attempts
    ]
    yield output.table("Attempts", ("attempt", "started", "ending", "cause"), rows)
    traceback = attempts[-1]["traceback"]
    if traceback:
        yield Text(output.clean(f"Traceback of attempt {attempts[-1]['number']}:\n{traceback}"))


def _moment(time: str) -> str:
    return time[:19].replace("T", " ")


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("digest", data["digest"]),
        ("seed", str(data["seed"])),
        ("training", ", ".join(f"{k} {v}" for k, v in data["training"].items())),
        ("params", f"{data['params']:,}"),
        ("macs", f"{data['macs']:,}"),
        ("flops", f"{data['flops']:,}"),
        ("latency", latency_words(data.get("latency_ratio"), data.get("latency", {}))),
        ("images per second", output.count(data["images_per_second"])),
        ("peak memory", _size(data["peak_memory_bytes"])),
        ("area under the curve", _share(data["curve_area"])),
        ("to target", _target(data)),
        ("weights", _weights(data)),
        ("time", output.duration(data["seconds"])),
        ("starts", str(len(data["attempts"]))),
        ("batch in parts", _parts(data["attempts"])),
        ("reused from", data.get("origin", "")),
        ("what it found", _anew(data)),
        ("found by", ", ".join(f"trial {number}" for number in data.get("found_by", ()))),
        ("error", data.get("error", "")),
    ]
    return [(name, value) for name, value in rows if value]


def _parts(attempts: Sequence[Mapping[str, Any]]) -> str:
    """In how many parts its batch was computed, where it did not fit the memory."""
    parts = attempts[-1]["provenance"].get("batch in parts") if attempts else None
    return f"{parts}, for want of memory; the step is the same" if parts else ""


def _target(data: Mapping[str, Any]) -> str:
    if "target_accuracy" not in data:
        return ""
    wanted = output.percent(data["target_accuracy"])
    if data[EPOCHS] is None:
        return f"{wanted} never reached"
    epochs = "1 epoch" if data[EPOCHS] == 1 else f"{data[EPOCHS]} epochs"
    return f"{wanted} after {epochs}, {data[SECONDS]:.1f} s"


def _weights(data: Mapping[str, Any]) -> str:
    if "weights" not in data:
        return ""
    return f"{data['weights']['path']}, {size_words(data['weights']['bytes'])}"


def _splits(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Accuracy, loss and calibration error of validation, and apart of test."""
    found = {(row["split"], row["metric"]): row["value"] for row in data["measurements"]}
    return [
        (
            split,
            output.percent(found.get((split, "accuracy"))),
            _share(found.get((split, "loss"))),
            _share(found.get((split, "calibration_error"))),
        )
        for split in SPLITS
        if any((split, metric) in found for metric in SPLIT_METRICS)
    ]


def _classes(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (
            row["class"],
            row["images"],
            row["right"],
            output.percent(row["recall"]),
            row["predicted"],
            output.percent(row["precision"]),
        )
        for row in rows
    ]


def _epochs(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (
            row["epoch"],
            _share(row["train_loss"]),
            _share(row["loss"]),
            output.percent(row["accuracy"]),
            output.count(row["images_per_second"]),
            _size(row["peak_memory_bytes"]),
            f"{row['seconds']:.2f}",
        )
        for row in rows
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _size(value: float | None) -> str:
    return "" if value is None else size_words(value)
