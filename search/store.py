"""The writing side of what is kept of studies: one transaction per outcome.

The parent process alone writes, through ``Store``; reading has a module of its own
(``search.reading``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, wraps
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from blocks.errors import StudyError
from blocks.formulas import Cost
from blocks.plain import content_digest
from search import statements, tables
from search.answers import keep_answers, keep_curve
from search.database import add_missing, insert_missing
from search.direct import Transaction, begun
from search.failures import BY_ENDING, PARENT_ENDED, said
from search.faults import Outlast
from search.leases import TRIAL, LeaseLostError, Leases, LeaseTakenError
from search.outcome import FINISHED, LOST, REUSED, RUNNING, WAITING, Outcome
from search.reading import matching_trials
from search.records import NewTrial, ProposalRow, TrialRecord, now
from spaces.candidate import Candidate
from spaces.space import Space

LEASE_RAN_OUT = said(PARENT_ENDED, "its lease ran out")

Write = TypeVar("Write", bound=Callable[..., Any])


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
        self._last_provenance: tuple[Mapping[str, Any], str] = ({}, "")

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
                self._last_provenance = ({}, "")
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
            return matching_trials(writing.connection, tables.trials.c.id == found[0][0])[0]

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
        last, digest = self._last_provenance
        if digest and content == last:  # as that of most trials is
            return digest
        digest = content_digest("p1", dict(content))
        self._last_provenance = (content, digest)
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
