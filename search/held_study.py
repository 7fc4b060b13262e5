"""What the parent of a study holds of it in memory, rebuilt from the database at any moment."""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from blocks.architecture import Architecture, architecture_cost, has_closed_cost, resolve
from blocks.formulas import Cost
from blocks.site import SiteTable
from search.budgets import Front
from search.enqueued import Given, still_to_come
from search.even_tuning import EvenTuning
from search.failures import PARENT_ENDED, said
from search.outcome import FINISHED, LOST, RUNNING, SUCCEEDED, WAITING
from search.plan import StudyPlan
from search.reading import find_study, read_findings, read_proposals, read_trials
from search.records import OPEN, OVER_CAP, REPLICATED, StudyRecord, TrialRecord
from search.samplers import Proposer
from search.screen import Screen
from search.sharing import Alone, Shared
from search.spending import Meter
from search.store import Store
from search.trial_records import state_at_rest
from spaces.candidate import Candidate
from spaces.caps import memory_of, still_stands
from spaces.drawing import Proposal, inner_prefixes, sites_of
from spaces.metrics import COST, MEMORY
from spaces.parameters import Choice, Domain
from spaces.training import Training


class HeldStudy:
    """A study as it stands: its trials, its proposals, and what is still to come of them.

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
        self.owner = f"{platform.node()} pid {os.getpid()}"
        self.changed: Callable[[], None] = lambda: None
        self.screen = Screen(plan.space)
        self.timed: set[int] = set()  # trials whose latency the screen has measured
        self.running: set[int] = set()
        self.remarks: list[str] = []
        self._distinct: dict[str, tuple[Candidate, Proposal]] | bool | None = False
        self._counts: dict[str, Cost] = {}
        self._networks: dict[tuple[Architecture, tuple[int, int, int]], Architecture] = {}
        self._begun: dict[int, int] = {}  # trials decided on for being evaluated at once -> attempt
        self._drawn_at = 0  # finished trials when no proposal was a trial
        self.meter = Meter(store, self.id, self.owner, plan.devices_of_attempt)
        self._begins = False  # whether a trial that is decided on is evaluated at once

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

    @property
    def _finished(self) -> int:
        return sum(trial.state in FINISHED for trial in self.trials.values())

    def _group(self, digest: str) -> list[TrialRecord]:
        """The trials of a candidate."""
        return [self.trials[number] for number in self.by_candidate.get(digest, ())]

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

    def _resolved(self, architecture: Architecture, sites: SiteTable) -> Architecture:
        """The canonical architecture; the same written ones are drawn again and again."""
        key = architecture, sites.input_shape
        known = self._networks.get(key)
        if known is None:
            known = self._networks[key] = resolve(architecture, sites)
        return known

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

    def _put_back(self, trial: TrialRecord, ending: str, cause: str, **more: Any) -> None:
        """Make a trial whose evaluation was cut off what it was before."""
        trial.state = state_at_rest(trial)
        self.store.put_back(
            self.id, trial.number, ending=ending, cause=cause, state=trial.state, **more
        )
