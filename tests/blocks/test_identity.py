"""Blocks that start as the identity: nothing changes at first, and everything can."""

import pytest
import torch
from torch.nn import functional

from blocks import registry
from blocks.architecture import (
    Architecture,
    Placement,
    architecture_cost,
    identity_parameters,
    label,
    resolve,
)
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import measure_cost
from blocks.errors import BlockError
from blocks.identity import IdentityStart
from blocks.options import MapShape
from spaces.candidate import DataFacts
from spaces.drawing import distinct_candidates
from spaces.space import parse_space

CHANNELS, SIZE = 32, 7
CASES = [
    *((name, {}) for name in registry.names()[1:]),
    ("selfatt", {"residual": False}),
    ("mha", {"residual": False}),
    ("cbam", {"residual": True}),
    ("cbam", {"norm": False}),
    ("fca", {"frequency": "nas"}),
    ("parallel", {"blocks": "cbam + selfatt", "combine": "mean"}),
    ("sequential", {"blocks": "cbam + selfatt"}),
]
# What a norm in training takes away again, and what a softmax does not see, is never learnt:
# a shift of a whole channel, a shift of all similarities of a pixel.
NEVER = ("key.bias", "fuse.0.bias", "fuse.1.bias", "fuse.2.bias")


def learns(name, key):
    in_coord = key.endswith("squeeze.bias") and name in ("coord", "parallel", "sequential")
    return not key.endswith(NEVER) and not in_coord


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_network_is_unchanged_then_g_moves_then_every_parameter(name, options):
    torch.manual_seed(0)
    x = torch.randn(6, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    target = torch.randn_like(x)
    block = IdentityStart(registry.create(name, CHANNELS, **options)).double().train()
    optimiser = torch.optim.SGD(block.parameters(), lr=0.5)
    start = {key: p.detach().clone() for key, p in block.named_parameters()}

    def step():
        optimiser.zero_grad()
        functional.mse_loss(block(x), target, reduction="sum").backward()
        optimiser.step()
        return {key for key, p in block.named_parameters() if (p - start[key]).abs().max() > 1e-12}

    assert torch.equal(block.eval()(x), x)
    assert torch.equal(block.train()(x), x)
    assert step() == {"strength"}
    moved = {key for key in start if learns(name, key)}
    if name in ("coord", "parallel", "sequential"):
        moved -= {key for key in start if key.endswith("squeeze.bias") and "cbam" in str(options)}
    assert step() >= moved


def test_where_the_strength_is_1_it_is_the_block():
    block = registry.create("se", CHANNELS).double()
    wrapped = IdentityStart(block).double()
    x = torch.randn(2, CHANNELS, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        wrapped.strength.fill_(1)
    torch.testing.assert_close(wrapped(x), block(x), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        wrapped.strength.fill_(0.25)
    torch.testing.assert_close(wrapped(x), x + 0.25 * (block(x) - x), rtol=1e-12, atol=1e-12)


def architecture_of(name, *, site="in-block", start=True, **options):
    placement = Placement(site, name, tuple(options.items()), identity_start=start)
    return Architecture("resnet20", (placement,))


@pytest.mark.parametrize("name", [n for n in registry.names()[1:] if n != "rgse"])
def test_a_networks_outputs_are_those_of_its_backbone(name):
    site = "stage3" if name in ("selfatt", "mha", "parallel", "sequential") else "in-block"
    network = build_network(architecture_of(name, site=site), input_size=32, seed=3).eval()
    plain = build_network(Architecture("resnet20"), input_size=32, seed=3).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), plain(x))


@pytest.mark.parametrize("name", ["se", "selfatt", "cbam"])
def test_it_runs_under_autocast(name):
    block = IdentityStart(registry.create(name, CHANNELS))
    x = torch.randn(2, CHANNELS, 6, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    assert torch.equal(out, x)
    out.sum().backward()
    assert block.strength.grad.dtype == torch.float32


def test_it_is_counted_and_told_apart():
    sites = site_table("resnet20", (3, 32, 32), 10)
    with_start = resolve(architecture_of("se"), sites)
    without = resolve(architecture_of("se", start=False), sites)
    cost, plain = architecture_cost(with_start, sites), architecture_cost(without, sites)
    assert cost.params - plain.params == identity_parameters(with_start) == 9
    assert identity_parameters(without) == 0
    # Subtract, multiply, add for every number of nine units' maps; no multiply-accumulates.
    numbers = 3 * (16 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8)
    assert cost.flops - plain.flops == 3 * numbers
    assert cost.macs == plain.macs
    assert measure_cost(build_network(with_start, input_size=32), (3, 32, 32)) == cost


def test_it_is_part_of_the_identity_where_it_is_on():
    sites = site_table("resnet20", (3, 32, 32), 10)
    with_start = resolve(architecture_of("se"), sites)
    without = resolve(architecture_of("se", start=False), sites)
    assert with_start.digest != without.digest
    assert "identity_start" not in str(without.to_json())
    assert Architecture.from_json(with_start.to_json()) == with_start
    assert label(with_start) == "resnet20 + se in-block reduction=16 from identity"


def test_a_start_that_is_no_flag_is_refused():
    row = {"site": "stem", "block": "se", "identity_start": "yes"}
    with pytest.raises(BlockError, match="'identity_start: true' where it has one"):
        Architecture.from_json({"backbone": "resnet20", "placements": [row]})


SPACE = """
backbone: resnet20
attention:
  type: [none, se]
  placement: stage
  identity_start: [false, true]
"""


def test_a_space_can_fix_or_search_it():
    facts = DataFacts("digits", (1, 14, 14), 10, "split", (1, 1, 1))
    labels = {c.label for c, _ in distinct_candidates(parse_space(SPACE), facts).values()}
    assert labels == {"none", "se stage", "se stage from identity"}
    fixed = parse_space(SPACE.replace("[false, true]", "true"))
    labels = {c.label for c, _ in distinct_candidates(fixed, facts).values()}
    assert labels == {"none", "se stage from identity"}


def test_the_formula_holds_at_every_map():
    for shape in (MapShape(8, 1, 1), MapShape(3, 5, 2)):
        block = IdentityStart(torch.nn.Identity())
        counted = measure_cost(block, (shape.channels, shape.height, shape.width))
        assert counted.params == 1
        assert counted.flops == 3 * shape.channels * shape.height * shape.width
