import numpy as np
import pytest

from search.power import STUDIES, _found, detectable, power, simulate


def test_the_power_of_the_tables():
    # Ten pairs, a difference of one standard deviation: 0.803 (R's power.t.test, one sample).
    assert power(1.0, 1.0, 10) == pytest.approx(0.803, abs=5e-4)
    assert power(0.0, 1.0, 5) == pytest.approx(0.05, abs=1e-4)
    assert power(2.0, 2.0, 10) == pytest.approx(power(0.01, 0.01, 10))


def test_the_detectable_difference_is_where_the_power_is_wanted():
    for seeds in (2, 3, 5, 10):
        assert power(detectable(0.01, seeds), 0.01, seeds) == pytest.approx(0.8)
    assert detectable(0.01, 3) > detectable(0.01, 5) > detectable(0.01, 10)
    assert detectable(0.02, 5) == pytest.approx(2 * detectable(0.01, 5))
    assert detectable(0.01, 5, comparisons=10) > detectable(0.01, 5)


def test_one_seed_detects_nothing():
    assert detectable(0.01, 1) is None


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("sd", [0.002, 0.03])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_a_simulation_confirms_the_formula_within_five_points(seeds, sd, ratio):
    found = simulate(ratio * sd, sd, seeds, seed=seeds)
    assert abs(found - power(ratio * sd, sd, seeds)) < 0.05


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("comparisons", [2, 10])
def test_a_simulation_confirms_what_holm_can_detect(seeds, comparisons):
    difference = detectable(0.01, seeds, comparisons=comparisons)
    found = simulate(difference, 0.01, seeds, comparisons=comparisons, seed=1)
    assert abs(found - 0.8) < 0.05


def test_without_a_difference_one_in_twenty_is_found():
    assert simulate(0.0, 0.01, 5) == pytest.approx(0.05, abs=0.02)
    assert simulate(0.0, 0.01, 5, comparisons=10) < 0.02


def test_a_seed_repeats_a_simulation():
    assert simulate(0.01, 0.01, 5, seed=2) == simulate(0.01, 0.01, 5, seed=2)
    assert simulate(0.01, 0.01, 5, seed=2) != simulate(0.01, 0.01, 5, seed=3)
    assert STUDIES == 2000


def test_holm_by_hand():
    # Of three at 0.05: the smallest against 0.0167, the next against 0.025, the last against 0.05.
    rows = np.array(
        [
            [0.010, 0.020, 0.040],  # all three are rejected
            [0.030, 0.010, 0.500],  # the second first; then 0.030 is over 0.025
            [0.020, 0.500, 0.600],  # over 0.0167
            [0.024, 0.016, 0.900],  # after the second
            [0.040, 0.016, 0.024],  # after both
        ]
    )
    assert _found(rows, 0.05).tolist() == [True, False, False, True, True]
