"""The engine of a study: ask, evaluate, record, tell.

``Study`` is passive and owns no loop: whoever drives it (the local pool, later Ray) takes an
assignment, and says how it went. The database is the truth; what the engine holds in memory can
be rebuilt from it at any moment, which is what going on after a kill means. The parent process
alone uses it, in one thread.
"""

from __future__ import annotations

import os
import platform
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from optuna.distributions import BaseDistribution

from blocks.architecture import Architecture, architecture_cost, has_closed_cost, resolve
from blocks.errors import SiteError
from blocks.formulas import Cost
from blocks.site import SiteTable
from search.adopted import adopt_finished
from search.budgets import Front, Spent, ended_words, reached
from search.caps import above_caps
from search.database import shown
from search.enqueued import Given, is_settled, still_to_come, words
from search.even_tuning import EvenTuning
from search.failed import retry_failed
from search.failures import (
    MAX_DEATHS,
    MISTAKE,
    PARENT_ENDED,
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
    FINISHED,
    INTERRUPTED,
    LOST,
    REUSED,
    RUNNING,
    SUCCEEDED,
    WAITING,
    Assignment,
    EpochResult,
    Outcome,
)
from search.plan import StudyPlan
from search.proposed import proposal_counts, proposal_words
from search.provenance import command_line, cpu_name
from search.repeats import is_worth_repeating
from search.sampler_table import MAX_DRAWS
from search.samplers import Proposer, mirrored_distributions, proposal_seed
from search.screen import Screen, rejected_words
from search.sharing import Alone, Shared
from search.spending import Meter
from search.store import (
    ACCEPTED,
    IMPOSSIBLE,
    OPEN,
    OVER_CAP,
    REPEATED,
    REPLICATED,
    NewTrial,
    ProposalRow,
    Store,
    StudyRecord,
    TrialRecord,
    find_study,
    now,
    read_findings,
    read_proposals,
    read_trials,
)
from search.verdict import candidate_verdict
from search.watch import Silent, Watch
from spaces.candidate import Candidate
from spaces.caps import memory_of, still_stands
from spaces.drawing import (
    Proposal,
    baseline_candidates,
    distinct_candidates,
    draw,
    enumerate_proposals,
    inner_prefixes,
    sites_of,
)
from spaces.metrics import COST, MEMORY, SPEED
from spaces.parameters import Choice, Domain
from spaces.training import Training

OUT_OF_BUDGET = "out of budget"


@dataclass(frozen=True)
class StudyResult:
    """What a study has come to.

    Args:
        study: Its name.
        storage: Its database, for people.
        objectives: Metric -> "max" or "min".
        trials: All trials by number.
        front: Numbers of the non-dominated complete trials.
        note: Why it ended before its total, where it did.
        warning: What went wrong beside the study, if anything.
        weights: How many files of final weights are kept, their size and folder; may be empty.
        rejected: How many candidates the caps have rejected before training, and which caps; may
            be empty.
        stopped: The end of the traceback of the mistake that stopped it, and how to see the whole.
        proposals: How many were new, repeated or over a cap, in words; may be empty.
        remarks: What became of proposals that the user gave, where they are no trials.
        tuned: Whether no attention is tuned as the blocks are, and compared with at its best.
    """

    study: str
    storage: str
    objectives: dict[str, str]
    trials: list[TrialRecord]
    front: list[int]
    note: str = ""
    warning: str = ""
    weights: str = ""
    rejected: str = ""
    stopped: str = ""
    proposals: str = ""
    remarks: tuple[str, ...] = ()
    tuned: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether any trial has a result."""
        return any(trial.state in SUCCEEDED for trial in self.trials)


class Study:
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
        self.plan = plan
        self.store = store
        self.sharing = sharing or Alone(store)
        self.id = record.id
        self.objectives = record.objectives
        self._checkpoints = f"{plan.artefacts.absolute()}/checkpoints/{plan.study}"
        self.owner = f"{platform.node()} pid {os.getpid()}"
        self.changed: Callable[[], None] = lambda: None
        self.screen = Screen(plan.space)
        self.timed: set[int] = set()  # trials whose latency the screen has measured
        self.running: set[int] = set()
        self.deaths = Deaths()
        self.mistakes = Mistakes()
        self.stopped = ""
        self.remarks: list[str] = []
        self._distinct: dict[str, tuple[Candidate, Proposal]] | bool | None = False
        self._counts: dict[str, Cost] = {}
        self._networks: dict[tuple[Architecture, tuple[int, int, int]], Architecture] = {}
        self._begun: dict[int, int] = {}  # trials decided on for being evaluated at once -> attempt
        self._drawn_at = 0  # finished trials when no proposal was a trial
        self.meter = Meter(store, self.id, self.owner, plan.devices_of_attempt)
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
        self._begins = False  # whether a trial that is decided on is evaluated at once
        self._add_baselines()
        self._begins = not self.sharing.is_shared
        self.keeper.tidy()
        self._settle_weights()

    # Rebuilding from the database. ---------------------------------------------------------------

    def reload(self) -> None:
        """Forget what is held, and hold what the database holds."""
        record = find_study(self.store.snapshot, self.plan.study)
        assert record is not None  # it is being run
        self._hold(record)

    def _hold(self, record: StudyRecord) -> None:
        self.note = ""
        self.trials: dict[int, TrialRecord] = {}
        self.by_candidate: dict[str, list[int]] = {}
        self.rejected: dict[str, str] = {}  # digest -> why
        self.timed &= self.running  # other numbers may have become others'
        self.waiting: deque[int] = deque()
        self.short: deque[str] = deque()
        self.found: deque[Candidate] = deque()
        self.open_proposals: dict[int, str] = {}
        self.notes = record.sampler_state
        self.repeats: dict[int, str] = {}
        self.given: deque[Given] = deque()
        self.front = Front(self.objectives)
        self._walk: Iterator[Proposal] | None = None
        plan = self.plan
        self.tuning = EvenTuning(plan.space, plan.data, wanted=plan.tune_baseline)
        self.proposer = Proposer(
            self.plan.sampler,
            self.objectives,
            seed=self.plan.seed,
            space=self.plan.space,
            data=self.plan.data,
        )
        self._load(record)

    def _load(self, record: StudyRecord) -> None:
        proposals = read_proposals(self.store.engine, self.id)
        self.proposer.replay(proposals, record.sampler_state, self.domains())
        self.rejected = {
            p.digest: p.reason
            for p in proposals
            if p.verdict == OVER_CAP and p.digest and still_stands(self.plan.space, p.reason)
        }
        self.open_proposals = {
            p.number: p.digest for p in proposals if p.state == OPEN and p.digest
        }
        self.repeats = {
            p.number: p.digest
            for p in proposals
            if p.verdict == REPLICATED and p.state == OPEN and p.digest
        }
        self.given = deque(still_to_come(self.plan.enqueue, proposals))
        for trial in read_trials(self.store.engine, self.id):
            self._know(trial)
            if trial.state == RUNNING and not self.sharing.is_shared:
                owner, when = self.meter.cut_off(trial.number)
                self._put_back(trial, LOST, said(PARENT_ENDED, owner), finished=when)
            if self.plan.latency and trial.state in SUCCEEDED and trial.latency_ratio is None:
                trial.state = WAITING  # to be timed; its training is kept
            if trial.state == WAITING:
                self.waiting.append(trial.number)
        self._measure_memory()
        for number, architecture in read_findings(self.store.engine, self.id).items():
            self._expect(number, architecture)
        self.short = deque(
            digest for digest, group in self.by_candidate.items() if len(group) < self.plan.seeds
        )

    def _expect(self, number: int, found: Mapping[str, Any]) -> None:
        """Want what a trial's learnt choices have come to trained anew: of its first seed alone."""
        trial = self.trials[number]
        if trial.seed == self.plan.seed:
            training = Training.from_json(trial.training)
            label = f"{trial.label} (found)"
            architecture = Architecture.from_json(found)
            data = self.plan.data.of_size(architecture.input_size)
            self.found.append(Candidate(architecture, training, data, label))

    def _measure_memory(self) -> None:
        """Give trials their memory, where the space has come to ask for it since they were made."""
        lacking = [t for t in self.trials.values() if (COST, MEMORY) not in t.measurements]
        found = {
            trial.number: self._costs(Architecture.from_json(trial.architecture))
            for trial in lacking
        }
        self.store.add_measurements(self.id, {n: costs for n, costs in found.items() if costs})
        for number, costs in found.items():
            self.trials[number].measurements |= costs

    def _costs(self, architecture: Architecture) -> dict[tuple[str, str], float]:
        """What is measured of an architecture before it is trained: memory, where it matters."""
        capped = any(constraint.metric == MEMORY for constraint in self.plan.space.constraints)
        if MEMORY not in self.objectives and not capped:
            return {}
        return {(COST, MEMORY): float(memory_of(architecture, self.plan.data))}

    def _know(self, trial: TrialRecord) -> None:
        self.trials[trial.number] = trial
        self.by_candidate.setdefault(trial.digest, []).append(trial.number)

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
        trained = _is_trained(trial)
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
            checkpoint=str(self._checkpoint(number)),
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

    def _checkpoint(self, number: int) -> Path:
        """Where a trial's training keeps how far it has come."""
        return Path(f"{self._checkpoints}-{number}.pt")

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

    @property
    def _finished(self) -> int:
        return sum(trial.state in FINISHED for trial in self.trials.values())

    def _add_found(self) -> bool:
        """Take an architecture that a training has found, if it is new and within the caps."""
        while self.found:
            candidate = self.found.popleft()
            over = self.screen.reasons(candidate, self.cost(candidate))
            if candidate.digest not in self.by_candidate and not over:
                self._accept(candidate, {}, None, [])
                return True
        return False

    def _group(self, digest: str) -> list[TrialRecord]:
        """The trials of a candidate."""
        return [self.trials[number] for number in self.by_candidate.get(digest, ())]

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

    def domains(self) -> dict[str, Domain]:
        """The domain of every parameter that ``values`` of this space can hold."""
        space = self.plan.space
        domains: dict[str, Domain] = {"backbone": space.backbones, **space.training}
        prefixes = {"": None}
        if space.attention.per_stage or space.attention.per_unit:
            sizes = [self.plan.data.at(int(s)) for s in space.training["input_size"].values]  # type: ignore[union-attr]
            tables = [sites_of(str(b), data) for b in space.backbones.values for data in sizes]
            inner = (prefix for table in tables for prefix in inner_prefixes(space, table))
            prefixes = dict.fromkeys(["stem.", *inner])
        places = space.attention.placements
        inside = Choice(tuple(place for place in places.values if place != "stem"))
        for prefix in prefixes:
            domains[f"{prefix}type"] = space.attention.blocks
            domains[f"{prefix}placement"] = places if not prefix else inside
            domains[f"{prefix}position"] = space.attention.positions
            domains[f"{prefix}stages"] = space.attention.stages
            domains[f"{prefix}identity_start"] = space.attention.identity_start
            for block in space.attention.blocks.values:
                for name, choice in space.attention.options(str(block)):
                    domains[f"{prefix}{name}"] = choice
        return domains

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

    def _resolved(self, architecture: Architecture, sites: SiteTable) -> Architecture:
        """The canonical architecture; the same written ones are drawn again and again."""
        key = architecture, sites.input_shape
        known = self._networks.get(key)
        if known is None:
            known = self._networks[key] = resolve(architecture, sites)
        return known

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

    def cost(self, candidate: Candidate) -> Cost:
        """The exact cost of a candidate, before training; it is asked for more than once."""
        known = self._counts.get(candidate.architecture_digest)
        if known is None:
            known = self._counts[candidate.architecture_digest] = self._counted(candidate)
        return known

    def _counted(self, candidate: Candidate) -> Cost:
        if has_closed_cost(candidate.architecture):
            sites = sites_of(candidate.architecture.backbone, candidate.data)
            return architecture_cost(candidate.architecture, sites)
        from blocks.build import build_network
        from blocks.cost import measure_cost

        network = build_network(
            candidate.architecture,
            num_classes=candidate.data.classes,
            in_channels=candidate.data.input_shape[0],
        )
        return measure_cost(network, candidate.data.input_shape)

    # Keeping decisions. --------------------------------------------------------------------------

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
            _same(values, row.parameters if row else {}),
            _among(row.distributions if row else {}, values),
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
        known = self._costs(new[0].architecture) if new else _known_costs(like)
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
        record = _record(trial, like, new)
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
        if _is_trained(trial):  # it was timed alone; what it was before, it is again
            outcome = replace(outcome, state=_state_at_rest(trial), seconds=trial.seconds)
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
        self._checkpoint(number).unlink(missing_ok=True)
        self.running.discard(number)
        if outcome.found is not None:
            self._expect(number, outcome.found)
        if told is not None:
            self._tell(*told)
        self.changed()
        return trial

    def _timed_before(self, number: int, outcome: Outcome) -> Outcome | None:
        """What the screen has measured of a trial that is complete now; None where it has not."""
        if (
            number not in self.timed
            or outcome.state != COMPLETE
            or _is_trained(self.trials[number])
        ):
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

    def _put_back(self, trial: TrialRecord, ending: str, cause: str, **more: Any) -> None:
        """Make a trial whose evaluation was cut off what it was before."""
        trial.state = _state_at_rest(trial)
        self.store.put_back(
            self.id, trial.number, ending=ending, cause=cause, state=trial.state, **more
        )

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


def _is_trained(trial: TrialRecord) -> bool:
    """Whether a trial that waits or runs has its accuracy already, and is but to be timed."""
    return trial.accuracy is not None


def _known_costs(like: TrialRecord | None) -> dict[tuple[str, str], float]:
    """What is known of a candidate from its first trial."""
    kept = like.measurements if like else {}
    return {key: value for key, value in kept.items() if key[0] == COST}


def _state_at_rest(trial: TrialRecord) -> str:
    """What a trial is while nobody evaluates it and nothing more is known of it."""
    if not _is_trained(trial):
        return WAITING
    return REUSED if trial.origin else COMPLETE


def _same(values: Mapping[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Values as data of their own, or as what is kept of them already."""
    return known if list(known.items()) == list(values.items()) else dict(values)


def _among(texts: dict[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """Those of these parameters alone."""
    if len(texts) == len(values) and all(name in texts for name in values):
        return texts
    return {name: text for name, text in texts.items() if name in values}


def _record(
    trial: NewTrial, like: TrialRecord | None, new: tuple[Candidate, Cost] | None
) -> TrialRecord:
    """A decided trial as reading it back would give it."""
    if new is not None:
        candidate, cost = new
        architecture: dict[str, Any] = candidate.architecture.content
        training: dict[str, Any] = candidate.training.content
        architecture_digest = candidate.architecture_digest
    else:
        assert like is not None  # a replicate is like its candidate's first trial
        architecture, training = like.architecture, like.training
        architecture_digest = like.architecture_digest
        cost = Cost(like.params, like.trainable_params, like.macs, like.flops)
    return TrialRecord(
        id=0,
        number=trial.number,
        state=WAITING,
        seed=trial.seed,
        label=trial.label,
        baseline=trial.baseline,
        digest=trial.digest,
        architecture_digest=architecture_digest,
        architecture=architecture,
        training=training,
        parameters=trial.parameters,
        distributions=trial.distributions,
        proposal=trial.proposal,
        epochs=0,
        error="",
        seconds=0.0,
        created=now(),
        finished=None,
        params=cost.params,
        trainable_params=cost.trainable_params,
        macs=cost.macs,
        flops=cost.flops,
    )


__all__ = ["Silent", "Study", "StudyResult", "Watch"]
