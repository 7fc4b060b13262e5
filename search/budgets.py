"""What a study may spend beside its total of trials: wall time, device-hours, and patience.

A budget that is reached starts no further trial; those that run are finished. All are of the whole
study: what earlier processes spent is read from the database, also what they spent on attempts
that were cut off. They are settings: a later run may have others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.errors import StudyError
from search.front import objective_values
from search.outcome import FINISHED, SUCCEEDED
from search.output import duration
from search.records import TrialRecord
from spaces.duration import duration_text, read_duration

NO_BUDGET = "none"
NAMES = ("time_limit", "device_hours", "patience")
HOUR = 3600.0


@dataclass(frozen=True)
class Budgets:
    """The budgets of a run; None: without.

    Args:
        time_limit: Seconds of wall time.
        device_hours: Hours of devices: GPUs, or processes on a processor.
        patience: So many finished trials after the front has last moved.
    """

    time_limit: float | None = None
    device_hours: float | None = None
    patience: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return any(getattr(self, name) is not None for name in NAMES)


def read_budgets(chosen: Mapping[str, Any]) -> Budgets:
    """Read budgets as they were given: by flags, by a space file, or stored.

    Args:
        chosen: Among others ``NAMES``: None or "none" for without, else a number or its text; a
            time limit is seconds or a duration.

    Raises:
        StudyError: One is wrong; which, and what is allowed.
    """
    given = {name: chosen[name] for name in NAMES if chosen[name] not in (None, NO_BUDGET)}
    limit = given.get("time_limit")
    hours = given.get("device_hours")
    patience = given.get("patience")
    return Budgets(
        None if limit is None else _seconds(limit),
        None if hours is None else _hours(hours),
        None if patience is None else _patience(patience),
    )


def _seconds(given: Any) -> float:
    if isinstance(given, str):
        try:
            return read_duration(given)
        except ValueError as error:
            raise StudyError(f"--time-limit {error}") from None
    if not given > 0:
        raise StudyError(f"--time-limit is {given:g} seconds; it must be above 0")
    return float(given)


def _hours(given: Any) -> float:
    try:
        hours = float(given)
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise StudyError(
            f"--device-hours {given!r} is no number of hours above 0; write 8, 0.5, or none"
        )
    return hours


def _patience(given: Any) -> int:
    try:
        count = int(given)
    except ValueError:
        count = 0
    if count < 1:
        raise StudyError(
            f"--patience {given!r} is no number of trials; write 1 or more, such as 20, or none"
        )
    return count


def stored_budgets(chosen: Mapping[str, Any], budgets: Budgets) -> dict[str, Any]:
    """Budgets as a study's settings keep them; "none" where a flag took the file's away."""
    kept: dict[str, Any] = {}
    for name in NAMES:
        value = getattr(budgets, name)
        if value is not None:
            kept[name] = duration_text(value) if name == "time_limit" else value
        elif chosen[name] is not None:
            kept[name] = NO_BUDGET
    return kept


# What of them is reached. ------------------------------------------------------------------------


class Front:
    """The front as trials join it, and since how many it has not moved.

    It moves when a trial joins it that no earlier one equals or beats. Trials count in the order
    of their numbers and baselines do not, so that it is the same after a restart.

    Args:
        objectives: Metric -> "max" or "min".
    """

    def __init__(self, objectives: Mapping[str, str]) -> None:
        self.objectives = objectives
        self.points: list[tuple[float, ...]] = []
        self.still = 0
        self.read = 0  # trials below this number are in points and still

    def since_it_moved(self, trials: Mapping[int, TrialRecord]) -> int:
        """How many finished trials have left the front as it was, since one moved it.

        Args:
            trials: All of the study by number; what has finished of them once stays so.
        """
        while self.read in trials and trials[self.read].state in FINISHED:
            self._join(trials[self.read])
            self.read += 1
        points, still, read = list(self.points), self.still, self.read
        for number in range(read, len(trials)):
            if trials[number].state in FINISHED:
                self._join(trials[number])
        found = self.still
        self.points, self.still = points, still
        return found

    def _join(self, trial: TrialRecord) -> None:
        values = objective_values(trial, self.objectives) if trial.state in SUCCEEDED else None
        moved = False
        if values is not None:
            signs = (-1.0 if way == "max" else 1.0 for way in self.objectives.values())
            point = tuple(sign * value for sign, value in zip(signs, values, strict=True))
            moved = not any(equals_or_beats(other, point) for other in self.points)
            if moved:
                kept = [other for other in self.points if not equals_or_beats(point, other)]
                self.points = [*kept, point]
        if not trial.baseline:
            self.still = 0 if moved else self.still + 1


def equals_or_beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a point is nowhere worse than another; lower is better everywhere."""
    return all(a <= b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class Spent:
    """What a study has spent by now.

    Args:
        seconds: Of wall time.
        device_seconds: Seconds of attempts times the devices of each.
        still: Finished trials since the front has moved.
    """

    seconds: float
    device_seconds: float
    still: int


def reached(budgets: Budgets, spent: Spent) -> str:
    """The budget that is reached, in words; empty where none is."""
    limit, hours, patience = (getattr(budgets, name) for name in NAMES)
    if limit is not None and spent.seconds >= limit:
        return f"the time limit of {duration_text(limit)} is reached"
    if hours is not None and spent.device_seconds >= hours * HOUR:
        return f"the {hours:g} device-hours are spent"
    if patience is not None and spent.still >= patience:
        return f"the front has not moved for {patience} trials"
    return ""


def ended_words(which: str, *, finished: int, total: int, waiting: int) -> str:
    """The note of a study that a budget has ended."""
    words = f"{which}: {finished} of {total} trials are finished"
    if waiting:
        words += f", {waiting} begun {'waits' if waiting == 1 else 'wait'}"
    return f"{words}; a larger budget goes on"


def budget_rows(budgets: Budgets, spent: Spent) -> Iterable[tuple[str, str]]:
    """Each budget, and what of it is spent, for people."""
    limit, hours, patience = (getattr(budgets, name) for name in NAMES)
    if limit is not None:
        yield "time limit", f"{duration_text(limit)}, {duration(spent.seconds)} spent"
    if hours is not None:
        yield "device-hours", f"{hours:g}, {spent.device_seconds / HOUR:.2f} spent"
    if patience is not None:
        yield "patience", f"{patience} trials, {spent.still} since the front has moved"
