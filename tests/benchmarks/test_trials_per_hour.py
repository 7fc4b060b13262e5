"""Trials per hour: `search run` as it is by default beside a loop as one writes it by hand.

The same twelve networks, data, epochs, batch and learning rate, in turn, with two seeds each for
digits: as many trials as the shipped study has. The loop is `naive_loop.py`; its time is that of
Optuna's loop alone, ours is that of all, the start of the workers included. On a processor that
others use too, the loop's threads wait for each other and the ratio grows: what others used is
printed, and so is the ratio of the processors' time.
"""

import os
import resource
import time
from dataclasses import replace
from importlib.metadata import version
from math import inf
from pathlib import Path
from statistics import fmean, median, quantiles, stdev

import pytest
import torch
from loops import Task, naive, ours, rung
from naive_loop import CANDIDATES
from race import processor

from search.datasets import look, source_of
from search.plan import usable_cores

HERE = Path(__file__).parent
DIGITS = Task("digits", epochs=12, crop=1, flip=False, seeds=2)  # as the shipped space has it
SHORT = replace(DIGITS, epochs=2, seeds=1)
FASHION = Task("fashion-subset", 2, 2, True, include=str(HERE / "fashion_subset.py"))
ROUNDS = {"digits": 5, "fashion-subset": 3}
GOAL = {"cpu": 2, "cuda": 10}
FLOOR = 1.2  # on a busy machine too
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
HAS_FASHION = look(source_of("fashion-mnist")) is not None
needs_fashion = pytest.mark.skipif(not HAS_FASHION, reason="needs Fashion-MNIST's files")


def machine():
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "optuna"))
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{usable_cores()} cores, {processor()}{gpu}, {packages}"


class Others:
    """How many cores other processes kept busy inside the block, on average."""

    def __enter__(self):
        self.started, self.before = time.perf_counter(), _busy() - _own()
        return self

    def __exit__(self, *exception):
        seconds = time.perf_counter() - self.started
        self.cores = max(0.0, (_busy() - _own() - self.before) / seconds)


def _busy():
    """Seconds that all processors have worked so far."""
    numbers = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, interrupts, soft, *_ = map(int, numbers)
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _own():
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in uses)


def in_words(ratios):
    if len(ratios) < 2:
        return f"{ratios[0]:.2f} (one round)"
    first, middle, third = quantiles(ratios, n=4)
    return f"{middle:.2f} ({first:.2f} to {third:.2f})"


def no_worse(mine, loops):
    """Our mean accuracy less the loop's, over the rounds, and its standard error.

    The candidates of one round share their seeds, so a round is one observation; of a single round
    the error is unknown, infinite.
    """
    differences = [a.accuracy - b.accuracy for a, b in zip(mine, loops, strict=True)]
    error = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else inf
    return fmean(differences), error


def spread(results):
    numbers = [accuracy for result in results for accuracy in result.accuracies.values()]
    return f"{fmean(numbers):.4f} +- {stdev(numbers):.4f}"


@pytest.mark.benchmark
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs Linux's account of time")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "task", [DIGITS, pytest.param(FASHION, marks=needs_fashion)], ids=lambda task: task.data
)
def test_more_trials_per_hour_than_a_naive_loop(task, device, tmp_path):
    loops, mine, others = [], [], []
    rounds = int(os.environ.get("BENCH_ROUNDS", ROUNDS[task.data]))
    for seed in range(0, rounds * task.seeds, task.seeds):
        with Others() as beside:
            loops.append(naive(task, tmp_path, seed=seed, device=device))
            mine.append(ours(task, tmp_path, seed=seed, device=device))
        others.append(beside.cores)
    ratios = [a.seconds / b.seconds for a, b in zip(loops, mine, strict=True)]
    worked = [a.cpu_seconds / b.cpu_seconds for a, b in zip(loops, mine, strict=True)]
    difference, error = no_worse(mine, loops)
    rates = ", ".join(
        f"{a.per_hour:.0f}/{b.per_hour:.0f}" for a, b in zip(mine, loops, strict=True)
    )
    print(
        f"\n{task.data}, {device}, {task.trials} trials of {task.epochs} epochs,"
        f" {rounds} rounds, {machine()}, others used {median(others):.1f} cores:"
        f"\n  trials per hour: ours {median(r.per_hour for r in mine):.0f}, the loop"
        f" {median(r.per_hour for r in loops):.0f}; ratio {in_words(ratios)}, goal {GOAL[device]};"
        f" of processors' time {in_words(worked)}; rounds {rates}"
        f"\n  accuracy (mean and deviation of all): ours {spread(mine)}, the loop {spread(loops)};"
        f" difference {difference:+.4f}, standard error {error:.4f}"
    )
    assert difference > -2 * error - 0.002
    assert median(ratios) > FLOOR


LADDER = {
    "data on the device, augmented as batches": {},
    "and channels last, fused optimiser": {"lean": True},
    "and one thread": {"lean": True, "threads": 1},
    "and two such processes side by side": {"lean": True, "threads": 1, "processes": 2},
}


@pytest.mark.benchmark
@pytest.mark.timeout(7200)
@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs Linux's account of time")
def test_the_ladder(tmp_path):
    steps = {
        "the naive loop": lambda seed: naive(SHORT, tmp_path, seed=seed),
        "the naive loop, two processes that load": lambda seed: naive(
            SHORT, tmp_path, seed=seed, loader_workers=2
        ),
        "the naive loop, one thread": lambda seed: naive(SHORT, tmp_path, seed=seed, threads=1),
        **{
            name: lambda seed, how=how: rung(SHORT, tmp_path, seed=seed, **how)
            for name, how in LADDER.items()
        },
        "search run with two workers": lambda seed: ours(SHORT, tmp_path, seed=seed, workers=2),
        "search run, training.precision=bfloat16": lambda seed: ours(
            SHORT, tmp_path, seed=seed, workers=2, overrides=["training.precision=bfloat16"]
        ),
    }
    found = {name: [] for name in steps}
    rounds = int(os.environ.get("BENCH_ROUNDS", 3))
    with Others() as beside:
        for seed in range(rounds):
            for name, step in steps.items():
                found[name].append(step(seed))
    print(
        f"\ndigits, {len(CANDIDATES)} candidates of {SHORT.epochs} epochs, {rounds} interleaved"
        f" rounds, {machine()}, others used {beside.cores:.1f} cores"
    )
    print(f"{'':45} trials/h  ratio  processors' s/trial  accuracy")
    first = median(result.seconds for result in found["the naive loop"])
    for name, results in found.items():
        seconds = median(result.seconds for result in results)
        work = median(result.cpu_seconds for result in results) / len(results[0].accuracies)
        accuracy = fmean(result.accuracy for result in results)
        rate = median(result.per_hour for result in results)
        print(f"{name:45} {rate:8.0f} {first / seconds:6.2f} {work:20.1f} {accuracy:9.3f}")
    assert median(r.seconds for r in found["search run with two workers"]) < first
