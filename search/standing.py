"""Where a stored study stands beside a plan: what is done, what differs, what still fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import URL

from blocks.errors import SiteError, SpaceError
from blocks.formulas import Cost
from blocks.options import OptionValue
from search import tables
from search.database import open_for_reading, open_if_there
from search.outcome import COMPLETE, FINISHED
from search.plan import StudyPlan, stored_study
from search.reading import read_trials
from search.records import TrialRecord
from search.study import changes_of
from search.taken_over import Pair
from spaces.candidate import Candidate
from spaces.caps import violated
from spaces.drawing import baseline_candidates, draw, enumerate_proposals
from spaces.parameters import Choice, Domain, Range

FITS, OVER_CAP, OUTSIDE = "fits", "over a cap", "outside"
REREAD = ("pretrained",)  # a space gives it in other words than a trial has it
MAX_WALKED = 500  # proposals per trial, where its own settings are not among the space's


@dataclass(frozen=True)
class Standing:
    """A stored study beside a plan of the same name.

    Args:
        states: How many trials are in each state.
        done: Finished trials.
        left: Those that the plan's total leaves.
        changes: The lines in which space or settings differ; - stored, + planned.
        fates: Of the stored candidates' trials, how many fit the planned space, are over one of
            its caps, or are outside of it.
        new: Distinct candidates of the planned space that the study has not had; None where they
            cannot be listed.
        had: The candidates and seeds that the study has finished.
    """

    states: Mapping[str, int]
    done: int
    left: int
    changes: tuple[str, ...]
    fates: Mapping[str, int]
    new: int | None
    had: frozenset[Pair] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "states": dict(self.states),
            "done": self.done,
            "left": self.left,
            "changes": list(self.changes),
            "kept": self.fates.get(FITS, 0),
            "over_cap": self.fates.get(OVER_CAP, 0),
            "outside": self.fates.get(OUTSIDE, 0),
            "new_candidates": self.new,
        }


def standing(plan: StudyPlan, listed: Mapping[str, Candidate] | None) -> Standing | None:
    """Where the stored study of a plan's name stands; None where there is none.

    Args:
        plan: What is to be run.
        listed: Every candidate of its space by digest, without those that a cap refuses; None
            where they cannot be listed.
    """
    record = stored_study(plan.storage, plan.study)
    if record is None:
        return None
    engine = open_for_reading(plan.storage)
    try:
        trials = read_trials(engine, record.id)
    finally:
        engine.dispose()
    done = sum(trial.state in FINISHED for trial in trials)
    fits = _Fit(plan, listed)
    return Standing(
        Counter(trial.state for trial in trials),
        done,
        max(0, plan.trials - done),
        tuple(changes_of(record, plan)),
        Counter(map(fits.fate, trials)),
        None if listed is None else len(listed.keys() - {trial.digest for trial in trials}),
        frozenset((trial.digest, trial.seed) for trial in trials if trial.state in FINISHED),
    )


class _Fit:
    """Whether stored trials are of a plan's space.

    Args:
        plan: With the space.
        listed: As in ``standing``.
    """

    def __init__(self, plan: StudyPlan, listed: Mapping[str, Candidate] | None) -> None:
        self.plan = plan
        self.listed = listed or {}
        candidates = baseline_candidates(plan.space, plan.data)
        self.baselines = {candidate.digest for candidate, _ in candidates}

    def fate(self, trial: TrialRecord) -> str:
        """Whether it fits, is over a cap, or lies outside; the baselines always fit."""
        if trial.digest in self.baselines or trial.digest in self.listed:
            return FITS
        candidate = self._redrawn(trial)
        if candidate is None:
            return OUTSIDE
        cost = Cost(trial.params, trial.trainable_params, trial.macs, trial.flops)
        return OVER_CAP if violated(self.plan.space, candidate, cost) else FITS

    def _redrawn(self, trial: TrialRecord) -> Candidate | None:
        """A trial's candidate as this space draws it; None where it does not."""
        space, data = self.plan.space, self.plan.data
        of_training = {n: v for n, v in trial.training.items() if n not in REREAD}
        given = {"backbone": trial.architecture["backbone"], **of_training, **trial.parameters}

        def known(name: str, domain: Domain) -> OptionValue | None:
            value: OptionValue | None = given.get(name)
            if value is not None and _allows(domain, value):
                return value
            if name == "backbone" or isinstance(domain, Range):
                raise LookupError(name)
            return None  # walked through: another value may give the same network

        with suppress(LookupError, SpaceError):
            for proposal in islice(enumerate_proposals(space, data, known=known), MAX_WALKED):
                with suppress(SiteError):
                    candidate = draw(proposal, data)
                    if candidate.digest == trial.digest:
                        return candidate
        return None


def _allows(domain: Domain, value: Any) -> bool:
    if isinstance(domain, Choice):
        return value in domain.values
    return isinstance(value, (int, float)) and domain.low <= value <= domain.high


def results_elsewhere(url: URL, study: str) -> dict[Pair, str]:
    """(candidate's digest, seed) -> the complete trial of another study that has it."""
    trial, owner = tables.trials, tables.studies
    query = (
        select(trial.c.candidate_digest, trial.c.seed, owner.c.name, trial.c.number)
        .join(owner, owner.c.id == trial.c.study_id)
        .where(trial.c.state == COMPLETE, owner.c.name != study)
        .order_by(trial.c.id.desc())
    )
    engine = open_if_there(url)
    if engine is None:
        return {}
    try:
        with engine.connect() as connection:
            return {
                (row.candidate_digest, row.seed): f"{row.name} {row.number}"
                for row in connection.execute(query)
            }
    finally:
        engine.dispose()
