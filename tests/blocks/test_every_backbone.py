"""Every backbone, placement and block together: it builds, keeps its output, and learns.

A network is built on the meta device and then given numbers. It holds as many pairs of placement
and block as it has sites for, so that a few networks hold all pairs of a backbone.
"""

import functools

import pytest
import torch

from blocks import backbone, registry
from blocks.architecture import Architecture, Placement
from blocks.backbone import PLAIN, site_table
from blocks.build import build_network
from blocks.errors import SiteError
from blocks.site import IN_BLOCK, STAGE, STEM

BLOCKS = [name for name in registry.names() if name != registry.NONE]
NAMES = backbone.names()
FIRSTS = {names[0] for names in backbone.TIMM_BACKBONES.values()}
SAMPLE = [name for n, name in enumerate(NAMES) if name in FIRSTS or n % 2 == 0]
SIDES = {"inception_v3": 96, "inception_v4": 96}  # of the images; they cannot take 64
CLASSES = 7
LARGEST = 60_000_000  # parameters; larger networks stay on the meta device


def table_of(name, side=None):
    small = 16 if backbone.backbone(name).small else 64
    side = side or SIDES.get(name.removesuffix(PLAIN), small)
    return site_table(name, (3, side, side), CLASSES)


def variants(name):
    """A backbone, and once more without the attention that it has of its own."""
    return [name, f"{name}{PLAIN}"] if table_of(name).own_attention else [name]


def placements_of(sites):
    return [STEM, STAGE, *(f"{IN_BLOCK}.{position}" for position in sites.positions)]


@functools.cache
def fits(shape, block):
    try:
        registry.spec(block).in_use({}, shape)
    except SiteError:
        return False
    return True


def pairs_of(sites):
    """The pairs of placement and block that the maps of a backbone allow."""
    return {
        (where, block)
        for where in placements_of(sites)
        for block in BLOCKS
        if any(fits(site.shape, block) for site in sites.expand(where))
    }


def next_network(sites, pairs, *, turn=0):
    """An architecture with a pair that is still missing at each site, and those pairs."""
    order = BLOCKS[turn % len(BLOCKS) :] + BLOCKS[: turn % len(BLOCKS)]
    missing, placed = set(pairs), {}
    for where in placements_of(sites):
        for site in sites.expand(where):
            fitting = (b for b in order if (where, b) in missing and fits(site.shape, b))
            block = None if site.name in placed else next(fitting, None)
            if block is not None:
                placed[site.name] = Placement(site.name, block)
                missing -= {(w, b) for w, b in missing if b == block and site.answers_to(w)}
    return Architecture(sites.backbone, tuple(placed.values())), pairs - missing


def given_numbers(network):
    """The network on the processor, with numbers of about the size that training starts with."""
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(-0.1, 0.1)
            else:
                tensor.zero_()
    return network


def check(sites, architecture):
    """Build it and learn one step: every parameter of its blocks is reached."""
    side = sites.input_shape[1]
    with torch.device("meta"):
        network = build_network(architecture, num_classes=CLASSES, input_size=side).train()
    blocks = [m for m in network.modules() if hasattr(m, "attention_site")]
    assert {m.attention_site for m in blocks} == {p.site for p in architecture.placements}
    runs = sites.cost.params < LARGEST
    if runs:
        network = given_numbers(network)
    x = torch.ones(2, 3, side, side, device="cpu" if runs else "meta")
    output = network(x)
    assert output.shape == (2, CLASSES)
    output.square().sum().backward()
    for block in blocks:
        for name, parameter in block.named_parameters():
            assert parameter.grad is not None, (block.attention_site, name)
            assert not runs or parameter.grad.isfinite().all(), (block.attention_site, name)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_network_with_many_blocks_learns(name):
    turn = NAMES.index(name)
    sites = table_of(variants(name)[-1])
    architecture, _ = next_network(sites, pairs_of(sites), turn=turn)
    wheres = placements_of(sites)
    assert {w for w in wheres for p in architecture.placements if p.site in names_at(sites, w)} == {
        *wheres
    }
    check(sites, architecture)


def names_at(sites, where):
    return {site.name for site in sites.expand(where)}


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_of_placement_and_block_learns(name):
    for variant in variants(name):
        sites = table_of(variant)
        missing = pairs_of(sites)
        while missing:
            architecture, held = next_network(sites, missing)
            assert held, missing
            check(sites, architecture)
            missing -= held


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in NAMES if not backbone.backbone(name).small])
def test_blocks_that_need_larger_maps_are_built_for_them(name):
    """Grid pooling needs maps of 7 x 2^j pixels, which images of 64 do not give."""
    sites = table_of(name, side=224)
    places = [site for site in sites.sites if fits(site.shape, "rgse")]
    if not places:
        assert name.startswith("inception")
        return
    with torch.device("meta"):
        placements = tuple(Placement(site.name, "rgse") for site in places)
        network = build_network(Architecture(name, placements), num_classes=CLASSES, input_size=224)
        x = torch.empty(2, 3, 224, 224)
    output = network.train()(x)
    assert output.shape == (2, CLASSES)
    output.sum().backward()
