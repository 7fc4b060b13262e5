"""What is kept of studies: rows in, records out; one transaction per outcome.

The parent process alone writes, through ``Store``. Reading commands and reports use the functions
``read_*`` on an engine opened for reading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, wraps
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, Row, func, insert, inspect, select, true, update
from sqlalchemy.exc import IntegrityError

from blocks.errors import StudyError, listing, suggestion
from blocks.formulas import Cost
from blocks.plain import content_digest
from search import statements, tables
from search.answers import keep_answers, keep_curve, read_further
from search.convergence import AREA, curve_area
from search.database import add_missing, insert_missing
from search.direct import Transaction, begun
from search.failures import BY_ENDING, PARENT_ENDED, said
from search.faults import Outlast
from search.leases import TRIAL, LeaseLostError, Leases, LeaseTakenError
from search.outcome import (
    FINISHED,
    LOST,
    REUSED,
    RUNNING,
    SUCCEEDED,
    WAITING,
    EpochResult,
    Outcome,
)
from spaces.candidate import Candidate
from spaces.metrics import COST, METRICS, SPEED
from spaces.space import Space

ACCEPTED, REPEATED, OVER_CAP, IMPOSSIBLE = "accepted", "repeated", "rejected", "impossible"
REPLICATED = "replicated"  # repeated, and so another seed of its candidate
OPEN = "open"  # the state of a proposal whose candidate has not ended
LEASE_RAN_OUT = said(PARENT_ENDED, "its lease ran out")

Write = TypeVar("Write", bound=Callable[..., Any])


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class StudyRecord:
    """A stored study, without its trials.

    Args:
        id: Its key in the database.
        name: Its name.
        status: running, finished, exhausted, interrupted.
        objectives: Metric -> "max" or "min".
        constraints: Metric -> cap as written.
        identity: data (facts), epochs and seed: what may not change.
        settings: trials, seeds, sampler, pruner: what may.
        space_text: The space file as written.
        space_content: Its data after ``--set``.
        space_source: Where it was read from.
        sampler_state: Optuna's attributes of the study.
        owner: Process that runs it, or ran it last.
        note: Why it ended, where that needs saying.
        created: When.
        changed: When it last began or ended.
    """

    id: int
    name: str
    status: str
    objectives: dict[str, str]
    constraints: dict[str, str]
    identity: dict[str, Any]
    settings: dict[str, Any]
    space_text: str
    space_content: dict[str, Any]
    space_source: str
    sampler_state: dict[str, Any]
    owner: dict[str, Any]
    note: str
    created: str
    changed: str


@dataclass
class TrialRecord:
    """A stored trial, its candidate's costs and its measurements."""

    id: int
    number: int
    state: str
    seed: int
    label: str
    baseline: bool
    digest: str
    architecture_digest: str
    architecture: dict[str, Any]
    training: dict[str, Any]
    params: int
    trainable_params: int
    macs: int
    flops: int
    parameters: dict[str, Any]
    distributions: dict[str, str]
    proposal: int | None
    epochs: int
    error: str
    seconds: float
    created: str
    finished: str | None
    origin: str | None = None
    measurements: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy at the last epoch."""
        return self.measurements.get(("validation", "accuracy"))

    @property
    def test_accuracy(self) -> float | None:
        """Test accuracy at the end of a complete trial."""
        return self.measurements.get(("test", "accuracy"))

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error on validation, where it was measured."""
        return self.measurements.get(("validation", "calibration_error"))

    @property
    def curve_area(self) -> float | None:
        """Mean height of its validation curve."""
        return self.measurements.get(("validation", "curve_area"))

    @property
    def images_per_second(self) -> float | None:
        """Training images a second, the median of its epochs, where that was measured."""
        return self.measurements.get(("train", "images_per_second"))

    @property
    def peak_memory_bytes(self) -> float | None:
        """The most memory in use at one moment of its training, where that was measured."""
        return self.measurements.get(("train", "peak_memory_bytes"))

    @property
    def memory(self) -> float | None:
        """Bytes of maps that its training keeps of each image, where a space asked for it."""
        return self.measurements.get((COST, "memory"))

    @property
    def latency_ratio(self) -> float | None:
        """Time of one image as a multiple of the baseline's, where it was measured."""
        return self.measurements.get((SPEED, "latency_ratio"))

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds of one image, where they were measured."""
        return self.measurements.get((SPEED, "latency_ms"))

    @property
    def throughput(self) -> float | None:
        """Images a second, where that was measured."""
        return self.measurements.get((SPEED, "throughput"))

    @property
    def speed(self) -> dict[str, float]:
        """All that was measured of its latency."""
        return {name: v for (split, name), v in self.measurements.items() if split == SPEED}

    @property
    def latency_flags(self) -> list[str]:
        """Why its latency is to be taken with care: "busy", "wide"."""
        return [flag for flag in ("busy", "wide") if self.speed.get(flag)]

    def metric(self, name: str) -> float | None:
        """An objective's value: a cost, or a measurement."""
        metric = METRICS[name]
        if metric.is_cost:
            return float(getattr(self, name))
        return self.measurements.get((metric.split, name))


@dataclass(frozen=True)
class ProposalRow:
    """A suggestion of the sampler, as it is kept and replayed.

    Args:
        number: The n-th proposal of the study, from 0.
        parameters: Parameter -> value.
        distributions: Parameter -> Optuna's distribution as JSON.
        system_attributes: The sampler's own notes on it.
        digest: Its candidate; None where it fits no site.
        label: Its candidate's short name.
        verdict: accepted, repeated (and replaced), replicated, rejected or impossible.
        reason: Why it became no trial.
        state: open, or as it was told: complete, pruned, failed.
        values: The objectives' values that the sampler was told.
    """

    number: int
    parameters: dict[str, Any]
    distributions: dict[str, str]
    system_attributes: dict[str, Any]
    digest: str | None
    label: str
    verdict: str
    reason: str
    state: str
    values: list[float] | None = None


@dataclass(frozen=True)
class NewTrial:
    """A trial to be kept from the moment at which it is decided on.

    With an ``origin`` it is reused, at once or, where it is ``unmeasured``, once it has been timed.
    ``known`` are measurements, (split, metric) -> value, that it has before it is evaluated.
    ``begun_by`` is who evaluates it at once; empty where it waits.
    """

    number: int
    digest: str
    seed: int
    label: str
    parameters: dict[str, Any]
    distributions: dict[str, str]
    proposal: int | None
    baseline: bool
    origin: TrialRecord | None = None
    unmeasured: bool = False
    known: Mapping[tuple[str, str], float] = field(default_factory=dict)
    begun_by: str = ""


# Reading. ----------------------------------------------------------------------------------------


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
    return _trials(connection, tables.trials.c.study_id == study_id)


def trials_where(engine: Engine, study_id: int, condition: Any) -> list[TrialRecord]:
    """Those trials of a study of which a condition on ``search_trials`` holds, by number."""
    with engine.connect() as connection:
        return _trials(connection, (tables.trials.c.study_id == study_id) & condition)


def find_trial(engine: Engine, study: StudyRecord, number: int) -> TrialRecord:
    """One trial of a study.

    Raises:
        StudyError: It has none of that number.
    """
    trial = tables.trials.c
    numbers = select(trial.number).where(trial.study_id == study.id)
    with engine.connect() as connection:
        found = _trials(connection, (trial.study_id == study.id) & (trial.number == number))
        if found:
            return found[0]
        last = connection.execute(numbers.order_by(trial.number.desc())).scalars().first()
    have = "none yet" if last is None else f"0 to {last}"
    raise StudyError(f"study {study.name!r} has no trial {number}; its trials: {have}")


def _trials(connection: Connection, condition: Any) -> list[TrialRecord]:
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


# Writing. ----------------------------------------------------------------------------------------


def outlasting(write: Write) -> Write:
    """Make a method of the store, which is one transaction, outlast faults of the database.

    Where it is part of a larger transaction, that one is what is repeated.
    """

    @wraps(write)
    def repeated(store: Store, *args: Any, **named: Any) -> Any:
        if store.is_writing:
            return write(store, *args, **named)
        return store.outlast(lambda: write(store, *args, **named))

    return cast(Write, repeated)


class Store:
    """The writing side, for the one parent that runs a study.

    Args:
        engine: Opened for writing.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lock = threading.RLock()  # the mirror's thread writes to the same file
        self.leases: Leases | None = None  # where several parents share a study
        self.outlast = Outlast(engine.url.render_as_string(hide_password=True))
        self._open: Transaction | None = None
        self._trial_ids: dict[tuple[int, int], int] = {}
        self._known_provenance: set[str] = set()

    @property
    def is_writing(self) -> bool:
        """Whether a transaction is open."""
        return self._open is not None

    @cached_property
    def snapshot(self) -> Engine:
        """For reading what was stored at one moment, also while others write."""
        if self.engine.dialect.name == "postgresql":
            return self.engine.execution_options(isolation_level="REPEATABLE READ")
        return self.engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing; kept once the block is left. One inside another is part of it."""
        with self.writing() as transaction:
            yield transaction.connection

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """The same, for the statements of every trial."""
        with self.lock:
            if self._open is not None:
                yield self._open
                return
            try:
                with begun(self.engine) as self._open:
                    yield self._open
            except BaseException:
                self._trial_ids.clear()  # what was added is taken back
                self._known_provenance.clear()
                raise
            finally:
                self._open = None

    def add_study(
        self, name: str, space: Space, *, identity: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        """Keep a new study and its space.

        Raises:
            StudyError: Another process has just made a study of that name.
        """
        try:
            with self.transaction() as connection:
                connection.execute(
                    insert(tables.studies).values(
                        name=name,
                        space_digest=self._add_space(connection, space),
                        objectives=dict(space.objectives),
                        constraints={c.metric: c.text for c in space.constraints},
                        identity=dict(identity),
                        settings=dict(settings),
                        sampler_state={},
                        owner={},
                        status=WAITING,
                        note="",
                        created=now(),
                        changed=now(),
                    )
                )
        except IntegrityError:
            raise StudyError(
                f"study {name!r} was just made by another process; run again"
            ) from None

    def change_space(self, study_id: int, space: Space, identity: Mapping[str, Any]) -> None:
        """Let a study go on with another space."""
        with self.transaction() as connection:
            connection.execute(
                update(tables.studies)
                .where(tables.studies.c.id == study_id)
                .values(
                    space_digest=self._add_space(connection, space),
                    objectives=dict(space.objectives),
                    constraints={c.metric: c.text for c in space.constraints},
                    identity=dict(identity),
                )
            )

    def _add_space(self, connection: Connection, space: Space) -> str:
        digest = content_digest("text", [space.digest, space.text])
        known = select(tables.spaces.c.digest).where(tables.spaces.c.digest == digest)
        if connection.execute(known).first() is None:
            row = {
                "digest": digest,
                "source": space.source,
                "text": space.text,
                "content": dict(space.content),
            }
            add_missing(connection, tables.spaces, [row])
        return digest

    @outlasting
    def update_study(self, study_id: int, **values: Any) -> None:
        """Change columns of a study (status, note, owner, settings)."""
        with self.transaction() as connection:
            connection.execute(
                update(tables.studies)
                .where(tables.studies.c.id == study_id)
                .values(**values, changed=now())
            )

    @outlasting
    def finished_elsewhere(self, digest: str, seed: int, study_id: int) -> TrialRecord | None:
        """A complete trial of the same candidate and seed in another study."""
        wanted = {"wanted": digest, "wanted_seed": seed, "study": study_id}
        with self.writing() as writing:
            found = writing.execute(statements.FIND_FINISHED, wanted)
            if not found:
                return None
            return _trials(writing.connection, tables.trials.c.id == found[0][0])[0]

    @outlasting
    def provenance_of(self, trial: TrialRecord) -> dict[str, Any]:
        """What made a trial's numbers at its last attempt that has ended with some."""
        attempt, made = tables.attempts, tables.provenance
        query = (
            select(made.c.content)
            .join(attempt, attempt.c.provenance_digest == made.c.digest)
            .where(attempt.c.trial_id == trial.id)
            .order_by(attempt.c.number.desc())
        )
        with self.transaction() as connection:
            row = connection.execute(query).first()
        return dict(row.content) if row else {}

    @outlasting
    def add_trials(
        self,
        study_id: int,
        trials: Sequence[NewTrial],
        *,
        candidates: Sequence[tuple[Candidate, Cost]],
        proposals: Sequence[ProposalRow],
        sampler_state: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what the sampler proposed and the trials that came of it, in one transaction."""
        with self.writing() as writing:
            rows = [_candidate_values(candidate, cost) for candidate, cost in candidates]
            statement = insert_missing(self.engine.dialect.name, tables.candidates)
            if statement is not None:
                writing.execute_all(statement, rows)
            else:
                add_missing(writing.connection, tables.candidates, rows)
            writing.execute_all(
                statements.ADD_PROPOSALS, [_proposal_values(study_id, one) for one in proposals]
            )
            for trial in trials:
                self._add_trial(writing, study_id, trial)
            if sampler_state is not None:
                state = {"study": study_id, "sampler_state": dict(sampler_state)}
                writing.execute(statements.CHANGE_STUDY, state)

    def _add_trial(self, writing: Transaction, study_id: int, trial: NewTrial) -> None:
        origin = trial.origin
        reused = origin is not None and not trial.unmeasured
        row = {
            "study_id": study_id,
            "number": trial.number,
            "candidate_digest": trial.digest,
            "seed": trial.seed,
            "state": REUSED if reused else RUNNING if trial.begun_by else WAITING,
            "label": trial.label,
            "parameters": trial.parameters,
            "distributions": trial.distributions,
            "proposal": trial.proposal,
            "baseline": trial.baseline,
            "epochs": origin.epochs if origin else 0,
            "error": "",
            "origin_trial_id": origin.id if origin else None,
            "seconds": 0.0,
            "created": now(),
            "finished": now() if reused else None,
        }
        key = self._trial_ids[study_id, trial.number] = writing.add(statements.ADD_TRIAL, row)
        _add_measurements(writing, key, {**trial.known, **(origin.measurements if origin else {})})
        if trial.begun_by:
            _start_attempt(writing, key, trial.begun_by)

    def add_measurements(
        self, study_id: int, found: Mapping[int, Mapping[tuple[str, str], float]]
    ) -> None:
        """Keep further measurements of trials, by number."""
        if not found:
            return
        with self.writing() as writing:
            for number, measured in found.items():
                _add_measurements(writing, self._trial_id(writing, study_id, number), measured)

    @outlasting
    def start_attempt(self, study_id: int, number: int, *, owner: str, timed: bool = False) -> int:
        """Note that a trial is being evaluated.

        Args:
            study_id: The study.
            number: The trial.
            owner: Who evaluates it.
            timed: Whether it is trained already, and is but to be timed.

        Returns:
            How often it has been started, this time included.

        Raises:
            LeaseTakenError: Another parent evaluates it, or has done so.
        """
        with self.writing() as writing:
            trial_id = self._trial_id(writing, study_id, number)
            if self.leases is not None:
                self._take(writing, self.leases, trial_id, number, timed=timed)
            attempt = _start_attempt(writing, trial_id, owner)
            writing.execute(statements.CHANGE_TRIAL, {"trial": trial_id, "state": RUNNING})
        return attempt

    def _take(
        self, writing: Transaction, leases: Leases, trial_id: int, number: int, *, timed: bool
    ) -> None:
        """Take the lease of a trial, and end the attempt of a parent that has lost it."""
        connection = writing.connection
        wanted = {"trial": trial_id}
        before = int(connection.execute(statements.COUNT_ATTEMPTS, wanted).scalar_one())
        leases.take_trial(connection, number, before + 1)
        state = select(tables.trials.c.state).where(tables.trials.c.id == trial_id)
        if not timed and connection.execute(state).scalar_one() in FINISHED:
            raise LeaseTakenError("it has ended")
        self._end_attempt(writing, trial_id, LOST, LEASE_RAN_OUT, "", None)

    @outlasting
    def finish_trial(
        self,
        study_id: int,
        number: int,
        outcome: Outcome,
        *,
        provenance: Mapping[str, Any],
        told: tuple[int, str, list[float] | None] | None = None,
        artefacts: Sequence[Mapping[str, Any]] = (),
    ) -> int:
        """Keep an outcome whole: state, curve, measurements, provenance, and what is told.

        Args:
            study_id: The study.
            number: The trial.
            outcome: How it ended.
            provenance: What made its numbers.
            told: (proposal, state, values) that the sampler will be told, if anything.
            artefacts: kind, path, sha256 and bytes of the files that it left.

        Returns:
            The trial's key.
        """
        with self.writing() as writing:
            trial_id = self._trial_id(writing, study_id, number)
            if self.leases is not None and not self._give_up(writing.connection, trial_id, number):
                return trial_id
            ended: dict[str, Any] = {
                "trial": trial_id,
                "state": outcome.state,
                "error": outcome.error,
                "seconds": outcome.seconds,
                "finished": now(),
            }
            if outcome.epochs:
                ended["epochs"] = len(outcome.epochs)
            writing.execute(statements.CHANGE_TRIAL, ended)
            if outcome.epochs:
                keep_curve(writing, trial_id, outcome.epochs)
            _add_measurements(
                writing, trial_id, {(s, m): value for s, m, value in outcome.measurements}
            )
            if outcome.found is not None:
                row = {"trial_id": trial_id, "architecture": dict(outcome.found)}
                writing.connection.execute(insert(tables.findings), [row])
            if outcome.answers:
                keep_answers(writing.connection, trial_id, outcome.answers)
            if artefacts:
                rows = [{"trial_id": trial_id, **artefact} for artefact in artefacts]
                writing.connection.execute(insert(tables.artefacts), rows)
            cause = outcome.cause or BY_ENDING.get(outcome.state, "")
            words = said(cause, outcome.error) if cause else outcome.error
            self._end_attempt(
                writing, trial_id, outcome.state, words, outcome.traceback, provenance
            )
            if told is not None:
                self._tell(writing, study_id, *told)
        return trial_id

    def _give_up(self, connection: Connection, trial_id: int, number: int) -> bool:
        """Give the lease of a trial up; False where its outcome is kept already.

        So it is where the connection broke after the database had kept it, and before it said so.
        """
        assert self.leases is not None  # several parents share the study
        try:
            self.leases.give_up(connection, TRIAL, number)
        except LeaseLostError:
            attempt = tables.attempts.c
            mine = (attempt.trial_id == trial_id) & (attempt.number == self.leases.attempts[number])
            if connection.execute(select(attempt.ending).where(mine)).scalar() in FINISHED:
                return False
            raise
        return True

    @outlasting
    def tell_proposal(
        self, study_id: int, proposal: int, state: str, values: list[float] | None
    ) -> None:
        """Keep what the sampler is told of a proposal."""
        with self.writing() as writing:
            self._tell(writing, study_id, proposal, state, values)

    def _tell(
        self,
        writing: Transaction,
        study_id: int,
        proposal: int,
        state: str,
        values: list[float] | None,
    ) -> None:
        row = {"study": study_id, "proposal": proposal, "state": state, "objective_values": values}
        writing.execute(statements.TELL_PROPOSAL, row)

    @outlasting
    def put_back(
        self,
        study_id: int,
        number: int,
        *,
        ending: str,
        cause: str,
        state: str = WAITING,
        traceback: str = "",
        finished: str | None = None,
    ) -> None:
        """Let a trial whose evaluation was cut off wait for its next attempt.

        Args:
            study_id: The study.
            number: The trial.
            ending: Of the attempt: lost or interrupted.
            cause: Why.
            state: Of the trial; another than waiting where its training is kept.
            traceback: What is known of where it was.
            finished: When the attempt ended; None: now.
        """
        with self.writing() as writing:
            trial_id = self._trial_id(writing, study_id, number)
            if self.leases is not None:
                self.leases.give_up(writing.connection, TRIAL, number)
            writing.execute(statements.CHANGE_TRIAL, {"trial": trial_id, "state": state})
            self._end_attempt(writing, trial_id, ending, cause, traceback, None, finished=finished)

    def _trial_id(self, writing: Transaction, study_id: int, number: int) -> int:
        """The key of a trial, which never changes."""
        known = self._trial_ids.get((study_id, number))
        if known is None:
            wanted = {"study": study_id, "wanted": number}
            known = int(writing.execute(statements.FIND_TRIAL, wanted)[0][0])
            self._trial_ids[study_id, number] = known
        return known

    def _end_attempt(
        self,
        writing: Transaction,
        trial_id: int,
        ending: str,
        cause: str,
        traceback: str,
        provenance: Mapping[str, Any] | None,
        *,
        finished: str | None = None,
    ) -> None:
        digest = None if provenance is None else self._add_provenance(writing, provenance)
        row = {
            "trial": trial_id,
            "finished": finished or now(),
            "ending": ending,
            "cause": cause,
            "traceback": traceback,
            "provenance_digest": digest,
        }
        writing.execute(statements.END_ATTEMPT, row)

    def _add_provenance(self, writing: Transaction, content: Mapping[str, Any]) -> str:
        digest = content_digest("p1", dict(content))
        if digest in self._known_provenance:
            return digest
        made = tables.provenance
        connection = writing.connection
        if connection.execute(select(made.c.digest).where(made.c.digest == digest)).first() is None:
            add_missing(connection, made, [{"digest": digest, "content": dict(content)}])
        self._known_provenance.add(digest)
        return digest


def _proposal_values(study_id: int, proposal: ProposalRow) -> dict[str, Any]:
    return {
        "study_id": study_id,
        "number": proposal.number,
        "parameters": proposal.parameters,
        "distributions": proposal.distributions,
        "system_attributes": proposal.system_attributes,
        "candidate_digest": proposal.digest,
        "label": proposal.label,
        "verdict": proposal.verdict,
        "reason": proposal.reason,
        "state": proposal.state,
        "objective_values": proposal.values,
    }


def _candidate_values(candidate: Candidate, cost: Cost) -> dict[str, Any]:
    return {
        "digest": candidate.digest,
        "architecture_digest": candidate.architecture_digest,
        "architecture": candidate.architecture.content,
        "training": candidate.training.content,
        "data": candidate.data.content,
        "baseline": candidate.is_baseline,
        **cost.to_json(),
    }


def _start_attempt(writing: Transaction, trial_id: int, owner: str) -> int:
    row = {"trial": trial_id, "whose": owner, "moment": now()}
    return int(writing.execute(statements.START_ATTEMPT, row)[0][0])


def _add_measurements(
    writing: Transaction, trial_id: int, found: Mapping[tuple[str, str], float]
) -> None:
    rows = [
        {"trial_id": trial_id, "split": split, "metric": metric, "value": value}
        for (split, metric), value in found.items()
    ]
    writing.execute_all(statements.ADD_MEASUREMENTS, rows)


def is_success(trial: TrialRecord) -> bool:
    """Whether a trial has its final measurements."""
    return trial.state in SUCCEEDED
