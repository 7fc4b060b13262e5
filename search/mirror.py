"""Optuna's own tables in the same database: a mirror for optuna-dashboard and Optuna's plots.

Our tables are the truth and the mirror is never read back. It is brought up to date by a thread
within seconds, and at exit. Its trials have our numbers: a trial that still runs while a later one
has finished is entered as running, and told when it ends.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import optuna
import sqlalchemy.orm  # noqa: F401 - else two threads import it at the same moment
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from search.database import BUSY_SECONDS, is_sqlite
from search.front import objective_values
from search.mirror_rows import add_trials, are_known
from search.outcome import COMPLETE, DIVERGED, FAILED, FINISHED, PRUNED, REUSED
from search.postgres import patience_of
from search.records import TrialRecord
from search.samplers import directions

EVERY_SECONDS = 2.0
LAST_TRIES = 2  # at exit: a connection that the server has closed is noticed by the first
AT_ONCE = 25  # trials in a transaction, for which the parent waits: some hundredths of a second
LOOKS = 5  # for what others have added while this parent was about to end
OURS = "attention-search"

STATES = {
    COMPLETE: TrialState.COMPLETE,
    REUSED: TrialState.COMPLETE,
    PRUNED: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
    DIVERGED: TrialState.FAIL,
}


class Turn(Protocol):
    """Says which of several parents keeps the mirror."""

    def may_mirror(self) -> bool:
        """Whether this one does, from now on for a while."""

    def end_mirror(self) -> None:
        """Let another one."""


class Always:
    """There is but one."""

    def may_mirror(self) -> bool:
        """It does."""
        return True

    def end_mirror(self) -> None:
        """Nobody waits for it."""


class Mirror:
    """Keeps one Optuna study equal to ours.

    Args:
        url: The database.
        name: The study.
        objectives: Metric -> "max" or "min".
        caps: A trial -> {constraint: value above its cap}; 0 or below is feasible.
        distributions: The one distribution of every parameter.
        lock: Held while writing; the parent's own transactions hold it too.
        trials: Gives the study's trials as they stand.
        turn: Says whether this parent keeps it, where there are several.
    """

    def __init__(
        self,
        url: URL,
        name: str,
        objectives: Mapping[str, str],
        *,
        caps: Callable[[TrialRecord], dict[str, float]],
        distributions: Mapping[str, BaseDistribution],
        lock: threading.RLock,
        trials: Callable[[], Sequence[TrialRecord]],
        turn: Turn | None = None,
    ) -> None:
        self.url = url
        self.name = name
        self.objectives = objectives
        self.caps = caps
        self.distributions = distributions
        self.lock = lock
        self.trials = trials
        self.turn = turn or Always()
        self.problem = ""
        self._study: optuna.Study | None = None
        self._storage: optuna.storages.RDBStorage | None = None
        self._rebuild = False
        self._states: list[TrialState] = []
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def start(self, *, rebuild: bool = False) -> None:
        """Begin to follow the study.

        Args:
            rebuild: Forget what was mirrored, because the space's choices have changed.
        """
        self._rebuild = rebuild
        self._thread.start()

    def changed(self) -> None:
        """Say that there is something new."""
        self._changed.set()

    def close(self) -> None:
        """Bring the mirror up to date and end."""
        self._closing.set()
        self._changed.set()
        self._thread.join()

    def _follow(self) -> None:
        tries = LAST_TRIES
        while True:
            self._changed.wait()
            self._changed.clear()
            closing = self._closing.is_set()
            done = self._try(closing=closing)
            tries -= closing
            if closing and (done or not tries):
                self._release()
                return
            if not done:
                self._changed.set()
            self._closing.wait(EVERY_SECONDS)

    def _try(self, *, closing: bool) -> bool:
        """Bring the mirror up to date; whether that went well."""
        try:
            self._update()
            if closing:
                self._hand_over()
        except Exception as error:  # the mirror must never take the study down
            self.problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            self._release()
            return False
        self.problem = ""
        return True

    def _release(self) -> None:
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()
        self._study = self._storage = None

    def _update(self) -> None:
        if not self.turn.may_mirror():
            self._release()  # another writes: what there is must be read anew
            return
        if self._study is None:
            self._open()
        trials = sorted(self.trials(), key=lambda trial: trial.number)
        last = max((t.number for t in trials if t.state in FINISHED), default=-1)
        for number in [n for n, s in enumerate(self._states) if s is TrialState.RUNNING]:
            with self.lock:
                self._tell(trials[number])
        for first in range(len(self._states), last + 1, AT_ONCE):
            self._add(trials[first : min(first + AT_ONCE, last + 1)])

    def _hand_over(self) -> None:
        """Let another parent keep the mirror, and leave nothing that none of them has seen."""
        for _ in range(LOOKS):
            self.turn.end_mirror()
            if not self._is_behind():
                return
            self._update()

    def _is_behind(self) -> bool:
        """Whether a trial has ended since, while it was this one's turn."""
        return self._study is not None and any(
            trial.number >= len(self._states) or self._states[trial.number] is TrialState.RUNNING
            for trial in self.trials()
            if trial.state in FINISHED
        )

    def _open(self) -> None:
        storage = self._storage = _storage(self.url)
        with self.lock:
            if self._rebuild:
                _forget(storage, self.name)
                self._rebuild = False
            study = self._ours(storage)
            if not self._fits(study):
                _forget(storage, self.name)
                study = self._ours(storage)
            self._states = [trial.state for trial in study.get_trials(deepcopy=False)]
        self._study = study

    def _ours(self, storage: optuna.storages.RDBStorage) -> optuna.Study:
        """The mirrored study, made where there is none."""
        study = optuna.create_study(
            study_name=self.name,
            storage=storage,
            directions=directions(self.objectives),
            load_if_exists=True,
        )
        if OURS not in study.user_attrs:
            if study.trials:
                raise ValueError(f"Optuna study {self.name!r} here was made by something else")
            study.set_user_attr(OURS, "mirror of this tool's own tables")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(self.objectives))
        return study

    def _fits(self, study: optuna.Study) -> bool:
        """Whether it holds our trials, with the distributions of what will be added."""
        ours = {trial.number: trial.digest for trial in self.trials()}
        return all(
            ours.get(trial.number) == trial.user_attrs.get("digest")
            and all(
                self.distributions.get(n, kept) == kept for n, kept in trial.distributions.items()
            )
            for trial in study.get_trials(deepcopy=False)
        )

    def _add(self, trials: Sequence[TrialRecord]) -> None:
        """Enter the next trials."""
        assert self._study is not None  # opened before
        assert self._storage is not None
        frozen = [self._frozen(trial) for trial in trials]
        with self.lock:
            if are_known():
                add_trials(self._storage, self._study._study_id, frozen)
            else:
                self._study.add_trials(frozen)
        self._states += [trial.state for trial in frozen]

    def _tell(self, trial: TrialRecord) -> None:
        """Tell a trial that was entered as running, if it has ended."""
        assert self._study is not None  # opened before
        assert self._storage is not None
        state, values = self._come_to(trial)
        if state is TrialState.RUNNING:
            return
        study_id = self._storage.get_study_id_from_name(self.name)
        key = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        for name, value in _attributes(trial).items():
            self._storage.set_trial_user_attr(key, name, value)
        self._study.tell(trial.number, values, state=state)
        self._states[trial.number] = state

    def _come_to(self, trial: TrialRecord) -> tuple[TrialState, list[float] | None]:
        """A trial's state and values in Optuna's words."""
        state = STATES.get(trial.state, TrialState.RUNNING)
        if state is not TrialState.COMPLETE:
            return state, None
        values = objective_values(trial, self.objectives)
        return (TrialState.FAIL if values is None else state), values  # None: one is not measured

    def _frozen(self, trial: TrialRecord) -> FrozenTrial:
        state, values = self._come_to(trial)
        frozen = optuna.trial.create_trial(
            state=state,
            values=values,
            params=trial.parameters,
            distributions={name: self.distributions[name] for name in trial.parameters},
            user_attrs=_attributes(trial),
            constraints=self.caps(trial) or None,
        )
        frozen.number = trial.number
        frozen.datetime_start = _local(trial.created)
        if state.is_finished():
            frozen.datetime_complete = _local(trial.finished or trial.created)
        return frozen


def _storage(url: URL) -> optuna.storages.RDBStorage:
    patience = {"timeout": BUSY_SECONDS} if is_sqlite(url) else patience_of(url)
    arguments = {"connect_args": patience, "pool_pre_ping": not is_sqlite(url)}
    text = url.render_as_string(hide_password=False)
    return optuna.storages.RDBStorage(text, engine_kwargs=arguments)


def _forget(storage: optuna.storages.RDBStorage, name: str) -> None:
    known = {study.study_name: study for study in optuna.get_all_study_summaries(storage)}
    if name in known and OURS in known[name].user_attrs:
        optuna.delete_study(study_name=name, storage=storage)


def _local(time: str) -> datetime:
    """Optuna keeps local times without a zone."""
    return datetime.fromisoformat(time).astimezone().replace(tzinfo=None)


def _attributes(trial: TrialRecord) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "label": trial.label,
        "digest": trial.digest,
        "architecture_digest": trial.architecture_digest,
        "seed": trial.seed,
        "baseline": trial.baseline,
        "state": trial.state,
        "epochs": trial.epochs,
        "params": trial.params,
        "macs": trial.macs,
        "flops": trial.flops,
    }
    for name in ("test_accuracy", "latency_ratio", "latency_ms", "throughput"):
        if (value := getattr(trial, name)) is not None:
            attributes[name] = value
    if trial.error:
        attributes["error"] = trial.error
    return attributes
