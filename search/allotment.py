"""What fits into a budget of device time, and which differences a comparison could then detect."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from blocks import registry
from blocks.errors import StudyError
from search.devices import CUDA
from search.forecast import Counted, Forecast, Timed, trial_seconds
from search.noise import Noise
from search.plan import StudyPlan
from search.power import ALPHA, POWER, STUDIES, detectable, simulate
from spaces.duration import read_duration
from spaces.space import Space

SEEDS = (1, 3, 5)
BUDGET = re.compile(r"(?:(?P<count>[0-9]{1,9})\s*(?P<unit>cpu|gpu)s?\s*[*x]\s*)?(?P<time>[^*x]+)")


@dataclass(frozen=True)
class Budget:
    """So many devices for so long.

    Args:
        text: As it was given.
        devices: GPUs or cores; 0: those of the study's own workers.
        unit: "gpu" or "cpu"; empty: the study's.
        seconds: Wall time.
    """

    text: str
    devices: int
    unit: str
    seconds: float


def read_budget(text: str, device: str) -> Budget:
    """What ``--budget`` says.

    Args:
        text: "64gpu*6h", "2cpu*90m" or a time alone, "8h" or "1h30m".
        device: Where trials train: "cpu" or "cuda".

    Raises:
        StudyError: It is none of these, or counts devices that trials do not train on.
    """
    found = BUDGET.fullmatch(text.strip().lower())
    seconds = _seconds(found["time"]) if found else 0.0
    if found is None or not 0 < seconds < math.inf or not int(found["count"] or 1):
        raise StudyError(
            f"--budget {text!r} is no budget; write devices * time, such as 64gpu*6h or 2cpu*90m,"
            " or a time alone, 8h"
        )
    unit = found["unit"] or ""
    own = "gpu" if device == CUDA else "cpu"
    if unit and unit != own:
        cure = "--device cuda, on a machine that has a GPU" if unit == "gpu" else "--device cpu"
        raise StudyError(
            f"--budget {text} counts {unit}s, and trials train (and are timed) on"
            f" {device}; give {cure}, or count {own}s"
        )
    return Budget(text, int(found["count"] or 0), unit, seconds)


def _seconds(text: str) -> float:
    try:
        return read_duration(text.replace("min", "m").replace(" ", ""))
    except ValueError:
        return 0.0


def workers_within(budget: Budget, plan: StudyPlan) -> float:
    """How many trials a budget's devices train at once."""
    if not budget.devices:
        return float(plan.workers)
    if budget.unit == "gpu":
        return budget.devices * plan.workers / max(1, len(plan.gpus))
    return max(1.0, budget.devices / (plan.threads * plan.processes))


def blocks_of(space: Space) -> int:
    """How many blocks a space compares with the baseline."""
    return sum(name != registry.NONE for name in space.attention.blocks.values)


def allot(
    budget: Budget,
    plan: StudyPlan,
    found: Forecast,
    counted: Counted,
    distinct: int | None,
    noise: Noise,
) -> dict[str, Any]:
    """What fits into a budget, as plain data.

    Args:
        budget: The budget.
        plan: With its number of workers.
        found: The forecast of a trial's time.
        counted: All candidates that may become trials, with their costs.
        distinct: How many there are; None where they are without number.
        noise: Of a comparison.
    """
    workers = workers_within(budget, plan)
    blocks = blocks_of(plan.space)
    full = plan.space.epochs
    rows = []
    for epochs in dict.fromkeys((full, max(1, full // 2))):
        seconds = _mean_seconds(plan, found.timed, counted, epochs)
        trials = int(workers * max(0.0, budget.seconds - found.start) / seconds)
        for seeds in SEEDS:
            fitting = trials // seeds
            candidates = fitting if distinct is None else min(fitting, distinct)
            compared = min(blocks, candidates - 1)
            rows.append(_option(epochs, seeds, candidates, compared, noise))
    return {
        "budget": budget.text,
        "seconds": budget.seconds,
        "workers": workers,
        "noise": noise.to_json(),
        "power": POWER,
        "alpha": ALPHA,
        "blocks": blocks,
        "options": rows,
        "simulation": _confirmed(rows, noise),
    }


def _mean_seconds(plan: StudyPlan, timed: Sequence[Timed], counted: Counted, epochs: int) -> float:
    return fmean(
        trial_seconds(plan, timed, candidate, cost.flops, epochs) for candidate, cost in counted
    )


def _option(
    epochs: int, seeds: int, candidates: int, compared: int, noise: Noise
) -> dict[str, Any]:
    possible = compared >= 1
    return {
        "epochs": epochs,
        "seeds": seeds,
        "candidates": candidates,
        "trials": candidates * seeds,
        "compared": max(0, compared),
        "detectable": detectable(noise.sd, seeds) if possible else None,
        "detectable_holm": (
            detectable(noise.sd, seeds, comparisons=compared) if possible else None
        ),
    }


def _confirmed(rows: Sequence[dict[str, Any]], noise: Noise) -> dict[str, Any] | None:
    """What simulated studies find of the difference that the option with most seeds can detect."""
    able = [row for row in rows if row["detectable"] is not None]
    if not able:
        return None
    row = max(able, key=lambda row: (row["seeds"], row["epochs"]))
    alone = simulate(row["detectable"], noise.sd, row["seeds"])
    holm = simulate(row["detectable_holm"], noise.sd, row["seeds"], comparisons=row["compared"])
    return {"studies": STUDIES, "seeds": row["seeds"], "found": alone, "found_holm": holm}
