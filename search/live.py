"""Watching a study: a live view in a terminal, plain lines elsewhere. Both on standard error."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search import enqueued, output
from search.budgets import budget_rows
from search.cap_remarks import cap_remarks
from search.engine import Study
from search.even_tuning import WORDS as TUNED
from search.front import front_numbers
from search.outcome import FINISHED, RUNNING, EpochResult
from search.plan import StudyPlan
from search.records import TrialRecord
from search.show import front_table

FRONT_ROWS = 8
KEEPING = {
    "all": "the final weights of every complete trial",
    "front": "the final weights of the front and of the baseline",
    "none": "no weights of further trials",
}
REFRESH_SECONDS = 0.25


def workers_words(plan: StudyPlan) -> str:
    """How many train at once, on what, and why so many."""
    words = [f"{plan.workers} on {plan.device}"]
    if plan.gpus:
        words.append(f"GPUs {','.join(plan.gpus)}")
    if plan.processes > 1:
        words.append(f"{plan.processes} processes a trial")
    words.append(f"threads of each: {plan.threads}")
    if plan.deterministic:
        words.append("deterministic")
    return "; ".join([*words, plan.because] if plan.because else words)


def sampler_words(plan: StudyPlan) -> str:
    """Who proposes, and why where ``auto`` chose it."""
    if not plan.auto_because:
        return plan.sampler
    return f"auto, which is {plan.sampler} here ({plan.auto_because})"


def seeds_words(plan: StudyPlan) -> str:
    """How many seeds a candidate has, and how many more it may get."""
    words = f"{plan.seeds} per candidate, from seed {plan.seed}"
    if plan.max_seeds <= plan.seeds:
        return words
    return f"{words}; up to {plan.max_seeds} where a candidate of the front is proposed again"


def settings_table(study: Study) -> Table:
    """What is going to be run, defaults included."""
    plan = study.plan
    channels, height, width = plan.data.input_shape
    train, validation, test = plan.data.sizes
    done = sum(trial.state in FINISHED for trial in study.trials.values())
    rows = [
        ("study", f"{plan.study}" + (f", goes on after {done} trials" if done else "")),
        ("space", f"{plan.space.source} on {', '.join(map(str, plan.space.backbones.values))}"),
        (
            "data",
            f"{plan.data.name}: {channels} x {height} x {width}, {plan.data.classes} classes,"
            f" {train} train / {validation} validation / {test} test",
        ),
        ("trials", f"{plan.trials} in all; epochs: {plan.space.epochs}"),
        ("seeds", seeds_words(plan)),
        ("sampler", f"{sampler_words(plan)}; pruner: {plan.pruner}"),
        *([("no attention", TUNED)] if plan.tune_baseline else []),
        ("workers", workers_words(plan)),
        ("objectives", ", ".join(f"{n} {d}" for n, d in study.objectives.items())),
        ("latency", "timed in turn with the baseline" if plan.latency else "not timed"),
        ("keeping", KEEPING[plan.keep_weights]),
        ("caps", ", ".join(str(c) for c in plan.space.constraints) or "none"),
        *(("", remark) for remark in cap_remarks(plan.space, plan.data)),
        *budget_rows(plan.budgets, study.spent()),
        ("storage", output.clean(study.result().storage)),
    ]
    rows[6:6] = [("", remark) for remark in plan.remarks]
    rows[6:6] = [("enqueued", enqueued.words(given)) for given in plan.enqueue]
    rows[3:3] = [("", note) for note in plan.place.notes]
    rows[3:3] = [("data folder", plan.place.folder)] if plan.place.folder else []
    rows[2:2] = [("weights", str(start)) for start in plan.starts]
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(name, style="bold"), Text(output.clean(value)))
    return grid


class _Clock:
    """Time spent and time left, from the trials that this process has finished."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.started = time.monotonic()
        self.done = 0

    def left(self) -> float | None:
        """Seconds left, or None before the first trial has ended."""
        if not self.done:
            return None
        finished = sum(t.state in FINISHED for t in self.study.trials.values())
        remaining = max(0, self.study.plan.trials - finished)
        left = (time.monotonic() - self.started) / self.done * remaining
        limit = self.study.plan.budgets.time_limit
        return left if limit is None else min(left, max(0.0, limit - self.study.meter.seconds))

    def words(self) -> str:
        """Both, for people."""
        left = self.left()
        spent = output.duration(time.monotonic() - self.started)
        return spent if left is None else f"{spent}, about {output.duration(left)} left"


def _ending(trial: TrialRecord) -> str:
    if trial.accuracy is not None:
        return f"{output.percent(trial.accuracy)} at {output.count(trial.flops)}FLOPs"
    return output.clean(trial.error)


class PlainWatch:
    """One line per finished trial, for logs and pipes."""

    def preparing(self, words: str) -> None:
        """Say what takes a moment."""
        output.remarks.print(Text(output.clean(words)))

    def began(self, study: Study) -> None:
        """Say what is going to be run."""
        self.clock = _Clock(study)
        self.study = study
        output.remarks.print(settings_table(study))

    def epoch(self, trial: TrialRecord, result: EpochResult) -> None:
        """Epochs are too many for a log."""

    def finished(self, trial: TrialRecord) -> None:
        """Say how a trial ended."""
        self.clock.done += 1
        done = sum(t.state in FINISHED for t in self.study.trials.values())
        output.remarks.print(
            f"[{done}/{self.study.plan.trials}] trial {trial.number} {trial.state}:"
            f" {trial.label}, {_ending(trial)} ({self.clock.words()})",
            markup=False,
            soft_wrap=True,
        )

    def lost(self, trial: TrialRecord, cause: str) -> None:
        """Say that a worker died."""
        output.remarks.print(
            f"trial {trial.number}: {output.clean(cause)}", markup=False, soft_wrap=True
        )

    def said(self, words: str) -> None:
        """Say it."""
        output.remarks.print(Text(output.clean(words)), soft_wrap=True)

    def tick(self) -> None:
        """Nothing to do."""

    def ended(self) -> None:
        """Nothing to do."""


class LiveWatch:
    """A view that is redrawn: progress, running trials, the front so far."""

    def __init__(self) -> None:
        self.latest: dict[int, EpochResult] = {}
        self.messages: list[str] = []
        self.drawn = 0.0

    def preparing(self, words: str) -> None:
        """Say what takes a moment."""
        output.remarks.print(Text(output.clean(words)))

    def began(self, study: Study) -> None:
        """Say what is going to be run and open the view."""
        self.study = study
        self.clock = _Clock(study)
        output.remarks.print(settings_table(study))
        self.live = Live(self.view(), console=output.remarks, auto_refresh=False, transient=True)
        self.live.start()

    def epoch(self, trial: TrialRecord, result: EpochResult) -> None:
        """Note how far a trial is."""
        self.latest[trial.number] = result
        self._draw()

    def finished(self, trial: TrialRecord) -> None:
        """Note that a trial has ended."""
        self.clock.done += 1
        self.latest.pop(trial.number, None)
        if trial.error:
            self.messages.append(f"trial {trial.number} {trial.state}: {trial.error}")
        self._draw()

    def lost(self, trial: TrialRecord, cause: str) -> None:
        """Note that a worker died."""
        self.messages.append(f"trial {trial.number}: {cause}")
        self._draw()

    def said(self, words: str) -> None:
        """Say it above the view."""
        output.remarks.print(Text(output.clean(words)))

    def tick(self) -> None:
        """Redraw, a few times a second at most."""
        if time.monotonic() - self.drawn > REFRESH_SECONDS:
            self._draw()

    def ended(self) -> None:
        """Close the view."""
        self.live.stop()

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        self.live.update(self.view(), refresh=True)

    def view(self) -> Group:
        """Everything, as it stands."""
        trials = list(self.study.trials.values())
        states = Counter(trial.state for trial in trials)
        done = sum(states[state] for state in FINISHED)
        total = self.study.plan.trials
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=total, completed=done, width=30),
            Text(f"{done}/{total} trials"),
            Text(", ".join(f"{n} {state}" for state, n in states.items() if state != "waiting")),
            Text(self.clock.words()),
        )
        parts: list[Any] = [bar, self._running(trials)]
        budgets = budget_rows(self.study.plan.budgets, self.study.spent())
        parts += [Text(f"{name}: {words}") for name, words in budgets]
        front = front_numbers(trials, self.study.objectives)
        if front:
            best = sorted(front, key=lambda n: -(self.study.trials[n].accuracy or 0))[:FRONT_ROWS]
            title = f"front so far: {len(front)} trials"
            if len(best) < len(front):
                title += f", the {len(best)} most accurate"
            tuned = self.study.plan.tune_baseline
            parts.append(front_table(trials, best, title=title, tuned=tuned))
        parts += [Text(output.clean(message), style="yellow") for message in self.messages[-3:]]
        return Group(*parts)

    def _running(self, trials: list[TrialRecord]) -> Table:
        rows = []
        for trial in trials:
            if trial.state != RUNNING:
                continue
            latest = self.latest.get(trial.number)
            epochs = trial.training["epochs"]
            rows.append(
                (
                    trial.number,
                    trial.label,
                    f"epoch {latest.epoch if latest else 0}/{epochs}",
                    output.percent(latest.accuracy) if latest else "starting",
                )
            )
        return output.table("", ["running", "block", "epoch", "accuracy"], rows)
