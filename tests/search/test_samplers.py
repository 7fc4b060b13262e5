import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.datasets import load_data
from search.samplers import SAMPLERS, Proposer, distribution, proposal_seed
from spaces.document import SAMPLERS as IN_SPACES
from spaces.parameters import Choice, Range
from spaces.space import load_space


def test_spaces_and_samplers_know_the_same_names():
    assert tuple(SAMPLERS) == IN_SPACES


def test_domains_in_optunas_words():
    assert distribution(Choice((4, 8))) == CategoricalDistribution((4, 8))
    assert distribution(Range(1, 8)) == IntDistribution(1, 8)
    assert distribution(Range(0.1, 1.0, log=True)) == FloatDistribution(0.1, 1.0, log=True)


def test_every_proposal_has_a_seed_of_its_own():
    seeds = {proposal_seed(seed, number) for seed in range(3) for number in range(100)}
    assert len(seeds) == 300


def proposer(sampler, seed=0):
    return Proposer(
        sampler,
        {"accuracy": "max", "flops": "min"},
        seed=seed,
        space=load_space("attention"),
        data=load_data("digits").facts,
    )


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_the_same_seed_proposes_the_same(sampler):
    def first(seed):
        made = proposer(sampler, seed)
        proposals = []
        for count in range(6):
            number, proposal = made.ask()
            made.tell(number, "complete", [0.9 + count / 100, 1e6 + count])
            proposals.append(proposal.values)
        return proposals

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_conditional_parameters_are_asked_for_where_they_matter():
    made = proposer("random")
    for _ in range(40):
        values = made.ask()[1].values
        wanted = {"type"}
        if values["type"] != "none":
            wanted.add("placement")
        if values["type"] not in ("none", "eca", "simam", "triplet"):
            wanted.add("reduction")
        if values["type"] == "fca":
            wanted.add("frequency")
        assert set(values) == wanted
