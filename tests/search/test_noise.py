import math
from types import SimpleNamespace

import pytest
from instant import drive

from search.noise import assumed, noise_of, paired_differences, pooled_sd


def trial(digest, seed, accuracy, *, baseline=False, backbone="resnet20"):
    return SimpleNamespace(
        digest=digest,
        seed=seed,
        accuracy=accuracy,
        baseline=baseline,
        architecture={"backbone": backbone},
    )


def test_differences_are_paired_by_seed():
    trials = [
        trial("none", 0, 0.90, baseline=True),
        trial("none", 1, 0.92, baseline=True),
        trial("se", 0, 0.91),
        trial("se", 1, 0.95),
        trial("se", 2, 0.99),  # the baseline has no such seed
        trial("eca", 0, 0.93),  # one seed says nothing of noise
        trial("other", 0, 0.5, backbone="resnet32"),
        trial("other", 1, 0.5, backbone="resnet32"),
    ]
    (differences,) = paired_differences(trials)
    assert differences == pytest.approx([0.01, 0.03])


def test_the_pooled_deviation_by_hand():
    # Squares 1 + 1 within the first group, 0 in the second; 1 + 2 degrees of freedom.
    assert pooled_sd([[1, 3], [2, 2, 2]]) == pytest.approx(math.sqrt(2 / 3))
    assert pooled_sd([[1]]) == 0


def test_the_assumption_by_hand():
    # 0.9 * 0.1 / 1000 + 0.005^2 = 0.000115, of two accuracies.
    noise = assumed(0.9, 1000, seen=False)
    assert noise.sd == pytest.approx(math.sqrt(2 * 0.000115))
    assert noise.source == "assumed"
    assert "1,000 validation images" in noise.words


def test_stored_studies_on_the_same_data_say_the_noise(opened):
    empty = opened("smoke", trials=4)
    assert noise_of(empty.plan).source == "assumed"
    study = opened("attention", trials=9, seeds=3, sampler="random")
    drive(study)
    noise = noise_of(empty.plan)
    differences = paired_differences(list(study.trials.values()))
    assert len(differences) == 2
    assert noise.source == "stored"
    assert noise.sd == pytest.approx(pooled_sd(differences))
    assert noise.words.startswith("2 candidates beside the baseline at 6 seeds")
