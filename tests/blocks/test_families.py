"""Which tensor each site is: by files that name them all, and by what blocks there change.

The forward pass of a unit of every family is written down here once more, as branch and shortcut,
and compared with what the network does when a block at a site returns zeros.
"""

import json
import subprocess
import sys

import pytest
import torch
from site_files import FOLDER, GOLDEN, read_rows, site_rows
from torch import nn
from torch.nn import functional

from blocks import backbone
from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.attach import attach
from blocks.backbone import TIMM_BACKBONES, site_table, trace_sites
from blocks.build import build_network
from blocks.errors import BackboneError
from blocks.families.classes import FAMILIES
from blocks.options import MapShape


class Zero(nn.Module):
    """A block that returns zeros; keeps what it was given."""

    def forward(self, x_BCHW):
        self.given = x_BCHW.clone()
        return torch.zeros_like(x_BCHW)


class Same(Zero):
    def forward(self, x_BCHW):
        self.given = x_BCHW.clone()
        return x_BCHW


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.filterwarnings("ignore:operators that are in no cost table")
def test_sites_are_as_filed(name):
    assert site_rows(name) == read_rows(name)


def test_every_family_has_a_file():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(GOLDEN)
    for names in TIMM_BACKBONES.values():
        assert set(names) & set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_no_two_sites_are_one_place(name):
    rows = read_rows(name)
    assert len({row[0] for row in rows}) == len({(row[1], row[2]) for row in rows}) == len(rows)


# Units, written down -----------------------------------------------------------------------------


def basic(unit, x):
    branch = unit.bn2(unit.conv2(functional.relu(unit.bn1(unit.conv1(x)))))
    return branch, x if unit.downsample is None else unit.downsample(x)


def bottleneck(unit, x):
    branch = functional.relu(unit.bn1(unit.conv1(x)))
    branch = unit.bn3(unit.conv3(functional.relu(unit.bn2(unit.conv2(branch)))))
    return branch, x if unit.downsample is None else unit.downsample(x)


def pre_activated(unit, x):
    active = unit.norm1(x)
    branch = unit.conv2(unit.norm2(unit.conv1(active)))
    if hasattr(unit, "conv3"):
        branch = unit.conv3(unit.norm3(branch))
    return branch, x if unit.downsample is None else unit.downsample(active)


def inverted(unit, x):
    wide = unit.bn2(unit.conv_dw(unit.bn1(unit.conv_pw(x))))
    return unit.bn3(unit.conv_pwl(wide)), x


def fused(unit, x):
    return unit.bn2(unit.conv_pwl(unit.bn1(unit.conv_exp(x)))), x


def convolution(unit, x):
    return unit.bn1(unit.conv(x)), x


def universal(unit, x):
    wide = unit.dw_mid(unit.pw_exp(unit.dw_start(x)))
    return unit.dw_end(unit.pw_proj(wide)), x


def ghost(unit, x):
    wide = unit.ghost1(x)
    if unit.conv_dw is not None:
        wide = unit.bn_dw(unit.conv_dw(wide))
    return unit.ghost2(wide), unit.shortcut(x)


def regnet(unit, x):
    return unit.conv3(unit.conv2(unit.conv1(x))), unit.downsample(x)


def relu_of_sum(branch, shortcut):
    return functional.relu(branch + shortcut)


# Backbone, unit's number and module, its forward pass, what is done to branch and shortcut.
UNITS = [
    ("resnet18", "stage1.unit2", "layer1.1", basic, relu_of_sum),
    ("resnet18", "stage2.unit1", "layer2.0", basic, relu_of_sum),
    ("resnet50", "stage2.unit1", "layer2.0", bottleneck, relu_of_sum),
    ("resnet50", "stage2.unit2", "layer2.1", bottleneck, relu_of_sum),
    ("resnet50d", "stage3.unit1", "layer3.0", bottleneck, relu_of_sum),
    ("seresnet50-plain", "stage3.unit2", "layer3.1", bottleneck, relu_of_sum),
    ("resnext50_32x4d", "stage2.unit2", "layer2.1", bottleneck, relu_of_sum),
    ("resnetv2_18", "stage2.unit1", "stages.1.blocks.0", pre_activated, torch.add),
    ("resnetv2_18", "stage1.unit1", "stages.0.blocks.0", pre_activated, torch.add),
    ("resnetv2_50", "stage1.unit1", "stages.0.blocks.0", pre_activated, torch.add),
    ("resnetv2_50", "stage2.unit2", "stages.1.blocks.1", pre_activated, torch.add),
    ("mobilenetv2_100", "stage3.unit2", "blocks.2.1", inverted, torch.add),
    ("mobilenetv3_small_100-plain", "stage3.unit2", "blocks.2.1", inverted, torch.add),
    ("mnasnet_100", "stage2.unit2", "blocks.1.1", inverted, torch.add),
    ("efficientnet_b0-plain", "stage3.unit1", "blocks.2.0", inverted, torch.add),
    ("efficientnet_b0-plain", "stage4.unit2", "blocks.3.1", inverted, torch.add),
    ("efficientnetv2_rw_t-plain", "stage1.unit1", "blocks.0.0", convolution, torch.add),
    ("efficientnetv2_rw_t-plain", "stage2.unit2", "blocks.1.1", fused, torch.add),
    ("mobilenetv4_conv_small", "stage3.unit2", "blocks.2.1", universal, torch.add),
    ("ghostnet_100-plain", "stage3.unit1", "blocks.3.0", ghost, torch.add),
    ("ghostnet_100-plain", "stage3.unit2", "blocks.4.0", ghost, torch.add),
    ("regnetx_004", "stage2.unit1", "s2.b1", regnet, relu_of_sum),
    ("regnety_004-plain", "stage3.unit2", "s3.b2", regnet, relu_of_sum),
]
# Units that do not add their input: what they return is their branch.
BRANCHES_ALONE = {("efficientnet_b0-plain", "stage3.unit1")}
SHAPE = (3, 64, 64)
EVERY_UNIT = pytest.mark.parametrize(
    ("name", "unit", "path", "forward", "joined"),
    UNITS,
    ids=[f"{row[0]}-{row[1]}" for row in UNITS],
)


def network_of(name):
    """A backbone for small images, in evaluation, with no norm near its start."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = backbone.backbone(name).build(10, 3, SHAPE[1:]).eval()
    if name.startswith("vgg"):
        network.pre_logits = network.head = nn.Identity()  # a hundred million numbers
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.uniform_(parameter, -0.5, 0.5)
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def ran(network, path):
    """What a module is given and returns when the network runs."""
    seen = {}

    def note(module, inputs, output):
        seen["given"], seen["returned"] = inputs[0].clone(), output.clone()

    hook = network.get_submodule(path).register_forward_hook(note)
    with torch.no_grad():
        network(torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1)))
    hook.remove()
    return seen["given"], seen["returned"]


def with_block(name, where, block):
    """The network with a block at a site, and the site."""
    network = network_of(name)
    (site,) = site_table(name, SHAPE, 10).expand(where)
    attach(network, site, block)
    return network, site


def unit_with_zeros(name, unit, path, position):
    """What a unit returns with a block of zeros at one of its positions."""
    network, site = with_block(name, f"{unit}.{position}", Zero())
    return ran(network, path)[1], site


@EVERY_UNIT
def test_standard_is_the_branch_and_identity_the_shortcut(name, unit, path, forward, joined):
    network = network_of(name)
    x, plain = ran(network, path)
    with torch.no_grad():
        branch, shortcut = forward(network.get_submodule(path), x)
    if (name, unit) in BRANCHES_ALONE:
        torch.testing.assert_close(plain, branch)
        assert site_table(name, SHAPE, 10).expand(f"{unit}.standard")[0].path == path
        return
    torch.testing.assert_close(plain, joined(branch, shortcut))
    zeros = torch.zeros_like(branch)
    without_branch, site = unit_with_zeros(name, unit, path, "standard")
    torch.testing.assert_close(without_branch, joined(zeros, shortcut))
    assert site.shape.channels == branch.shape[1]
    without_shortcut, site = unit_with_zeros(name, unit, path, "identity")
    torch.testing.assert_close(without_shortcut, joined(branch, zeros))
    assert site.shape.channels == shortcut.shape[1]


@EVERY_UNIT
def test_pre_leaves_the_shortcut(name, unit, path, forward, joined):
    if (name, unit) in BRANCHES_ALONE:
        with pytest.raises(BackboneError, match="no site"):
            site_table(name, SHAPE, 10).expand(f"{unit}.pre")
        return
    found, _ = unit_with_zeros(name, unit, path, "pre")
    network = network_of(name)
    x, _ = ran(network, path)
    host = network.get_submodule(path)
    with torch.no_grad():
        _, shortcut = forward(host, x)
        if forward is pre_activated:
            host.norm1 = nn.Identity()
        branch, _ = forward(host, torch.zeros_like(x))
    torch.testing.assert_close(found, joined(branch, shortcut))


@EVERY_UNIT
def test_post_is_what_the_unit_returns(name, unit, path, forward, joined):
    block = Same()
    network, site = with_block(name, f"{unit}.post", block)
    _, plain = ran(network_of(name), path)
    ran(network, site.path)
    torch.testing.assert_close(block.given, plain)
    network, site = with_block(name, f"{unit}.post", Zero())
    # The place has the unit's name, or that of the stage which ends with it.
    assert ran(network, site.path)[1].abs().sum() == 0


# Backbone, unit, the 3x3 or depthwise convolution, what comes behind it.
INNER = [
    ("resnet18", "stage1.unit1", "layer1.0.conv2", "layer1.0.bn2"),
    ("resnet50", "stage1.unit1", "layer1.0.conv2", "layer1.0.bn2"),
    ("resnetv2_50", "stage1.unit1", "stages.0.blocks.0.conv2", "stages.0.blocks.0.norm3"),
    ("mobilenetv2_100", "stage1.unit1", "blocks.0.0.conv_dw", "blocks.0.0.bn1"),
    ("mobilenetv2_100", "stage2.unit1", "blocks.1.0.conv_dw", "blocks.1.0.bn2"),
    ("mobilenetv3_small_100", "stage2.unit1", "blocks.1.0.conv_dw", "blocks.1.0.bn2"),
    ("efficientnetv2_rw_t", "stage2.unit1", "blocks.1.0.conv_exp", "blocks.1.0.bn1"),
    ("mobilenetv4_conv_small", "stage3.unit1", "blocks.2.0.dw_mid.conv", "blocks.2.0.dw_mid.bn"),
    ("ghostnet_100", "stage2.unit1", "blocks.1.0.conv_dw", "blocks.1.0.bn_dw"),
    ("regnetx_004", "stage1.unit1", "s1.b1.conv2.conv", "s1.b1.conv2.bn"),
    ("vgg11_bn", "stage1.unit1", "features.4", "features.5"),
]


@pytest.mark.parametrize(("name", "unit", "before", "behind"), INNER)
def test_inner_is_between_the_convolution_and_its_norm(name, unit, before, behind):
    _, made = ran(network_of(name), before)
    block = Zero()
    network, _ = with_block(name, f"{unit}.inner", block)
    given, _ = ran(network, behind)
    torch.testing.assert_close(block.given, made)
    assert given.abs().sum() == 0


# Backbone, unit, its projection, the activation's smallest and largest number.
EXPANDED = [
    ("mobilenetv2_100", "stage2.unit1", "blocks.1.0.conv_pwl", 0, 6),
    ("mobilenetv3_small_100-plain", "stage2.unit1", "blocks.1.0.conv_pwl", 0, None),
    ("mobilenetv3_small_100-plain", "stage3.unit1", "blocks.2.0.conv_pwl", -0.375, None),
    ("efficientnet_b0-plain", "stage2.unit1", "blocks.1.0.conv_pwl", -0.2785, None),
    ("efficientnetv2_rw_t-plain", "stage2.unit1", "blocks.1.0.conv_pwl", -0.2785, None),
    ("regnetx_004", "stage1.unit1", "s1.b1.conv3.conv", 0, None),
    ("regnety_004-plain", "stage1.unit1", "s1.b1.conv3.conv", 0, None),
]


@pytest.mark.parametrize(("name", "unit", "projection", "low", "high"), EXPANDED)
def test_expanded_is_active_and_projected(name, unit, projection, low, high):
    plain, _ = ran(network_of(name), projection)
    block = Zero()
    network, _ = with_block(name, f"{unit}.expanded", block)
    given, _ = ran(network, projection)
    torch.testing.assert_close(block.given, plain)
    assert given.abs().sum() == 0
    assert plain.min() >= low
    assert high is None or plain.max() <= high


STEMS = [
    ("resnet50d", "layer1"),
    ("resnetv2_50", "stages.0"),
    ("densenet121", "features.denseblock1"),
    ("mobilenetv2_100", "blocks.0"),
    ("ghostnet_100", "blocks.0"),
    ("regnetx_004", "s1"),
    ("vgg11_bn", "features.4"),
    ("vgg16", "features.2"),
    ("inception_v4", "features.6"),
]


@pytest.mark.parametrize(("name", "first"), STEMS)
def test_stem_is_the_input_of_the_first_stage(name, first, monkeypatch):
    monkeypatch.setitem(globals(), "SHAPE", (3, 96, 96))
    plain, _ = ran(network_of(name), first)
    block = Zero()
    network, _ = with_block(name, "stem", block)
    given, _ = ran(network, first)
    torch.testing.assert_close(block.given, plain)
    assert given.abs().sum() == 0


# Families whose units add nothing ----------------------------------------------------------------


def test_a_dense_layers_new_channels_are_what_its_block_gets():
    network, site = with_block("densenet121", "stage1.unit3.standard", Zero())
    _, joined = ran(network, "features.denseblock1")
    first, growth = 64 + 2 * 32, 32
    assert site.shape == MapShape(growth, 16, 16)
    assert joined[:, first : first + growth].abs().sum() == 0
    others = [joined[:, :first], joined[:, first + growth :]]
    assert all(part.abs().amax(dim=(0, 2, 3)).min() > 0 for part in others)


def test_a_block_before_a_dense_layer_leaves_the_joined_channels():
    _, plain = ran(network_of("densenet121"), "features.denseblock1")
    network, site = with_block("densenet121", "stage1.unit3.pre", Zero())
    _, joined = ran(network, "features.denseblock1")
    assert site.shape.channels == 128
    torch.testing.assert_close(joined[:, :128], plain[:, :128])
    assert (joined[:, 128:160] - plain[:, 128:160]).abs().max() > 0.01


def test_the_stage_of_densenet_is_before_its_transition():
    block = Zero()
    network, site = with_block("densenet121", "stage1", block)
    given, _ = ran(network, "features.transition1")
    assert site.shape.channels == block.given.shape[1] == 256
    assert given.abs().sum() == 0


def test_standard_in_vgg_is_between_norm_and_activation():
    block = Zero()
    network, _ = with_block("vgg16_bn", "stage2.unit1.standard", block)
    given, _ = ran(network, "features.9")
    assert isinstance(network.get_submodule("features.9"), nn.ReLU)
    assert given.abs().sum() == 0
    assert block.given.min() < 0


def test_a_stage_of_vgg_ends_before_its_pooling():
    block = Zero()
    network, _ = with_block("vgg16_bn", "stage2", block)
    given, _ = ran(network, "features.13")
    assert isinstance(network.get_submodule("features.13"), nn.MaxPool2d)
    assert block.given.min() == 0
    assert given.abs().sum() == 0


def test_the_whole_module_of_inception_is_standard(monkeypatch):
    monkeypatch.setitem(globals(), "SHAPE", (3, 96, 96))
    block = Zero()
    network, site = with_block("inception_v3", "stage1.unit1.standard", block)
    given, _ = ran(network, "Mixed_5c")
    assert site.shape.channels == 64 + 64 + 96 + 32
    assert given.abs().sum() == 0


def test_two_names_of_a_place_are_one_architecture():
    table = site_table("mobilenetv2_100", SHAPE, 10)

    def digest(where):
        placement = Placement(where, "se", {"reduction": 4})
        return resolve(Architecture("mobilenetv2_100", (placement,)), table).digest

    assert digest("stage2.unit1.standard") == digest("stage2.unit1.post")
    assert digest("stage2.unit2.standard") != digest("stage2")
    assert digest("stage1.unit1.standard") == digest("stage1")


# Published counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "options", "where", "params"),
    [
        ("coord", {"reduction": 32}, "in-block.expanded", 3_950_648),
        ("triplet", {}, "in-block", 3_509_972),
        ("simam", {}, "in-block.inner", 3_504_872),
        ("se", {"reduction": 24, "bias": True}, "in-block.expanded", 3_888_208),
        ("cbam", {"reduction": 24}, "in-block.expanded", 3_889_808),
    ],
)
def test_mobilenetv2_with_attention_has_the_published_parameters(block, options, where, params):
    table = site_table("mobilenetv2_100", (3, 224, 224), 1000)
    given = Architecture("mobilenetv2_100", (Placement(where, block, options),))
    assert architecture_cost(resolve(given, table), table).params == params
    with torch.device("meta"):
        network = build_network(given, num_classes=1000, input_size=224)
    assert sum(p.numel() for p in network.parameters()) == params


def test_eca_in_mobilenetv2_has_the_authors_kernels():
    """1 where a map has fewer than 96 channels, else 3: 31 parameters (ECA-Net's README)."""
    table = site_table("mobilenetv2_100", (3, 224, 224), 1000)
    placements = [
        Placement(site.name, "eca", {"kernel_size": 1 if site.shape.channels < 96 else 3})
        for site in table.expand("in-block")
    ]
    resolved = resolve(Architecture("mobilenetv2_100", tuple(placements)), table)
    assert architecture_cost(resolved, table).params == 3_504_903


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnext50_32x4d", 25_028_904),
        ("wide_resnet50_2", 68_883_240),
        ("densenet121", 7_978_856),
        ("mobilenetv2_100", 3_504_872),
        ("mobilenetv3_large_100", 5_483_032),
        ("efficientnet_b0", 5_288_548),
        ("vgg16", 138_357_544),
        ("seresnet50", 28_088_024),
    ],
)
def test_backbones_have_the_published_parameters(name, params):
    assert site_table(name, (3, 224, 224), 1000).cost.params == params


# Own attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "modules", "where"),
    [
        ("seresnet50", 16, {"standard"}),
        ("mobilenetv3_large_100", 8, {"expanded"}),
        ("mobilenetv3_small_100", 9, {"expanded", "own"}),
        ("efficientnet_b0", 16, {"expanded", "own"}),
        ("regnety_004", 16, {"expanded"}),
        ("ghostnet_100", 7, {"expanded"}),
    ],
)
def test_own_attention_is_counted_and_taken_out(name, modules, where):
    published = site_table(name, (3, 224, 224), 1000)
    plain = site_table(f"{name}-plain", (3, 224, 224), 1000)
    assert (published.own_attention, plain.own_attention) == (modules, 0)
    assert published.sites == plain.sites
    own = plain.expand("in-block.own")
    assert len(own) == modules
    assert {site.position for site in own} == where
    # What was taken out: two 1x1 convolutions with a bias, C -> hidden -> C.
    with torch.device("meta"):
        network = backbone.backbone(name).build(1000, 3, (224, 224))
    taken = [m for n, m in network.named_modules() if n.endswith((".se", ".attn"))]
    taken = [sum(p.numel() for p in m.parameters()) for m in taken if list(m.parameters())]
    assert len(taken) == modules
    assert published.cost.params - plain.cost.params == sum(taken)


def test_own_attention_can_be_put_back():
    """The SE of the official SE-ResNet-50, with biases, in place of timm's, which is the same."""
    placement = Placement("in-block.own", "se", {"reduction": 16, "bias": True})
    with torch.device("meta"):
        network = build_network(
            Architecture("seresnet50-plain", (placement,)), num_classes=1000, input_size=224
        )
    assert sum(p.numel() for p in network.parameters()) == 28_088_024


def test_a_plain_network_keeps_all_else():
    published, plain = (
        network_of("mobilenetv3_small_100"),
        network_of("mobilenetv3_small_100-plain"),
    )
    kept = {name for name in published.state_dict() if ".se." not in name}
    assert set(plain.state_dict()) == kept
    for module in published.modules():
        if type(module).__name__ == "SqueezeExcite":
            module.forward = lambda x: x
    plain.load_state_dict({name: published.state_dict()[name] for name in kept})
    x = torch.randn(1, *SHAPE)
    torch.testing.assert_close(plain(x), published(x))


def test_attention_that_is_not_there_or_cannot_be_taken_out_is_said():
    with pytest.raises(BackboneError, match="resnet18 has no attention of its own to take out"):
        trace_sites("resnet18-plain", SHAPE, 10)
    message = r"resnest14d-plain cannot be made: .* part of its convolutions \(SplitAttn\)"
    with pytest.raises(BackboneError, match=message):
        trace_sites("resnest14d-plain", SHAPE, 10)


# Other networks ----------------------------------------------------------------------------------


def test_every_class_has_its_adapter():
    import timm

    named = {"densenet121", "mobilenetv2_100", "ghostnet_100", "inception_v3", "inception_v4"}
    named |= {"mobilenetv3_small_100", "regnetx_004", "resnet18", "resnetv2_18", "vgg11"}
    with torch.device("meta"):
        classes = {type(timm.create_model(name)).__name__ for name in named}
    assert classes <= set(FAMILIES)


OTHERS = ["xception41", "poolformer_s12", "volo_d1_224", "convit_tiny", "mixer_s32_224"]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore:operators that are in no cost table")
def test_a_network_of_another_class_has_stem_and_stages(name):
    table = site_table(name, (3, 224, 224), 10)
    assert {site.placement for site in table.sites} == {"stem", "stage"}
    with pytest.raises(
        BackboneError, match=f"{name} has no site 'in-block': in-block is not known"
    ):
        table.expand("in-block")
    placements = (Placement("stem", "eca"), Placement("stage", "se"))
    with torch.device("meta"):
        network = build_network(Architecture(name, placements), input_size=224)
        assert network(torch.empty(1, 3, 224, 224)).shape == (1, 10)
    blocks = [m for m in network.modules() if hasattr(m, "attention_site")]
    assert len(blocks) == len(table.sites)


def test_class_tokens_that_join_the_patches_late_pass_by_from_there():
    stages = [site for site in site_table("convit_tiny", (3, 224, 224), 10).sites if site.stage]
    assert [site.prefix for site in stages] == [0] * 10 + [1] * 2
    assert {site.grid for site in stages} == {(14, 14)}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hrnet_w18_small", "its feature 'stem' is no module"),
        ("crossvit_tiny_240", "its feature 'blocks.0' is no map"),
    ],
)
def test_features_that_cannot_be_located_are_said(name, why):
    with pytest.raises(BackboneError, match=f"no sites are known for .*: {why}"):
        trace_sites(name, (3, 240, 240), 10)


def test_units_of_the_same_class_that_are_not_known_have_what_is_certain():
    table = site_table("res2net50_26w_4s", SHAPE, 10)
    assert table.positions == ("standard", "pre", "post", "identity")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("mobilenetv2_10", "mobilenetv2_100"),
        ("resnest14", "resnest14d"),
        ("resnet21", "resnet20"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(given, meant):
    message = f"unknown backbone {given!r}. Did you mean '{meant}.*any other model of timm"
    with pytest.raises(BackboneError, match=message):
        backbone.backbone(given)


def test_names_of_timm_are_kept_so_that_timm_is_imported_once(tmp_path):
    code = (
        "import sys; from blocks.backbone import backbone;"
        "print(backbone('cspresnet50').name, backbone('efficientnet_b4-plain').name,"
        " 'timm' in sys.modules)"
    )

    def run():
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        )
        return found.stdout.split()

    assert run() == ["cspresnet50", "efficientnet_b4-plain", "True"]
    (kept,) = (tmp_path / "attention-search").glob("timm-*-models.json")
    assert "cspresnet50" in json.loads(kept.read_text())
    assert run() == ["cspresnet50", "efficientnet_b4-plain", "False"]
