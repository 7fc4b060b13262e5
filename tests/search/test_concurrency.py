import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from search import concurrency
from search.concurrency import (
    CONTEXT_BYTES,
    Crowd,
    ProbeError,
    best_of,
    grown,
    heavy_candidates,
    peak_bytes,
    settled,
)
from search.plan import make_plan

GIB = 2**30


@pytest.fixture
def plan(storage):
    return make_plan("smoke", storage=storage, trials=40)


def on_gpus(plan, *gpus, **changed):
    return replace(plan, device="cuda", gpus=gpus, auto=True, **changed)


def test_processes_grow_while_it_pays():
    # 1 -> 2 brings 60 %, 2 -> 4 brings 25 %, 4 -> 8 brings 5 %.
    speeds = {1: 1000.0, 2: 1600.0, 4: 2000.0, 8: 2100.0, 16: 9000.0}
    assert grown(speeds.__getitem__, 16) == {n: speeds[n] for n in (1, 2, 4, 8)}
    assert best_of(grown(speeds.__getitem__, 16)) == 4


def test_processes_stop_at_the_limit():
    assert list(grown(float, 6)) == [1, 2, 4, 6]
    assert best_of(grown(float, 6)) == 6
    assert list(grown(float, 1)) == [1]


def test_a_slower_crowd_leaves_one():
    assert best_of(grown({1: 1000.0, 2: 900.0}.__getitem__, 4)) == 1


def test_the_peak_is_counted_by_hand(plan, monkeypatch):
    peaks = {"training_peak": 1000, "inference_peak": 10, "params": 500}
    monkeypatch.setattr(concurrency, "peaks_of", lambda sites, architecture: peaks)
    (candidate, *_) = heavy_candidates(plan)
    batch = candidate.training.batch_size
    images = sum(plan.data.sizes) * 14 * 14
    # Training 1,000 bytes an image; evaluation 512 images of 10; weights 4 times 4 bytes each.
    expected = 1.2 * (max(1000 * batch, 512 * 10) + 16 * 500) + images + CONTEXT_BYTES
    assert plan.data.input_shape == (1, 14, 14)
    assert peak_bytes([candidate], plan) == pytest.approx(expected)
    half = 1.2 * (max(500 * batch, 512 * 10) + 16 * 500) + images + CONTEXT_BYTES
    assert peak_bytes([candidate], replace(plan, processes=2)) == pytest.approx(half)


def test_the_largest_candidate_decides(storage, tmp_path):
    space = tmp_path / "two.yaml"
    space.write_text(
        "backbone: resnet20\nattention: {type: [none, triplet], placement: in-block}\n"
        "training: {epochs: 1, batch_size: [32, 512]}\n"
    )
    plan = make_plan(space, storage=storage)
    candidates = heavy_candidates(plan)
    assert {c.training.batch_size for c in candidates} == {32, 512}
    whole = peak_bytes(candidates, plan)
    bare = [c for c in candidates if not c.architecture.placements]
    small = [c for c in candidates if c.training.batch_size == 32]
    assert whole > peak_bytes(bare, plan)
    maps, few = (peak_bytes(these, plan) - CONTEXT_BYTES for these in (candidates, small))
    assert maps > 1.4 * few  # the smaller one's peak is at evaluation, of 512 images too


@pytest.fixture
def peak(monkeypatch):
    """A trial takes 2 GiB, of a machine with 8 cores."""
    monkeypatch.setattr(concurrency, "peak_bytes", lambda candidates, plan: 2.0 * GIB)
    monkeypatch.setattr(concurrency, "usable_cores", lambda: 8)


def crowd_of(monkeypatch, free, speeds):
    """Stand-ins for processes on a GPU."""
    monkeypatch.setattr(Crowd, "free_bytes", lambda self: free)
    monkeypatch.setattr(Crowd, "speed", lambda self, number: speeds[number])


def test_a_gpu_gets_what_memory_and_throughput_say(plan, peak, monkeypatch):
    crowd_of(monkeypatch, 23 * GIB, {1: 1000.0, 2: 1900.0, 4: 2000.0, 8: 2000.0})
    said = []
    chosen = settled(on_gpus(plan, "0"), 40, said.append)
    assert chosen.workers == 2
    assert "memory allows 11 a GPU (2.0 GiB each), the cores 8" in chosen.because
    assert "throughput of 1/2/4 at once = 1.000 k/1.900 k/2.000 k images/s" in chosen.because
    assert len(said) == 1


def test_two_gpus_share_the_cores(plan, peak, monkeypatch):
    crowd_of(monkeypatch, 23 * GIB, {1: 1.0, 2: 2.0, 4: 4.0})
    assert settled(on_gpus(plan, "0", "1"), 40).workers == 8
    assert settled(on_gpus(plan, "0", "1"), 3).workers == 3


def test_memory_bounds_what_is_measured(plan, peak, monkeypatch):
    crowd_of(monkeypatch, 5 * GIB, {1: 1.0, 2: 2.0})
    assert settled(on_gpus(plan, "0"), 40).workers == 2


def test_a_failing_probe_leaves_memorys_answer(plan, peak, monkeypatch):
    crowd_of(monkeypatch, 7 * GIB, {})

    def dies(self, number):
        raise ProbeError("its worker ended with signal 9")

    monkeypatch.setattr(Crowd, "speed", dies)
    chosen = settled(on_gpus(plan, "0"), 40)
    assert chosen.workers == 3
    assert chosen.because.endswith(
        "the throughput could not be measured: its worker ended with signal 9"
    )


def test_trials_over_several_gpus_are_not_measured(plan, peak):
    chosen = settled(on_gpus(plan, "0", "1", "2", "3", processes=2), 40)
    assert (chosen.workers, chosen.because) == (2, "2 GPUs a trial, 4 GPUs")


def test_a_number_that_was_given_stays(storage):
    plan = make_plan("smoke", storage=storage, workers=3)
    assert settled(plan, 40) is plan


def test_on_a_processor_memory_alone_is_looked_at(plan, peak, monkeypatch):
    many = replace(plan, workers=8)
    monkeypatch.setattr(concurrency, "available_memory", lambda: 40 * GIB)
    chosen = settled(many, 40)
    assert (chosen.workers, chosen.threads) == (8, 1)
    assert chosen.because.startswith("one per core, and no more than trials; memory allows 20")
    monkeypatch.setattr(concurrency, "available_memory", lambda: 7 * GIB)
    chosen = settled(many, 40)
    assert chosen.workers == 3
    assert "memory allows 3 (7.0 GiB free, 2.0 each), fewer than the 8" in chosen.because
    monkeypatch.setattr(concurrency, "available_memory", lambda: None)
    assert settled(many, 40).workers == 8


def children():
    """Processes that this one has started and that are still there."""
    listed = subprocess.run(
        ["ps", "-ww", "--ppid", str(os.getpid()), "-o", "pid=,args="],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [line for line in listed.splitlines() if "search.worker" in line]


def test_processes_are_measured_and_leave_nothing_behind(plan):
    assignment = concurrency.assignment_of(plan, heavy_candidates(plan)[0])
    with Crowd(plan, assignment, seconds=0.3) as crowd:
        assert crowd.free_bytes() > 0
        assert crowd.speed(1) > 10
        assert crowd.speed(2) > 10
        assert len(children()) == 2
    assert children() == []


def test_a_process_that_fails_is_said_and_removed(plan):
    assignment = concurrency.assignment_of(plan, heavy_candidates(plan)[0])
    wrong = replace(assignment, data="nothing")
    with Crowd(plan, wrong) as crowd, pytest.raises(ProbeError, match="nothing"):
        crowd.free_bytes()
    assert children() == []


def test_a_process_that_does_not_answer_is_not_waited_for(plan):
    assignment = concurrency.assignment_of(plan, heavy_candidates(plan)[0])
    with (
        Crowd(plan, assignment, patience=0.0) as crowd,
        pytest.raises(ProbeError, match="no answer in 0 seconds"),
    ):
        crowd.free_bytes()
    assert children() == []
    assert not Path(plan.storage.database).exists()
