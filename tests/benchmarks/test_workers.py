"""Does a second worker pay? The same study on one worker and on two, in turn, in one run."""

import platform
import time
from statistics import median

import pytest
import torch

from search.devices import usable_cores
from search.study import run_study

ROUNDS = 3
EPOCHS = 12


@pytest.mark.benchmark
@pytest.mark.timeout(1200)
@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_two_workers_on_two_cores_are_faster_than_one(tmp_path):
    def seconds(workers, number):
        started = time.perf_counter()
        result = run_study(
            "smoke",
            study=f"w{workers}-{number}",
            storage=f"sqlite:///{tmp_path}/{workers}-{number}.db",
            trials=6,
            epochs=EPOCHS,
            workers=workers,
        )
        assert [trial.state for trial in result.trials] == ["complete"] * 6
        return time.perf_counter() - started

    pairs = [(seconds(1, number), seconds(2, number)) for number in range(ROUNDS)]
    ratios = [one / two for one, two in pairs]
    print(
        f"\n6 trials of {EPOCHS} epochs, {platform.machine()}, {usable_cores()} cores,"
        f" torch {torch.__version__}, {ROUNDS} pairs:"
        f" one worker {median(one for one, _ in pairs):.1f} s,"
        f" two {median(two for _, two in pairs):.1f} s,"
        f" ratio {min(ratios):.2f} / {median(ratios):.2f} / {max(ratios):.2f}"
    )
    assert median(ratios) > 1.0
