"""Timing of several functions in turn in one run, so that ratios of their times mean something."""

import platform
import time
from dataclasses import dataclass
from statistics import median, quantiles

import torch

ROUNDS = 20
SHORTEST = 0.005  # seconds that one contender is timed for in one round


@dataclass(frozen=True)
class Times:
    """Seconds of each round of one contender."""

    seconds: tuple[float, ...]

    @property
    def median(self):
        return median(self.seconds)

    def ratio_to(self, other):
        """Quartiles of the ratios, round by round: (first, median, third)."""
        ratios = [a / b for a, b in zip(self.seconds, other.seconds, strict=True)]
        return tuple(quantiles(ratios, n=4))


def race(functions, device, rounds=ROUNDS):
    """Run the functions in turn, forwards and backwards by turns; what each round took.

    On a CPU the time is that of this thread, so that other processes count less; on a GPU it is
    taken by events. Every timing starts after one call that is not timed.
    """
    clock = _gpu_seconds if device == "cuda" else _thread_seconds
    repeats = []
    for function in functions.values():
        clock(function, 3)
        repeats.append(1 + int(SHORTEST / max(clock(function, 2) / 2, 1e-7)))
    seconds = {name: [] for name in functions}
    entries = list(zip(functions.items(), repeats, strict=True))
    for number in range(rounds):
        for (name, function), count in entries if number % 2 else entries[::-1]:
            function()
            seconds[name].append(clock(function, count) / count)
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


def _thread_seconds(function, count):
    started = time.thread_time()
    for _ in range(count):
        function()
    return time.thread_time() - started


def _gpu_seconds(function, count):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(count):
        function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def keep_memory():
    """Let glibc keep freed memory, as it does by itself once a large map has been freed.

    Otherwise fresh pages, at random, cost more than what is measured.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8)


def processor():
    """The name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()
