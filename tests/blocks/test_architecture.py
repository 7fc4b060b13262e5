import dataclasses
import itertools
import json
import re

import pytest
import torch

from blocks import registry
from blocks.architecture import (
    Architecture,
    Placement,
    architecture_cost,
    label,
    resolve,
)
from blocks.backbone import site_table
from blocks.errors import BackboneError, BlockError, SiteError
from blocks.options import MapShape


def cifar(size=32, name="resnet20"):
    return site_table(name, (3, size, size), 10)


def imagenet(name):
    return site_table(name, (3, 224, 224), 1000)


def resolved(*placements, sites=None, backbone="resnet20"):
    written = tuple(Placement(*placement) for placement in placements)
    return resolve(Architecture(backbone, written), sites or cifar())


# Published counts --------------------------------------------------------------------------------


def per_stage(block, values, option):
    return tuple(
        Placement(f"stage{stage}.in-block", block, {option: value})
        for stage, value in enumerate(values, start=1)
    )


IN_BLOCK_SE = (Placement("in-block", "se"),)
IN_BLOCK_FCA = (Placement("in-block", "fca"),)
IN_BLOCK_CBAM = (Placement("in-block", "cbam"),)
IN_BLOCK_SIMAM = (Placement("in-block", "simam"),)
IN_BLOCK_TRIPLET = (Placement("in-block", "triplet"),)
K3357 = per_stage("eca", (3, 3, 5, 7), "kernel_size")

PUBLISHED = [
    ("resnet18", (), 11_689_512, "1.8141"),
    ("resnet34", (), 21_797_672, "3.6638"),
    ("resnet50", (), 25_557_032, "4.0892"),
    ("resnet101", (), 44_549_160, "7.8014"),
    ("resnet18", IN_BLOCK_SE, 11_776_552, "1.8142"),
    ("resnet34", IN_BLOCK_SE, 21_954_856, "3.6639"),
    ("resnet50", IN_BLOCK_SE, 28_071_976, "4.0917"),
    ("resnet101", IN_BLOCK_SE, 49_292_328, "7.8061"),
    ("resnet152", IN_BLOCK_SE, 66_770_984, "11.5202"),
    ("resnet18", IN_BLOCK_FCA, 11_776_552, "1.8142"),
    ("resnet34", IN_BLOCK_FCA, 21_954_856, "3.6639"),
    ("resnet50", IN_BLOCK_FCA, 28_071_976, "4.0917"),
    ("resnet101", IN_BLOCK_FCA, 49_292_328, "7.8061"),
    ("resnet152", IN_BLOCK_FCA, 66_770_984, "11.5202"),
    ("resnet18", IN_BLOCK_CBAM, 11_779_392, "1.8151"),
    ("resnet34", IN_BLOCK_CBAM, 21_960_468, "3.6654"),
    ("resnet50", IN_BLOCK_CBAM, 28_089_624, "4.0956"),
    ("resnet101", IN_BLOCK_CBAM, 49_330_172, "7.8126"),
    ("resnet18", IN_BLOCK_SIMAM, 11_689_512, "1.8141"),
    ("resnet34", IN_BLOCK_SIMAM, 21_797_672, "3.6638"),
    ("resnet50", IN_BLOCK_SIMAM, 25_557_032, "4.0892"),
    ("resnet101", IN_BLOCK_SIMAM, 44_549_160, "7.8014"),
    ("resnet18", IN_BLOCK_TRIPLET, 11_691_912, "1.8205"),
    ("resnet34", IN_BLOCK_TRIPLET, 21_802_472, "3.6764"),
    ("resnet50", IN_BLOCK_TRIPLET, 25_561_832, "4.1355"),
    ("resnet101", IN_BLOCK_TRIPLET, 44_559_060, "7.8958"),
    # ECA-Net's kernels are set by hand, per stage.
    ("resnet18", per_stage("eca", (3, 5, 7, 7), "kernel_size"), 11_689_556, "1.8141"),
    ("resnet34", K3357, 21_797_744, "3.6638"),
    ("resnet50", per_stage("eca", (3, 5, 5, 7), "kernel_size"), 25_557_112, "4.0893"),
    ("resnet101", K3357, 44_549_317, "7.8016"),
    ("resnet152", K3357, 60_193_042, "11.5139"),
    # The Caffe models' biases: 28,088,024 and 49,326,872 (their stride, so other macs).
    ("resnet50", (Placement("in-block", "se", {"bias": True}),), 28_088_024, None),
    ("resnet101", (Placement("in-block", "se", {"bias": True}),), 49_326_872, None),
    # The formula on a block's output channels: 3 * 5 + 4 * 5 + 6 * 5 + 3 * 7 = 86.
    ("resnet50", (Placement("in-block", "eca"),), 25_557_032 + 86, None),
]


@pytest.mark.parametrize(("backbone", "placements", "params", "gmacs"), PUBLISHED)
def test_published_counts_of_imagenet_networks(backbone, placements, params, gmacs):
    sites = imagenet(backbone)
    cost = architecture_cost(resolve(Architecture(backbone, placements), sites), sites)
    assert cost.params == cost.trainable_params == params
    if gmacs is not None:
        assert f"{cost.macs / 1e9:.4f}" == gmacs


@pytest.mark.parametrize(
    ("backbone", "block", "options", "params"),
    [
        ("resnet20", "none", {}, 269_722),
        ("resnet20-b", "none", {}, 272_474),
        ("resnet20-b", "simam", {}, 272_474),
        ("resnet20-b", "se", {"reduction": 16}, 274_490),
        ("resnet20-b", "se", {"reduction": 8}, 276_506),
        ("resnet20-b", "se", {"reduction": 4}, 280_538),
        ("resnet20-b", "cbam", {"reduction": 16}, 275_747),
    ],
)
def test_published_counts_of_cifar_networks(backbone, block, options, params):
    sites = cifar(name=backbone)
    architecture = Architecture(backbone, (Placement("in-block", block, options),))
    assert architecture_cost(resolve(architecture, sites), sites).params == params


# Writing and reading -----------------------------------------------------------------------------


def test_options_are_written_as_mapping_or_pairs_in_any_order():
    one = Placement("stem", "se", {"reduction": 4, "bias": True})
    other = Placement("stem", "se", (("bias", True), ("reduction", 4)))
    assert one == other
    assert hash(one) == hash(other)


def test_architectures_are_frozen():
    architecture = resolved(("stem", "se"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture.backbone = "resnet18"
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture.placements[0].block = "eca"


def test_order_of_writing_does_not_matter():
    placements = [
        Placement("stage3", "eca", {"kernel_size": 3}),
        Placement("stem", "se"),
        Placement("stage1", "eca", {"kernel_size": "auto"}),
        Placement("stage2.in-block", "fca", {"frequency": "low2"}),
    ]
    written = {Architecture("resnet20", order) for order in itertools.permutations(placements)}
    assert len(written) == 1
    digests = {
        resolve(Architecture("resnet20", order), cifar()).digest
        for order in itertools.permutations(placements)
    }
    assert len(digests) == 1


ROUND_TRIPS = [
    Architecture("resnet20"),
    Architecture("resnet20", (Placement("in-block", "fca", {"authors": True, "dct_size": 7}),)),
    Architecture("resnet20", (Placement("stem", "simam", {"energy_lambda": 1e-4}),), (32, 48)),
    Architecture(
        "resnet20",
        (Placement("stage1", "eca", {"kernel_size": "auto"}), Placement("stage2", "eca")),
    ),
]


@pytest.mark.parametrize("architecture", ROUND_TRIPS)
def test_survives_json(architecture):
    data = architecture.to_json()
    assert Architecture.from_json(data) == architecture
    assert Architecture.from_json(json.dumps(data)) == architecture
    assert Architecture.from_json(json.loads(json.dumps(data))).to_json() == data


def test_json_form():
    architecture = Architecture("resnet20", (Placement("stem", "se", {"reduction": 4}),), (32, 48))
    assert architecture.to_json() == {
        "backbone": "resnet20",
        "input_size": [32, 48],
        "placements": [{"site": "stem", "block": "se", "options": {"reduction": 4}}],
    }


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"placements": []},
        {"backbone": "resnet20", "placements": [{"site": "stem"}]},
        {"backbone": "resnet20", "placements": [{"block": "se"}]},
        {"backbone": "resnet20", "placements": ["stem"]},
        {"backbone": "resnet20", "input_size": [32]},
        {"backbone": "resnet20", "input_size": 32},
        {"backbone": "resnet20", "placements": [{"site": "stem", "block": "se", "options": 4}]},
        [],
        "[]",
        "null",
        "{",
        "resnet20",
    ],
)
def test_what_is_no_architecture_is_refused(data):
    with pytest.raises(BlockError, match="an architecture needs 'backbone' and 'placements'"):
        Architecture.from_json(data)


# Resolving ---------------------------------------------------------------------------------------


def test_groups_become_sites_with_options_in_use():
    architecture = resolved(("stage", "eca"), ("stem", "se", {"reduction": 32}))
    assert architecture.input_size == (32, 32)
    assert architecture.placements == (
        Placement("stage1", "eca", {"kernel_size": 3}),
        Placement("stage2", "eca", {"kernel_size": 3}),
        Placement("stage3", "eca", {"kernel_size": 3}),
        Placement("stem", "se", {"reduction": 16}),
    )


def test_none_places_nothing():
    assert resolved(("in-block", "none"), ("stem", "se")) == resolved(("stem", "se"))
    assert resolved(("in-block", "none")).placements == ()


RESOLVED_AGAIN = [
    *[(("in-block", name),) for name in registry.names() if name != "rgse"],  # needs other sizes
    (("stem", "se", {"reduction": 5, "bias": True}), ("stage", "cbam", {"norm": False})),
    (("in-block", "fca", {"frequency": "low16", "dct_size": 7}),),
    (("in-block", "fca", {"frequency": "bot4", "authors": True}),),
    (("stage", "simam", {"energy_lambda": 1}),),
]


@pytest.mark.parametrize("size", [8, 20, 32])
@pytest.mark.parametrize("placements", RESOLVED_AGAIN)
def test_resolving_again_changes_nothing(placements, size):
    sites = cifar(size)
    once = resolved(*placements, sites=sites)
    assert resolve(once, sites) == once
    assert resolve(Architecture.from_json(json.dumps(once.to_json())), sites).digest == once.digest


@pytest.mark.parametrize(
    "placements",
    [
        (("in-block", "se"), ("stage2.unit1.standard", "eca")),
        (("stem", "se"), ("stem", "se")),
        (("stage", "se", {"reduction": 4}), ("stage2", "se", {"reduction": 8})),
        (("stage2", "eca", {"kernel_size": "auto"}), ("stage2", "eca", {"kernel_size": 3})),
        (("stage1.in-block", "se"), ("in-block", "cbam")),
    ],
)
def test_two_blocks_at_one_site_are_refused(placements):
    message = r"resnet20: two blocks at site \S+, \w+ and \w+; keep one of them"
    with pytest.raises(SiteError, match=message):
        resolved(*placements)


def test_refusal_of_two_blocks_names_site_and_blocks():
    message = "two blocks at site stage2.unit1.standard, se and eca; keep one of them"
    with pytest.raises(SiteError, match=re.escape(message)):
        resolved(("in-block", "se"), ("stage2.unit1.standard", "eca"))


def test_a_block_that_cannot_stand_at_a_site_is_refused_by_the_sites_name():
    message = (
        "fca: 16 channels cannot be split into 32 equal frequency groups at site"
        " stage1.unit1.standard of resnet20"
    )
    with pytest.raises(SiteError, match=re.escape(message)):
        resolved(("in-block", "fca", {"frequency": "top32"}))
    assert resolved(("stage3", "fca", {"frequency": "top32"})).placements


@pytest.mark.parametrize(
    ("placement", "error", "message"),
    [
        (("stage4", "se"), BackboneError, "resnet20 has no site 'stage4'. Did you mean 'stage"),
        (("stem", "sea"), BlockError, "unknown block 'sea'. Did you mean 'se'?"),
        (("stem", "se", {"reducton": 4}), BlockError, "Did you mean 'reduction'?"),
        (("stem", "se", {"reduction": 0}), BlockError, "se.reduction: 0 is not a whole number"),
    ],
)
def test_mistakes_are_refused(placement, error, message):
    with pytest.raises(error, match=re.escape(message)):
        resolved(placement)


# Identity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "size"),
    [
        # Stage 1 has 16 channels: both are 1 wide.
        (("stage1", "se", {"reduction": 16}), ("stage1", "se", {"reduction": 32}), 32),
        (("stage1", "se"), ("stage1", "se", {"reduction": 16, "bias": False}), 32),
        (("stage1", "cbam"), ("stage1", "cbam", {"norm": True, "kernel_size": 7}), 32),
        (("stage", "fca", {"frequency": "top1"}), ("stage", "fca", {"frequency": "low1"}), 32),
        (("stage", "fca", {"frequency": "top2"}), ("stage", "fca", {"frequency": "0,0+0,1"}), 32),
        (("stage", "fca", {"frequency": "0,0"}), ("stage", "fca", {"frequency": "0,0+0,0"}), 32),
        (("in-block", "eca"), ("in-block", "eca", {"kernel_size": 3}), 32),
        (("stem", "simam"), ("stem", "simam", {"energy_lambda": 0.0001}), 32),
        (
            ("stem", "simam", {"energy_lambda": 1}),
            ("stem", "simam", {"energy_lambda": 1.0}),
            32,
        ),
        # Images of 28: the last maps are 7 x 7; of 8: 2 x 2, where 2 to 6 are one index.
        (("stage3", "fca"), ("stage3", "fca", {"dct_size": 7}), 28),
        (
            ("stage3", "fca", {"frequency": "0,2+6,0"}),
            ("stage3", "fca", {"frequency": "1,6+3,1"}),
            8,
        ),
        (
            ("stage3", "fca", {"frequency": "bot16", "authors": True}),
            ("stage3", "fca", {"frequency": "top1"}),
            8,
        ),
        (("stage3", "fca", {"authors": True}), ("stage3", "fca", {"authors": False}), 32),
        # Images of 4: one pixel is left, and every frequency is the mean, lambda nothing.
        (("stage3", "fca", {"frequency": "bot16"}), ("stage3", "fca", {"frequency": "top1"}), 4),
        (("stage3", "simam", {"energy_lambda": 0.1}), ("stage3", "simam"), 4),
    ],
)
def test_equal_networks_have_one_digest(one, other, size):
    sites = cifar(size)
    assert resolved(one, sites=sites) == resolved(other, sites=sites)
    assert resolved(one, sites=sites).digest == resolved(other, sites=sites).digest


def test_a_group_is_its_sites():
    parts = [(f"stage{n}", "se") for n in (2, 1, 3)]
    assert resolved(("stage", "se")) == resolved(*parts)
    parts = [(f"stage{n}.in-block", "se") for n in (3, 1, 2)]
    assert resolved(("in-block", "se")).digest == resolved(*parts).digest


def test_different_networks_have_different_digests():
    placements = [
        (),
        *[((site, "se"),) for site in ("stem", "stage", "stage1", "stage2", "in-block")],
        *[(("stage3", "se", {"reduction": r}),) for r in (4, 8, 16, 32)],
        (("stage3", "se", {"bias": True}),),
        *[(("stage3", "eca", {"kernel_size": k}),) for k in (3, 5, 7)],
        *[(("stage3", "fca", {"frequency": f}),) for f in ("top1", "top2", "low4", "top4")],
        *[(("stage3", "fca", {"frequency": f}),) for f in ("top16", "0,0+6,0", "6,0+0,0")],
        (("stage3", "fca", {"dct_size": 7}),),
        *[(("stage3", "simam", {"energy_lambda": e}),) for e in (1e-4, 0.1)],
        *[(("stage3", "cbam", {"kernel_size": k}),) for k in (3, 5, 7)],
        (("stage3", "cbam", {"norm": False}),),
        (("stage3", "se"), ("stem", "eca")),
        (("stage3", "eca"), ("stem", "se")),
    ]
    digests = [resolved(*each).digest for each in placements]
    assert len(set(digests)) == len(placements)


def test_backbone_and_input_size_are_part_of_the_identity():
    digests = {
        resolved(("stem", "se"), sites=sites, backbone=sites.backbone).digest
        for sites in (
            cifar(32),
            cifar(24),
            cifar(32, "resnet20-b"),
            site_table("resnet20", (3, 32, 24), 10),
            site_table("resnet20", (3, 24, 32), 10),
        )
    }
    assert len(digests) == 5


def test_classes_and_image_channels_are_not_part_of_the_architecture():
    grey = site_table("resnet20", (1, 32, 32), 100)
    assert resolved(("stem", "se"), sites=grey).digest == resolved(("stem", "se")).digest


def function_of(name, shape, options):
    """Shapes of the parameters and the output on a fixed input with fixed parameters."""
    if options.get("axis") == "rotated":
        options = {**options, "axis": f"rotated:{shape.height}x{shape.width}"}
    block = registry.create(name, shape.channels, **options).eval().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
        size = (2, shape.channels, shape.height, shape.width)
        x = torch.randn(size, dtype=torch.float64, generator=generator)
        return [tuple(p.shape) for p in block.parameters()], block(x)


def is_same(one, other):
    return one[0] == other[0] and torch.allclose(one[1], other[1], rtol=1e-9, atol=1e-11)


GRIDS = {
    "se": {"reduction": (1, 4, 15, 16, 17, 32, 64), "bias": (False, True)},
    "eca": {"kernel_size": ("auto", 3, 5, 7)},
    "fca": {
        "frequency": (
            *("top1", "low1", "top2", "low2", "bot2", "top4", "low8"),
            *("0,0+0,0", "0,2+6,0", "1,6+3,1", "6,6", "5,5", "1,0", "0,1"),
        ),
        "authors": (False, True),
        "reduction": (2,),  # wide enough that no ReLU hides all of a difference
    },
    "simam": {"energy_lambda": (1e-4, 0.1, 1)},
    "cbam": {"reduction": (8, 16, 32), "kernel_size": (3, 7), "norm": (True, False)},
    "cse": {"reduction": (1, 4, 15, 16, 64)},
    "sse": {"residual": (False, True)},
    "scse": {"reduction": (1, 4, 15, 16), "combine": ("max", "add", "mul")},
    "spse": {"reduction": (1, 4, 15, 16, 64)},
    "rgse": {"reduction": (1, 4, 15, 16, 64)},
    "selfatt": {"scale": (False, True), "residual": (True, False)},
    "mha": {"heads": (1, 2, 4, 8, 16), "residual": (True, False)},
    "coord": {"reduction": (1, 2, 3, 4, 5, 31, 32, 64)},
    "triplet": {"kernel_size": (3, 7), "spatial": (True, False)},
    "tripse1": {"reduction": (1, 4, 15, 16, 64), "combine": ("mean", "sum")},
    "tripse2": {
        "reduction": (1, 4, 15, 16, 64),
        "combine": ("mean", "sum"),
        "axis": ("channels", "rotated"),
    },
    "tripse3": {
        "reduction": (1, 4, 15, 16, 64),
        "combine": ("mean", "sum"),
        "axis": ("channels", "rotated"),
    },
    "tripse4": {
        "reduction": (1, 4, 15, 16, 64),
        "combine": ("mean", "sum"),
        "weights": (False, True),
        "axis": ("channels", "rotated"),
    },
}


def standing(name, shape):
    """The shape; the test is skipped where the block refuses it."""
    shape, row = MapShape(*shape), registry.spec(name)
    if row.requirement(shape, row.complete({})) is not None:
        pytest.skip(f"{name} cannot stand at {shape}")
    return shape


def test_every_built_in_block_has_a_grid():
    composed = {"parallel", "sequential"}  # in test_composition
    assert set(GRIDS) == {spec.name for spec in registry.specs()} - composed


@pytest.mark.parametrize("shape", [(16, 7, 7), (32, 4, 4), (32, 5, 9), (16, 2, 3), (16, 1, 1)])
@pytest.mark.parametrize("name", GRIDS)
def test_options_in_use_are_equal_exactly_when_the_blocks_are(name, shape):
    shape = standing(name, shape)
    spec = registry.spec(name)
    grid = GRIDS[name]
    built = []
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        built.append((spec.in_use(options, shape), function_of(name, shape, options)))
    for (one, first), (other, second) in itertools.combinations(built, 2):
        assert (one == other) == is_same(first, second), (one, other)


@pytest.mark.parametrize("shape", [(16, 7, 7), (32, 4, 4), (32, 5, 9), (16, 1, 1)])
@pytest.mark.parametrize("name", GRIDS)
def test_options_in_use_build_the_block_that_was_asked_for(name, shape):
    shape = standing(name, shape)
    spec = registry.spec(name)
    grid = GRIDS[name] | ({"dct_size": ("map", 7, 4)} if name == "fca" else {})
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        in_use = spec.in_use(options, shape)
        assert is_same(function_of(name, shape, options), function_of(name, shape, in_use)), options


def test_an_architecture_has_a_digest_once_it_is_resolved():
    with pytest.raises(BlockError, match="once it is resolved against its sites"):
        _ = Architecture("resnet20").digest


# Changing either orphans the results that are stored under it: every study in every database would
# train its candidates again. If that is meant, raise DIGEST_VERSION, and say so in the changelog.
def test_digests_are_the_ones_in_stored_results():
    first = resolved(("in-block", "se"))
    assert first.digest == "a1-7cc190f8e51ef9274e1c4f05dc7ee3d2"
    second = resolved(
        ("stem", "cbam", {"norm": False}),
        ("stage1", "eca", {"kernel_size": "auto"}),
        ("stage2", "simam", {"energy_lambda": 0.1}),
        ("stage3", "fca", {"frequency": "low4", "dct_size": 7}),
        sites=site_table("resnet20-b", (3, 32, 48), 10),
        backbone="resnet20-b",
    )
    assert second.digest == "a1-8b0a2794bb6ea9bfdedd9823600e9d3b"


# Labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("placements", "text"),
    [
        ((), "resnet20 (none)"),
        ((("in-block", "se", {"reduction": 4}),), "resnet20 + se in-block reduction=4"),
        ((("stem", "simam"),), "resnet20 + simam stem energy_lambda=0.0001"),
        (
            (("stage", "fca", {"frequency": "low4", "reduction": 32}),),
            "resnet20 + fca stage frequency=low4 reduction=16/32",
        ),
        (
            (("stem", "eca"), ("stage3", "cbam", {"norm": False})),
            "resnet20 + cbam stage kernel_size=7 norm=False reduction=16 + eca stem kernel_size=3",
        ),
    ],
)
def test_labels(placements, text):
    assert label(resolved(*placements)) == text


def test_cse_is_se_with_biases_under_another_name():
    one = resolved(("stage", "cse", {"reduction": 4, "gate": "tanh"}))
    other = resolved(("stage", "se", {"reduction": 4, "gate": "tanh", "bias": True}))
    assert one == other
    assert one.digest == other.digest
    assert one != resolved(("stage", "se", {"reduction": 4, "gate": "tanh"}))
    assert architecture_cost(one, cifar()) == architecture_cost(other, cifar())
    built = registry.create("cse", 8, reduction=2)
    same = registry.create("se", 8, reduction=2, bias=True)
    same.load_state_dict(built.state_dict())
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(built(x), same(x))
