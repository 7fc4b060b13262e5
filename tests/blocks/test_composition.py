"""Compositions: their text, their one spelling, what they compute and what they cost."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from blocks import registry
from blocks.architecture import Architecture, Placement, architecture_cost, label, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.composition import Member, parse_members, read_blocks, shown, spelt
from blocks.cost import block_cost, measure_cost
from blocks.errors import BlockError, SiteError
from blocks.options import MapShape
from spaces.candidate import DataFacts
from spaces.drawing import distinct_candidates
from spaces.space import parse_space

SHAPE = MapShape(64, 14, 14)


def spelling(block, blocks, shape=SHAPE, **options):
    return registry.spec(block).in_use({"blocks": blocks, **options}, shape)


def x_of(channels=16, size=(5, 7)):
    return torch.randn(
        3, channels, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


# The text. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("eca + coord", (Member("eca"), Member("coord"))),
        ("eca+coord", (Member("eca"), Member("coord"))),
        (
            " se( reduction=8 ,bias = true) + simam(energy_lambda=1e-4)",
            (
                Member("se", (("bias", True), ("reduction", 8))),
                Member("simam", (("energy_lambda", 1e-4),)),
            ),
        ),
        (
            "fca(frequency=0,0+6,0, reduction=4) + eca()",
            (Member("fca", (("frequency", "0,0+6,0"), ("reduction", 4))), Member("eca")),
        ),
        (
            "sequential(blocks=(eca + se(reduction=2)), residual=true) + coord",
            (
                Member("sequential", (("blocks", "eca + se(reduction=2)"), ("residual", True))),
                Member("coord"),
            ),
        ),
    ],
)
def test_text_is_read_and_spelt(text, members):
    assert parse_members(text) == members
    assert parse_members(spelt(members)) == members


@pytest.mark.parametrize(
    "given",
    [
        ["se(reduction=8)", "eca"],
        ("se(reduction=8)", Member("eca")),
        [("se", {"reduction": 8}), {"eca": {}}],
        {"se": {"reduction": 8}, "eca": None},
    ],
)
def test_lists_become_the_text(given):
    assert read_blocks(given) == "se(reduction=8) + eca"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eca", "'eca' has 1 of the 2 to 8 blocks"),
        (" + ".join(["eca"] * 9), "has 9 of the 2 to 8 blocks"),
        ("eca + none", "'none' cannot be one of the blocks .* residual: true"),
        ("eca + coor", "unknown block 'coor'. Did you mean 'coord'"),
        ("eca + se(reduction=0)", "se.reduction: 0 is not a whole number from 1"),
        ("eca + se(reductoin=4)", "se has no option 'reductoin'. Did you mean 'reduction'"),
        ("eca + se(reduction=4", "a parenthesis is missing"),
        ("eca) + se", "a parenthesis is missing"),
        ("eca + ", "'' is no block; write blocks joined by plus signs"),
        ("eca(3) + se", "'3' is no option; write name=value"),
        ("eca + se(bias=true, bias=false)", "an option is given twice"),
        (
            "eca + parallel(blocks=(eca + parallel(blocks=(eca + parallel(blocks=(eca + se))))))",
            "nests compositions more than 3 deep",
        ),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(BlockError, match=rf"^parallel\.blocks: .*{message}"):
        registry.create("parallel", 16, blocks=text)


def test_an_item_that_is_no_block_is_named():
    with pytest.raises(BlockError, match=r"^sequential\.blocks: 3 is no block of a composition"):
        registry.create("sequential", 16, blocks=["eca", 3])


# One spelling. -----------------------------------------------------------------------------------


def test_branches_have_no_order_and_members_their_effective_options():
    expected = {
        "blocks": "eca(kernel_size=3) + se(reduction=21)",
        "combine": "sum",
    }
    assert spelling("parallel", "se(reduction=17) + eca") == expected
    assert spelling("parallel", "eca(kernel_size=3) + se(reduction=21)") == expected


def test_a_sequence_keeps_its_order():
    one = spelling("sequential", "se(reduction=17) + eca")
    other = spelling("sequential", "eca + se(reduction=17)")
    assert one == {"blocks": "se(reduction=21) + eca(kernel_size=3)"}
    assert one != other


def test_a_block_has_one_name():
    assert spelling("sequential", "cse(reduction=4) + eca") == spelling(
        "sequential", "se(reduction=4, bias=true) + eca"
    )


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_what_is_nested_and_changes_nothing_is_taken_apart(combine):
    nested = f"simam + parallel(blocks=(eca + coord), combine={combine})"
    assert spelling("parallel", nested, combine=combine) == spelling(
        "parallel", "simam + eca + coord", combine=combine
    )
    in_a_row = "simam + sequential(blocks=(eca + coord))"
    assert spelling("sequential", in_a_row) == spelling("sequential", "simam + eca + coord")


@pytest.mark.parametrize(
    ("block", "nested", "options"),
    [
        ("parallel", "simam + parallel(blocks=(eca + coord), combine=sum)", {"combine": "mean"}),
        ("parallel", "simam + parallel(blocks=(eca + coord), combine=mean)", {"combine": "mean"}),
        ("parallel", "simam + parallel(blocks=(eca + coord), combine=max)", {"combine": "sum"}),
        ("parallel", "simam + parallel(blocks=(eca + coord), residual=true)", {"combine": "sum"}),
        ("sequential", "simam + sequential(blocks=(eca + coord), residual=true)", {}),
    ],
)
def test_what_is_nested_and_matters_stays(block, nested, options):
    assert block in spelling(block, nested, **options)["blocks"]


def test_the_canonical_text_is_its_own_spelling():
    for text in ("selfatt(residual=false) + cbam", "mha(heads=2) + fca(frequency=top4)"):
        for block in ("parallel", "sequential"):
            once = spelling(block, text)
            assert spelling(block, **once) == once


def test_digest_of_a_composition_stays():
    architecture = Architecture("resnet20", (Placement("stage2", "parallel"),))
    resolved = resolve(architecture, site_table("resnet20", (1, 14, 14), 10))
    assert resolved.digest == "a1-68990a5eb29dbdea16089d01a0dce7a3"
    assert Architecture.from_json(resolved.to_json()) == resolved


def test_a_site_that_a_member_cannot_take_is_named():
    architecture = Architecture(
        "resnet20", (Placement("stage1", "sequential", (("blocks", "eca + rgse"),)),)
    )
    with pytest.raises(SiteError, match="sequential: rgse: a map of 13 x 13 .* at site stage1"):
        resolve(architecture, site_table("resnet20", (1, 13, 13), 10))


def test_labels_use_published_names():
    blocks = "fca(frequency=low4) + se(reduction=8)"
    architecture = Architecture("resnet20", (Placement("stem", "parallel", (("blocks", blocks),)),))
    resolved = resolve(architecture, site_table("resnet20", (1, 14, 14), 10))
    assert label(resolved) == (
        "resnet20 + parallel stem blocks=fca(frequency=low4, reduction=16) + se(reduction=8)"
        " combine=sum"
    )
    assert shown("no composition") == "no composition"


# What it computes. -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("combine", "join"),
    [
        ("sum", lambda a, b, c: a + b + c),
        ("mean", lambda a, b, c: (a + b + c) / 3),
        ("max", lambda a, b, c: torch.stack((a, b, c)).amax(dim=0)),
    ],
)
def test_branches_are_joined_number_by_number(combine, join):
    x = x_of()
    block = registry.create(
        "parallel", 16, blocks="se(reduction=4) + eca + simam", combine=combine
    ).double()
    maps = [member(x) for member in block.members]
    assert [type(m).__name__ for m in block.members] == [
        "SqueezeExcite",
        "EfficientChannelAttention",
        "SimpleAttention",
    ]
    torch.testing.assert_close(block(x), join(*maps), rtol=1e-12, atol=1e-12)


def test_concatenated_branches_pass_a_convolution():
    x = x_of()
    block = registry.create("parallel", 16, blocks="se + simam", combine="concat").double()
    joined = torch.cat([member(x) for member in block.members], dim=1)
    weight = block.state_dict()["project.weight"]
    assert weight.shape == (16, 32, 1, 1)
    torch.testing.assert_close(block(x), functional.conv2d(joined, weight), rtol=1e-12, atol=1e-12)


def test_a_sequence_hands_the_map_on():
    x = x_of()
    block = registry.create("sequential", 16, blocks="se + simam").double()
    squeeze, simam = block.members
    torch.testing.assert_close(block(x), simam(squeeze(x)), rtol=0, atol=0)
    assert not torch.allclose(block(x), squeeze(simam(x)))


def test_the_outer_residual_of_a_composition():
    x = x_of()
    block = registry.create("sequential", 16, blocks="se + simam", residual=True).double()
    torch.testing.assert_close(block(x), x + block.block(x), rtol=0, atol=0)


# What it costs. ----------------------------------------------------------------------------------


def test_cost_of_branches_by_hand():
    # SE with 64 // 16 = 4: 2 * 64 * 4 weights; ECA at 64 channels: 3. Concat: 2 * 64 * 64.
    cost = block_cost("parallel", SHAPE, {"blocks": "se + eca", "combine": "concat"})
    assert cost.params == 512 + 3 + 8192
    alone = block_cost("se", SHAPE, {}) + block_cost("eca", SHAPE, {})
    assert cost.macs == alone.macs + 8192 * 196
    assert cost.flops == alone.flops + 2 * 8192 * 196
    numbers = 64 * 196
    for combine, operations in (("sum", 1), ("max", 1), ("mean", 2)):
        cost = block_cost("parallel", SHAPE, {"blocks": "se + eca", "combine": combine})
        assert (cost.params, cost.macs) == (515, alone.macs)
        assert cost.flops == alone.flops + operations * numbers


@pytest.mark.parametrize("combine", ["sum", "mean", "max", "concat"])
def test_a_network_with_compositions_costs_what_is_counted(combine):
    options = (
        ("blocks", "selfatt + sequential(blocks=(se(residual=true) + cbam))"),
        ("combine", combine),
    )
    architecture = Architecture("resnet20", (Placement("stage", "parallel", options),))
    sites = site_table("resnet20", (3, 32, 32), 10)
    resolved = resolve(architecture, sites)
    network = build_network(resolved, input_size=32)
    assert measure_cost(network, (3, 32, 32)) == architecture_cost(resolved, sites)


@pytest.fixture
def own_block(monkeypatch):
    for table in ("_BLOCKS", "_CLASSES"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))

    @registry.register("halve")
    class Halve(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

        def forward(self, x):
            return x * self.scale

    return registry.spec("halve")


def test_a_block_of_ones_own_is_counted_and_identified(own_block):
    options = {"blocks": "halve + se", "combine": "sum"}
    assert not registry.has_formula("parallel", options)
    cost = block_cost("parallel", SHAPE, options)
    numbers = 64 * 196
    assert cost.params == 64 + 512
    assert cost.flops == block_cost("se", SHAPE, {}).flops + 2 * numbers  # a product, the sum
    text = spelling("parallel", "halve + se")["blocks"]
    assert text == f"halve(code={own_block.code}) + se(reduction=16)"
    assert spelling("parallel", text)["blocks"] == text
    assert registry.create("parallel", 64, blocks=text)(torch.zeros(1, 64, 2, 2)).shape[1] == 64


# In a space. -------------------------------------------------------------------------------------

SPACE = """
backbone: resnet20
attention:
  type:
    none: {}
    parallel:
      blocks: [[eca, coord], "selfatt + cbam", "coord + eca"]
      combine: [sum, mean]
    sequential: {blocks: "eca + coord"}
  placement: stage
"""


def test_a_space_has_compositions_as_choices():
    facts = DataFacts("digits", (1, 14, 14), 10, "split", (1, 1, 1))
    found = distinct_candidates(parse_space(SPACE), facts)
    # None, two parallel pairs (eca + coord has no order) by two ways to join, one sequence.
    assert len(found) == 1 + 2 * 2 + 1
    labels = {candidate.label for candidate, _ in found.values()}
    assert "parallel stage eca + coord combine=sum" in labels
