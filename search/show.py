"""What the commands show of a stored study, as plain data and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table
from sqlalchemy import Engine

from blocks.architecture import Architecture, identity_parameters
from search import output
from search.abandoned import status_of
from search.answers import read_classes
from search.beside import beside_published, unread_tables
from search.convergence import EPOCHS, SECONDS, check_target, to_target
from search.failed import read_causes
from search.failures import cause_of, failures_words, totals
from search.front import front_means, front_numbers
from search.kept import KeptFile, kept_data, kept_words, read_kept, size_words
from search.learnt import learnt_data
from search.outcome import DIVERGED, FAILED, REJECTED
from search.proposed import proposal_counts
from search.reading import (
    RejectedRecord,
    find_trial,
    read_attempts,
    read_curves,
    read_rejected,
    read_studies,
    read_study,
    read_trials,
)
from search.records import StudyRecord, TrialRecord
from spaces.metrics import MEMORY

RECORDED = (
    *("calibration_error", "curve_area", "images_per_second", "peak_memory_bytes"),
    "memory",
)


def trial_data(trial: TrialRecord, kept: KeptFile | None = None) -> dict[str, Any]:
    """One trial as plain data, with the file of its weights where they are kept."""
    data: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state,
        "label": trial.label,
        "architecture": trial.architecture,
        "architecture_digest": trial.architecture_digest,
        "digest": trial.digest,
        "baseline": trial.baseline,
        "seed": trial.seed,
        "epochs": trial.epochs,
        "accuracy": trial.accuracy,
        "test_accuracy": trial.test_accuracy,
        "params": trial.params,
        "trainable_params": trial.trainable_params,
        "macs": trial.macs,
        "flops": trial.flops,
        **({"identity_params": starts} if (starts := _identity_parameters(trial)) else {}),
        "parameters": trial.parameters,
        "training": trial.training,
        "seconds": trial.seconds,
        **{name: getattr(trial, name) for name in RECORDED},
    }
    if kept is not None:
        data["weights"] = kept.to_json()
    if trial.speed:
        data |= _latency_data(trial)
    if trial.error:
        data["error"] = trial.error
    if trial.origin:
        data["origin"] = trial.origin
    return data


def _identity_parameters(trial: TrialRecord) -> int:
    """Parameters of ``params`` that are the learnt numbers of blocks that start as the identity."""
    return identity_parameters(Architecture.from_json(trial.architecture))


def _latency_data(trial: TrialRecord) -> dict[str, Any]:
    """How fast a network is: three numbers, and apart how they were measured."""
    speed = trial.speed

    def quartiles(name: str) -> list[float | None]:
        return [speed.get(f"{name}_first"), speed.get(name), speed.get(f"{name}_third")]

    plain = ("throughput_batch", "attempts", "gpu_processes")
    return {
        "latency_ratio": trial.latency_ratio,
        "latency_ms": trial.latency_ms,
        "throughput": trial.throughput,
        "latency": {
            "busy": bool(speed.get("busy")),
            "wide": bool(speed.get("wide")),
            "ratio_quartiles": quartiles("latency_ratio"),
            "ms_quartiles": quartiles("latency_ms"),
            "baseline_ms_quartiles": quartiles("baseline_ms"),
            "baseline_throughput": speed.get("baseline_throughput"),
            "waited": speed.get("waited"),
            "others": speed.get("others"),
            **{name: int(speed[name]) for name in plain if name in speed},
        },
    }


def _rejected_data(rejected: RejectedRecord) -> dict[str, Any]:
    """A candidate over a cap: it has no number, because it cost no trial."""
    return {
        "number": None,
        "state": REJECTED,
        "label": rejected.label,
        "architecture": rejected.architecture,
        "architecture_digest": rejected.architecture_digest,
        "digest": rejected.digest,
        "baseline": False,
        "seed": None,
        "epochs": 0,
        "accuracy": None,
        "test_accuracy": None,
        **rejected.cost.to_json(),
        "error": rejected.reason,
    }


def study_data(engine: Engine, name: str | None, *, target: float | None = None) -> dict[str, Any]:
    """A study with its trials and front as plain data.

    Args:
        engine: Of the database.
        name: The study's; None: the one that was run last.
        target: Validation accuracy to which epochs and seconds are counted; None: the study's own.

    Raises:
        StudyError: There is no such study, or the target is no share.
    """
    study = read_study(engine, name)
    trials = read_trials(engine, study.id)
    rejected = read_rejected(engine, study.id)
    kept = read_kept(engine, study.id)
    shown = {trial.number: trial_data(trial, kept.get(trial.number)) for trial in trials}
    causes = read_causes(engine, study.id)
    for number, cause in causes:
        if number in shown and shown[number]["state"] in (FAILED, DIVERGED):
            shown[number]["cause"] = cause  # of its last attempt
    target = _target(study, target)
    if target is not None:
        curves = read_curves(engine, study.id)
        for number, data in shown.items():
            data |= to_target(curves.get(number, ()), target)
    data = {
        "study": study.name,
        "status": status_of(engine, study),
        "note": study.note,
        "objectives": study.objectives,
        "constraints": study.constraints,
        **study.identity,
        "settings": {k: v for k, v in study.settings.items() if k != "file"},
        "proposals": proposal_counts(engine, study.id),
        "front": front_numbers(trials, study.objectives),
        "trials": [*shown.values(), *(_rejected_data(r) for r in rejected)],
    }
    if target is not None:
        data["target_accuracy"] = target
    if causes:
        data["causes"] = totals(cause for _, cause in causes)
    if kept:
        data["weights"] = kept_data(kept.values())
    beside = beside_published(study, trials)
    if beside:
        data["published"] = [one.to_json() for one in beside]
    unread = unread_tables(trials)
    if unread:
        data["published_unread"] = [str(table) for table in unread]
    means = front_means(trials, study.objectives)
    if means:
        data["front_means"] = means
    return data


def _target(study: StudyRecord, given: float | None) -> float | None:
    """The accuracy that is asked for, else the study's own.

    Raises:
        StudyError: It is no share.
    """
    target = study.settings.get("target_accuracy") if given is None else given
    if target is not None:
        check_target(target)
    return target


def remarks(data: Mapping[str, Any]) -> Iterator[str]:
    """What is said below a study's table: why it ended, what failed, what is kept.

    Args:
        data: As ``study_data`` gives it.
    """
    if data["note"]:
        yield data["note"]
    yield from data.get("published_unread", ())
    if "causes" in data:
        yield f"cut off or failed: {failures_words(data['causes'])}"
    if "weights" in data:
        yield f"weights: {kept_words(data['weights'])}"


def studies_data(engine: Engine) -> list[dict[str, Any]]:
    """All studies of a database, one row each."""
    return [_study_row(engine, study) for study in read_studies(engine)]


def _study_row(engine: Engine, study: StudyRecord) -> dict[str, Any]:
    trials = read_trials(engine, study.id)
    states = Counter(trial.state for trial in trials)
    best = max((t.accuracy for t in trials if t.accuracy is not None), default=None)
    return {
        "study": study.name,
        "status": status_of(engine, study),
        "trials": len(trials),
        "wanted": study.settings.get("trials"),
        "states": dict(states),
        "front": len(front_numbers(trials, study.objectives)),
        "best_accuracy": best,
        "data": study.identity["data"]["name"],
        "epochs": study.identity["epochs"],
        "created": study.created,
        "changed": study.changed,
    }


def one_trial_data(
    engine: Engine, name: str, number: int, *, target: float | None = None
) -> dict[str, Any]:
    """One trial with its learning curve, classes and attempts.

    Args:
        engine: Of the database.
        name: The study's.
        number: The trial.
        target: As for ``study_data``.

    Raises:
        StudyError: There is no such study or trial, or the target is no share.
    """
    study = read_study(engine, name)
    trial = find_trial(engine, study, number)
    attempts = [
        {
            "number": attempt.number,
            "owner": attempt.owner,
            "started": attempt.started,
            "finished": attempt.finished,
            "ending": attempt.ending,
            "kind": cause_of(attempt.cause, attempt.ending),
            "cause": attempt.cause,
            "traceback": attempt.traceback,
            "provenance": attempt.provenance,
        }
        for attempt in read_attempts(engine, study.id)
        if attempt.trial == number
    ]
    curve = read_curves(engine, study.id).get(number, [])
    measurements = [
        {"split": split, "metric": metric, "value": value}
        for (split, metric), value in sorted(trial.measurements.items())
    ]
    data = trial_data(trial, read_kept(engine, study.id).get(number))
    target = _target(study, target)
    if target is not None:
        data |= {"target_accuracy": target, **to_target(curve, target)}
    made: dict[str, Any] = next(
        (a["provenance"]["latency"] for a in reversed(attempts) if "latency" in a["provenance"]), {}
    )
    if "latency" in data:
        data["latency"] |= made
    return {
        "study": study.name,
        **data,
        "measurements": measurements,
        **learnt_data(engine, study.id, number),
        "classes": read_classes(engine, study.id, number).get(number, {}),
        "curve": [epoch.__dict__ for epoch in curve],
        "attempts": attempts,
    }


# Tables for the terminal. ------------------------------------------------------------------------

TARGET_COLUMNS = ("to target", "in")
COST_COLUMNS = ("params", "macs", "flops")


def trials_table(title: str, rows: Sequence[Mapping[str, Any]], front: Sequence[int]) -> Table:
    """Trials with accuracy and costs; members of the front are marked."""
    shown = [
        (
            _number(row["number"], front),
            row["state"],
            row["label"],
            output.percent(row["accuracy"]),
            output.percent(row["test_accuracy"]),
            *(output.count(row[cost]) for cost in COST_COLUMNS),
            "" if row.get("memory") is None else size_words(row["memory"]),
            latency_words(row.get("latency_ratio"), row.get("latency", {})),
            "" if row["seed"] is None else row["seed"],
            row["epochs"],
            *_target_cells(row),
            size_words(row["weights"]["bytes"]) if "weights" in row else "",
            row.get("origin", ""),
            row.get("error", ""),
        )
        for row in rows
    ]
    columns = ["trial", "state", "block", "accuracy", "test", *COST_COLUMNS]
    columns += ["memory", "latency", "seed", "epochs", *TARGET_COLUMNS, "weights"]
    columns += ["reused from", "error"]
    optional = ("memory", "latency", *TARGET_COLUMNS, "weights", "reused from", "error")
    columns, shown = _without_empty(columns, shown, optional)
    return output.table(
        title, columns, shown, droppable=("weights", "epochs", "macs", "seed", "test", "params")
    )


def reused_words(trials: Sequence[TrialRecord]) -> str:
    """How many results are those of other studies; empty where none is."""
    count = sum(bool(trial.origin) for trial in trials)
    if not count:
        return ""
    results = "1 result was" if count == 1 else f"{count} results were"
    return f"{results} taken over from other studies; `search show` says from which"


def _target_cells(row: Mapping[str, Any]) -> tuple[str, str]:
    """Epochs and seconds to the target; a dash where a curve never reached it."""
    if EPOCHS not in row or row["accuracy"] is None:
        return "", ""
    if row[EPOCHS] is None:
        return "-", "-"
    return str(row[EPOCHS]), f"{row[SECONDS]:.1f} s"


def _without_empty(
    columns: list[str], rows: list[tuple[Any, ...]], optional: Sequence[str]
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows without those optional columns that say nothing."""
    kept = [
        index
        for index, name in enumerate(columns)
        if name not in optional or any(row[index] for row in rows)
    ]
    return [columns[i] for i in kept], [tuple(row[i] for i in kept) for row in rows]


def latency_words(ratio: float | None, flags: Mapping[str, Any]) -> str:
    """A latency ratio with its flags: ``1.043x``, ``1.043x busy``."""
    if ratio is None:
        return ""
    return " ".join([f"{ratio:.3f}x", *(flag for flag in ("busy", "wide") if flags.get(flag))])


def _number(number: int | None, front: Sequence[int]) -> str:
    if number is None:
        return ""
    return f"{number} *" if number in front else f"{number}  "


def front_table(
    trials: Sequence[TrialRecord], front: Sequence[int], *, title: str, tuned: bool = False
) -> Table:
    """The front against the baseline: accuracy and what it costs more.

    Args:
        trials: All trials.
        front: Numbers of its members.
        title: Above the table.
        tuned: Whether no attention is tuned as the blocks are: it then stands at its best.
    """
    by_number = {trial.number: trial for trial in trials}
    members = sorted((by_number[n] for n in front), key=lambda t: t.flops)
    seeds = len({trial.seed for trial in trials})
    rows: list[tuple[Any, ...]] = []
    for trial in members:
        baseline = (_best_plain if tuned else _baseline_of)(trial, trials)
        rows.append(
            (
                trial.number,
                trial.label,
                output.percent(trial.accuracy),
                _points(trial, baseline),
                *(_cost(trial, baseline, cost) for cost in ("flops", "macs", "params", "memory")),
                latency_words(trial.latency_ratio, trial.speed),
                trial.seed if seeds > 1 else "",
            )
        )
    columns = ["trial", "block", "accuracy", "vs none", "flops", "macs", "params"]
    more = ("memory", "latency", "seed")
    columns, rows = _without_empty([*columns, *more], rows, more)
    return output.table(title, columns, rows, droppable=("macs", "params"))


def _baseline_of(trial: TrialRecord, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """No attention in the same backbone at the same settings and seed, as far as there is one."""

    def likeness(other: TrialRecord) -> tuple[bool, bool, int]:
        return (other.training == trial.training, other.seed == trial.seed, -other.number)

    same = [
        other
        for other in trials
        if other.baseline
        and other.accuracy is not None
        and other.architecture["backbone"] == trial.architecture["backbone"]
    ]
    return max(same, key=likeness, default=None)


def _best_plain(trial: TrialRecord, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """No attention in the same backbone at the best of its settings, at the same seed if it can."""
    groups: dict[str, list[TrialRecord]] = {}
    for other in trials:
        same = other.architecture["backbone"] == trial.architecture["backbone"]
        if same and not other.architecture["placements"] and other.accuracy is not None:
            groups.setdefault(other.digest, []).append(other)
    best = max(groups.values(), key=lambda g: fmean(t.accuracy or 0.0 for t in g), default=[])
    return max(best, key=lambda other: (other.seed == trial.seed, -other.number), default=None)


def _points(trial: TrialRecord, baseline: TrialRecord | None) -> str:
    if baseline is None or trial.accuracy is None or baseline.accuracy is None:
        return ""
    if _is_of(trial, baseline):
        return "baseline"
    return f"{100 * (trial.accuracy - baseline.accuracy):+.1f}"


def _is_of(trial: TrialRecord, baseline: TrialRecord) -> bool:
    """Whether a trial is what others are compared with, at any seed."""
    return (trial.digest, trial.baseline) == (baseline.digest, baseline.baseline)


def _cost(trial: TrialRecord, baseline: TrialRecord | None, cost: str) -> str:
    value, bare = trial.metric(cost), baseline.metric(cost) if baseline else None
    if value is None:
        return ""
    shown = size_words(value) if cost == MEMORY else output.count(value)
    if bare is None or baseline is None or _is_of(trial, baseline):
        return shown
    more = 100 * (value / bare - 1)
    decimals = 2 if more == 0 or abs(more) >= 0.01 else 4
    return f"{shown} ({more:+.{decimals}f} %)"


def studies_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """All studies of a database."""
    shown = [
        (
            row["study"],
            row["status"],
            f"{row['trials']}/{row['wanted']}",
            ", ".join(f"{n} {state}" for state, n in row["states"].items()),
            row["front"],
            output.percent(row["best_accuracy"]),
            row["data"],
            row["epochs"],
            row["changed"][:16].replace("T", " "),
        )
        for row in rows
    ]
    columns = ["study", "status", "trials", "states", "front", "best", "data", "epochs", "changed"]
    return output.table("", columns, shown, droppable=("data", "epochs", "states", "changed"))
