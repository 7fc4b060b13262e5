"""What a run would do, before it does it: nothing is trained to an end, nothing is written.

The parts are found out elsewhere: ``spaces.census`` counts, ``search.costing`` costs and caps,
``search.standing`` looks at a stored study, ``search.rehearsal`` proposes, ``search.forecast``
times, ``search.allotment`` divides a budget. Here they are asked in an order in which worker
processes load torch while the rest is counted; this process does not load it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from blocks.cached import untouched
from blocks.errors import StudyError
from search.allotment import Budget, allot, read_budget
from search.cap_remarks import cap_remarks
from search.concurrency import Crowd, ProbeError, heavy_candidates, largest, settled
from search.costing import Costing, Spread, by_flops, costing_of
from search.database import file_of, is_sqlite, shown
from search.determinism import check_deterministic
from search.devices import CPU
from search.forecast import at_once, crowd_of, forecast, time_candidates
from search.frequency_remarks import frequency_remarks
from search.measured import remember
from search.noise import noise_of
from search.plan import StudyPlan, make_plan
from search.possible import baselines, possible, runnable, trials_left
from search.records import TrialRecord
from search.rehearsal import first_trials
from search.standing import Standing, results_elsewhere, standing
from search.taken_over import Pair, TakenOver, taken_over
from spaces.candidate import Candidate
from spaces.census import Census, take_census
from spaces.drawing import sites_of

MEASURED = 24  # candidates whose memory is measured
FIRST = 5

Say = Callable[[str], None]


def preview_study(
    space: str | os.PathLike[str],
    *,
    first: int = FIRST,
    timing: bool = True,
    budget: str | None = None,
    **flags: Any,
) -> dict[str, Any]:
    """What a run of a space would do, from Python.

    Args:
        space: A space file, or the name of a shipped space.
        first: How many of the first proposals are wanted.
        timing: Whether candidates are timed and memory is measured, which needs torch.
        budget: "64gpu*6h", "2cpu*90m" or "8h".
        **flags: As those of ``search.study.run_study``.

    Raises:
        ToolError: A file or flag is wrong.
    """
    with untouched():
        return preview(make_plan(space, **flags), first=first, timing=timing, budget=budget)


def preview(
    plan: StudyPlan,
    *,
    first: int = FIRST,
    timing: bool = True,
    budget: str | None = None,
    say: Say = lambda words: None,
) -> dict[str, Any]:
    """What a run of a plan would do, as plain data; docs/plan.md says what each key means.

    Args:
        plan: What is to be run.
        first: How many of the first proposals are wanted.
        timing: Whether candidates are timed and memory is measured, which needs torch.
        budget: "64gpu*6h", "2cpu*90m" or "8h".
        say: Told what takes a moment.

    Raises:
        ToolError: The study could not be run either, or an option is wrong.
    """
    allowance = _checked(plan, first, timing, budget)
    with untouched(), ExitStack() as opened:
        crowd = None
        began = time.monotonic()
        if timing:
            crowd = opened.enter_context(crowd_of(plan, baselines(plan)[0]))
            crowd.start(at_once(plan) if plan.device == CPU else 0)
        say("counting the space")
        census = take_census(plan.space, plan.data)
        costing = costing_of(plan.space, plan.data, census)
        stored = standing(plan, _listed(census, costing))
        elsewhere = results_elsewhere(plan.storage, plan.study)
        known = _known(plan, census, costing, stored, elsewhere)
        found = {
            **_settings(plan),
            "space_size": census.to_json(),
            "caps": costing.caps_json(),
            "costs": costing.costs_json(),
            "stored": stored.to_json() if stored else None,
            **_beginning(plan, first, elsewhere),
            "taken_over": known.to_json(),
        }
        measured = _Measured(plan, census, costing, stored, allowance)
        measured.left = known.to_train(measured.left)
        if crowd is not None:
            measured.measure(crowd, began, say)
        return {**found, **measured.to_json()}


def _checked(plan: StudyPlan, first: int, timing: bool, budget: str | None) -> Budget | None:
    """Refuse what a run would refuse, and options that cannot be.

    Raises:
        StudyError: What, and the cure.
    """
    if first < 1:
        raise StudyError(f"--first is {first}; it must be 1 or more")
    if is_sqlite(plan.storage):
        folder = file_of(plan.storage).absolute().parent
        if not folder.is_dir():
            raise StudyError(f"{shown(plan.storage)}: there is no folder {folder}; make it first")
    check_deterministic(plan)
    if budget is None:
        return None
    if not timing:
        raise StudyError("--budget needs the forecast of the time: leave --no-timing out")
    if plan.processes > 1:
        raise StudyError(
            "--budget needs the forecast of the time, and a trial over several processes is not"
            f" timed here: leave --budget or --processes-per-trial {plan.processes} out"
        )
    return read_budget(budget, plan.device)


def _settings(plan: StudyPlan) -> dict[str, Any]:
    return {
        "study": plan.study,
        "space": plan.space.source,
        "storage": shown(plan.storage),
        "backbones": list(plan.space.backbones.values),
        "data": {"name": plan.data.name, "sizes": list(plan.data.sizes)},
        "objectives": dict(plan.space.objectives),
        "constraints": [str(constraint) for constraint in plan.space.constraints],
        "trials": plan.trials,
        "seeds": plan.seeds,
        "seed": plan.seed,
        "epochs": plan.space.epochs,
        "sampler": plan.sampler,
        "sampler_because": plan.auto_because,
        "tune_baseline": plan.tune_baseline,
        "enqueue": [dict(given) for given in plan.enqueue],
        "remarks": list(plan.remarks),
        "pruner": plan.pruner,
        "device": plan.device,
    }


def _listed(census: Census, costing: Costing) -> dict[str, Candidate] | None:
    """Every candidate that caps allow, where all can be listed."""
    if not census.complete or census.ranges:
        return None
    return {c.digest: c for c in census.found if c.digest not in costing.over}


# What comes first. -------------------------------------------------------------------------------


def _known(
    plan: StudyPlan,
    census: Census,
    costing: Costing,
    stored: Standing | None,
    elsewhere: Mapping[Pair, str],
) -> TakenOver:
    """What other studies have of what this one may still come to."""
    digests = {candidate.digest for candidate in (*baselines(plan), *census.found)}
    seeds = range(plan.seed, plan.seed + plan.seeds)
    return taken_over(
        ((digest, seed) for digest in digests - costing.over for seed in seeds),
        elsewhere,
        stored.had if stored else (),
        complete=census.complete and not census.ranges,
    )


def _beginning(plan: StudyPlan, first: int, elsewhere: Mapping[Pair, str]) -> dict[str, Any]:
    """The first trials, each with the trial of another study whose result it takes over."""
    beginning = first_trials(plan, first)
    return {
        "first": [_trial_data(trial, elsewhere) for trial in beginning.trials],
        "first_settled": beginning.settled,
        "first_note": beginning.ended,
    }


def _trial_data(trial: TrialRecord, elsewhere: Mapping[Pair, str]) -> dict[str, Any]:
    return {
        "number": trial.number,
        "label": trial.label,
        "baseline": trial.baseline,
        "seed": trial.seed,
        "digest": trial.digest,
        "architecture_digest": trial.architecture_digest,
        "params": trial.params,
        "macs": trial.macs,
        "flops": trial.flops,
        "origin": elsewhere.get((trial.digest, trial.seed)),
    }


# What must be measured. --------------------------------------------------------------------------


class _Measured:
    """What needs torch, in processes of its own.

    Args:
        plan: What is to be run.
        census: Of its space.
        costing: Of the census.
        stored: Where the stored study stands.
        budget: What is to be divided.
    """

    def __init__(
        self,
        plan: StudyPlan,
        census: Census,
        costing: Costing,
        stored: Standing | None,
        budget: Budget | None,
    ) -> None:
        self.plan = plan
        self.budget = budget
        self.left = trials_left(plan, costing, census.ranges, stored)
        self.counted = runnable(plan, costing)
        self.distinct = possible(census, costing, len(self.counted))
        everything = {c.digest: (c, cost) for c, cost in (*self.counted, *costing.counted)}
        self.sample = by_flops(list(everything.values()), MEASURED)
        self.bare = {candidate.digest for candidate in baselines(plan)}
        self.notes = [*plan.remarks, *cap_remarks(plan.space, plan.data)]
        seen = (candidate for candidate, _ in everything.values())
        self.notes += frequency_remarks(plan.space, seen)
        self.memory: dict[str, Any] | None = None
        self.forecast: dict[str, Any] | None = None
        self.allotment: dict[str, Any] | None = None
        if plan.processes > 1:
            self.notes.append(
                f"the time is not forecast: trials over {plan.processes} processes each"
                " (--processes-per-trial) are not timed here"
            )
        if costing.measured:
            self.notes.append(
                f"the cap {costing.measured[0]} is measured in the run, which may reject further"
                " candidates, among them some of the first trials"
            )
        if costing.uncounted:
            self.notes.append(
                f"{costing.uncounted} of the candidates have blocks whose cost is counted by"
                " building them: costs, caps and the forecast leave them out"
            )

    def to_json(self) -> dict[str, Any]:
        """What was found, as plain data; None for what was not measured."""
        return {
            "workers": self.plan.workers,
            "workers_because": self.plan.because,
            "left": self.left,
            "memory": self.memory,
            "forecast": self.forecast,
            "budget": self.allotment,
            "notes": self.notes,
        }

    def measure(self, crowd: Crowd, began: float, say: Say) -> None:
        """Measure memory and times; what fails is said in the notes."""
        say("measuring memory, and the pace of three candidates")
        try:
            crowd.start(1)
            self._remember(crowd, self.sample)
            start = time.monotonic() - began
            self.memory = self._kept(self.sample)
            self._settle(crowd, say)
            if self.plan.processes > 1:
                return
            timed = time_candidates(self.plan, crowd, self.counted)
        except ProbeError as error:
            self.notes.append(f"time and memory could not be measured: {error}")
            return
        found = forecast(self.plan, timed, self.counted, start=start, trials=self.left)
        self.forecast = found.to_json()
        if self.plan.latency:
            self.notes.append("the forecast leaves the measurement of latency out")
        if self.budget is not None:
            noise = noise_of(self.plan)
            self.allotment = allot(
                self.budget, self.plan, found, self.counted, self.distinct, noise
            )

    def _settle(self, crowd: Crowd, say: Say) -> None:
        """Choose the number of workers as the run will."""
        if self.plan.auto and self.plan.device == CPU:
            heavy = heavy_candidates(self.plan)
            self._remember(crowd, heavy)
            self._remember(crowd, [largest(heavy)], peaks=True)
        self.plan = settled(self.plan, self.left, say)

    def _remember(
        self, crowd: Crowd, candidates: Iterable[Candidate], *, peaks: bool = False
    ) -> None:
        """Let a worker measure the memory of candidates, and remember what it says."""
        groups: dict[tuple[str, tuple[int, int, int]], dict[str, Candidate]] = {}
        for candidate in candidates:
            key = (candidate.architecture.backbone, candidate.data.input_shape)
            groups.setdefault(key, {})[candidate.architecture_digest] = candidate
        for (backbone, input_shape), group in groups.items():
            message = {
                "do": "memory",
                "backbone": backbone,
                "input_shape": list(input_shape),
                "classes": self.plan.data.classes,
                "architectures": [c.architecture.to_json() for c in group.values()],
                "peaks": peaks,
            }
            (answer,) = crowd.asked(crowd.workers[:1], message)
            data = next(iter(group.values())).data
            remember(sites_of(backbone, data), answer["kept"], answer["peaks"])

    def _kept(self, sample: list[Candidate]) -> dict[str, Any] | None:
        """How much a training keeps for an image, as plain data."""
        from search.measured import kept_for_training

        kept = {}
        for candidate in sample:
            sites = sites_of(candidate.architecture.backbone, candidate.data)
            known = kept_for_training(sites, [candidate.architecture])
            kept[candidate.digest] = known[candidate.architecture_digest]
        values = [value for value in kept.values() if value is not None]
        if not values:
            return None
        bare = {
            candidate.architecture.backbone: kept[candidate.digest]
            for candidate in sample
            if candidate.digest in self.bare
        }
        return {
            "of": len(values),
            "kept_bytes": {**Spread.of(values).to_json(), "baseline": bare},
            "batch_size": max(candidate.training.batch_size for candidate in sample),
        }
