"""What a study does next: another seed, what a user gave, or a new candidate of the sampler's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from blocks.errors import SiteError
from blocks.formulas import Cost
from search.enqueued import Given, is_settled, words
from search.keeping import KeepingStudy
from search.outcome import FAILED, FINISHED
from search.records import (
    ACCEPTED,
    IMPOSSIBLE,
    OPEN,
    OVER_CAP,
    REPEATED,
    REPLICATED,
    ProposalRow,
    TrialRecord,
)
from search.repeats import is_worth_repeating
from search.sampler_table import MAX_DRAWS
from search.samplers import proposal_seed
from spaces.candidate import Candidate
from spaces.drawing import (
    Proposal,
    baseline_candidates,
    distinct_candidates,
    draw,
    enumerate_proposals,
)


class DecidingStudy(KeepingStudy):
    """A study that decides on its next trial."""

    def _decide(self) -> bool:
        """Add one trial: another seed, what a user gave or a training found, or a new candidate."""
        while self.short:
            group = self._group(self.short[0])
            if len(group) < self.plan.seeds:
                self._add_replicate(group)
                return True
            self.short.popleft()
        return (
            self._add_repeat()
            or self._add_given()
            or self._add_found()
            or self._add_plain()
            or self._add_new()
        )

    def _add_new(self) -> bool:
        """Propose; where that came to nothing, only again for what has finished since."""
        again = bool(self.note)
        if again:
            if self.plan.max_seeds <= self.plan.seeds or self._finished == self._drawn_at:
                return False
            self._drawn_at = self._finished
        added = self._add_proposal()
        if not (added or again):
            self._drawn_at = self._finished
        return added

    def _add_found(self) -> bool:
        """Take an architecture that a training has found, if it is new and within the caps."""
        while self.found:
            candidate = self.found.popleft()
            over = self.screen.reasons(candidate, self.cost(candidate))
            if candidate.digest not in self.by_candidate and not over:
                self._accept(candidate, {}, None, [])
                return True
        return False

    def _add_repeat(self) -> bool:
        """Give a candidate that was proposed again its next seed; its baseline has as many before.

        A proposal of that kind waits in ``repeats`` until its one trial has ended.
        """
        for proposal, digest in self.repeats.items():
            group = self._group(digest)
            if any(trial.proposal == proposal for trial in group):
                continue
            baseline = self._baseline_of(group[0])
            if 0 < len(baseline) <= len(group) and not group[0].baseline:
                self._add_replicate(baseline)
            else:
                self._add_replicate(group, proposal)
            return True
        return False

    def _baseline_of(self, trial: TrialRecord) -> list[TrialRecord]:
        """The trials of no attention in the same backbone."""
        backbone = trial.architecture["backbone"]
        for other in self.trials.values():
            if other.baseline and other.architecture["backbone"] == backbone:
                return self._group(other.digest)
        return []

    def _is_worth_repeating(self, candidate: Candidate | None) -> TypeGuard[Candidate]:
        """Whether a candidate that is proposed again is to get its next seed."""
        digest = candidate.digest if candidate else ""
        group = self._group(digest)
        if self.plan.max_seeds <= max(self.plan.seeds, len(group)):
            return False
        if digest in self.repeats.values() or any(t.state not in FINISHED for t in group):
            return False
        images = self.plan.data.sizes[1]
        return is_worth_repeating(digest, self.trials.values(), self.objectives, images)

    def _add_replicate(self, group: list[TrialRecord], proposal: int | None = None) -> None:
        first = group[0]
        taken = {trial.seed for trial in group}
        most = max(self.plan.seeds, self.plan.max_seeds)
        wanted = range(self.plan.seed, self.plan.seed + most)
        seed = next(seed for seed in wanted if seed not in taken)
        self._add_trial(
            first.digest,
            seed,
            first.label,
            first.parameters,
            first.distributions,
            first.proposal if proposal is None else proposal,
            baseline=first.baseline,
            like=first,
        )

    def _add_baselines(self) -> None:
        """No attention, once per backbone, never refused by a cap: those that are not there yet.

        In a new study they are the first trials; a changed space may need another one.
        """
        for candidate, values in baseline_candidates(self.plan.space, self.plan.data):
            if candidate.digest not in self.by_candidate and len(self.trials) < self.plan.trials:
                self._enter(candidate, values, baseline=True)

    def _add_plain(self) -> bool:
        """Take no attention at settings that a block was tried with, where it is to be tuned."""
        found = self.tuning.next(self.trials, self.by_candidate)
        if found is not None:
            self._enter(*found, baseline=False)
        return found is not None

    def _enter(self, candidate: Candidate, values: Mapping[str, Any], *, baseline: bool) -> None:
        """Make a trial of no attention, as a proposal where the space has one that means it."""
        number, rows = None, []
        if values:
            number = self.proposer.add(values, self.domains())
            rows = [self._row(number, candidate, ACCEPTED, "", OPEN)]
            self.open_proposals[number] = candidate.digest
        self._accept(candidate, values, number, rows, baseline=baseline)

    def _add_proposal(self) -> bool:
        """Draw until a candidate is new and within the caps; False where none is left."""
        rows: list[ProposalRow] = []
        refused: list[tuple[Candidate, Cost]] = []
        draws = MAX_DRAWS if self.plan.sampler != "grid" else 0
        if self._add_drawn(draws, rows, refused):
            return True
        if self._add_untried(rows, refused):
            return True
        self._keep(rows, refused)
        return False

    def _add_given(self) -> bool:
        """Take the next proposal of the user; one that is no new candidate becomes no trial."""
        while self.given:
            given = self.given.popleft()
            rows: list[ProposalRow] = []
            refused: list[tuple[Candidate, Cost]] = []
            if self._add_drawn(MAX_DRAWS, rows, refused, given):
                return True
            self._keep(rows, refused)
            self.remarks.append(f"{words(given)} was given and is no trial: {rows[-1].reason}")
        return False

    def _add_drawn(
        self,
        draws: int,
        rows: list[ProposalRow],
        refused: list[tuple[Candidate, Cost]],
        given: Given | None = None,
    ) -> bool:
        """Let the sampler propose, so many times at most, until that is a trial."""
        given = given or {}
        for turn in range(draws):
            number, proposal = self.proposer.ask(given, draw=turn)
            candidate, verdict, reason = self._judge(proposal)
            idle = [name for name in given if name not in proposal.values]
            if idle:
                reason = f"drawn without the {idle[0]} that was given"
                candidate, verdict = None, IMPOSSIBLE  # that candidate is kept nowhere
            elif verdict == ACCEPTED and candidate is not None:
                row = self._row(number, candidate, ACCEPTED, "", OPEN)
                self.open_proposals[number] = candidate.digest
                self._accept(candidate, proposal.values, number, [*rows, row], more=refused)
                return True
            elif verdict == REPEATED and not given and self._is_worth_repeating(candidate):
                row = self._row(number, candidate, REPLICATED, "another seed of it", OPEN)
                self.open_proposals[number] = self.repeats[number] = candidate.digest
                self._keep([*rows, row], refused)
                return self._add_repeat()
            self.proposer.tell(number, FAILED, None)
            if verdict == OVER_CAP and candidate is not None:
                self.rejected[candidate.digest] = reason
                refused.append((candidate, self.cost(candidate)))
            rows.append(self._row(number, candidate, verdict, reason, FAILED, proposal))
            if given and is_settled(given, proposal, self.plan.space, capped=verdict == OVER_CAP):
                break
        return False

    def _judge(self, proposal: Proposal) -> tuple[Candidate | None, str, str]:
        """A proposal's candidate, what becomes of it, and why."""
        try:
            candidate = draw(proposal, self.plan.data, resolve=self._resolved)
        except SiteError as error:
            return None, IMPOSSIBLE, str(error)
        if candidate.digest in self.by_candidate:
            return candidate, REPEATED, "its candidate is in the study already"
        known = self.rejected.get(candidate.digest)
        over = [known] if known else self.screen.reasons(candidate, self.cost(candidate))
        if over:
            return candidate, OVER_CAP, "; ".join(over)
        return candidate, ACCEPTED, ""

    def _add_untried(self, rows: list[ProposalRow], refused: list[tuple[Candidate, Cost]]) -> bool:
        """Take one of the distinct candidates that the study has not tried."""
        choices = self._walked() if self.plan.sampler == "grid" else self._shuffled()
        if choices is None:
            self.note = f"{MAX_DRAWS} proposals in a row held no new candidate"
            return False
        for candidate, proposal in choices:
            over = self.screen.reasons(candidate, self.cost(candidate))
            number = self.proposer.add(proposal.values, self.domains())
            if not over:
                rows.append(self._row(number, candidate, ACCEPTED, "", OPEN))
                self.open_proposals[number] = candidate.digest
                self._accept(candidate, proposal.values, number, rows, more=refused)
                return True
            self.proposer.tell(number, FAILED, None)
            reason = self.rejected[candidate.digest] = "; ".join(over)
            refused.append((candidate, self.cost(candidate)))
            rows.append(self._row(number, candidate, OVER_CAP, reason, FAILED))
        self.note = f"every distinct candidate of the space has been tried ({self._tried()})"
        return False

    def _walked(self) -> Iterator[tuple[Candidate, Proposal]]:
        """The untried candidates in the space's order, from where the walk stands."""
        if self._walk is None:
            self._walk = enumerate_proposals(self.plan.space, self.plan.data)
        for proposal in self._walk:
            try:
                candidate = draw(proposal, self.plan.data)
            except SiteError:
                continue
            if candidate.digest not in self.by_candidate and candidate.digest not in self.rejected:
                yield candidate, proposal

    def _shuffled(self) -> list[tuple[Candidate, Proposal]] | None:
        """The untried candidates in an order of chance; None where they cannot be listed."""
        untried = self._untried()
        if untried is not None:
            seed = proposal_seed(self.plan.seed, self.proposer.count)
            random.Random(seed).shuffle(untried)
        return untried

    def _tried(self) -> str:
        text = f"{len(self.by_candidate)} in the study"
        return f"{text}, {len(self.rejected)} over a cap" if self.rejected else text

    def _untried(self) -> list[tuple[Candidate, Proposal]] | None:
        if self._distinct is False:
            self._distinct = distinct_candidates(self.plan.space, self.plan.data)
        if not isinstance(self._distinct, dict):
            return None
        return [
            entry
            for digest, entry in self._distinct.items()
            if digest not in self.by_candidate and digest not in self.rejected
        ]
