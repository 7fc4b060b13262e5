"""The engine of a study: ask, evaluate, record, tell.

``Study`` is passive and owns no loop: whoever drives it (the local pool, later Ray) takes an
assignment, and says how it went. The database is the truth; what the engine holds in memory can
be rebuilt from it at any moment, which is what going on after a kill means. The parent process
alone uses it, in one thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution

from search.adopted import adopt_finished
from search.budgets import Spent, ended_words, reached
from search.caps import above_caps
from search.database import shown
from search.deciding import DecidingStudy
from search.failed import retry_failed
from search.failures import (
    MAX_DEATHS,
    MISTAKE,
    STOPPED,
    Deaths,
    Mistakes,
    cause_of,
    last_lines,
    said,
)
from search.front import front_numbers
from search.kept import Keeper, kept_data, kept_words
from search.leases import LeaseLostError
from search.outcome import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    LOST,
    RUNNING,
    WAITING,
    Assignment,
    EpochResult,
    Outcome,
)
from search.plan import StudyPlan
from search.proposed import proposal_counts, proposal_words
from search.provenance import command_line
from search.records import StudyRecord, TrialRecord, now
from search.result import StudyResult
from search.samplers import mirrored_distributions
from search.screen import rejected_words
from search.sharing import Alone, Shared
from search.store import Store
from search.trial_records import is_trained, state_at_rest
from search.watch import Silent, Watch
from spaces.candidate import Candidate

OUT_OF_BUDGET = "out of budget"


class Study(DecidingStudy):
    """One study in the hands of the one parent that runs it.

    Args:
        plan: What to do.
        store: Where it is kept.
        record: The study as it is stored.
        sharing: How other parents run it too; left out: none does.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: Store,
        record: StudyRecord,
        sharing: Alone | Shared | None = None,
    ) -> None:
        super().__init__(plan, store, record, sharing)
        self._checkpoints = f"{plan.artefacts.absolute()}/checkpoints/{plan.study}"
        self.deaths = Deaths()
        self.mistakes = Mistakes()
        self.stopped = ""
        self.retried = retry_failed(store, self.id) if plan.retry_failed else []
        self._hold(record)
        adopt_finished(self)
        self.keeper = Keeper(
            store,
            plan.storage,
            self.id,
            plan.study,
            plan.keep_weights,
            shared=self.sharing.is_shared,
        )
        self._add_baselines()
        self._begins = not self.sharing.is_shared
        self.keeper.tidy()
        self._settle_weights()

    # What to do next. ----------------------------------------------------------------------------

    def next_assignment(self) -> Assignment | None:
        """The next trial to evaluate, or None where there is none at the moment.

        Others may evaluate trials meanwhile (``sharing.elsewhere``): then ask again later.
        """
        if self.stopped or self.budget_reached():
            return None
        return self.sharing.next(self._next_assignment)

    def _next_assignment(self) -> Assignment | None:
        if self.sharing.is_shared and self.budget_reached():
            return None  # by what the others have spent and found
        while not self.waiting:
            if len(self.trials) >= self.plan.trials or not self._decide():
                return None
        number = self.waiting.popleft()
        trial = self.trials[number]
        trained = is_trained(trial)
        attempt = self._begun.pop(number, 0) or self.store.start_attempt(
            self.id, number, owner=self.owner, timed=trained
        )
        trial.state = RUNNING
        self.running.add(number)
        self.meter.started(number)
        return Assignment(
            number,
            attempt,
            trial.label,
            trial.architecture,
            trial.training,
            self.plan.data.name,
            trial.seed,
            latency=self.plan.latency and (trained or number not in self.timed),
            trained=trained,
            weights=self._weights(trial),
            checkpoint=self._checkpoint(number),
            data_folder=self.plan.place.folder,
            data_size=self.plan.place.size,
            data_split=self.plan.place.split,
            keep="" if trained else self.keeper.place(number),
        )

    def timing_assignment(self, candidate: Candidate) -> Assignment:
        """What a worker does to time a candidate's network that is no trial yet."""
        return Assignment(
            -1,
            0,
            candidate.label,
            candidate.architecture.to_json(),
            candidate.training.to_json(),
            self.plan.data.name,
            self.plan.seed,
            latency=True,
            trained=True,
            data_folder=self.plan.place.folder,
            data_size=self.plan.place.size,
            data_split=self.plan.place.split,
        )

    def _checkpoint(self, number: int) -> str:
        """Where a trial's training keeps how far it has come."""
        return f"{self._checkpoints}-{number}.pt"

    def drop_checkpoint(self, number: int) -> None:
        """Take away what a training that needs it no longer has kept."""
        with suppress(FileNotFoundError):
            os.unlink(self._checkpoint(number))

    def _weights(self, trial: TrialRecord) -> str:
        """The file of trained weights that a trial starts from; empty where it needs none."""
        return self.plan.weights_path(str(trial.training.get("pretrained", "")))

    @property
    def is_finished(self) -> bool:
        """Whether nothing runs and nothing more is to be begun."""
        if self.running:
            return False
        return bool(self.stopped or self.budget_reached()) or self.is_done

    @property
    def is_done(self) -> bool:
        """Whether nothing waits, nobody else evaluates, and nothing more is to be decided."""
        if self.waiting or self.sharing.elsewhere:
            return False
        return len(self.trials) >= self.plan.trials or (bool(self.note) and not self.found)

    @property
    def left(self) -> int:
        """Trials that are still to be evaluated, at most."""
        return max(0, self.plan.trials - self._finished)

    # How it went. --------------------------------------------------------------------------------

    def on_epoch(self, number: int, result: EpochResult) -> bool:
        """Whether a trial may go on after this epoch."""
        trial = self.trials[number]
        trial.epochs = result.epoch
        return not self.sharing.is_lost(number)

    def on_finish(
        self, number: int, outcome: Outcome, provenance: Mapping[str, Any]
    ) -> TrialRecord:
        """Record how a trial ended, then tell the sampler.

        Raises:
            LeaseLostError: Another parent evaluates it by now; nothing was recorded.
        """
        return self.sharing.recorded(number, lambda: self._finish(number, outcome, provenance))

    def _finish(self, number: int, outcome: Outcome, provenance: Mapping[str, Any]) -> TrialRecord:
        trial = self.trials[number]
        if is_trained(trial):  # it was timed alone; what it was before, it is again
            outcome = replace(outcome, state=state_at_rest(trial), seconds=trial.seconds)
        early = self._timed_before(number, outcome)
        if early is not None:
            outcome = replace(outcome, measurements=outcome.measurements + early.measurements)
        trial.epochs = len(outcome.epochs) or trial.epochs
        trial.error = outcome.error
        trial.seconds = outcome.seconds
        trial.finished = now()
        trial.measurements |= {(s, m): value for s, m, value in outcome.measurements}
        trial.state = outcome.state  # last: the mirror may look at it meanwhile
        told = self._verdict(trial)
        content = {**provenance, **self.plan.place.provenance, "command": command_line()}
        if self.plan.because:
            content["workers"] = {"count": self.plan.workers, "because": self.plan.because}
        content |= outcome.made or {}
        if early is not None and early.latency is not None:
            content["latency"] = early.latency
        if "pretrained" in trial.training:
            content["weights"] = self._weights(trial) or trial.training["pretrained"]
        self.meter.ended(number)
        files = self.keeper.rows(number, outcome)
        key = self.store.finish_trial(
            self.id, number, outcome, provenance=content, told=told, artefacts=files
        )
        if outcome.state == FAILED:
            self._note_mistake(trial, outcome)
        self.keeper.note(number, key, files)
        self._settle_weights()
        self.drop_checkpoint(number)
        self.running.discard(number)
        if outcome.found is not None:
            self._expect(number, outcome.found)
        if told is not None:
            self._tell(*told)
        self.changed()
        return trial

    def _timed_before(self, number: int, outcome: Outcome) -> Outcome | None:
        """What the screen has measured of a trial that is complete now; None where it has not."""
        if number not in self.timed or outcome.state != COMPLETE or is_trained(self.trials[number]):
            return None
        return self.screen.timed[self.trials[number].architecture_digest]

    def _settle_weights(self) -> None:
        """Take away the weights that the front has moved away from."""
        trials = self.trials.values()
        self.keeper.settle(trials, lambda: front_numbers(list(trials), self.objectives))

    def on_lost(self, number: int, cause: str, traceback: str = "") -> None:
        """A worker died over a trial: it waits for another attempt, unless too many have died.

        Args:
            number: The trial.
            cause: As ``search.failures.said`` words it.
            traceback: The worker's last words, where it left some.
        """
        over = self.deaths.is_too_many(number, self.trials[number].epochs, cause)
        with suppress(LeaseLostError):  # then it is another's already
            self.sharing.recorded(number, lambda: self._lose(number, cause, traceback, over=over))

    def _lose(self, number: int, cause: str, traceback: str, *, over: bool) -> None:
        trial = self.trials[number]
        if over:
            line = f"{MAX_DEATHS} workers died over it; the last: {cause}"
            name = cause_of(cause, LOST)
            outcome = Outcome(FAILED, error=line, traceback=traceback, cause=name)
            self._finish(number, outcome, {})
            return
        self.meter.ended(number)
        self._put_back(trial, LOST, cause, traceback=traceback)
        trial.state = WAITING
        self.running.discard(number)
        self.waiting.appendleft(number)

    def interrupt(self) -> None:
        """Put back what is running: it is evaluated again when the study goes on."""
        for number in sorted(self.running):
            trial = self.trials[number]
            self.meter.ended(number)
            with suppress(LeaseLostError):
                self._put_back(trial, INTERRUPTED, said(STOPPED, "the study was stopped"))
        self.running.clear()

    # What it may spend, and why it ends. ---------------------------------------------------------

    def spent(self) -> Spent:
        """What the study has spent by now, in this process and in earlier ones."""
        still = self.front.since_it_moved(self.trials) if self.plan.budgets.patience else 0
        return Spent(self.meter.seconds, self.meter.device_seconds, still)

    def budget_reached(self) -> str:
        """The budget that is reached, in words; empty where none is."""
        return reached(self.plan.budgets, self.spent()) if self.plan.budgets.any else ""

    def why_idle(self) -> str:
        """Why no further trial is begun although something is left to do; empty where none is."""
        if self.stopped:
            return "the same mistake has ended too many trials"
        return "" if self.is_done else self.budget_reached()

    def ending(self) -> tuple[str, str]:
        """(status, note) of a study that is run no longer, because it has come to an end."""
        if self.stopped:
            return "stopped", self.stopped.splitlines()[0]
        which = "" if self.is_done else self.budget_reached()
        if which:
            total, waiting = self.plan.trials, len(self.waiting)
            words = ended_words(which, finished=self._finished, total=total, waiting=waiting)
            return OUT_OF_BUDGET, words
        return ("exhausted" if self.note else "finished"), self.note

    def _note_mistake(self, trial: TrialRecord, outcome: Outcome) -> None:
        """Stop the study where the same mistake has ended too many trials."""
        same = self.mistakes.note(trial.number, outcome.cause or MISTAKE, outcome.traceback)
        if same and not self.stopped:
            numbers = ", ".join(map(str, same))
            lines = "\n".join(f"  {line}" for line in last_lines(outcome.traceback))
            self.stopped = (
                f"stopped: the same mistake has ended trials {numbers} ({outcome.error})\n{lines}\n"
                f"`search show {self.plan.study} {trial.number}` shows the whole traceback"
            )

    # What it has come to. ------------------------------------------------------------------------

    def above_caps(self, trial: TrialRecord) -> dict[str, float]:
        """How far each capped cost of a trial is above its cap; 0 or below is allowed."""
        return above_caps(trial, self.plan.space.constraints, self.plan.data)

    def mirrored_distributions(self) -> dict[str, BaseDistribution]:
        """One distribution of every parameter, for all trials of the study."""
        stored = [trial.distributions for trial in self.trials.values()]
        return mirrored_distributions(self.domains(), stored)

    def result(self, warning: str = "") -> StudyResult:
        """The study as it stands."""
        trials = [self.trials[number] for number in sorted(self.trials)]
        return StudyResult(
            self.plan.study,
            shown(self.plan.storage),
            self.objectives,
            trials,
            front_numbers(trials, self.objectives),
            self.ending()[1],
            warning,
            kept_words(kept_data(self.keeper.files.values())),
            rejected_words(self.plan.space, self.rejected.values()),
            self.stopped,
            proposal_words(proposal_counts(self.store.engine, self.id)),
            (*self.plan.remarks, *self.remarks),
            self.plan.tune_baseline,
        )


__all__ = ["Silent", "Study", "StudyResult", "Watch"]
