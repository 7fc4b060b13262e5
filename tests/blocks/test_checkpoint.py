import functools

import authors
import pytest
import torch

from blocks import registry
from blocks.architecture import architecture_cost
from blocks.backbone import site_table
from blocks.checkpoint import load_published, stored_frequency
from blocks.errors import BackboneError, BlockError, CheckpointError
from blocks.fca import FrequencyChannelAttention
from blocks.published import PUBLISHED, WITHOUT, published_as, recognise

K3357 = functools.partial(authors.Efficient, kernels=(3, 3, 5, 7))
K3557 = functools.partial(authors.Efficient, kernels=(3, 5, 5, 7))
LOW2 = functools.partial(authors.Frequency, pairs=((0, 0), (0, 1)))
ASKEW = functools.partial(authors.Frequency, pairs=((3, 1), (0, 5), (6, 2), (1, 4)))
NO_SPATIAL = functools.partial(authors.Triplet, spatial=False)


def resnet(depth, name, attention):
    return lambda: authors.ResNet(depth, name, attention)


# block, the authors' network, backbone here, parameters published (BLOCKS.md, section 14)
NETWORKS = {
    "se-resnet18": ("se", resnet(18, "se", authors.Squeeze), "resnet18", 11_776_552),
    "se-resnet50": ("se", resnet(50, "se", authors.Squeeze), "resnet50", 28_071_976),
    "se-resnet152": ("se", resnet(152, "se", authors.Squeeze), "resnet152", 66_770_984),
    "eca-resnet18": ("eca", resnet(18, "eca", authors.Efficient), "resnet18", 11_689_556),
    "eca-resnet34": ("eca", resnet(34, "eca", K3357), "resnet34", 21_797_744),
    "eca-resnet50": ("eca", resnet(50, "eca", K3557), "resnet50", 25_557_112),
    "eca-resnet101": ("eca", resnet(101, "eca", K3357), "resnet101", 44_549_317),
    "eca-resnet152": ("eca", resnet(152, "eca", K3357), "resnet152", 60_193_042),
    "fcanet34": ("fca", resnet(34, "att", authors.Frequency), "resnet34", 21_954_856),
    "fcanet50": ("fca", resnet(50, "att", authors.Frequency), "resnet50", 28_071_976),
    "fcanet101": ("fca", resnet(101, "att", authors.Frequency), "resnet101", 49_292_328),
    "fcanet152": ("fca", resnet(152, "att", authors.Frequency), "resnet152", 66_770_984),
    "cbam-resnet18": ("cbam", resnet(18, "cbam", authors.Cbam), "resnet18", 11_779_392),
    "cbam-resnet34": ("cbam", resnet(34, "cbam", authors.Cbam), "resnet34", 21_960_468),
    "cbam-resnet50": ("cbam", resnet(50, "cbam", authors.Cbam), "resnet50", 28_089_624),
    "cbam-resnet101": ("cbam", resnet(101, "cbam", authors.Cbam), "resnet101", 49_330_172),
    "triplet-resnet18": (
        *("triplet", resnet(18, "triplet_attention", authors.Triplet)),
        *("resnet18", 11_691_912),
    ),
    "triplet-resnet18, newer names": (
        *("triplet", resnet(18, "triplet_attention", authors.NewTriplet)),
        *("resnet18", 11_691_912),
    ),
    "triplet-resnet50": (
        *("triplet", resnet(50, "triplet_attention", authors.Triplet)),
        *("resnet50", 25_561_832),
    ),
    "spse-resnet50": (
        *("spse", lambda: authors.PooledResNet(50, grid=False)),
        *("resnet50", 28_480_728),
    ),
    "spse-resnet101": (
        *("spse", lambda: authors.PooledResNet(101, grid=False)),
        *("resnet101", 50_172_184),
    ),
    "rgse-resnet50": (
        *("rgse", lambda: authors.PooledResNet(50, grid=True)),
        *("resnet50", 28_212_440),
    ),
    "rgse-resnet152": (
        *("rgse", lambda: authors.PooledResNet(152, grid=True)),
        *("resnet152", 67_167_448),
    ),
    "CNNtention selfatt": (
        *("selfatt", lambda: authors.SmallResNet(authors.SelfAttention)),
        *("resnet20", 286_189),
    ),
    "CNNtention mha": (
        *("mha", lambda: authors.SmallResNet(authors.MultiHead)),
        *("resnet20", 291_677),
    ),
    "se-resnet20": ("se", lambda: authors.SmallResNet(squeezed=True), "resnet20-b", 274_490),
}


DEEP = ("101", "152")  # the same names as at 50, more of them
SLOW_LAST = [
    pytest.param(name, marks=pytest.mark.slow if name.endswith(DEEP) else ()) for name in NETWORKS
]


@pytest.mark.parametrize("name", SLOW_LAST)
def test_names_and_shapes_of_every_published_network_fit(name):
    block, build, backbone, published = NETWORKS[name]
    with torch.device("meta"):
        theirs = build()
    state = dict(theirs.state_dict())
    assert sum(p.numel() for p in theirs.parameters()) == published
    # Zeros in every shape, but for the DCT basis, whose numbers are compared.
    state = {k: torch.zeros(t.shape) if t.is_meta else t for k, t in state.items()}
    loaded = load_published(state, block)
    assert loaded.architecture.backbone == backbone
    assert sum(p.numel() for p in loaded.network.parameters()) == published
    height, width = loaded.architecture.input_size
    sites = site_table(backbone, (loaded.in_channels, height, width), loaded.num_classes)
    assert architecture_cost(loaded.architecture, sites).params == published
    assert sum(row.tensors for row in loaded.names) == len(state)
    assert loaded.counters_added == 0
    assert {p.block for p in loaded.architecture.placements} == {block}


# Names and shapes as they stand in the authors' code.
RECORDED = {
    "se-resnet50": {
        "layer1.0.se.fc.0.weight": (16, 256),
        "layer4.2.se.fc.2.weight": (2048, 128),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    },
    "eca-resnet50": {"layer1.2.eca.conv.weight": (1, 1, 3), "layer4.0.eca.conv.weight": (1, 1, 7)},
    "fcanet50": {
        "layer1.0.att.dct_layer.weight": (256, 56, 56),
        "layer4.2.att.dct_layer.weight": (2048, 7, 7),
        "layer3.5.att.fc.0.weight": (64, 1024),
    },
    "cbam-resnet50": {
        "layer2.0.cbam.ChannelGate.mlp.1.weight": (32, 512),
        "layer2.0.cbam.ChannelGate.mlp.3.bias": (512,),
        "layer2.0.cbam.SpatialGate.spatial.conv.weight": (1, 2, 7, 7),
        "layer2.0.cbam.SpatialGate.spatial.bn.running_var": (1,),
    },
    "triplet-resnet18": {
        "layer4.1.triplet_attention.ChannelGateH.spatial.conv.weight": (1, 2, 7, 7),
        "layer4.1.triplet_attention.SpatialGate.spatial.bn.weight": (1,),
    },
    "triplet-resnet18, newer names": {
        "layer4.1.triplet_attention.cw.conv.conv.weight": (1, 2, 7, 7),
        "layer4.1.triplet_attention.hw.conv.bn.weight": (1,),
    },
    "spse-resnet50": {
        "layer1.layer1_block_0.conv_conv1.weight": (64, 64, 1, 1),
        "layer1.layer1_block_0.fc_spatial4.weight": (256, 1, 4, 4),
        "layer1.layer1_block_0.fc_bn.running_mean": (256,),
        "layer1.layer1_block_0.shortcut.shortcut_conv.weight": (256, 64, 1, 1),
        "layer4.layer4_block_2.fc_extention.weight": (2048, 128),
    },
    "rgse-resnet50": {
        "layer1.layer1_block_0.fc_spatial.fc_spatial.weight": (256, 1, 8, 8),
        "layer3.layer3_block_5.fc_spatial.bn_spatial.weight": (1024,),
        "layer4.layer4_block_2.fc_reduction.bias": (128,),
    },
    "CNNtention selfatt": {"att1.value.weight": (16, 16, 1, 1), "att3.weights": (1,)},
    "CNNtention mha": {"att2.val.bias": (32,), "att2.linear.weight": (32, 32, 1, 1)},
    "se-resnet20": {"layer2.0.downsample.1.weight": (32,), "layer3.2.se.fc.0.weight": (4, 64)},
}


@pytest.mark.parametrize("name", RECORDED)
def test_networks_written_down_have_the_recorded_names(name):
    with torch.device("meta"):
        state = NETWORKS[name][1]().state_dict()
    assert {n: tuple(state[n].shape) for n in RECORDED[name]} == RECORDED[name]


def test_the_stored_bases_of_fcanet50_are_as_many_numbers_as_are_counted():
    with torch.device("meta"):
        state = authors.ResNet(50, "att", authors.Frequency).state_dict()
    assert sum(t.numel() for name, t in state.items() if "dct_layer" in name) == 5_519_360


def drawn(network, seed=0):
    """A network whose every number is drawn, norms so that nothing grows; its basis is kept."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point() or "dct_layer" in name:
                continue
            if name.endswith(("running_var", "weight")) and tensor.dim() == 1:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            else:
                wide = max(1, tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else 2.0
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / wide)
    return network.eval()


FUNCTIONS = {
    "se": ("se", resnet(18, "se", authors.Squeeze), 64),
    "se-resnet20": ("se", lambda: authors.SmallResNet(squeezed=True), 32),
    "eca": ("eca", resnet(18, "eca", authors.Efficient), 64),
    "fca top16": ("fca", resnet(34, "att", authors.Frequency), 224),
    "fca low2": ("fca", resnet(18, "att", LOW2), 224),
    "fca, pooled first": ("fca", resnet(18, "att", ASKEW), 160),
    "cbam": ("cbam", resnet(18, "cbam", authors.Cbam), 64),
    "triplet": ("triplet", resnet(18, "triplet_attention", authors.Triplet), 96),
    "triplet, newer names": ("triplet", resnet(18, "triplet_attention", authors.NewTriplet), 64),
    "triplet, two branches": ("triplet", resnet(18, "triplet_attention", NO_SPATIAL), 64),
    "spse": ("spse", lambda: authors.PooledResNet(50, grid=False), 48),
    "rgse": ("rgse", lambda: authors.PooledResNet(50, grid=True), 224),
    "selfatt": ("selfatt", lambda: authors.SmallResNet(authors.SelfAttention), 32),
    "mha": ("mha", lambda: authors.SmallResNet(authors.MultiHead), 32),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loaded_network_is_the_authors_function(name):
    block, build, side = FUNCTIONS[name]
    theirs = drawn(build())
    loaded = load_published(theirs.state_dict(), block, input_size=(side, side))
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, out = theirs(x), loaded.network(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(out, expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


def broken(state, exchange):
    names = {old: new for one, other in exchange for old, new in ((one, other), (other, one))}
    renamed = {}
    for name, tensor in state.items():
        part = next((p for p in names if f".{p}." in name), None)
        renamed[name.replace(f".{part}.", f".{names[part]}.") if part else name] = tensor
    return renamed


@pytest.mark.parametrize(
    ("name", "exchange"),
    [("mha", ("query", "key")), ("triplet", ("ChannelGateH", "ChannelGateW"))],
)
def test_the_comparison_would_see_a_wrong_renaming(name, exchange):
    block, build, side = FUNCTIONS[name]
    theirs = drawn(build())
    loaded = load_published(broken(theirs.state_dict(), [exchange]), block, input_size=(side, side))
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = (theirs(x) - loaded.network(x)).abs().max() / theirs(x).std()
    assert difference > 1e-3


# What the files say of themselves ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("attention", "frequencies"),
    [
        (authors.Frequency, "0,0+0,1+6,0+0,5+0,2+1,0+1,2+4,0+5,0+1,6+3,0+0,4+0,6+0,3+3,5+2,2"),
        (LOW2, "0,0+0,1"),
        (ASKEW, "3,1+0,5+6,2+1,4"),
    ],
)
def test_frequencies_are_read_off_the_stored_basis(attention, frequencies):
    state = drawn(authors.ResNet(18, "att", attention)).state_dict()
    loaded = load_published(state, "fca")
    options = [dict(p.options) for p in loaded.architecture.placements]
    assert {o["frequency"] for o in options} == {frequencies}
    assert all("dct_size" not in o for o in options)  # at 224 the maps are those of the basis
    (dropped,) = [row for row in loaded.names if not row.ours]
    assert (dropped.theirs, dropped.tensors) == ("layer{S}.{U}.att.dct_layer.weight", 8)
    assert "DCT basis" in dropped.reason


@pytest.mark.parametrize("side", [7, 14, 28, 56])
def test_the_authors_basis_is_ours(side):
    planes = {56: 64, 28: 128, 14: 256, 7: 512}[side]
    theirs = authors.Frequency(planes, planes).dct_layer.weight
    ours = FrequencyChannelAttention(planes, frequency="top16").bases(theirs[None])
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


def test_a_basis_that_is_no_dct_is_refused():
    basis = torch.rand(32, 7, 7, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CheckpointError, match="not one of the DCT"):
        stored_frequency(basis)
    with pytest.raises(CheckpointError, match="of 7 x 14; a square one"):
        stored_frequency(torch.rand(32, 7, 14))


def test_another_frequency_than_that_of_the_file_is_refused():
    state = authors.ResNet(18, "att", LOW2).state_dict()
    with pytest.raises(CheckpointError, match=r"basis is of frequency 0,0\+0,1 and differs by"):
        load_published(state, "fca", options={"frequency": "top4"})
    # Both halves of the channels, turned: rows and columns are told apart.
    with pytest.raises(CheckpointError, match=r"differs by"):
        load_published(state, "fca", options={"frequency": "0,0+1,0"})
    assert load_published(state, "fca", options={"frequency": "low2"})


def test_kernels_are_read_off_stage_by_stage():
    state = authors.ResNet(18, "eca", authors.Efficient).state_dict()
    placements = load_published(state, "eca").architecture.placements
    kernels = [dict(p.options)["kernel_size"] for p in placements]
    assert kernels == [3, 3, 5, 5, 7, 7, 7, 7]


def test_what_a_file_does_not_say_is_given():
    theirs = drawn(authors.SmallResNet(functools.partial(authors.MultiHead, heads=4)))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    state = theirs.state_dict()
    four = load_published(state, "mha", options={"heads": 4})
    eight = load_published(state, "mha")
    with torch.no_grad():
        torch.testing.assert_close(four.network(x), theirs(x), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(eight.network(x), theirs(x), rtol=1e-2)


def test_classes_and_biases_are_read_off():
    state = dict(authors.ResNet(18, "se", authors.Squeeze, classes=17).state_dict())
    for name in list(state):
        if ".se.fc." in name:
            state[name.replace("weight", "bias")] = torch.zeros(state[name].shape[0])
    loaded = load_published(state, "se")
    assert loaded.num_classes == 17
    assert all(dict(p.options)["bias"] for p in loaded.architecture.placements)


def test_old_files_have_no_counters_of_batches():
    state = authors.ResNet(18, "se", authors.Squeeze).state_dict()
    old = {name: t for name, t in state.items() if "num_batches" not in name}
    loaded = load_published(old, "se")
    assert loaded.counters_added == len(state) - len(old) == 20


def test_layers_as_convolutions_become_linear_layers_and_half_becomes_single():
    state = drawn(authors.ResNet(18, "se", authors.Squeeze)).state_dict()
    other = {
        name: t[:, :, None, None].half() if ".se.fc." in name else t for name, t in state.items()
    }
    network = load_published(other, "se").network
    kept = network.get_submodule("layer1.0.bn2.attention").squeeze.weight
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept, state["layer1.0.se.fc.0.weight"], rtol=1e-3, atol=1e-3)


def test_the_file_and_the_network_do_not_share_memory():
    state = authors.SmallResNet(squeezed=True).state_dict()
    loaded = load_published(state, "se")
    before = loaded.network.fc.weight.clone()
    state["fc.weight"].add_(1)
    assert torch.equal(loaded.network.fc.weight, before)
    assert loaded.network.fc.weight.requires_grad


# What is refused ---------------------------------------------------------------------------------


def small(**changes):
    state = dict(authors.SmallResNet(squeezed=True).state_dict())
    for name, tensor in changes.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    return state


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"layer2.1.se.fc.0.weight": None},
            [
                r"1 missing, 0 left over",
                r"missing: layer2\.1\.bn2\.attention\.squeeze\.weight \(2, 32\)",
            ],
        ),
        (
            {
                "layer1.0.conv2.weight": None,
                "layer1.0.convolution2.weight": torch.zeros(16, 16, 3, 3),
            },
            [
                r"missing: layer1\.0\.conv2\.weight \(16, 16, 3, 3\)",
                r"Did you mean 'layer1\.0\.convolution2\.weight'",
                r"left over: layer1\.0\.convolution2\.weight \(16, 16, 3, 3\)",
            ],
        ),
        ({"bam1.weight": torch.zeros(3)}, [r"1 left over", r"left over: bam1\.weight \(3,\)"]),
        (
            {"layer1.0.conv2.weight": torch.zeros(16, 16, 5, 5)},
            [r"layer1\.0\.conv2\.weight is \(16, 16, 5, 5\), and \(16, 16, 3, 3\) is needed"],
        ),
        (
            {"layer4.7.se.fc.0.weight": torch.zeros(1, 8)},
            [r"left over: stage 4, unit 8: squeeze\.weight \(1, 8\)"],
        ),
        ({"fc.weight": None}, [r"fc\.weight with 2 dimensions is missing"]),
        (
            {"layer3.3.conv1.weight": torch.zeros(64, 64, 3, 3)},
            [r"no backbone has \(3, 3, 4\) units", r"resnet20 \(basic, \(3, 3, 3\)\)"],
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(changes, words):
    with pytest.raises(CheckpointError) as refusal:
        load_published(small(**changes), "se")
    for expected in words:
        refusal.match(expected)


def test_another_block_than_the_files_is_named():
    state = authors.ResNet(18, "att", authors.Frequency).state_dict()
    message = r"named as in FcaNet \(cfzd/FcaNet\), not as in SE-ResNet .*: --as fca, not --as se"
    with pytest.raises(CheckpointError, match=message):
        load_published(state, "se")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[("CNNtention mha", "selfatt"), ("CNNtention selfatt", "mha")],
        *[("spse-resnet50", "rgse"), ("rgse-resnet50", "spse")],
    ],
)
def test_networks_that_share_names_are_told_apart(name, wrong):
    block, build, *_ = NETWORKS[name]
    with torch.device("meta"):
        state = build().state_dict()
    assert recognise(state, block).block == block
    with pytest.raises(CheckpointError, match=f"--as {block}, not --as {wrong}"):
        recognise(state, wrong)


def test_a_plain_network_has_no_attention_to_load():
    state = authors.ResNet(18).state_dict()
    with pytest.raises(CheckpointError, match=r"such as layer\{S\}\.\{U\}\.eca\.conv\.weight"):
        load_published(state, "eca")


def test_networks_that_no_option_builds_are_refused_with_the_reason():
    caffe = {"layer0.conv1.weight": torch.zeros(1), "layer1.0.se_module.fc1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="stride is in the first 1x1 convolution"):
        load_published(caffe, "se")
    cbam = {"att1.spatial_attention.conv.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="layers have no biases"):
        load_published(cbam, "cbam")


def test_simam_loads_where_its_place_is_a_site_and_is_refused_elsewhere():
    theirs = drawn(authors.ResNet(18, "", authors.Energy))
    positions = {s.position for s in site_table("resnet18", (3, 64, 64), 1000).sites}
    given = {"options": {"energy_lambda": 0.1}, "input_size": (64, 64)}
    if "inner" not in positions:
        with pytest.raises(BackboneError, match="between a unit's 3x3 convolution and its norm"):
            load_published(theirs.state_dict(), "simam", **given)
        return
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    network = load_published(theirs.state_dict(), "simam", **given).network
    with torch.no_grad():
        torch.testing.assert_close(network(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_blocks_without_published_weights_say_why():
    for block, reason in WITHOUT.items():
        with pytest.raises(CheckpointError, match=reason):
            published_as(block)
    with pytest.raises(BlockError, match="unknown block 'sea'"):
        published_as("sea")
    with pytest.raises(CheckpointError, match="no published network"):
        published_as("none")


def test_every_block_is_in_the_table_or_has_a_reason():
    published = {row.block for row in PUBLISHED}
    own = {spec.name for spec in registry.specs() if ":" not in spec.name}  # not another library's
    assert published | set(WITHOUT) == own
    assert not published & set(WITHOUT)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(BlockError, match="se has no option 'reducton'"):
        load_published(small(), "se", options={"reducton": 4})
    with pytest.raises(
        CheckpointError, match=r"squeeze\.weight is \(1, 16\), and \(4, 16\) is needed"
    ):
        load_published(small(), "se", options={"reduction": 4})
