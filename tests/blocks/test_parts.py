import pytest
import torch
from torch import nn

from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import block_cost, cost_by_part, measure_cost
from blocks.formulas import Cost, identity_cost, total
from blocks.parts import Clock, End, ends_of


def parts_of(backbone, shape, classes, *placements):
    sites = site_table(backbone, shape, classes)
    architecture = resolve(Architecture(backbone, placements), sites)
    with torch.device("meta"):
        network = build_network(architecture, num_classes=classes)
    return architecture, sites, network, cost_by_part(network, shape, ends_of(sites))


def test_resnet50_by_stages_against_sums_by_hand():
    *_, parts = parts_of("resnet50", (3, 224, 224), 1000)
    assert list(parts) == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    # 7 x 7 convolution of 3 channels to 64 at 112 x 112, norm, ReLU, 56 x 56 windows of 3 x 3
    numbers = 64 * 112 * 112
    assert parts["stem"] == Cost(
        9408 + 128, 9536, 147 * numbers, 2 * 147 * numbers + 3 * numbers + 8 * 64 * 56 * 56
    )
    # 1x1 before the stride, 3x3, 1x1 and the projection; then three times without projection
    first = 56**2 * 256 * 128 + 28**2 * (9 * 128**2 + 128 * 512 + 256 * 512)
    others = 28**2 * (512 * 128 + 9 * 128**2 + 128 * 512)
    assert parts["stage2"].macs == first + 3 * others
    assert parts["stage2"].params == 1_219_584
    # mean of 2048 x 7 x 7, one linear layer with biases
    assert parts["head"] == Cost(2_049_000, 2_049_000, 2_048_000, 2048 * 49 + 2 * 2_048_000 + 1000)


@pytest.mark.parametrize("backbone", ["resnet20", "resnet18"])
def test_parts_add_up_to_the_network(backbone):
    placed = [Placement("in-block", "se"), Placement("stage", "cbam", {}, True)]
    placed.append(Placement("stem", "parallel"))
    architecture, sites, network, parts = parts_of(backbone, (3, 32, 32), 10, *placed)
    assert total(list(parts.values())) == measure_cost(network, (3, 32, 32))
    assert total(list(parts.values())) == architecture_cost(architecture, sites)
    # The stages are what they are without blocks, and every block is its formula.
    *_, plain = parts_of(backbone, (3, 32, 32), 10)
    assert {part: parts[part] for part in plain} == plain
    for placement in architecture.placements:
        (site,) = sites.expand(placement.site)
        cost = block_cost(placement.block, site.shape, placement.settings)
        cost += identity_cost(site.shape) if placement.identity_start else Cost()
        assert parts[f"block at {placement.site}"] == cost


def test_a_parameter_is_in_one_part_alone():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.second.weight = self.first.weight
            self.unused = nn.Linear(2, 2)

        def forward(self, x):
            return self.second(self.first(x))

    parts = cost_by_part(Tied(), (4, 6, 6), [End("start", "first")])
    assert {name: cost.params for name, cost in parts.items()} == {"start": 42 + 6, "head": 6}
    assert parts["start"].macs == parts["head"].macs == 24 * 36


def test_a_part_can_end_before_a_module():
    network = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh())
    parts = cost_by_part(network, (4, 6, 6), [End("a", "1", before=True), End("b", "1")])
    assert {name: cost.flops for name, cost in parts.items()} == {"a": 144, "b": 576, "head": 144}


def test_without_ends_there_is_one_part():
    assert list(cost_by_part(nn.ReLU(), (4, 6, 6))) == ["head"]
    assert Clock().part == "head"
