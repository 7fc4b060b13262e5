import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.chance import UniformSampler

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
