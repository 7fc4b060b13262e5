"""How well a latency ratio repeats: alone, beside a training on another core, and on the same one.

Run by `make bench`. One process measures the same network several times; what is printed is the
range of the ratios and of the milliseconds.
"""

import os
import platform
import subprocess
import sys
import time

import pytest
import torch

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from search.measure import measure_latency

REPEATS = 5
SHAPE = (1, 14, 14)
TRAIN = """
import torch
from blocks.architecture import Architecture
from blocks.build import build_network
torch.set_num_threads(1)
network = build_network(Architecture("resnet20", (), (14, 14)), in_channels=1, seed=0)
x = torch.randn(64, 1, 14, 14)
print("ready", flush=True)
while True:
    network(x).sum().backward()
"""
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
BESIDE = {"alone": None, "beside a training on another core": 1, "on the same core": 0}


def network(block=None):
    placements = (Placement("in-block", block, {}),) if block else ()
    return build_network(Architecture("resnet20", placements, (14, 14)), in_channels=1, seed=0)


@pytest.fixture
def pinned():
    os.sched_setaffinity(0, CORES[:1])
    yield
    os.sched_setaffinity(0, CORES)


@pytest.fixture
def beside(pinned):
    started = []

    def start(core):
        if core is None:
            return
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        os.sched_setaffinity(process.pid, [CORES[core]])
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.5)

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores and a way to choose them")
@pytest.mark.parametrize("how", BESIDE)
@pytest.mark.parametrize("block", [None, "eca", "se"], ids=str)
def test_ratios_repeat(block, how, beside):
    beside(BESIDE[how])
    networks = network(block), network()
    found = [measure_latency(*networks, SHAPE, device="cpu") for _ in range(REPEATS)]
    ratios = sorted(one.ratio.median for one in found)
    times = sorted(one.latency_ms.median for one in found)
    print(
        f"\nresnet20 {block or 'none'} {SHAPE}, {how}, {platform.machine()}, torch"
        f" {torch.__version__}, {REPEATS} measurements: ratio {ratios[0]:.3f} / "
        f"{ratios[REPEATS // 2]:.3f} / {ratios[-1]:.3f}, ms {times[0]:.2f} / "
        f"{times[REPEATS // 2]:.2f} / {times[-1]:.2f}, waited {max(o.waited for o in found):.2f},"
        f" others {max(o.others or 0 for o in found):.1f}, {sum(o.busy for o in found)} busy,"
        f" {sum(o.wide for o in found)} wide"
    )
    assert ratios[-1] / ratios[0] < 1.25
    if how == "on the same core":
        assert all(one.busy for one in found)
