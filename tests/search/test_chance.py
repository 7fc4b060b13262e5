import threading

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.chance import Recycled, UniformSampler

SPACE = {
    "two": CategoricalDistribution((False, True)),
    "eleven": CategoricalDistribution(tuple("abcdefghijk")),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.2, 0.9),
    "count": IntDistribution(1, 7),
    "size": IntDistribution(1, 300, log=True),
}


@pytest.mark.parametrize("seed", range(50))
def test_the_numbers_are_optunas(seed):
    def drawn(sampler):
        study = optuna.create_study()
        trial = study.ask()
        names = [*SPACE, *reversed(SPACE)]
        return [sampler.sample_independent(study, trial, name, SPACE[name]) for name in names]

    mine = drawn(UniformSampler(seed=seed))
    assert mine == drawn(optuna.samplers.RandomSampler(seed=seed))
    assert [type(value) for value in mine[:6]] == [bool, str, float, float, int, int]


def test_ends_are_reached_and_not_passed():
    sampler = UniformSampler(seed=0)
    found = {
        sampler.sample_independent(None, None, "count", IntDistribution(1, 3)) for _ in range(99)
    }
    assert found == {1, 2, 3}


def state_of(sampler):
    return sampler._rng.rng


def random(seed):
    return optuna.samplers.RandomSampler(seed=seed)


def test_a_state_that_is_used_again_gives_the_seeds_numbers():
    states = Recycled()
    first = states.made(random, 1)
    used = state_of(first)
    used.random_sample(5)
    again = states.made(random, 2)
    assert state_of(again) is used
    assert list(used.random_sample(3)) == list(state_of(random(2)).random_sample(3))


def test_samplers_that_another_thread_makes_meanwhile_have_states_of_their_own():
    states = Recycled()
    shared = state_of(states.made(random, 0))
    made = []

    def make(seed):
        thread = threading.Thread(target=lambda: made.append(random(seed)))
        thread.start()
        thread.join()
        return random(seed)

    mine = states.made(make, 3)
    assert state_of(mine) is shared
    assert state_of(made[0]) is not shared


def test_with_another_optuna_each_sampler_has_a_new_state(monkeypatch):
    monkeypatch.setattr("search.chance.LazyRandomState", type("Another", (), {}))
    states = Recycled()
    first, second = (state_of(states.made(random, seed)) for seed in (0, 1))
    assert first is not second
