"""The closed sum against building and counting, on random architectures."""

import pytest
from sampled import built_on_meta, sample

from blocks import registry
from blocks.architecture import architecture_cost
from blocks.cost import measure_cost
from blocks.memory import kept_bytes, measure_kept

PARTS = 8  # of the slow sample, so that several processes can share it


def check_costs(found):
    for architecture, sites in found:
        network = built_on_meta(architecture, sites)
        counted = measure_cost(network, sites.input_shape)
        assert architecture_cost(architecture, sites) == counted, architecture.to_json()


def check_memory(found):
    for architecture, sites in found:
        measured = measure_kept(built_on_meta(architecture, sites), sites.input_shape)
        assert kept_bytes(architecture, sites) == measured, architecture.to_json()


def test_sixty_architectures_cost_the_sum():
    found = sample(0, 60)
    check_costs(found)
    assert {architecture.backbone for architecture, _ in found} > {"resnet20", "resnet18"}
    assert any(p.identity_start for architecture, _ in found for p in architecture.placements)


def test_eight_architectures_keep_the_sum():
    check_memory(sample(1, 8))


def test_the_sample_has_every_block_and_compositions():
    placements = [p for architecture, _ in sample(0, 400) for p in architecture.placements]
    known = {spec.name for spec in registry.specs()} - {"cse"}  # in an architecture, se with biases
    assert known <= {placement.block for placement in placements}
    assert len({p.options for p in placements if p.block in ("parallel", "sequential")}) > 30


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_two_thousand_architectures_cost_the_sum(part):
    check_costs(sample(2, 2000)[part::PARTS])


@pytest.mark.slow
def test_eighty_architectures_keep_the_sum():
    check_memory(sample(3, 80))
