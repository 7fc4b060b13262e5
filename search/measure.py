"""How fast a network is beside the same backbone without attention, measured in one run.

The protocol, whose numbers are the fields of ``Protocol``:

1. Both networks in evaluation mode, channels last, without gradients, on the same random images.
   On a CPU one thread, whatever training uses, so that the result does not hang on the workers.
2. Both run until caches, memory and clocks are warm.
3. In every round each network is timed for some milliseconds, one right after the other, and the
   other one first in the next round. A round gives one ratio, so that what slows the machine down
   for a while slows both. The latency ratio is the median of the rounds' ratios.
4. On a CPU the time is that of the thread (``time.thread_time``): waiting for a core does not
   count. On a GPU every pass is timed by a pair of events and waited for.
5. The share of the wall time in which the thread had no core is kept as ``waited``. What shares
   caches or memory with the thread still slows it down, and both networks with it: how many cores
   all other processes kept busy meanwhile is kept as ``others``.
6. Where the thread waited too long or the ratios scatter too widely, all is measured again, a few
   times; the calmest measurement is kept, and flagged where it is still so.

``latency_ms`` belongs to its moment and machine; ``latency_ratio`` is what can be compared.
"""

from __future__ import annotations

import gc
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from torch import nn

from search.provenance import cpu_name

THREADS = 1
KEPT_MEMORY = 30 * 2**20
Pass = Callable[[], object]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Protocol:
    """The numbers of the protocol.

    Args:
        rounds: Pairs of timings, one ratio each.
        round_seconds: For which each network is timed in a round, at least; one pass at least.
        warm_up_seconds: For which each network runs before.
        warm_up_passes: As many at least.
        throughput_rounds: Pairs of timings with the larger batch.
        throughput_batch: Images at once, on a CPU and on a GPU; halved until they fit.
        attempts: Measurements at most.
        widest_spread: Between the quartiles of the ratio, as a share of it; above it is ``wide``.
        longest_wait: Share of the time without a core; above it is ``busy``.
    """

    rounds: int = 41
    round_seconds: float = 0.01
    warm_up_seconds: float = 0.1
    warm_up_passes: int = 3
    throughput_rounds: int = 5
    throughput_batch: tuple[int, int] = (32, 256)
    attempts: int = 3
    widest_spread: float = 0.15
    longest_wait: float = 0.1


PROTOCOL = Protocol()


class Quartiles(NamedTuple):
    """First quartile, median and third quartile."""

    first: float
    median: float
    third: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """The quartiles of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*quantiles(values, n=4, method="inclusive"))

    @property
    def spread(self) -> float:
        """Between the outer quartiles, as a share of the median."""
        return (self.third - self.first) / self.median


@dataclass(frozen=True)
class Latency:
    """How fast a network is, beside its baseline.

    Args:
        latency_ms: Milliseconds of one pass of the network.
        baseline_ms: Milliseconds of one pass of the baseline.
        ratio: Of the two, round by round.
        throughput: Images a second at ``throughput_batch``.
        baseline_throughput: The baseline's.
        throughput_batch: Images at once for both of these.
        batch: Images at once for latencies and ratio.
        device: The processor's or GPU's name.
        clock: What was read: "thread time" or "GPU events".
        dtype: Of weights and images.
        threads: Of the CPU.
        rounds: As many ratios were taken.
        attempts: As often was measured.
        waited: Share of the wall time in which the measuring thread had no core.
        others: Cores that other processes kept busy meanwhile; None where it is not known.
        gpu_processes: Other processes on the GPU; None without one, or where it is not known.
        busy: Whether others were in the way.
        wide: Whether the ratios scatter widely.
    """

    latency_ms: Quartiles
    baseline_ms: Quartiles
    ratio: Quartiles
    throughput: float
    baseline_throughput: float
    throughput_batch: int
    batch: int
    device: str
    clock: str
    dtype: str
    threads: int
    rounds: int
    attempts: int
    waited: float
    others: float | None
    gpu_processes: int | None
    busy: bool
    wide: bool

    def numbers(self) -> dict[str, float]:
        """What is stored of each trial; what is not known is left out."""
        found = {
            **_named("latency_ms", self.latency_ms),
            **_named("baseline_ms", self.baseline_ms),
            **_named("latency_ratio", self.ratio),
            "throughput": self.throughput,
            "baseline_throughput": self.baseline_throughput,
            "throughput_batch": self.throughput_batch,
            "attempts": self.attempts,
            "waited": self.waited,
            "others": self.others,
            "gpu_processes": self.gpu_processes,
            "busy": self.busy,
            "wide": self.wide,
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def made(self) -> dict[str, Any]:
        """How and on what it was measured: the same for all trials of one machine."""
        names = ("device", "clock", "dtype", "threads", "batch", "throughput_batch", "rounds")
        return {name: getattr(self, name) for name in names}


def _named(name: str, found: Quartiles) -> dict[str, float]:
    return {name: found.median, f"{name}_first": found.first, f"{name}_third": found.third}


# Clocks. -----------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """What some passes took.

    Args:
        seconds: That count.
        on_core: For which the thread had a core.
        wall: That went by.
    """

    seconds: float
    on_core: float
    wall: float


Clock = Callable[[Pass, int], Taken]


def thread_clock(one_pass: Pass, count: int) -> Taken:
    """Time passes by the CPU time of this thread."""
    wall, started = time.perf_counter(), time.thread_time()
    for _ in range(count):
        one_pass()
    seconds = time.thread_time() - started
    return Taken(seconds, seconds, time.perf_counter() - wall)


def event_clock(one_pass: Pass, count: int) -> Taken:
    """Time passes on the GPU, each from its start to its end."""
    wall, started = time.perf_counter(), time.thread_time()
    milliseconds = 0.0
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    for _ in range(count):
        begin.record()
        one_pass()
        end.record()
        end.synchronize()
        milliseconds += begin.elapsed_time(end)
    on_core = time.thread_time() - started
    return Taken(milliseconds / 1000, on_core, time.perf_counter() - wall)


CLOCKS = {"cpu": ("thread time", thread_clock), "cuda": ("GPU events", event_clock)}


# Rounds. -----------------------------------------------------------------------------------------


@dataclass
class _Race:
    """Two networks timed in turn: seconds of a pass by round, and how the machine was meanwhile."""

    candidate: list[float]
    baseline: list[float]
    on_core: float = 0.0
    wall: float = 0.0

    @property
    def ratio(self) -> Quartiles:
        pairs = zip(self.candidate, self.baseline, strict=True)
        return Quartiles.of([ours / theirs for ours, theirs in pairs])

    @property
    def waited(self) -> float:
        return max(0.0, 1 - self.on_core / self.wall) if self.wall else 0.0


def _race(candidate: Pass, baseline: Pass, clock: Clock, rounds: int, protocol: Protocol) -> _Race:
    """Time both in turn, the one that comes first changing from round to round."""
    race = _Race([], [])
    entries = [
        (taken, one_pass, _warm_up(one_pass, clock, protocol))
        for taken, one_pass in ((race.candidate, candidate), (race.baseline, baseline))
    ]
    for number in range(rounds):
        for taken, one_pass, count in entries if number % 2 == 0 else entries[::-1]:
            found = clock(one_pass, count)
            taken.append(found.seconds / count)
            race.on_core += found.on_core
            race.wall += found.wall
    return race


def _warm_up(one_pass: Pass, clock: Clock, protocol: Protocol) -> int:
    """Run until warm; how many passes fill a round."""
    passes, seconds, last = 0, 0.0, 0.0
    while passes < protocol.warm_up_passes or seconds < protocol.warm_up_seconds:
        last = clock(one_pass, 1).seconds
        passes += 1
        seconds += max(last, 1e-6)
    return 1 + int(protocol.round_seconds / max(last, 1e-6))


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, one thread, no collection of garbage, no gradients."""
    before, collects = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_num_threads(THREADS)
    # Once a large piece has been freed, glibc keeps freed memory instead of asking for new pages.
    torch.empty(KEPT_MEMORY, dtype=torch.uint8)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        if collects:
            gc.enable()


# Measuring. --------------------------------------------------------------------------------------


def measure_latency(
    network: nn.Module,
    baseline: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    protocol: Protocol = PROTOCOL,
) -> Latency:
    """Time a network beside its baseline, by the protocol at the head of this file.

    Args:
        network: Moved to the device, to channels last, and left in evaluation mode.
        baseline: The same backbone without attention; treated alike.
        input_shape: (channels, height, width) of one image.
        device: Where.
        dtype: Of weights and images; floating point.
        batch: Images at once for latency and ratio.
        protocol: Its numbers.

    Returns:
        The calmest of up to ``protocol.attempts`` measurements.
    """
    device = torch.device(device)
    networks = [_placed(one, device, dtype) for one in (network, baseline)]
    with _quiet():
        found: list[Latency] = []
        while len(found) < protocol.attempts and not any(_is_calm(one) for one in found):
            found.append(_measured(networks, input_shape, device, dtype, batch, protocol))
    return replace(min(found, key=_unrest), attempts=len(found))


def _placed(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    network = network.to(device=device, dtype=dtype)
    return network.to(memory_format=torch.channels_last).eval()


def _is_calm(found: Latency) -> bool:
    return not (found.busy or found.wide)


def _unrest(found: Latency) -> tuple[int, float]:
    return found.busy + found.wide, found.ratio.spread


def _measured(
    networks: Sequence[nn.Module],
    input_shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    protocol: Protocol,
) -> Latency:
    clock_name, clock = CLOCKS[device.type]
    load = _Load()
    single = _race(
        *_passes(networks, input_shape, batch, device, dtype), clock, protocol.rounds, protocol
    )
    others = load.others()
    many, large = _throughput(networks, input_shape, device, dtype, clock, protocol)
    processes = _gpu_processes(device)
    return Latency(
        latency_ms=Quartiles.of([1000 * seconds for seconds in single.candidate]),
        baseline_ms=Quartiles.of([1000 * seconds for seconds in single.baseline]),
        ratio=single.ratio,
        throughput=large / median(many.candidate),
        baseline_throughput=large / median(many.baseline),
        throughput_batch=large,
        batch=batch,
        device=cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device),
        clock=clock_name,
        dtype=str(dtype).removeprefix("torch."),
        threads=THREADS,
        rounds=protocol.rounds,
        attempts=1,
        waited=single.waited,
        others=others,
        gpu_processes=processes,
        busy=single.waited > protocol.longest_wait or bool(processes),
        wide=single.ratio.spread > protocol.widest_spread,
    )


def _passes(
    networks: Sequence[nn.Module],
    input_shape: tuple[int, int, int],
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Pass, Pass]:
    """One pass of each network over the same images; what it gives is dropped at once."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(batch, *input_shape, generator=generator).to(device, dtype)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)

    def passes(network: nn.Module) -> Pass:
        def one_pass() -> None:
            network(x_BCHW)

        return one_pass

    candidate, baseline = networks
    return passes(candidate), passes(baseline)


def _throughput(
    networks: Sequence[nn.Module],
    input_shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    clock: Clock,
    protocol: Protocol,
) -> tuple[_Race, int]:
    """The race at the largest batch of halves that fits, and that batch."""
    batch = protocol.throughput_batch[device.type == "cuda"]
    while True:
        try:
            passes = _passes(networks, input_shape, batch, device, dtype)
            return _race(*passes, clock, protocol.throughput_rounds, protocol), batch
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2


# Who else is here. -------------------------------------------------------------------------------


class _Load:
    """How many cores other processes keep busy, from when it is made."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time(), _busy_seconds()

    def others(self) -> float | None:
        """Cores, on average; None where the system does not say."""
        wall, own, before = self.began
        now = _busy_seconds()
        if before is None or now is None:
            return None
        used = now - before - (time.process_time() - own)
        return max(0.0, used / (time.perf_counter() - wall))


def _busy_seconds() -> float | None:
    """Time for which all cores together have been at work."""
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, fields[:8])
    return (user + nice + system + interrupts + soft + stolen) / TICKS_PER_SECOND


def _gpu_processes(device: torch.device) -> int | None:
    """Other processes that hold the GPU; None where the driver's tool does not say."""
    if device.type != "cuda":
        return None
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={name}", "--query-compute-apps=pid", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    listed = len(run.stdout.split())
    return listed - 1 if listed else None  # this process is one of them where any is listed
