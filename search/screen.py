"""Turning candidates away before they are trained: by exact costs first, then by the clock.

A cap on ``latency_ratio`` needs a measurement. New networks of the candidate and of its backbone
are timed in turn, which takes about a second; their weights do not matter. Whoever drives the study
does it (``Screen.time``), on the device that trains. What was measured becomes the trial's latency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blocks.formulas import Cost
from search.outcome import Outcome
from spaces.candidate import Candidate
from spaces.caps import cap_of, violated
from spaces.metrics import LATENCY_RATIO, SPEED
from spaces.space import Space


class Screen:
    """The caps of a study.

    Args:
        space: Has them.

    Attributes:
        time: Times a candidate's network; None where nobody can, so that no cap on latency holds.
        timed: By the architecture's digest, what that gave.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.time: Callable[[Candidate], Outcome] | None = None
        self.timed: dict[str, Outcome] = {}

    def reasons(self, candidate: Candidate, cost: Cost) -> list[str]:
        """Why a candidate is not to be trained, cap by cap; empty where it may be.

        Args:
            candidate: In question.
            cost: Its exact cost.
        """
        over = violated(self.space, candidate, cost)
        if over or candidate.is_baseline or self.time is None:
            return over
        caps = [c for c in self.space.constraints if c.metric == LATENCY_RATIO]
        if not caps:
            return []
        key = candidate.architecture_digest
        if key not in self.timed:
            self.timed[key] = self.time(candidate)
        outcome = self.timed[key]
        measured = {(split, name): value for split, name, value in outcome.measurements}
        ratio = measured.get((SPEED, LATENCY_RATIO))
        if ratio is None:
            why = outcome.error.rpartition("could not be measured: ")[2]
            return [f"{LATENCY_RATIO} could not be measured ({caps[0].text}): {why}"]
        cap = cap_of(caps[0], candidate.architecture.backbone, candidate.data)
        over_it = f"{LATENCY_RATIO} {ratio:.3f} is over {cap:.3f} ({caps[0].text})"
        return [over_it] if ratio > cap else []


def rejected_words(space: Space, reasons: Iterable[str]) -> str:
    """How many candidates were rejected, and by which caps; empty where none was.

    Args:
        space: Has the caps.
        reasons: One for each candidate, in the words of ``Screen.reasons``.
    """
    listed = list(reasons)
    by_cap = {c: sum(f"{c.metric} " in reason for reason in listed) for c in space.constraints}
    caps = ", ".join(f"{count} by {cap}" for cap, count in by_cap.items() if count)
    return f"{len(listed)} rejected before training: {caps}" if listed else ""
