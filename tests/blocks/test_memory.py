import gc

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from blocks import registry
from blocks.architecture import Architecture, Placement, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.errors import BlockError, SiteError
from blocks.memory import Memory, kept_bytes, measure_kept, measure_memory, memory_by_part
from blocks.options import MapShape
from blocks.parts import ends_of


class Function(nn.Module):
    """A function as a network, behind a layer, so that gradients pass through it."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x))


# Worked out by hand. ------------------------------------------------------------------------------

MAP = 4 * 6 * 6 * 4  # 4 x 6 x 6 numbers of 4 bytes
WIDE = 2 * MAP
POOLED, INDICES = MAP // 4, MAP // 2  # 3 x 3 numbers a channel, and as many indices of 8 bytes
BY_HAND = {
    # The weight's gradient needs the image. Alive: image and output; backward, the output's
    # gradient as well (an image needs none).
    "convolution": (nn.Conv2d(4, 4, 1), Memory(MAP, 3 * MAP, 2 * MAP)),
    "8 channels": (nn.Conv2d(4, 8, 1), Memory(MAP, MAP + 2 * WIDE, MAP + WIDE)),
    # The norm keeps its input, ReLU its result. Backward: these, and three gradients at most.
    "norm and ReLU": (
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()),
        Memory(3 * MAP, 6 * MAP, 3 * MAP),
    ),
    # The sigmoid keeps its result; backward, image, output and two gradients are alive.
    "sigmoid": (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid()), Memory(2 * MAP, 4 * MAP, 3 * MAP)),
    # exp keeps its result, the sine its input, which is that result: one storage. The addition
    # keeps nothing. Backward of the sine: image, exp, output, its gradient, a cosine, a product.
    # In evaluation: image, the layer's output, and exp and sine or sine and sum.
    "one storage": (
        Function(lambda x: x.exp().sin() + x),
        Memory(2 * MAP, 6 * MAP, 4 * MAP),
    ),
    # A view is no storage of its own.
    "view": (Function(lambda x: x.flatten(2).mT.exp()), Memory(2 * MAP, 4 * MAP, 3 * MAP)),
    # Both networks keep the pool's input and its indices.
    "max-pool": (
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.MaxPool2d(2)),
        Memory(2 * MAP + INDICES, 3 * MAP + 2 * POOLED + INDICES, 2 * MAP + POOLED + INDICES),
    ),
    # Four images of three numbers on their way through a flat layer.
    "classifier": (
        nn.Sequential(nn.Flatten(), nn.Linear(144, 3)),
        Memory(MAP, MAP + 2 * 12, MAP + 12),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_memory_worked_out_by_hand(name):
    network, expected = BY_HAND[name]
    assert measure_memory(network, (4, 6, 6)) == expected


def test_measuring_changes_nothing_and_comes_out_the_same():
    network = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), registry.create("spse", 8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = measure_memory(network.eval(), (4, 6, 6))
    network(torch.zeros(1, 4, 6, 6))  # what a block keeps from a run is not in the measurement
    assert measure_memory(network, (4, 6, 6)) == first
    assert not any(module.training for module in network.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert gc.isenabled()


def test_measuring_leaves_nothing_without_numbers_behind():
    block = registry.create("spse", 24)
    measure_memory(nn.Sequential(nn.Conv2d(3, 24, 1), block), (3, 11, 13))
    out = block(torch.ones(2, 24, 11, 13))
    assert type(out) is torch.Tensor
    assert torch.isfinite(out).all()


def test_a_network_that_depends_on_the_size_of_a_batch_is_refused():
    network = Function(lambda x: x.exp() if len(x) == 2 else x.exp().exp())
    with pytest.raises(BlockError, match="make the network run alike for all sizes of a batch"):
        measure_memory(network, (4, 6, 6))


# Against what autograd keeps on the CPU, with numbers. --------------------------------------------


def kept_in_fact(network, images):
    """Bytes of all storages that autograd saves, without those of the network."""
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(images)
    assert output.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def every_option(specs):
    """All blocks, and for the slow suite all values of their options."""
    for spec in specs:
        yield spec.name, {}
        for option in spec.options:
            for value in option.values:
                if value != option.default:
                    given = {option.name: value}
                    yield pytest.param(spec.name, given, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("block", "options"), [*every_option(registry.specs()), *every_option(registry.adapted_specs())]
)
@pytest.mark.parametrize("side", [14, pytest.param(7, marks=pytest.mark.slow)])
def test_a_block_keeps_what_the_measurement_says(block, options, side):
    spec = registry.spec(block)
    try:
        in_use = spec.in_use(options, MapShape(32, side, side))
    except SiteError:
        pytest.skip("cannot stand at this map")
    built = nn.Sequential(nn.Conv2d(3, 32, 1), registry.create(block, 32, **in_use)).train()
    kept = {batch: kept_in_fact(built, torch.randn(batch, 3, side, side)) for batch in (2, 3, 7)}
    each = measure_kept(built, (3, side, side))
    assert kept[3] - kept[2] == each
    assert kept[7] - kept[3] == 4 * each, "linear in the size of the batch"


@pytest.mark.parametrize("backbone", ["resnet20", "resnet20-b", "resnet18"])
def test_a_network_keeps_what_the_measurement_says(backbone):
    placements = (Placement("in-block", "triplet"), Placement("stage", "mha", {"heads": 4}, True))
    network = build_network(Architecture(backbone, placements), input_size=32).train()
    kept = {batch: kept_in_fact(network, torch.randn(batch, 3, 32, 32)) for batch in (2, 3, 6)}
    each = measure_kept(network, (3, 32, 32))
    assert kept[3] - kept[2] == each
    assert kept[6] - kept[3] == 3 * each


# Architectures: the backbone once, each block once. -----------------------------------------------

EVERYWHERE = [name for name in registry.names()[1:] if name != "rgse"]
GROUPS = ("stem", "stage", "in-block")
PLACED = [
    (),
    (("in-block", "se", {"residual": True}, True),),
    (("stem", "eca", {}), ("stage", "mha", {}, True), ("stage3.in-block", "cbam", {})),
    # The unit's output, in place of its branch's map: blocks on either side of one addition.
    (("stage1.unit2.standard", "simam", {}), ("stage1", "sse", {}), ("stage2", "scse", {})),
    *[((GROUPS[number % 3], name, {}),) for number, name in enumerate(EVERYWHERE)],
]
SLOWLY = [((where, name, {}, True),) for where in GROUPS for name in EVERYWHERE]


@pytest.mark.parametrize("backbone", ["resnet20", pytest.param("resnet18", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "placed", [*PLACED, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOWLY)]
)
def test_the_sum_is_what_the_built_network_keeps(backbone, placed):
    sites = site_table(backbone, (3, 40, 32), 10)
    try:
        placements = tuple(Placement(*one) for one in placed)
        architecture = resolve(Architecture(backbone, placements), sites)
    except SiteError:
        pytest.skip("cannot stand there")
    with torch.device("meta"):
        network = build_network(architecture)
    assert kept_bytes(architecture, sites) == measure_kept(network, (3, 40, 32))


def test_blocks_around_an_addition_in_place_add_up():
    """In timm's units the branch's map becomes the unit's output, on which the next block is."""
    sites = site_table("resnet18", (3, 40, 32), 10)
    placements = tuple(Placement(*one) for one in PLACED[3])
    architecture = resolve(Architecture("resnet18", placements), sites)
    with torch.device("meta"):
        network = build_network(architecture)
    assert kept_bytes(architecture, sites) == measure_kept(network, (3, 40, 32))


# Parts. -------------------------------------------------------------------------------------------


def test_parts_add_up_and_blocks_have_their_own():
    sites = site_table("resnet20", (3, 32, 32), 10)
    placed = (Placement("stage2.in-block", "simam"), Placement("stage3", "selfatt"))
    architecture = resolve(Architecture("resnet20", placed), sites)
    network = build_network(architecture)
    parts = memory_by_part(network, (3, 32, 32), ends_of(sites))
    whole = measure_memory(network, (3, 32, 32))
    assert sum(part.kept for part in parts.values()) == whole.kept
    assert max(part.inference_peak for part in parts.values()) == whole.inference_peak
    # SimAM keeps the map, its gate, and two numbers a channel, in a stage of 32 x 16 x 16.
    assert parts["block at stage2.unit1.standard"].kept == 2 * 4 * 32 * 256 + 2 * 4 * 32
    stages = [name for name in parts if not name.startswith("block at")]
    assert stages == ["stem", "stage1", "stage2", "stage3", "head"]
