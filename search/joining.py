"""What becomes of one study of another database: decided from both before anything is written.

A trial is known by its candidate and seed. One that the target lacks is added under a new number;
one that waits there takes the result that the other has; one that has ended there stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select
from sqlalchemy.engine import URL

from blocks.errors import StudyError
from search import tables
from search.database import shown
from search.outcome import COMPLETE, DIVERGED, FINISHED, PRUNED, REUSED, RUNNING, SUCCEEDED, WAITING
from search.reading import find_study, read_proposals, read_trials
from search.records import OVER_CAP, ProposalRow, StudyRecord, TrialRecord
from search.source import Row, Source
from spaces.space import differences

RESULTS = (COMPLETE, REUSED, PRUNED, DIVERGED)  # a failure is left for the target to try itself


@dataclass(frozen=True)
class Brought:
    """A trial that comes from the source.

    Args:
        row: As it is stored there.
        number: In the target.
        state: In the target: nobody runs it there.
        proposal: In the target, if it has one.
        fills: Key of the target's trial that takes its result; None: it is added.
        origin: Key of the target's trial that it was reused from.
        adopts: Key in the source of the trial whose records become its own, because the one that
            it was reused from does not come along.
    """

    row: Row
    number: int
    state: str
    proposal: int | None
    fills: int | None = None
    origin: int | None = None
    adopts: int | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        """Keys in the source of the trials whose records it takes."""
        return (self.row["id"],) if self.adopts is None else (self.row["id"], self.adopts)


@dataclass(frozen=True)
class Joining:
    """One study of a source and what of it comes into the target.

    Args:
        source: Where it is from.
        record: The study as it is stored there, with its space's content.
        name: In the target.
        into: The study that it joins; None: it is taken over whole.
        trials: What comes.
        proposals: The sampler's suggestions that come, with their numbers in the target.
        there: Trials of it that the target has already.
    """

    source: Source
    record: Row
    name: str
    into: StudyRecord | None
    trials: tuple[Brought, ...]
    proposals: tuple[Row, ...]
    there: int

    @property
    def is_idle(self) -> bool:
        """Whether the target has all of it."""
        return self.into is not None and not self.trials and not self.proposals


def plan_joining(source: Source, record: Row, name: str, engine: Engine, target: URL) -> Joining:
    """Decide what of a study comes into the target.

    Raises:
        StudyError: The target has another study of that name.
    """
    into = find_study(engine, name)
    if into is not None:
        _refuse_another(source, record, into, target)
    rows = source.rows(tables.trials, tables.trials.c.study_id == record["id"])
    ours = [] if into is None else read_trials(engine, into.id)
    known = {(trial.digest, trial.seed): trial for trial in ours}
    wanted = [row for row in rows if _is_wanted(row, known)]
    proposals = source.rows(tables.proposals, tables.proposals.c.study_id == record["id"])
    numbers = {row["number"]: row["number"] for row in proposals}
    if into is not None:
        new = [row for row in wanted if _pair(row) not in known]
        numbers = _numbered_on(proposals, new, ours, read_proposals(engine, into.id))
    trials = _brought(source, wanted, ours, numbers, engine, whole=into is None)
    return Joining(
        source,
        record,
        name,
        into,
        tuple(trials),
        tuple({**p, "number": numbers[p["number"]]} for p in proposals if p["number"] in numbers),
        len(rows) - len(wanted),
    )


def _refuse_another(source: Source, record: Row, into: StudyRecord, target: URL) -> None:
    changes = differences(into.space_content, record["content"])
    changes += differences(into.identity, record["identity"])
    if changes:
        lines = "\n".join(f"  {line}" for line in changes)
        what = "1 line differs" if len(changes) == 1 else f"{len(changes)} lines differ"
        raise StudyError(
            f"{shown(target)} holds study {into.name!r} with another space or setting than"
            f" {source.name} ({what}; - there, + {source.name}):\n{lines}\n  Take it over under"
            f" another name: --study {record['name']} --as NAME"
        )


def _pair(row: Row) -> tuple[str, int]:
    return row["candidate_digest"], row["seed"]


def _is_wanted(row: Row, known: Mapping[tuple[str, int], TrialRecord]) -> bool:
    """Whether the target lacks a trial, or its result."""
    ours = known.get(_pair(row))
    return ours is None or (_lacks_result(ours) and row["state"] in RESULTS)


def _lacks_result(trial: TrialRecord) -> bool:
    return trial.state in (WAITING, RUNNING) and trial.accuracy is None


def _numbered_on(
    theirs: Iterable[Row],
    new: Iterable[Row],
    ours: Iterable[TrialRecord],
    proposals: Sequence[ProposalRow],
) -> dict[int, int]:
    """Number of a proposal in the source -> its number after the target's own.

    Those come that a new candidate's trial is from, and one for every candidate over a cap that
    the target does not know. Repeated and impossible ones say nothing about results.
    """
    had = {trial.digest for trial in ours}
    rows = [row for row in new if row["candidate_digest"] not in had]
    wanted = {row["proposal"] for row in rows}
    known = had | {row["candidate_digest"] for row in rows}
    known |= {proposal.digest for proposal in proposals if proposal.verdict == OVER_CAP}
    start = 1 + max((proposal.number for proposal in proposals), default=-1)
    numbers: dict[int, int] = {}
    for row in theirs:
        refused = row["verdict"] == OVER_CAP and row["candidate_digest"] not in known
        if refused:
            known.add(row["candidate_digest"])
        if refused or row["number"] in wanted:
            numbers[row["number"]] = start + len(numbers)
    return numbers


def _brought(
    source: Source,
    wanted: Iterable[Row],
    ours: Iterable[TrialRecord],
    numbers: Mapping[int, int],
    engine: Engine,
    *,
    whole: bool,
) -> list[Brought]:
    """The trials that come, in the source's order."""
    wanted = sorted(wanted, key=lambda row: row["number"])
    accuracies = source.accuracies(row["id"] for row in wanted)
    known = {(trial.digest, trial.seed): trial for trial in ours}
    proposals = {trial.digest: trial.proposal for trial in reversed(list(known.values()))}
    following = 1 + max((trial.number for trial in known.values()), default=-1)
    found = []
    for row in wanted:
        have = known.get(_pair(row))
        accuracy = accuracies.get(row["id"])
        state = row["state"] if row["state"] in FINISHED else _at_rest(row, accuracy)
        origin = _origin(engine, row, accuracy)
        adopts = row["origin_trial_id"] if origin is None else None
        number = row["number"] if whole else following
        proposal = proposals.get(row["candidate_digest"], numbers.get(row["proposal"]))
        if have is not None:
            number, proposal = have.number, have.proposal
        elif not whole:
            following += 1
        found.append(
            Brought(
                row,
                number,
                COMPLETE if adopts is not None and state in SUCCEEDED else state,
                proposal,
                have.id if have else None,
                origin,
                adopts,
            )
        )
    return found


def _at_rest(row: Row, accuracy: float | None) -> str:
    """What a trial that somebody runs there is here, where nobody does."""
    if accuracy is None:
        return WAITING
    return COMPLETE if row["origin_trial_id"] is None else REUSED


def _origin(engine: Engine, row: Row, accuracy: float | None) -> int | None:
    """Key of the target's own trial whose result a reused trial has, if it is there."""
    if row["origin_trial_id"] is None:
        return None
    trial, measured = tables.trials.c, tables.measurements.c
    query = (
        select(trial.id)
        .join(tables.measurements, measured.trial_id == trial.id)
        .where(
            trial.candidate_digest == row["candidate_digest"],
            trial.seed == row["seed"],
            trial.state == COMPLETE,
            measured.split == "validation",
            measured.metric == "accuracy",
            measured.value == accuracy,
        )
        .order_by(trial.id)
    )
    with engine.connect() as connection:
        return connection.execute(query).scalars().first()
