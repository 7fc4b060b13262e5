import random

import pytest

from search.datasets import load_data
from spaces.drawing import propose
from spaces.flat import flat_domains
from spaces.parameters import Choice
from spaces.space import load_space, parse_space, shipped_spaces

DIGITS = load_data("digits").facts
PER_STAGE = """
backbone: [resnet20, resnet18]
attention:
  type: {none: {}, se: {reduction: [4, 8]}, fca: {}}
  placement: [stem, stage, in-block, stage + in-block]
  position: [standard, pre]
  frequency: [top1, top2]
  identity_start: [false, true]
  per_stage: true
training: {epochs: 1, learning_rate: {low: 0.01, high: 1, log: true}, momentum: [0.8, 0.9]}
"""
WHOLE = PER_STAGE.replace("  per_stage: true\n", "  stages: [all, 1, [2, 3]]\n")
PER_UNIT = PER_STAGE.replace("per_stage", "per_unit").replace(
    "stem, stage, in-block, stage + in-block", "stem, in-block"
)


def asked(space, seed):
    chance, found = random.Random(seed), {}

    def choose(name, domain):
        found[name] = domain
        return chance.choice(domain.values) if isinstance(domain, Choice) else domain.default

    propose(space, choose, DIGITS)
    return found


@pytest.mark.parametrize("text", [WHOLE, PER_STAGE, PER_UNIT], ids=["whole", "stage", "unit"])
def test_all_that_is_ever_asked_is_there_and_nothing_else(text):
    space = parse_space(text)
    flat = flat_domains(space, DIGITS)
    found = {}
    for seed in range(400):
        found |= asked(space, seed)
    assert found == flat


@pytest.mark.parametrize("name", shipped_spaces())
def test_of_shipped_spaces_too(name):
    space = load_space(name, overrides=["training.pretrained=false"])
    flat = flat_domains(space, DIGITS)
    for seed in range(50):
        for setting, domain in asked(space, seed).items():
            assert flat[setting] == domain, setting


def test_fixed_settings_are_there_where_they_are_wanted():
    space = parse_space(WHOLE)
    assert "epochs" not in flat_domains(space, DIGITS)
    assert flat_domains(space, DIGITS, fixed=True)["epochs"] == Choice((1,))
