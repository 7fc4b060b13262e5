"""How much faster the closed sum is than building a candidate and counting it, in one run."""

import pytest
from race import race
from sampled import sample

from blocks.architecture import architecture_cost
from blocks.build import build_network
from blocks.cost import measure_cost
from blocks.memory import kept_bytes, measure_kept

CANDIDATES = 20
ROUNDS = 5


def built(architecture, sites):
    return build_network(
        architecture, num_classes=sites.classes, in_channels=sites.input_shape[0], seed=0
    )


@pytest.mark.benchmark
@pytest.mark.timeout(1200)
def test_the_closed_sum_is_a_thousand_times_faster():
    found = sample(4, CANDIDATES)

    def summed():
        return [architecture_cost(one, sites) for one, sites in found]

    def counted():
        return [measure_cost(built(one, sites), sites.input_shape) for one, sites in found]

    assert summed() == counted()
    times = race({"sum": summed, "count": counted}, "cpu", rounds=ROUNDS)
    ratio = times["count"].ratio_to(times["sum"])[1]
    print(
        f"\n{CANDIDATES} candidates, {ROUNDS} rounds: {times['sum'].median / CANDIDATES * 1e6:.1f}"
        f" us each by the sum, {times['count'].median / CANDIDATES * 1e3:.0f} ms built and counted:"
        f" {ratio:,.0f} times"
    )
    assert ratio >= 1000


@pytest.mark.benchmark
@pytest.mark.timeout(1200)
def test_the_sum_of_memory_is_a_thousand_times_faster():
    found = sample(4, CANDIDATES)

    def summed():
        return [kept_bytes(one, sites) for one, sites in found]

    def measured():
        return [measure_kept(built(one, sites), sites.input_shape) for one, sites in found]

    assert summed() == measured()
    times = race({"sum": summed, "measured": measured}, "cpu", rounds=ROUNDS)
    ratio = times["measured"].ratio_to(times["sum"])[1]
    print(f"\nmemory: {times['sum'].median / CANDIDATES * 1e6:.1f} us each, {ratio:,.0f} times")
    assert ratio >= 1000
