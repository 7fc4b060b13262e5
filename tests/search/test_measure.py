import gc
import itertools
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from search import measure
from search.measure import Protocol, Quartiles, Taken, measure_latency

QUICK = Protocol(rounds=4, warm_up_passes=1, warm_up_seconds=0.0, throughput_rounds=1)
SHAPE = (2, 4, 4)


class Named(nn.Module):
    """A network that notes its name and batch whenever it runs."""

    def __init__(self, name, said):
        super().__init__()
        self.name, self.said = name, said

    def forward(self, x):
        self.said.append((self.name, len(x), x))
        return x


@pytest.fixture
def said():
    return []


@pytest.fixture
def pair(said):
    return Named("candidate", said), Named("baseline", said)


@pytest.fixture
def clock(monkeypatch, said):
    """A clock whose seconds of a pass are set by the name of what ran, and its turn."""
    settings = SimpleNamespace(
        seconds=lambda name, turn: {"candidate": 0.3, "baseline": 0.2}[name],
        on_core=1.0,
        counts=[],
    )
    turns = {"candidate": itertools.count(), "baseline": itertools.count()}

    def read(one_pass, count):
        for _ in range(count):
            one_pass()
        name, batch, _ = said[-1]
        turn = next(turns[name]) if batch == 1 else 0
        settings.counts.append(count)
        seconds = count * settings.seconds(name, turn)
        return Taken(seconds, settings.on_core * seconds, seconds)

    monkeypatch.setattr(measure, "CLOCKS", {"cpu": ("made up", read)})
    return settings


def measured(pair, protocol=QUICK):
    return measure_latency(*pair, SHAPE, device="cpu", protocol=protocol)


def test_quartiles_by_hand():
    assert Quartiles.of([5, 1, 2, 3, 4]) == (2, 3, 4)
    assert Quartiles.of([7.0]) == (7, 7, 7)
    assert Quartiles(1.0, 2.0, 3.0).spread == 1.0


def test_the_ratio_is_the_median_of_the_rounds_ratios(pair, clock):
    # Warm-up is turn 0; the rounds' candidate takes 2, 3, 4, 9 and the baseline 1, 1, 1, 3.
    taken = {"candidate": [1, 2, 3, 4, 9], "baseline": [1, 1, 1, 1, 3]}
    clock.seconds = lambda name, turn: float(taken[name][turn])
    found = measured(pair, Protocol(**{**vars(QUICK), "attempts": 1}))
    assert found.ratio == (2.75, 3.0, 3.25)  # of 2, 3, 4, 3; the ratio of medians is 3.5
    assert found.latency_ms == (2750.0, 3500.0, 5250.0)  # of 2, 3, 4, 9 seconds
    assert found.baseline_ms.median == 1000.0


def test_rounds_alternate_who_comes_first(pair, clock, said):
    measured(pair)
    names = [name for name, batch, _ in said if batch == 1]
    c, b = "candidate", "baseline"
    assert names == [c, b, *(c, b), *(b, c), *(c, b), *(b, c)]


def test_both_see_the_same_channels_last_images_without_gradients(pair, clock, said):
    measured(pair)
    (first, second) = (
        next(x for name, _, x in said if name == n) for n in ("candidate", "baseline")
    )
    assert torch.equal(first, second)
    assert first.shape == (1, *SHAPE)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert first.is_inference()


def test_short_passes_are_repeated_until_a_round_is_long_enough(pair, clock):
    clock.seconds = lambda name, turn: 0.003
    measured(pair)
    # 0.01 s need 4 passes of 0.003 s. A pass warms each up, 8 timings follow; then throughput.
    assert clock.counts == [1, 1, *[4] * 8, 1, 1, 4, 4]


def test_it_warms_up_for_so_many_passes_and_seconds(pair, clock):
    clock.seconds = lambda name, turn: 0.03
    protocol = Protocol(**{**vars(QUICK), "warm_up_passes": 2, "warm_up_seconds": 0.1})
    measured(pair, protocol)
    assert clock.counts[:8] == [1] * 8  # four of 0.03 s for each
    slow = Protocol(**{**vars(QUICK), "warm_up_passes": 5})
    clock.counts.clear()
    measured(pair, slow)
    assert clock.counts[:10] == [1] * 10


def test_throughput_is_of_the_larger_batch(pair, clock, said):
    found = measured(pair)
    assert found.throughput_batch == 32
    assert found.throughput == pytest.approx(32 / 0.3)
    assert found.baseline_throughput == pytest.approx(32 / 0.2)
    assert {batch for _, batch, _ in said} == {1, 32}


def test_the_larger_batch_is_halved_until_it_fits(pair, clock, monkeypatch):
    class Small(Named):
        def forward(self, x):
            if len(x) > 8:
                raise torch.OutOfMemoryError
            return super().forward(x)

    found = measured((Small("candidate", pair[0].said), pair[1]))
    assert found.throughput_batch == 8


def test_a_calm_measurement_is_taken_at_once(pair, clock):
    found = measured(pair)
    assert (found.attempts, found.busy, found.wide, found.waited) == (1, False, False, 0.0)
    assert found.ratio.median == pytest.approx(1.5)


def test_waiting_for_a_core_is_measured_again_and_then_flagged(pair, clock):
    clock.on_core = 0.75
    found = measured(pair)
    assert (found.attempts, found.busy, found.wide) == (3, True, False)
    assert found.waited == pytest.approx(0.25)


def test_a_wide_spread_is_measured_again_and_then_flagged(pair, clock):
    clock.seconds = lambda name, turn: 1.0 + (name == "candidate") * (turn % 2)
    found = measured(pair)
    assert (found.attempts, found.busy, found.wide) == (3, False, True)


def test_the_calmest_attempt_is_kept(pair, clock):
    # Each attempt is one turn of warm-up and four rounds; the second is calm.
    def seconds(name, turn):
        noisy = turn < 5 and turn % 2
        return 2.0 if name == "candidate" and not noisy else 1.0

    clock.seconds = seconds
    found = measured(pair)
    assert (found.attempts, found.wide) == (2, False)
    assert found.ratio == (2.0, 2.0, 2.0)


def test_what_is_changed_for_the_time_is_put_back(pair, clock):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []
    pair[0].register_forward_hook(lambda *_: seen.append((torch.get_num_threads(), gc.isenabled())))
    try:
        found = measured(pair)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {(1, False)}
    assert found.threads == 1
    assert gc.isenabled()
    assert not torch.is_inference_mode_enabled()
    assert not any(network.training for network in pair)


def test_the_numbers_that_are_stored_are_numbers(pair, clock):
    numbers = measured(pair).numbers()
    assert numbers["latency_ratio"] == numbers["latency_ratio_third"] == pytest.approx(1.5)
    assert numbers["busy"] == 0.0
    assert "gpu_processes" not in numbers
    assert {type(value) for value in numbers.values()} == {float}


def test_how_it_was_measured_is_said(pair, clock):
    made = measured(pair).made()
    device = made.pop("device")
    assert device
    assert made == {
        "clock": "made up",
        "dtype": "float32",
        "threads": 1,
        "batch": 1,
        "throughput_batch": 32,
        "rounds": 4,
    }


# Clocks and the machine. -------------------------------------------------------------------------


def test_the_threads_clock_does_not_count_waiting():
    taken = measure.thread_clock(lambda: time.sleep(0.02), 3)
    assert taken.wall >= 0.06
    assert taken.seconds == taken.on_core < 0.03


def test_the_gpus_clock_waits_for_every_pass(monkeypatch):
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            said.append("record")

        def synchronize(self):
            said.append("wait")

        def elapsed_time(self, end):
            return 5.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    taken = measure.event_clock(lambda: said.append("pass"), 2)
    assert said == ["record", "pass", "record", "wait"] * 2
    assert taken.seconds == 0.01


def test_the_load_of_others_leaves_out_this_process(monkeypatch):
    now = {"wall": 10.0, "own": 1.0, "all": 100.0}
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(measure.time, "process_time", lambda: now["own"])
    monkeypatch.setattr(measure, "_busy_seconds", lambda: now["all"])
    load = measure._Load()
    now.update(wall=12.0, own=3.0, all=105.0)  # 5 s of all cores in 2 s, 2 s of them our own
    assert load.others() == 1.5
    monkeypatch.setattr(measure, "_busy_seconds", lambda: None)
    assert load.others() is None


@pytest.mark.parametrize(("listed", "others"), [("7\n", 0), ("7\n8\n9\n", 2), ("", None)])
def test_other_processes_on_the_gpu(monkeypatch, listed, others):
    def run(command, **_):
        assert command[:2] == ["nvidia-smi", "--id=GPU-abc"]
        return SimpleNamespace(stdout=listed)

    uuid = SimpleNamespace(uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: uuid)
    monkeypatch.setattr(subprocess, "run", run)
    assert measure._gpu_processes(torch.device("cuda")) == others
    assert measure._gpu_processes(torch.device("cpu")) is None


def test_a_driver_without_its_tool_says_nothing(monkeypatch):
    def run(command, **_):
        raise FileNotFoundError

    uuid = SimpleNamespace(uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: uuid)
    monkeypatch.setattr(subprocess, "run", run)
    assert measure._gpu_processes(torch.device("cuda")) is None


# Real networks. ----------------------------------------------------------------------------------


def convolutions(count):
    return nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1) for _ in range(count)])


def test_three_times_the_work_takes_clearly_longer():
    found = measure_latency(convolutions(12), convolutions(4), (16, 24, 24), device="cpu")
    assert 1.5 < found.ratio.median < 6
    assert found.latency_ms.median > found.baseline_ms.median > 0
    assert found.throughput < found.baseline_throughput
    assert found.ratio.first <= found.ratio.median <= found.ratio.third


def test_measuring_leaves_no_tensors_behind():
    networks = convolutions(3), convolutions(2)
    protocol = Protocol(rounds=2, warm_up_seconds=0.0, throughput_rounds=1, attempts=1)

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    measure_latency(*networks, (16, 8, 8), device="cpu", protocol=protocol)
    before = tensors()
    for _ in range(3):
        measure_latency(*networks, (16, 8, 8), device="cpu", protocol=protocol)
    assert tensors() == before
