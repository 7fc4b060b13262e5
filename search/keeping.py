"""Keeping what is decided on: in memory and, in one transaction, in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blocks.formulas import Cost
from search.held_study import HeldStudy
from search.outcome import REUSED
from search.provenance import cpu_name
from search.reading import read_findings
from search.records import NewTrial, ProposalRow, TrialRecord, now
from search.trial_records import among, known_costs, record_of, same_values
from search.verdict import candidate_verdict
from spaces.candidate import Candidate
from spaces.drawing import Proposal
from spaces.metrics import SPEED


class KeepingStudy(HeldStudy):
    """A study that keeps proposals, trials, and what the sampler is told of them."""

    def _row(
        self,
        number: int,
        candidate: Candidate | None,
        verdict: str,
        reason: str,
        state: str,
        proposal: Proposal | None = None,
    ) -> ProposalRow:
        notes = self.proposer.notes(number)
        label = candidate.label if candidate else proposal.label if proposal else ""
        # A repeated candidate may be one of another study: it is kept there, under its digest.
        digest = candidate.digest if candidate else None
        return ProposalRow(
            number,
            notes.parameters,
            notes.distributions,
            notes.system_attributes,
            digest,
            label,
            verdict,
            reason,
            state,
        )

    def _accept(
        self,
        candidate: Candidate,
        values: Mapping[str, Any],
        proposal: int | None,
        rows: list[ProposalRow],
        *,
        more: list[tuple[Candidate, Cost]] | None = None,
        baseline: bool = False,
    ) -> None:
        cost = self.cost(candidate)
        row = rows[-1] if proposal is not None else None  # what is kept of the proposal
        self._add_trial(
            candidate.digest,
            self.plan.seed,
            candidate.label,
            same_values(values, row.parameters if row else {}),
            among(row.distributions if row else {}, values),
            proposal,
            baseline=baseline,
            like=None,
            new=(candidate, cost),
            rows=rows,
            more=more or [],
        )
        if self.plan.seeds > 1:
            self.short.append(candidate.digest)

    def _add_trial(
        self,
        digest: str,
        seed: int,
        label: str,
        parameters: dict[str, Any],
        distributions: dict[str, str],
        proposal: int | None,
        *,
        baseline: bool,
        like: TrialRecord | None,
        new: tuple[Candidate, Cost] | None = None,
        rows: list[ProposalRow] | None = None,
        more: list[tuple[Candidate, Cost]] | None = None,
    ) -> None:
        """Decide on one trial: in memory and, in one transaction, in the database."""
        number = len(self.trials)
        candidates = [*(more or []), *([new] if new else [])]
        known = self._costs(new[0].architecture) if new else known_costs(like)
        notes = self._new_notes() if rows else None

        def kept() -> NewTrial:
            with self.store.writing():
                origin = self._origin(digest, seed)
                unmeasured = (
                    self.plan.latency and origin is not None and origin.latency_ratio is None
                )
                trial = NewTrial(
                    number,
                    digest,
                    seed,
                    label,
                    parameters,
                    distributions,
                    proposal,
                    baseline,
                    origin,
                    unmeasured,
                    known,
                    self.owner if self._begins and origin is None else "",
                )
                self.store.add_trials(
                    self.id,
                    [trial],
                    candidates=candidates,
                    proposals=rows or [],
                    sampler_state=notes,
                )
            return trial

        trial = self.store.outlast(kept)
        origin, unmeasured = trial.origin, trial.unmeasured
        if new and new[0].architecture_digest in self.screen.timed:
            self.timed.add(number)
        record = record_of(trial, like, new)
        record.measurements |= trial.known
        self._know(record)
        if origin is not None:
            self._take_over(record, origin)
        if trial.begun_by:
            self._begun[number] = 1
        if origin is None or unmeasured:
            self.waiting.append(number)
        else:
            record.state, record.finished = REUSED, now()
            self._told_of(record)
        self.changed()

    def _origin(self, digest: str, seed: int) -> TrialRecord | None:
        """A finished trial of another study; a latency of another machine stays behind."""
        origin = self.store.finished_elsewhere(digest, seed, self.id)
        if origin is None or not origin.speed:
            return origin
        made = self.store.provenance_of(origin)
        place = made.get("device"), made.get("machine", {}).get("cpu")
        if place == (self.plan.device, cpu_name()):
            return origin
        kept = {key: value for key, value in origin.measurements.items() if key[0] != SPEED}
        return replace(origin, measurements=kept)

    def _take_over(self, record: TrialRecord, origin: TrialRecord) -> None:
        """Give a trial what its origin has come to."""
        record.epochs = origin.epochs
        record.measurements |= origin.measurements
        record.origin = f"trial {origin.number}"  # stored, it has its study's name too
        findings = self.store.outlast(lambda: read_findings(self.store.engine, self.id))
        found = findings.get(record.number)
        if found is not None:
            self._expect(record.number, found)

    def _keep(self, rows: list[ProposalRow], refused: list[tuple[Candidate, Cost]]) -> None:
        if rows:
            state = self._new_notes()
            self.store.add_trials(
                self.id, [], candidates=refused, proposals=rows, sampler_state=state
            )

    def _new_notes(self) -> dict[str, Any] | None:
        """What the sampler noted on the study, where that is not stored already."""
        notes = self.proposer.sampler_state()
        if notes == self.notes:
            return None
        self.notes = notes
        return notes

    def _verdict(self, trial: TrialRecord) -> tuple[int, str, list[float] | None] | None:
        """What the sampler is to be told of a proposal, once all its trials have ended."""
        if trial.proposal is None or trial.proposal not in self.open_proposals:
            return None
        group = self._group(trial.digest)
        enough = 1 if trial.proposal in self.repeats else self.plan.seeds
        told = candidate_verdict(group, trial.proposal, self.objectives, enough)
        return None if told is None else (trial.proposal, *told)

    def _told_of(self, trial: TrialRecord) -> None:
        told = self._verdict(trial)
        if told is not None:
            self.store.tell_proposal(self.id, *told)
            self._tell(*told)

    def _tell(self, proposal: int, state: str, values: list[float] | None) -> None:
        self.open_proposals.pop(proposal, None)
        self.repeats.pop(proposal, None)
        self.proposer.tell(proposal, state, values)
