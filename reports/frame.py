"""studies.db as tidy data frames: one row per trial, one row per epoch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reports.records import StudyRecords, read_records
from search.database import DEFAULT_STORAGE
from search.records import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

SPEEDS = ("latency_ratio", "latency_ms", "throughput")
RECORDED = (
    *("calibration_error", "curve_area", "images_per_second", "peak_memory_bytes"),
    "memory",
)
EPOCH_RECORDED = ("images_per_second", "peak_memory_bytes")
TRIAL_COLUMNS = (
    *("number", "state", "label", "type", "placement", "reduction", "frequency", "baseline"),
    *("seed", "digest", "architecture_digest", "backbone", "epochs", "accuracy", "test_accuracy"),
    *(
        "params",
        "trainable_params",
        "macs",
        "flops",
        *SPEEDS,
        *RECORDED,
        "front",
        "seconds",
        "created",
        "finished",
    ),
    *("error", "origin"),
)
CURVE_COLUMNS = (
    *("number", "label", "seed", "epoch", "train_loss", "train_accuracy", "loss", "accuracy"),
    *("learning_rate", "seconds", *EPOCH_RECORDED),
)
TYPES = {
    "number": "int64",
    "seed": "int64",
    "epochs": "int64",
    "epoch": "int64",
    "reduction": "Int64",
    "baseline": "bool",
    "front": "bool",
    "accuracy": "float64",
    "test_accuracy": "float64",
    "seconds": "float64",
    **dict.fromkeys((*SPEEDS, *RECORDED), "float64"),
    "params": "int64",
    "trainable_params": "int64",
    "macs": "int64",
    "flops": "int64",
}
TIMES = ("created", "finished")


def trials_frame(storage: str = DEFAULT_STORAGE, study: str | None = None) -> pd.DataFrame:
    """The trials of a study, one row each, by number.

    Accuracies are shares from 0 to 1, missing where a trial has none, as are latencies; times are
    UTC. ``front`` says
    whether no other complete trial is better in one objective and at least as good in all. The
    settings that were searched follow as ``param_*`` columns.

    Args:
        storage: The database's URL.
        study: The study's name; without one, the study that was run last.

    Raises:
        StudyError: The database cannot be read, or has no such study.
    """
    import pandas as pd

    records = read_records(storage, study)
    names = sorted({name for trial in records.trials for name in trial.parameters})
    rows = [_trial_row(records, trial, names) for trial in records.trials]
    columns = [*TRIAL_COLUMNS, *(f"param_{name}" for name in names)]
    frame = pd.DataFrame(rows, columns=columns).astype(_types(TRIAL_COLUMNS))
    for name in TIMES:
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
    return frame


def _trial_row(records: StudyRecords, trial: TrialRecord, names: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(trial, name) for name in TRIAL_COLUMNS if hasattr(trial, name)
    }
    row |= asdict(records.traits[trial.number])
    row |= {"front": trial.number in records.front}
    return row | {f"param_{name}": trial.parameters.get(name) for name in names}


def curves_frame(storage: str = DEFAULT_STORAGE, study: str | None = None) -> pd.DataFrame:
    """The learning curves of a study: one row per trial and epoch.

    ``loss`` and ``accuracy`` are of the validation split.

    Args:
        storage: The database's URL.
        study: The study's name; without one, the study that was run last.

    Raises:
        StudyError: The database cannot be read, or has no such study.
    """
    import pandas as pd

    records = read_records(storage, study)
    rows = [
        {"number": trial.number, "label": trial.label, "seed": trial.seed, **asdict(result)}
        for trial in records.trials
        for result in records.curves.get(trial.number, ())
    ]
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS)).astype(_types(CURVE_COLUMNS))


def _types(columns: tuple[str, ...]) -> dict[str, Any]:
    return {name: kind for name, kind in TYPES.items() if name in columns}
