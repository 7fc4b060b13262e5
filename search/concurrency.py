"""How many trials train at once, where that is left to the run (``--workers auto``).

Memory bounds it: what is free, over the peak of the largest trial, which is counted before any
training. On a GPU it is then measured: the space's middle network trains for a second in 1, 2,
4, ... processes at once, as long as one more doubling brings a tenth more images per second. On a
processor one process per core with one thread each was measured to be best, so that memory alone
is looked at.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from blocks.architecture import architecture_cost, has_closed_cost
from blocks.errors import ToolError
from search.devices import CUDA, available_memory, evaluation_batch, usable_cores
from search.measured import kept_for_training, peaks_of
from search.outcome import Assignment
from search.output import count as short
from search.plan import StudyPlan, threads_of
from spaces.candidate import Candidate
from spaces.drawing import (
    baseline_candidates,
    sites_of,
    usual_candidates,
)

CONTEXT_BYTES = 0.6 * 2**30  # of CUDA; on a processor of Python with torch
MARGIN = 1.2  # on what is counted: workspaces, and what an allocator keeps between trials
COPIES = 4  # a weight, its gradient and two moments; an average is one more
WORTH = 1.1  # times the throughput, for more processes
PROBE_SECONDS = 1.5
START_SECONDS = 120.0
GIB = 2**30
ANSWERS = ("probed", "kept")


class ProbeError(Exception):
    """The throughput could not be measured."""


# What a trial needs. ------------------------------------------------------------------------------


def heavy_candidates(plan: StudyPlan) -> list[Candidate]:
    """Of each choice of blocks, places and batch size, the candidate that computes most.

    Of the space's distinct candidates, or of some hundred at random where they cannot be listed.
    """
    found = list(usual_candidates(plan.space, plan.data))
    baselines = [candidate for candidate, _ in baseline_candidates(plan.space, plan.data)]
    heaviest: dict[object, Candidate] = {}
    for candidate in [*baselines, *found]:
        placements = tuple((p.block, p.site) for p in candidate.architecture.placements)
        kind = (candidate.architecture.backbone, candidate.data.input_shape, placements)
        key = (kind, candidate.training.batch_size)
        if key not in heaviest or _flops(candidate) > _flops(heaviest[key]):
            heaviest[key] = candidate
    return sorted(heaviest.values(), key=_flops)


def _flops(candidate: Candidate) -> int:
    if not has_closed_cost(candidate.architecture):
        return 0
    sites = sites_of(candidate.architecture.backbone, candidate.data)
    return architecture_cost(candidate.architecture, sites).flops


def largest(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate whose batch keeps the most for its training."""

    def kept(candidate: Candidate) -> int:
        sites = sites_of(candidate.architecture.backbone, candidate.data)
        known = kept_for_training(sites, [candidate.architecture])
        return (known[candidate.architecture.digest] or 0) * candidate.training.batch_size

    return max(candidates, key=kept)


def peak_bytes(candidates: Sequence[Candidate], plan: StudyPlan) -> float:
    """The most memory that one process of a trial takes: that of the largest of the candidates."""
    heaviest = largest(candidates)
    sites = sites_of(heaviest.architecture.backbone, heaviest.data)
    peaks = peaks_of(sites, heaviest.architecture)
    _, height, width = heaviest.data.input_shape
    copies = COPIES + bool(heaviest.training.weight_average)
    training = peaks["training_peak"] * heaviest.training.batch_size / plan.processes
    evaluation = peaks["inference_peak"] * evaluation_batch(height, width)
    weights = 4 * copies * peaks["params"]
    return MARGIN * (max(training, evaluation) + weights) + _data_bytes(plan) + CONTEXT_BYTES


def _data_bytes(plan: StudyPlan) -> float:
    """Of a data set that lies in memory as 8-bit images; of files, little is there at a time."""
    if plan.place.size:
        return 0.0
    channels, height, width = plan.data.input_shape
    return float(sum(plan.data.sizes) * channels * height * width)


# How many. ----------------------------------------------------------------------------------------


def grown(speed: Callable[[int], float], limit: int) -> dict[int, float]:
    """Images per second of 1, 2, 4, ... processes at once, until more do not pay.

    Args:
        speed: Measures it.
        limit: The most processes.
    """
    speeds = {1: speed(1)}
    while (last := max(speeds)) < limit:
        more = min(2 * last, limit)
        speeds[more] = speed(more)
        if speeds[more] < WORTH * speeds[last]:
            break
    return speeds


def best_of(speeds: dict[int, float]) -> int:
    """The fewest processes that no larger number beats by a tenth."""
    best = 1
    for number, speed in sorted(speeds.items()):
        if speed >= WORTH * speeds[best]:
            best = number
    return best


def settled(plan: StudyPlan, left: int, say: Callable[[str], None] | None = None) -> StudyPlan:
    """The plan with its number of workers chosen, and why.

    Args:
        plan: As ``make_plan`` gives it; one whose workers were given stays as it is.
        left: Trials that are still to be trained.
        say: Told what takes a moment.
    """
    if not plan.auto:
        return plan
    if plan.device == CUDA:
        workers, because = _on_gpus(plan, max(1, left), say or (lambda words: None))
    else:
        workers, because = _on_processor(plan)
    threads = threads_of(workers * plan.processes)
    return replace(plan, workers=workers, threads=threads, because=because)


def _on_processor(plan: StudyPlan) -> tuple[int, str]:
    free = available_memory()
    if free is None:
        return plan.workers, "one per core; the system does not say what memory is free"
    peak = plan.processes * peak_bytes(heavy_candidates(plan), plan)
    memory = max(1, int(free / peak))
    words = f"memory allows {memory} ({free / GIB:.1f} GiB free, {peak / GIB:.1f} each)"
    if memory < plan.workers:
        return memory, f"{words}, fewer than the {plan.workers} that the cores do"
    return plan.workers, f"one per core, and no more than trials; {words}"


def _on_gpus(plan: StudyPlan, left: int, say: Callable[[str], None]) -> tuple[int, str]:
    groups = max(1, len(plan.gpus) // plan.processes)
    if plan.processes > 1:
        workers = min(groups, left)
        return workers, f"{plan.processes} GPUs a trial, {len(plan.gpus)} GPUs"
    cores = max(1, usable_cores() // groups)
    bound = min(cores, -(-left // groups))
    candidates = heavy_candidates(plan)
    peak = peak_bytes(candidates, plan)
    say("measuring how many trials one GPU trains best at once")
    memory, speeds, remark = _measured(plan, candidates[len(candidates) // 2], peak, bound)
    each = best_of(speeds) if speeds else min(memory, bound)
    words = [f"memory allows {memory} a GPU ({peak / GIB:.1f} GiB each)", f"the cores {cores}"]
    if speeds:
        numbers = "/".join(map(str, speeds))
        measured = "/".join(short(round(speed)) for speed in speeds.values())
        words.append(f"throughput of {numbers} at once = {measured} images/s")
    return min(left, each * groups), ", ".join(words) + (f"; {remark}" if remark else "")


def _measured(
    plan: StudyPlan, candidate: Candidate, peak: float, bound: int
) -> tuple[int, dict[int, float], str]:
    """(what memory allows, images per second by processes, what went wrong)."""
    memory = 1
    with Crowd(plan, assignment_of(plan, candidate)) as crowd:
        try:
            memory = max(1, int(crowd.free_bytes() / peak))
            return memory, grown(crowd.speed, min(memory, bound)), ""
        except (ProbeError, ToolError, OSError) as error:
            return memory, {}, f"the throughput could not be measured: {error}"


def assignment_of(plan: StudyPlan, candidate: Candidate) -> Assignment:
    """What a process is to train of a candidate, to see how fast it is."""
    training = candidate.training.to_json()
    return Assignment(
        0,
        1,
        candidate.label,
        candidate.architecture.to_json(),
        training,
        plan.data.name,
        plan.seed,
        weights=plan.weights_path(str(training.get("pretrained", ""))),
        data_folder=plan.place.folder,
        data_size=plan.place.size,
        data_split=plan.place.split,
    )


class Crowd:
    """Processes that train networks on the first GPU, to see how fast they are together.

    Args:
        plan: Of the study.
        assignment: What they train, unless they are asked to train another.
        seconds: For how long each time.
        patience: Seconds in which processes must have got ready or measured.
        threads: Of each of them.
    """

    def __init__(
        self,
        plan: StudyPlan,
        assignment: Assignment,
        *,
        seconds: float = PROBE_SECONDS,
        patience: float = START_SECONDS,
        threads: int = 1,
    ) -> None:
        self.plan = replace(plan, gpus=plan.gpus[:1], threads=threads, processes=1)
        self.assignment = assignment.to_json()
        self.seconds = seconds
        self.patience = patience
        self.workers: list[Any] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self.workers:
            worker.close(at_once=True)

    def start(self, number: int) -> None:
        """Let so many processes get ready while something else is done."""
        from search.workers import Worker

        self.workers += [Worker(self.plan, i) for i in range(len(self.workers), number)]

    def free_bytes(self) -> float:
        """Of the device's memory, before anything but a process was there.

        Raises:
            ProbeError: A process has ended, or does not answer.
        """
        (answer,) = self._ready(1)
        return float(answer["free"] if answer["free"] is not None else available_memory() or 0)

    def speed(self, number: int) -> float:
        """Images per second of so many processes together.

        Raises:
            ProbeError: A process has ended, or does not answer.
        """
        self._ready(number)
        answers = self._probed(self.workers[:number], self.seconds)
        return float(sum(answer["images"] / answer["seconds"] for answer in answers))

    def timing(self, assignment: Assignment, number: int) -> list[dict[str, Any]]:
        """What ``search.probe`` says of one network in so many processes together.

        Raises:
            ProbeError: A process has ended, or does not answer.
        """
        self.start(number)
        message = {"do": "probe", "assignment": assignment.to_json()}
        (ready, timed) = (
            self.asked(self.workers[:number], {**message, "seconds": seconds, "evaluation": looked})
            for seconds, looked in ((0.0, 0.0), (self.seconds, self.seconds / 4))
        )
        return [{**t, "ready": r["ready"]} for r, t in zip(ready, timed, strict=True)]

    def _ready(self, number: int) -> list[dict[str, Any]]:
        already = len(self.workers)
        self.start(number)
        return self._probed(self.workers[already:], 0.0)

    def _probed(self, workers: Sequence[Any], seconds: float) -> list[dict[str, Any]]:
        message = {"do": "probe", "assignment": self.assignment, "seconds": seconds}
        return self.asked(workers, message)

    def asked(self, workers: Sequence[Any], message: dict[str, Any]) -> list[dict[str, Any]]:
        """What each says to one and the same question, asked of all at once.

        Raises:
            ProbeError: A process has ended, or does not answer.
        """
        for worker in workers:
            worker.send(message)
        answers: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + self.patience
        with selectors.DefaultSelector() as selector:
            for index, worker in enumerate(workers):
                selector.register(worker.stdout, selectors.EVENT_READ, index)
            while len(answers) < len(workers):
                if time.monotonic() > until:
                    raise ProbeError(f"no answer in {self.patience:.0f} seconds")
                for key, _ in selector.select(0.25):
                    messages, ended = workers[key.data].messages()
                    for said in messages:
                        if said["say"] in ANSWERS:
                            answers[key.data] = said
                    if ended:
                        raise ProbeError(workers[key.data].cause_of_death())
        return [answers[index] for index in range(len(workers))]
