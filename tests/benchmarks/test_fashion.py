"""What a short recipe comes to on Fashion-MNIST: resnet20 with SE over three seeds, printed."""

from pathlib import Path
from statistics import fmean, stdev

import pytest
from race import processor

from search.datasets import look, source_of
from search.study import run_study

SPACE = Path(__file__).parent / "fashion.yaml"
CHANCE = 0.1


@pytest.mark.benchmark
@pytest.mark.timeout(7200)
@pytest.mark.skipif(look(source_of("fashion-mnist")) is None, reason="needs Fashion-MNIST's files")
def test_a_short_recipe_over_three_seeds(tmp_path):
    result = run_study(SPACE, storage=f"sqlite:///{tmp_path}/fashion.db")
    assert [trial.state for trial in result.trials] == ["complete"] * 6
    print(f"\nFashion-MNIST, resnet20, {result.trials[0].epochs} epochs, {processor()}")
    for label in dict.fromkeys(trial.label for trial in result.trials):
        trials = [trial for trial in result.trials if trial.label == label]
        for split in ("accuracy", "test_accuracy"):
            numbers = [getattr(trial, split) for trial in trials]
            print(f"  {label}: {split} {fmean(numbers):.4f} +- {stdev(numbers):.4f} of 3 seeds")
            assert min(numbers) > 5 * CHANCE
