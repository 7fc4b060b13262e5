"""Reading studies: rows in, records out.

Reading commands and reports use these on an engine opened for reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, inspect, select, true

from blocks.errors import StudyError, listing, suggestion
from blocks.formulas import Cost
from search import tables
from search.answers import read_further
from search.convergence import AREA, curve_area
from search.outcome import EpochResult
from search.records import OVER_CAP, ProposalRow, StudyRecord, TrialRecord


def read_studies(engine: Engine) -> list[StudyRecord]:
    """All studies, the oldest first."""
    with engine.connect() as connection:
        return [_study(row) for row in connection.execute(_studies_query())]


def read_study(engine: Engine, name: str | None) -> StudyRecord:
    """One study by name; without one, the study that was run last.

    Raises:
        StudyError: There is no such study.
    """
    studies = read_studies(engine)
    if name is None and studies:
        return max(studies, key=lambda study: study.changed)
    for study in studies:
        if study.name == name:
            return study
    names = [study.name for study in studies]
    if not names:
        raise StudyError(
            "there are no results yet: run a study first (search run --space attention)"
        )
    raise StudyError(
        f"there is no study {name!r}.{suggestion(name, names)} Studies: {listing(names)}"
    )


def find_study(engine: Engine, name: str) -> StudyRecord | None:
    """The study of this name, if there is one."""
    return next((study for study in read_studies(engine) if study.name == name), None)


def _studies_query() -> Any:
    space = tables.spaces
    return (
        select(tables.studies, space.c.text, space.c.content, space.c.source)
        .join(space, space.c.digest == tables.studies.c.space_digest)
        .order_by(tables.studies.c.id)
    )


def _study(row: Row[Any]) -> StudyRecord:
    return StudyRecord(
        id=row.id,
        name=row.name,
        status=row.status,
        objectives=row.objectives,
        constraints=row.constraints,
        identity=row.identity,
        settings=row.settings,
        space_text=row.text,
        space_content=row.content,
        space_source=row.source,
        sampler_state=row.sampler_state,
        owner=row.owner,
        note=row.note,
        created=row.created,
        changed=row.changed,
    )


def read_trials(engine: Engine, study_id: int) -> list[TrialRecord]:
    """The trials of a study by number, with measurements; rejected proposals are not among them."""
    with engine.connect() as connection:
        return trials_within(connection, study_id)


def trials_within(connection: Connection, study_id: int) -> list[TrialRecord]:
    """The same as ``read_trials`` within a transaction that is open."""
    return matching_trials(connection, tables.trials.c.study_id == study_id)


def trials_where(engine: Engine, study_id: int, condition: Any) -> list[TrialRecord]:
    """Those trials of a study of which a condition on ``search_trials`` holds, by number."""
    with engine.connect() as connection:
        return matching_trials(connection, (tables.trials.c.study_id == study_id) & condition)


def find_trial(engine: Engine, study: StudyRecord, number: int) -> TrialRecord:
    """One trial of a study.

    Raises:
        StudyError: It has none of that number.
    """
    trial = tables.trials.c
    numbers = select(trial.number).where(trial.study_id == study.id)
    with engine.connect() as connection:
        found = matching_trials(connection, (trial.study_id == study.id) & (trial.number == number))
        if found:
            return found[0]
        last = connection.execute(numbers.order_by(trial.number.desc())).scalars().first()
    have = "none yet" if last is None else f"0 to {last}"
    raise StudyError(f"study {study.name!r} has no trial {number}; its trials: {have}")


def matching_trials(connection: Connection, condition: Any) -> list[TrialRecord]:
    """The trials of which a condition on ``search_trials`` holds, within an open transaction."""
    trial, candidate = tables.trials, tables.candidates
    origin = trial.alias("origin")
    origin_study = tables.studies.alias("origin_study")
    query = (
        select(
            trial,
            *(c for c in candidate.c if c.name not in ("digest", "baseline", "data")),
            origin.c.number.label("origin_number"),
            origin_study.c.name.label("origin_study"),
        )
        .join(candidate, candidate.c.digest == trial.c.candidate_digest)
        .outerjoin(origin, origin.c.id == trial.c.origin_trial_id)
        .outerjoin(origin_study, origin_study.c.id == origin.c.study_id)
        .where(condition)
        .order_by(trial.c.number)
    )
    records = {row.id: _trial(row) for row in connection.execute(query)}
    measured = tables.measurements
    rows = connection.execute(
        select(measured).join(trial, trial.c.id == measured.c.trial_id).where(condition)
    )
    for row in rows:
        records[row.trial_id].measurements[row.split, row.metric] = row.value
    _add_areas(connection, condition, records)
    return list(records.values())


def _add_areas(connection: Connection, condition: Any, records: Mapping[int, TrialRecord]) -> None:
    """Give trials that an earlier version measured the area under their stored curve."""
    lacking = {k for k, t in records.items() if t.accuracy is not None and t.curve_area is None}
    if not lacking:
        return
    trial, curve = tables.trials, tables.curves
    source = func.coalesce(trial.c.origin_trial_id, trial.c.id)
    query = (
        select(trial.c.id, curve.c.accuracy)
        .join(curve, curve.c.trial_id == source)
        .where(condition)
        .order_by(trial.c.id, curve.c.epoch)
    )
    for key, rows in groupby(connection.execute(query), key=itemgetter(0)):
        if key in lacking:
            area = curve_area([row.accuracy for row in rows])
            records[key].measurements["validation", AREA] = area


def _trial(row: Row[Any]) -> TrialRecord:
    return TrialRecord(
        id=row.id,
        number=row.number,
        state=row.state,
        seed=row.seed,
        label=row.label,
        baseline=row.baseline,
        digest=row.candidate_digest,
        architecture_digest=row.architecture_digest,
        architecture=row.architecture,
        training=row.training,
        params=row.params,
        trainable_params=row.trainable_params,
        macs=row.macs,
        flops=row.flops,
        parameters=row.parameters,
        distributions=row.distributions,
        proposal=row.proposal,
        epochs=row.epochs,
        error=row.error,
        seconds=row.seconds,
        created=row.created,
        finished=row.finished,
        origin=f"{row.origin_study} {row.origin_number}" if row.origin_study else None,
    )


def read_findings(engine: Engine, study_id: int) -> dict[int, dict[str, Any]]:
    """Trial number -> the architecture that it found; a reused trial has that of its origin."""
    trial, finding = tables.trials, tables.findings
    source = func.coalesce(trial.c.origin_trial_id, trial.c.id)
    query = (
        select(trial.c.number, finding.c.architecture)
        .join(finding, finding.c.trial_id == source)
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number)
    )
    with engine.connect() as connection:
        if not inspect(connection).has_table(finding.name):
            return {}  # written by a version that had none
        return {row.number: row.architecture for row in connection.execute(query)}


def read_curves(engine: Engine, study_id: int) -> dict[int, list[EpochResult]]:
    """Trial number -> its epochs; a reused trial has those of its origin."""
    trial, curve = tables.trials, tables.curves
    source = func.coalesce(trial.c.origin_trial_id, trial.c.id)
    query = (
        select(trial.c.number, curve)
        .join(curve, curve.c.trial_id == source)
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number, curve.c.epoch)
    )
    further = read_further(engine, study_id)
    found: dict[int, list[EpochResult]] = {}
    with engine.connect() as connection:
        for row in connection.execute(query):
            found.setdefault(row.number, []).append(
                EpochResult(
                    row.epoch,
                    row.train_loss,
                    row.train_accuracy,
                    row.loss,
                    row.accuracy,
                    row.learning_rate,
                    row.seconds,
                    **further.get((row.number, row.epoch), {}),
                )
            )
    return found


@dataclass(frozen=True)
class AttemptRecord:
    """One start of a trial."""

    trial: int
    number: int
    owner: str
    started: str
    finished: str | None
    ending: str | None
    cause: str
    traceback: str
    provenance: dict[str, Any]


def read_attempts(engine: Engine, study_id: int) -> list[AttemptRecord]:
    """Every start of every trial of a study, with what made its numbers."""
    attempt, trial, made = tables.attempts, tables.trials, tables.provenance
    query = (
        select(attempt, trial.c.number.label("trial"), made.c.content)
        .join(trial, trial.c.id == attempt.c.trial_id)
        .outerjoin(made, made.c.digest == attempt.c.provenance_digest)
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number, attempt.c.number)
    )
    with engine.connect() as connection:
        return [
            AttemptRecord(
                row.trial,
                row.number,
                row.owner,
                row.started,
                row.finished,
                row.ending,
                row.cause,
                row.traceback,
                row.content or {},
            )
            for row in connection.execute(query)
        ]


def read_proposals(engine: Engine, study_id: int) -> list[ProposalRow]:
    """Every suggestion of the sampler, in order."""
    return proposals_where(engine, study_id, true())


def proposals_where(engine: Engine, study_id: int, condition: Any) -> list[ProposalRow]:
    """Those suggestions of which a condition on ``search_proposals`` holds, in order."""
    proposal = tables.proposals
    query = (
        select(proposal)
        .where(proposal.c.study_id == study_id, condition)
        .order_by(proposal.c.number)
    )
    with engine.connect() as connection:
        return [
            ProposalRow(
                row.number,
                row.parameters,
                row.distributions,
                row.system_attributes,
                row.candidate_digest,
                row.label,
                row.verdict,
                row.reason,
                row.state,
                row.objective_values,
            )
            for row in connection.execute(query)
        ]


@dataclass(frozen=True)
class RejectedRecord:
    """A distinct candidate that a cap refused before it cost a trial."""

    digest: str
    architecture_digest: str
    architecture: dict[str, Any]
    label: str
    reason: str
    cost: Cost


def read_rejected(engine: Engine, study_id: int) -> list[RejectedRecord]:
    """The distinct rejected candidates, in the order in which they were met."""
    proposal, candidate = tables.proposals, tables.candidates
    query = (
        select(proposal.c.label, proposal.c.reason, candidate)
        .join(candidate, candidate.c.digest == proposal.c.candidate_digest)
        .where(proposal.c.study_id == study_id, proposal.c.verdict == OVER_CAP)
        .order_by(proposal.c.number)
    )
    found: dict[str, RejectedRecord] = {}
    with engine.connect() as connection:
        for row in connection.execute(query):
            cost = Cost(row.params, row.trainable_params, row.macs, row.flops)
            found.setdefault(
                row.digest,
                RejectedRecord(
                    row.digest,
                    row.architecture_digest,
                    row.architecture,
                    row.label,
                    row.reason,
                    cost,
                ),
            )
    return list(found.values())
