import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import blocks
from blocks import registry
from blocks.architecture import (
    Architecture,
    Placement,
    architecture_cost,
    has_closed_cost,
    resolve,
)
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import block_cost, measure_cost
from blocks.errors import BlockError, SiteError
from blocks.formulas import Cost
from blocks.options import MapShape, Option

ROOT = Path(blocks.__file__).parents[1]


@pytest.fixture
def own_table(monkeypatch):
    """A table of blocks that is thrown away after the test."""
    monkeypatch.setattr(registry, "_BLOCKS", dict(registry._BLOCKS))
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))


class Scale(nn.Module):
    def __init__(self, channels, *, factor=2.0, shared=True):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1 if shared else channels, 1, 1), factor))

    def forward(self, x):
        return x * self.weight


class OtherScale(nn.Module):
    def __init__(self, channels, *, factor=2.0, shared=True):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1 if shared else channels, 1, 1), factor))

    def forward(self, x):
        return x / self.weight


# Options ---------------------------------------------------------------------------------------

OPTIONS = [(spec, option) for spec in registry.specs() for option in spec.options]
EVERY_OPTION = pytest.mark.parametrize(
    ("spec", "option"), OPTIONS, ids=[f"{spec.name}.{option.name}" for spec, option in OPTIONS]
)


def signature(name, size, **options):
    """Shapes of the parameters, and the output on a fixed input with fixed parameters."""
    if name == "rgse":
        size = 7 * options.get("grid", 1)  # a number of windows is a size of the map
    if options.get("axis") == "rotated":
        options["axis"] = f"rotated:{size}x{size}"
    block = registry.create(name, 64, **options).eval().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
        x = torch.randn(2, 64, size, size, dtype=torch.float64, generator=generator)
        return [tuple(p.shape) for p in block.parameters()], block(x)


def same(one, other):
    return one[0] == other[0] and torch.allclose(one[1], other[1], rtol=1e-9, atol=1e-12)


def test_the_authors_rule_builds_a_different_block_on_a_small_map():
    assert not same(signature("fca", 5, authors=True), signature("fca", 5, authors=False))


@EVERY_OPTION
def test_left_out_options_take_their_default(spec, option):
    assert same(signature(spec.name, 14), signature(spec.name, 14, **{option.name: option.default}))


def test_the_table_and_the_classes_have_the_same_options_and_defaults():
    for spec in registry.specs():
        parameters = inspect.signature(spec.load()).parameters.values()
        keyword_only = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        own = {o.name: o.default for o in spec.options if o.name != "residual"}  # it is outside
        assert keyword_only == own


# Names and messages ----------------------------------------------------------------------------


def test_names():
    assert registry.names()[:6] == ("none", "se", "eca", "fca", "simam", "cbam")
    assert [spec.name for spec in registry.specs()] == list(registry.names()[1:])


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("sea", "se"), ("SE", "se"), ("ecca", "eca"), ("fcanet", "fca"), ("cbma", "cbam")],
)
def test_unknown_block_says_given_nearest_and_allowed(given, nearest):
    message = f"unknown block '{given}'. Did you mean '{nearest}'? Blocks: none, se, eca, fca, "
    for refused in (registry.spec, lambda name: registry.create(name, 64)):
        with pytest.raises(BlockError, match=re.escape(message)):
            refused(given)


def test_unknown_block_far_from_all_suggests_none_of_them():
    with pytest.raises(BlockError, match=r"^unknown block 'xyzzy'\. Blocks: none, se, "):
        registry.spec("xyzzy")


@pytest.mark.parametrize(
    ("block", "options", "message"),
    [
        (
            "se",
            {"reducton": 4},
            "se has no option 'reducton'. Did you mean 'reduction'? Its options: reduction, bias",
        ),
        (
            "eca",
            {"kernel": 3},
            "eca has no option 'kernel'. Did you mean 'kernel_size'? Its options: kernel_size",
        ),
        (
            "simam",
            {"reduction": 4},
            "simam has no option 'reduction'. Its options: energy_lambda",
        ),
        ("none", {"reduction": 4}, "none has no option 'reduction': it has no options"),
        (
            "se",
            {"reduction": 0},
            "se.reduction: 0 is not a whole number from 1; allowed: whole numbers from 1",
        ),
        (
            "eca",
            {"kernel_size": 4},
            "eca.kernel_size: 4 is not an odd number; allowed: odd numbers, auto",
        ),
        (
            "cbam",
            {"norm": "yes"},
            "cbam.norm: 'yes' is neither true nor false; allowed: true, false",
        ),
        (
            "fca",
            {"frequency": "topp16"},
            "fca.frequency: unknown frequency 'topp16'. Did you mean 'top16'? Allowed: top1, top2",
        ),
    ],
)
def test_unknown_options_and_values_say_given_nearest_and_allowed(block, options, message):
    with pytest.raises(BlockError, match=re.escape(message)):
        registry.create(block, 64, **options)


def test_none_is_the_identity():
    x = torch.randn(1, 4, 3, 3)
    assert torch.equal(registry.create("none", 4)(x), x)


def test_a_block_that_cannot_stand_somewhere_says_why():
    message = "fca: 24 channels cannot be split into 16 equal frequency groups"
    with pytest.raises(SiteError, match=message):
        registry.spec("fca").in_use({}, MapShape(24, 8, 8))
    assert registry.spec("fca").in_use({"frequency": "top8"}, MapShape(24, 8, 8))


# Users' own blocks -----------------------------------------------------------------------------


@pytest.mark.usefixtures("own_table")
def test_options_of_a_users_block_are_read_off_its_signature():
    assert registry.register("scale", title="Scaling", paper="none")(Scale) is Scale
    row = registry.spec("scale")
    read = [(o.name, o.default) for o in row.options]
    assert read == [("factor", 2.0), ("shared", True), ("residual", False)]  # every block has it
    assert (row.title, row.paper) == ("Scaling", "none")
    assert "scale" in registry.names()
    block = registry.create("scale", 4, factor=3.0)
    assert isinstance(block, Scale)
    assert torch.equal(block(torch.ones(1, 4, 2, 2)), torch.full((1, 4, 2, 2), 3.0))
    message = "scale has no option 'facto'. Did you mean 'factor'? Its options: factor, shared"
    with pytest.raises(BlockError, match=re.escape(message)):
        registry.create("scale", 4, facto=3.0)


@pytest.mark.usefixtures("own_table")
def test_options_of_a_users_block_can_be_stated():
    factor = Option("factor", 2.0, (2.0, 4.0), "how much", "numbers")
    registry.register("scale", options=(factor,))(Scale)
    stated, residual = registry.spec("scale").options
    assert (stated, residual.name) == (factor, "residual")
    with pytest.raises(BlockError, match="scale has no option 'shared'"):
        registry.create("scale", 4, shared=False)


@pytest.mark.usefixtures("own_table")
@pytest.mark.parametrize("name", ["none", "se", "cbam"])
def test_names_of_other_blocks_are_refused(name):
    with pytest.raises(BlockError, match=f"block name '{name}' is taken; choose another name"):
        registry.register(name)(Scale)


@pytest.mark.usefixtures("own_table")
def test_a_users_name_is_taken_by_other_code_and_not_by_the_same():
    registry.register("scale")(Scale)
    registry.register("scale")(Scale)  # the same file imported twice
    with pytest.raises(BlockError, match="block name 'scale' is taken"):
        registry.register("scale")(OtherScale)
    assert registry.block_class("scale") is Scale


@pytest.mark.usefixtures("own_table")
@pytest.mark.parametrize("name", ["", "my block", "a.b", "a:b", "x" * 65])
def test_names_that_cannot_be_used_are_refused(name):
    with pytest.raises(BlockError, match="may hold letters, digits, '-' and '_' alone"):
        registry.register(name)(Scale)


@pytest.mark.usefixtures("own_table")
def test_a_parameter_without_default_is_refused():
    class Needy(nn.Module):
        def __init__(self, channels, *, factor):
            super().__init__()

    with pytest.raises(BlockError, match=r"needy\.factor has no default; give it one"):
        registry.register("needy")(Needy)
    assert "needy" not in registry.names()


@pytest.mark.usefixtures("own_table")
def test_a_class_that_takes_no_channels_is_refused():
    class Closed(nn.Module):
        pass

    with pytest.raises(
        BlockError, match="closed: its class takes no channels; write `def __init__"
    ):
        registry.register("closed")(Closed)
    assert "closed" not in registry.names()


@pytest.mark.usefixtures("own_table")
def test_the_code_of_a_users_block_is_part_of_the_identity():
    sites = site_table("resnet20", (3, 32, 32), 10)
    architecture = Architecture("resnet20", (Placement("stage2", "scale", {"factor": 3.0}),))
    registry.register("scale")(Scale)
    first = resolve(architecture, sites)
    del registry._BLOCKS["scale"], registry._CLASSES["scale"]
    registry.register("scale")(OtherScale)
    second = resolve(architecture, sites)
    assert dict(first.placements[0].options)["code"] != dict(second.placements[0].options)["code"]
    assert first.digest != second.digest
    # The code now registered is what counts, also for what was resolved with other code.
    assert resolve(first, sites) == second == resolve(second, sites)


@pytest.mark.usefixtures("own_table")
def test_a_users_block_is_built_and_counted_operator_by_operator():
    registry.register("scale")(Scale)
    sites = site_table("resnet20", (3, 32, 32), 10)
    architecture = Architecture("resnet20", (Placement("stage2", "scale", {"shared": False}),))
    resolved = resolve(architecture, sites)
    assert not has_closed_cost(resolved)
    with pytest.raises(BlockError, match="block scale declares no cost formula"):
        architecture_cost(resolved, sites)
    # 32 weights, one multiplication for each of 32 x 16 x 16 numbers.
    expected = Cost(32, 32, 0, 32 * 16 * 16)
    assert block_cost("scale", MapShape(32, 16, 16), {"shared": False}) == expected
    assert measure_cost(build_network(resolved), (3, 32, 32)) == sites.cost + expected


@pytest.mark.usefixtures("own_table")
def test_a_users_formula_is_what_its_block_costs():
    registry.register("scale", cost=lambda shape, options: Cost(1, 1, 7, 14))(Scale)
    sites = site_table("resnet20", (3, 32, 32), 10)
    resolved = resolve(Architecture("resnet20", (Placement("stage2", "scale"),)), sites)
    assert has_closed_cost(resolved)
    assert architecture_cost(resolved, sites) == sites.cost + Cost(1, 1, 7, 14)
    assert measure_cost(build_network(resolved), (3, 32, 32)) == architecture_cost(resolved, sites)


@pytest.mark.usefixtures("own_table")
def test_installed_packages_offer_blocks_by_an_entry_point(monkeypatch):
    def installed(group):
        assert group == "attention_search.blocks"
        return [SimpleNamespace(load=lambda: registry.register("scale")(Scale))]

    monkeypatch.setattr(registry, "entry_points", installed)
    registry._load_entry_points.__wrapped__()
    assert registry.names()[-1] == "scale"


# Imports ---------------------------------------------------------------------------------------


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "module",
    ["registry", "architecture", "site", "formulas", "backbone", "frequency", "options", "errors"],
)
def test_importing_does_not_load_torch(module):
    code = f"import sys, blocks.{module}; sys.exit(bool({{'torch', 'timm'}} & set(sys.modules)))"
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_a_kept_table_is_resolved_and_costed_without_torch():
    placement = Placement("in-block", "fca", {"frequency": "low4"})
    sites = site_table.__wrapped__("resnet20", (3, 32, 32), 10)  # kept by now, if it was not
    resolved = resolve(Architecture("resnet20", (placement,)), sites)
    result = run_python(
        "import sys\n"
        "from blocks.architecture import *\n"
        "from blocks.backbone import site_table\n"
        "sites = site_table('resnet20', (3, 32, 32), 10)\n"
        "placement = Placement('in-block', 'fca', {'frequency': 'low4'})\n"
        "resolved = resolve(Architecture('resnet20', (placement,)), sites)\n"
        "print(resolved.digest, architecture_cost(resolved, sites).flops)\n"
        "sys.exit(bool({'torch', 'timm'} & set(sys.modules)))\n"
    )
    assert result.returncode == 0, result.stderr
    flops = architecture_cost(resolved, sites).flops
    assert result.stdout.split() == [resolved.digest, str(flops)]
