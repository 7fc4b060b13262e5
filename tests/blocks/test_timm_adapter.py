"""timm's own modules as blocks: the numbers are timm's, no option is hidden and none is idle."""

import copy
import importlib
import inspect
import pickle
import re

import pytest
import timm
import torch
from timm import layers
from torch import nn

from blocks import registry, timm_adapter
from blocks.architecture import Architecture, Placement, has_closed_cost, label, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import block_cost, measure_cost
from blocks.errors import BlockError, SiteError
from blocks.formulas import Cost
from blocks.options import MapShape
from blocks.timm_options import ACTIVATIONS, GATES, multiple_near
from blocks.timm_table import MODULES

FACTORY = importlib.import_module("timm.layers.create_attn")
CHANNELS = 64
NAMES = registry.adapted_names()
EVERY_MODULE = pytest.mark.parametrize("name", NAMES)


def timm_class(name):
    return getattr(FACTORY, name)


def draw(module, seed=0, spread=1.0):
    """All parameters and statistics anew: timm starts some of them at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in sorted(module.state_dict().items()):
            if tensor.is_floating_point():
                middle = 1.0 if key.endswith("running_var") else 0.0
                numbers = torch.rand(tensor.shape, generator=generator) - 0.5
                tensor.copy_(middle + (numbers if middle else spread * numbers))
    return module


def maps(size, batch=2, channels=CHANNELS, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, *size, dtype=dtype, generator=generator)
    return x if scale == 1 else scale * (x + x[:, :, :1, :1])  # means that are far from 0


def at_site(name, size, channels=CHANNELS, **options):
    """The block as a site of this map has it."""
    in_use = registry.spec(name).in_use(options, MapShape(channels, *size))
    return registry.create(name, channels, **in_use)


# The table and the installed timm. ---------------------------------------------------------------


def test_every_module_that_timm_names_is_here():
    source = inspect.getsource(FACTORY.get_attn)
    named = re.findall(r"attn_type == '(\w+)'", source)
    assert len(named) > 15
    assert set(named) == set(MODULES)
    assert [f"timm:{name}" for name in MODULES] == list(NAMES)


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_of_timm_is_an_option_or_has_a_reason(name):
    row = MODULES[name]
    parameters = set(inspect.signature(timm_class(row.timm_class)).parameters)
    assert not set(row.options_of) & set(row.reasons)
    told = set(row.options_of) | set(row.reasons)
    assert parameters - told == set()
    assert told - parameters <= {"device", "dtype"}  # split attention takes them by its kwargs
    assert all(reason.strip() for reason in row.reasons.values())


# No parameter has these options' names: timm's rule takes two flags for one of them, and the outer
# residual is every block's.
NOT_TIMMS = {"residual"}


@EVERY_MODULE
def test_every_option_is_a_parameter_of_timm(name):
    row = MODULES[name.removeprefix("timm:")]
    named = {option for options in row.options_of.values() for option in options}
    assert {o.name for o in registry.spec(name).options} == named | NOT_TIMMS


@EVERY_MODULE
def test_defaults_are_timms(name):
    """Of the parameters that options stand for one by one and as they are."""
    row = MODULES[name.removeprefix("timm:")]
    parameters = inspect.signature(timm_class(row.timm_class)).parameters
    for parameter, (option,) in row.options_of.items():
        stated = parameters[parameter].default
        ours = next((o.default for o in registry.spec(name).options if o.name == option), None)
        if parameter == "rd_ratio":
            assert 1 / ours == stated
        elif isinstance(stated, str):
            assert ours == stated.replace("_", "")
        elif parameter in ("act_layer", "norm_layer") and inspect.isclass(stated):
            words = {"BatchNorm2d": True} if name == "timm:ge" else {}
            assert ours == words.get(stated.__name__, stated.__name__.lower())
        elif stated is not None and option not in ("combine", "padding_mode", "kernel_size"):
            assert ours == stated, parameter


# (module, the parameter that the table calls idle, arguments beside it, two of its values)
IDLE = [
    ("EcaModule", "act_layer", {}, (None, nn.GELU)),
    ("EcaModule", "rd_ratio", {}, (1 / 8, 1 / 2)),
    ("EcaModule", "rd_channels", {}, (None, 3)),
    ("EcaModule", "rd_divisor", {}, (8, 1)),
    ("GlobalContext", "init_last_zero", {}, (False, True)),
    (
        "GlobalContext",
        "gate_layer",
        {"fuse_add": True, "fuse_scale": False},
        ("sigmoid", "tanh"),
    ),
    ("LightCbamModule", "gate_layer", {}, ("sigmoid", "relu")),
    ("SelectiveKernel", "aa_layer", {}, (None, layers.BlurPool2d)),
    ("HaloAttn", "feat_size", {}, (None, (7, 7))),
    ("HaloAttn", "avg_down", {}, (False, True)),
    ("EffectiveSEModule", "reduction", {}, (16, 4)),
    ("StripAttn", "reduction", {}, (16, 4)),
    ("NonLocalAttn", "act_layer", {}, (nn.ReLU, nn.GELU)),
    ("BatNonLocalAttn", "gate_layer", {}, ("sigmoid", "tanh")),
]


@pytest.mark.parametrize(("module", "parameter", "beside", "values"), IDLE)
def test_what_the_table_calls_idle_changes_nothing(module, parameter, beside, values):
    size = (16, 16) if module == "HaloAttn" else (14, 14)
    built = []
    for value in values:
        torch.manual_seed(3)
        built.append(timm_class(module)(CHANNELS, **beside, **{parameter: value}).double())
    first, second = (block.state_dict() for block in built)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)  # the start as well
    one, other = (draw(block).eval()(maps(size)) for block in built)
    assert torch.equal(one, other)


# The numbers are timm's. -------------------------------------------------------------------------

ACT = layers.get_act_layer
NORM = layers.get_norm_layer
# (block, options, class, timm's arguments, map)
CASES = [
    ("se", {}, "SEModule", {}, (7, 7)),
    ("se", {"reduction": 4}, "SEModule", {"rd_ratio": 1 / 4}, (7, 5)),
    ("se", {"reduction": 3, "divisor": 4}, "SEModule", {"rd_ratio": 1 / 3, "rd_divisor": 4}, 7),
    (
        "se",
        {"width": 5, "add_maxpool": True, "bias": False, "act": "prelu", "gate": "hardsigmoid"},
        "SEModule",
        {
            "rd_channels": 5,
            "add_maxpool": True,
            "bias": False,
            "act_layer": "prelu",
            "gate_layer": "hard_sigmoid",
        },
        7,
    ),
    ("se", {"norm_layer": "layernorm2d"}, "SEModule", {"norm_layer": layers.LayerNorm2d}, 7),
    ("ese", {}, "EffectiveSEModule", {}, (9, 6)),
    ("ese", {"gate": "tanh"}, "EffectiveSEModule", {"gate_layer": "tanh"}, 7),
    ("eca", {}, "EcaModule", {}, 7),
    ("eca", {"gamma": 1, "beta": 2.5}, "EcaModule", {"gamma": 1, "beta": 2.5}, 7),
    ("eca", {"kernel_size": 9}, "EcaModule", {"channels": None, "kernel_size": 9}, 7),
    ("ecam", {}, "EcaModule", {"use_mlp": True}, 7),
    (
        "ecam",
        {"kernel_size": 7, "reduction": 2, "act": "gelu"},
        "EcaModule",
        {"use_mlp": True, "gamma": 1, "rd_ratio": 0.5, "act_layer": "gelu"},
        7,
    ),
    ("ceca", {}, "CecaModule", {}, 7),
    ("ceca", {"bias": True, "gamma": 1}, "CecaModule", {"act_layer": nn.ReLU, "gamma": 1}, 7),
    ("gc", {}, "GlobalContext", {}, (9, 6)),
    (
        "gc",
        {"combine": "both", "use_attn": False, "reduction": 4, "divisor": 3, "act": "gelu"},
        "GlobalContext",
        {
            "fuse_add": True,
            "use_attn": False,
            "rd_ratio": 0.25,
            "rd_divisor": 3,
            "act_layer": "gelu",
        },
        7,
    ),
    ("gca", {}, "GlobalContext", {"fuse_add": True, "fuse_scale": False}, 7),
    ("cbam", {}, "CbamModule", {}, (9, 6)),
    (
        "cbam",
        {"kernel_size": 3, "bias": True, "gate": "tanh", "act": "silu", "reduction": 5},
        "CbamModule",
        {
            "spatial_kernel_size": 3,
            "mlp_bias": True,
            "gate_layer": "tanh",
            "act_layer": nn.SiLU,
            "rd_ratio": 1 / 5,
        },
        7,
    ),
    ("lcbam", {"kernel_size": 5}, "LightCbamModule", {"spatial_kernel_size": 5}, 7),
    ("coord", {}, "CoordAttn", {}, (9, 6)),
    (
        "coord",
        {"norm_layer": "none", "bias": True, "se_factor": 3.0, "act": "relu", "residual": True},
        "CoordAttn",
        {
            "norm_layer": None,
            "bias": True,
            "se_factor": 3.0,
            "act_layer": nn.ReLU,
            "has_skip": True,
        },
        7,
    ),
    ("scoord", {}, "SimpleCoordAttn", {}, (9, 6)),
    (
        "scoord",
        {"reduction": 1, "bias": False, "residual": True},
        "SimpleCoordAttn",
        {"rd_ratio": 1.0, "bias": False, "has_skip": True},
        7,
    ),
    ("ela", {}, "EfficientLocalAttn", {}, (9, 6)),
    (
        "ela",
        {"kernel_size": 3, "norm_layer": "batchnorm2d", "bias": True, "residual": True},
        "EfficientLocalAttn",
        {"kernel_size": 3, "norm_layer": nn.BatchNorm2d, "bias": True, "has_skip": True},
        7,
    ),
    ("strip", {}, "StripAttn", {}, (9, 6)),
    ("strip", {"use_conv": False, "residual": True}, "StripAttn", {"use_conv": False}, 7),
    ("sk", {}, "SelectiveKernel", {}, (9, 6)),
    (
        "sk",
        {"kernel_sizes": "3+5+7", "split_input": False, "keep_3x3": False, "groups": 2},
        "SelectiveKernel",
        {"kernel_size": [3, 5, 7], "split_input": False, "keep_3x3": False, "groups": 2},
        7,
    ),
    (
        "sk",
        {"dilation": 2, "reduction": 2, "norm_layer": "groupnorm1", "act": "silu"},
        "SelectiveKernel",
        {"dilation": 2, "rd_ratio": 0.5, "norm_layer": layers.GroupNorm1, "act_layer": nn.SiLU},
        14,
    ),
    ("sk", {"drop_rate": 0.5}, "SelectiveKernel", {"drop_layer": nn.Dropout2d}, 7),
    ("splat", {}, "SplitAttn", {}, (9, 6)),
    (
        "splat",
        {"radix": 1, "groups": 4, "bias": True, "norm_layer": "batchnorm2d", "reduction": 1},
        "SplitAttn",
        {"radix": 1, "groups": 4, "bias": True, "norm_layer": nn.BatchNorm2d, "rd_ratio": 1.0},
        7,
    ),
    (
        "splat",
        {"kernel_size": 5, "dilation": 2, "padding_mode": "circular", "drop_rate": 0.5},
        "SplitAttn",
        {
            "kernel_size": 5,
            "dilation": 2,
            "padding": 4,
            "padding_mode": "circular",
            "drop_layer": nn.Dropout2d,
        },
        7,
    ),
    ("splat", {"width": 12}, "SplitAttn", {"rd_channels": 6}, 7),
    ("splat", {"divisor": 33}, "SplitAttn", {"rd_divisor": 33}, 7),  # 33: no multiple of two
    ("lambda", {}, "LambdaLayer", {}, (9, 6)),
    (
        "lambda",
        {"kernel_size": "map", "dim_head": "auto", "qk_ratio": 0.5, "heads": 2, "bias": True},
        "LambdaLayer",
        {
            "r": None,
            "feat_size": (9, 6),
            "dim_head": None,
            "qk_ratio": 0.5,
            "num_heads": 2,
            "qkv_bias": True,
        },
        (9, 6),
    ),
    ("bottleneck", {}, "BottleneckAttn", {"feat_size": (9, 6)}, (9, 6)),
    (
        "bottleneck",
        {"heads": 8, "dim_head": 5, "bias": True, "scale_pos_embed": True},
        "BottleneckAttn",
        {
            "num_heads": 8,
            "dim_head": 5,
            "qkv_bias": True,
            "scale_pos_embed": True,
            "feat_size": (7, 7),
        },
        7,
    ),
    ("halo", {}, "HaloAttn", {}, (16, 8)),
    (
        "halo",
        {"block_size": 7, "halo_size": 1, "qk_ratio": 0.5, "scale_pos_embed": True},
        "HaloAttn",
        {"block_size": 7, "halo_size": 1, "qk_ratio": 0.5, "scale_pos_embed": True},
        14,
    ),
    ("nl", {}, "NonLocalAttn", {}, (9, 6)),
    ("nl", {"scale": False, "width": 3}, "NonLocalAttn", {"use_scale": False, "rd_channels": 3}, 7),
    ("bat", {}, "BatNonLocalAttn", {}, (14, 7)),
    (
        "bat",
        {"block_size": 3, "groups": 4, "drop_rate": 0.0, "act": "silu", "reduction": 2},
        "BatNonLocalAttn",
        {
            "block_size": 3,
            "groups": 4,
            "drop_rate": 0.0,
            "act_layer": nn.SiLU,
            "rd_ratio": 0.5,
        },
        (9, 6),
    ),
]


def same_as(block, theirs, x):
    """Whether a module of timm's, given our numbers, gives what our block gives."""
    inner = block.block if block.attention_block[1][-1] == ("residual", True) else block
    draw(inner)
    theirs.load_state_dict(inner.module.state_dict())
    for mode in (True, False):
        outputs = []
        for module in (block, theirs):
            torch.manual_seed(7)  # of dropout
            outputs.append(module.train(mode)(x.clone()))
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options", "module", "arguments", "size"), CASES)
def test_the_numbers_are_timms(name, options, module, arguments, size):
    size = (size, size) if isinstance(size, int) else size
    first = () if "channels" in arguments else (CHANNELS,)
    theirs = timm_class(module)(*first, **arguments).double()
    if name == "strip" and options.get("residual"):
        theirs.has_skip = True
    block = at_site(f"timm:{name}", size, **options).double()
    assert sum(p.numel() for p in block.parameters()) == sum(p.numel() for p in theirs.parameters())
    same_as(block, theirs, maps(size))


def repaired_gather_excite():
    """timm's class with its slip mended: it unpacks its keyword arguments with one star."""
    module = importlib.import_module("timm.layers.gather_excite")
    names = dict(vars(module))
    exec(inspect.getsource(module.GatherExcite).replace(", *dd", ", **dd"), names)
    return names["GatherExcite"]


@pytest.mark.parametrize(
    ("options", "arguments", "size"),
    [
        ({}, {}, (9, 6)),
        ({"extent": 4, "add_maxpool": True}, {"extent": 4, "add_maxpool": True}, (14, 14)),
        ({"use_mlp": False, "extent": 2}, {"use_mlp": False, "extent": 2}, (7, 7)),
        ({"extra_params": True}, {"extra_params": True, "feat_size": (9, 6)}, (9, 6)),
        ({"extra_params": True}, {"extra_params": True, "feat_size": (14, 14)}, (14, 14)),
        (
            {"extra_params": True, "extent": 8, "norm": False, "act": "silu", "gate": "tanh"},
            {
                "extra_params": True,
                "extent": 8,
                "norm_layer": None,
                "act_layer": nn.SiLU,
                "gate_layer": "tanh",
            },
            (14, 14),
        ),
        (
            {"extra_params": True, "extent": 2, "reduction": 4, "divisor": 3},
            {"extra_params": True, "extent": 2, "rd_ratio": 0.25, "rd_divisor": 3},
            (9, 6),
        ),
        ({"width": 3}, {"rd_channels": 3}, (7, 7)),
    ],
)
def test_gather_excite_is_what_timm_means(options, arguments, size):
    theirs = repaired_gather_excite()(CHANNELS, **arguments).double()
    same_as(at_site("timm:ge", size, **options).double(), theirs, maps(size))


def test_widths_are_rounded_as_timm_rounds_them():
    """Halves go up; where it is asked for, no more than a tenth is rounded away."""
    helpers = importlib.import_module("timm.layers.helpers")
    assert [multiple_near(v, 8) for v in (1, 11.9, 12, 20)] == [8, 8, 16, 24]
    assert [multiple_near(v, 8, share=0.9) for v in (9, 8.8, 19)] == [16, 8, 24]
    for value in range(1, 300, 7):
        for divisor in (1, 3, 8):
            for share in (0.0, 0.9):
                theirs = helpers.make_divisible(value / 3, divisor, round_limit=share)
                assert multiple_near(value / 3, divisor, share=share) == theirs
        theirs = helpers.make_divisible(value / 3, 8, min_value=32)
        assert multiple_near(value / 3, 8, least=32, share=0.9) == theirs


@pytest.mark.parametrize("channels", [3, 24, 96, 200, 512])
@pytest.mark.parametrize("reduction", [1, 3, 6, 16, 40])
def test_reductions_give_timms_widths(channels, reduction):
    ours = registry.create("timm:coord", channels, reduction=reduction).module.conv1.out_channels
    theirs = timm_class("CoordAttn")(channels, rd_ratio=1 / reduction).conv1.out_channels
    assert ours == theirs
    for name, module in (("bat", "BatNonLocalAttn"), ("ecam", "EcaModule")):
        more = {"use_mlp": True} if name == "ecam" else {}
        theirs = timm_class(module)(channels, rd_ratio=1 / reduction, **more)
        shapes = [p.shape for p in theirs.parameters()]
        ours = registry.create(f"timm:{name}", channels, reduction=reduction)
        assert [p.shape for p in ours.parameters()] == shapes


# Every option does something, and one network has one spelling. ----------------------------------

# Where an option counts only beside others.
BESIDE = {
    ("timm:ge", "norm"): {"extra_params": True},
    ("timm:ge", "feat_size"): {"extra_params": True},
    ("timm:splat", "padding_mode"): {"dilation": 2},
    ("timm:sk", "dilation"): {"kernel_sizes": "3+7"},
    ("timm:lambda", "qk_ratio"): {"dim_head": "auto"},
    ("timm:lambda", "feat_size"): {"kernel_size": "map"},
}
OPTIONS = [(spec, option) for spec in registry.adapted_specs() for option in spec.options]
EVERY_OPTION = pytest.mark.parametrize(
    ("spec", "option"), OPTIONS, ids=[f"{spec.name}.{option.name}" for spec, option in OPTIONS]
)


def map_for(name, options):
    """A map on which the options can stand, that of ``feat_size`` where it is given."""
    if "feat_size" in options:
        side = int(options["feat_size"].partition("x")[0])
        return side, side
    return (16, 16) if name == "timm:halo" else (14, 14)


# After a norm, small weights would keep all numbers under 6; light CBAM's four squeezed channels
# are all negative unless the weights' signs are turned.
SPREAD = {"timm:ela": 4.0, "timm:gc": 12.0, "timm:gca": 12.0, "timm:lcbam": -1.0}


def signature(name, options, size):
    """Shapes of the parameters, and what fixed numbers give: small and wide, also in training."""
    block = registry.create(name, CHANNELS, **options).double()
    in_training = "drop_rate" in dict(block.attention_block[1])
    outputs = []
    # Some activations differ above 6 alone, and wide numbers make gates of 0 and 1 alone.
    for spread, scale in ((1.0, 1.0), (SPREAD.get(name, 1.0), 20.0)):
        for mode in (False, True)[: 1 + in_training]:
            torch.manual_seed(5)
            outputs.append(draw(block, spread=spread).train(mode)(maps(size, scale=scale)).detach())
    return [tuple(p.shape) for p in block.parameters()], *outputs


def same(one, other):
    if one[0] != other[0] or one[1].shape != other[1].shape:
        return False
    pairs = zip(one[1:], other[1:], strict=True)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


@EVERY_OPTION
def test_every_value_of_an_option_builds_a_different_block(spec, option):
    built = []
    for value in option.values:
        nominal = {**BESIDE.get((spec.name, option.name), {}), option.name: value}
        size = map_for(spec.name, nominal)
        in_use = spec.in_use(nominal, MapShape(CHANNELS, *size))
        assert spec.in_use(in_use, MapShape(CHANNELS, *size)) == in_use
        made = signature(spec.name, in_use, size)
        built.append((in_use, made))
        if option.name not in ("act", "gate", "feat_size") and "feat_size" not in in_use:
            assert same(signature(spec.name, nominal, size), made)
    for i, (in_use, made) in enumerate(built):
        for other_in_use, other in built[i + 1 :]:
            assert in_use != other_in_use
            assert not same(made, other)


def test_all_named_functions_differ():
    for option, names in (("act", ACTIVATIONS), ("gate", GATES)):
        assert len(set(names)) == len(names) == 17
        built = [signature("timm:se", {option: name}, (14, 14)) for name in names]
        for i, one in enumerate(built):
            assert not any(same(one, other) for other in built[i + 1 :])


def test_other_names_of_timm_are_the_same_functions():
    x = maps((7, 7))
    for name, other in (("elu", "celu"), ("silu", "swish")):
        assert torch.equal(layers.get_act_layer(name)()(x), layers.get_act_layer(other)()(x))


# (block, one way to write it, another, the map): one network, one identity.
EQUAL = [
    ("se", {"reduction": 16}, {"reduction": 8}, (7, 7)),
    ("se", {"reduction": 16}, {"width": 8}, (7, 7)),
    ("se", {"reduction": 32.0, "divisor": 4}, {"width": 4, "divisor": 7}, (7, 7)),
    ("eca", {}, {"kernel_size": 3}, (7, 7)),
    ("eca", {"gamma": 1}, {"kernel_size": 7, "beta": 9}, (7, 7)),
    ("ecam", {"beta": 5.0}, {"kernel_size": 5}, (7, 7)),
    ("ge", {"extent": 14}, {}, (14, 9)),
    ("ge", {"extent": 16, "norm": False, "feat_size": "3x3"}, {"extent": 0}, (14, 9)),
    ("ge", {"use_mlp": False, "act": "gelu"}, {"use_mlp": False, "width": 3}, (7, 7)),
    ("ge", {"extra_params": True, "extent": 6}, {"extra_params": True, "extent": 4}, (7, 7)),
    (
        "ge",
        {"extra_params": True, "add_maxpool": True},
        {"extra_params": True, "feat_size": "2x2"},
        (7, 7),
    ),
    ("gc", {"combine": "add", "gate": "tanh"}, {"combine": "add"}, (7, 7)),
    ("strip", {"use_conv": False, "kernel_size": 7}, {"use_conv": False, "bias": True}, (7, 7)),
    ("sk", {"kernel_sizes": "3+5", "dilation": 2}, {"kernel_sizes": "5+9"}, (14, 14)),
    (
        "sk",
        {"kernel_sizes": "3+3", "keep_3x3": False, "dilation": 3},
        {"kernel_sizes": "7+7"},
        (14, 14),
    ),
    ("splat", {"kernel_size": 1, "dilation": 2}, {"kernel_size": 1}, (7, 7)),
    (
        "splat",
        {"kernel_size": 1, "padding_mode": "reflect", "width": 32},
        {"kernel_size": 1, "divisor": 16},
        (7, 7),
    ),
    ("lambda", {"qk_ratio": 2, "feat_size": "2x2"}, {}, (7, 7)),
    ("halo", {"dim_head": 8}, {"qk_ratio": 1.04}, (8, 8)),
]


@pytest.mark.parametrize(("name", "one", "other", "size"), EQUAL)
def test_one_network_has_one_spelling(name, one, other, size):
    row, shape = registry.spec(f"timm:{name}"), MapShape(CHANNELS, *size)
    assert row.in_use(one, shape) == row.in_use(other, shape)
    sizes = {} if name not in ("ge", "lambda") else {"feat_size": f"{size[0]}x{size[1]}"}
    made = [signature(row.name, {**options, **sizes}, size) for options in (one, other)]
    assert same(*made)


def test_the_order_of_paths_counts_where_they_share_the_channels():
    row, shape = registry.spec("timm:sk"), MapShape(CHANNELS, 14, 14)
    swapped = [{"kernel_sizes": "3+7"}, {"kernel_sizes": "7+3"}]
    assert row.in_use(swapped[0], shape) != row.in_use(swapped[1], shape)
    whole = [{**options, "split_input": False} for options in swapped]
    assert row.in_use(whole[0], shape) == row.in_use(whole[1], shape)
    # Otherwise it is a name of the paths: with their numbers swapped as well, all is as it was.
    one, other = (draw(registry.create(row.name, CHANNELS, **o).double()).eval() for o in whole)
    state = {}
    for key, tensor in one.state_dict().items():
        path = re.sub(r"paths\.(\d)", lambda found: f"paths.{1 - int(found[1])}", key)
        select = key.endswith("fc_select.weight")
        state[path] = torch.cat(tensor.chunk(2)[::-1]) if select else tensor
    other.load_state_dict(state)
    x = maps((14, 14))
    torch.testing.assert_close(one(x), other(x), rtol=1e-10, atol=1e-10)


# Blocks as every block. --------------------------------------------------------------------------

BLOCK_SIZE = {"timm:halo": 7}


def fitting(name, size):
    """Options with which the module can stand at a map."""
    if name not in ("timm:halo", "timm:bat"):
        return {}
    return {"block_size": next(n for n in (7, 3, 2) if size[0] % n == 0 and size[1] % n == 0)}


@EVERY_MODULE
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (9, 6)])
@pytest.mark.parametrize("channels", [16, 48])
def test_keeps_the_shape(name, size, channels):
    block = draw(at_site(name, size, channels, **fitting(name, size)))
    x = maps(size, 3, channels, torch.float32)
    kept = x.clone()
    for mode in (True, False):
        out = block.train(mode)(x)
        assert out.shape == x.shape
        assert torch.isfinite(out).all()
        assert not torch.equal(out, x)
    assert torch.equal(x, kept), "the input was written to"


@EVERY_MODULE
def test_evaluation_does_not_depend_on_the_batch(name):
    block = draw(at_site(name, (14, 7), **fitting(name, (14, 7)))).double().eval()
    x = maps((14, 7), 3)
    alone = torch.cat([block(image[None]) for image in x])
    torch.testing.assert_close(block(x), alone, rtol=1e-10, atol=1e-12)


# What a gradient cannot reach, by mathematics: one number added to all similarities of a pixel
# leaves its softmax as it is, and a norm in training takes away what is added to a whole channel.
NO_GRADIENT = {
    ("timm:nl", "p.bias", True),
    ("timm:nl", "p.bias", False),
    ("timm:nl", "g.bias", True),
    ("timm:nl", "z.bias", True),
    ("timm:gc", "conv_attn.bias", True),
    ("timm:gc", "conv_attn.bias", False),
    ("timm:gca", "conv_attn.bias", True),
    ("timm:gca", "conv_attn.bias", False),
}


@EVERY_MODULE
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter(name, training):
    options = {"drop_rate": 0.0} if name == "timm:bat" else {}
    block = at_site(name, (14, 7), **fitting(name, (14, 7)), **options)
    block = draw(block, seed=2).double().train(training)
    x = maps((14, 7), 4).requires_grad_()
    (block(x) * maps((14, 7), 4).roll(1, 0)).sum().backward()
    assert x.grad.abs().max() > 0
    for key, parameter in block.named_parameters():
        assert parameter.grad is not None, key
        reached = (name, key.removeprefix("module."), training) not in NO_GRADIENT
        assert (parameter.grad.abs().max() > 1e-9) == reached, key


@EVERY_MODULE
def test_copies_and_pickles(name):
    block = draw(at_site(name, (14, 14), **fitting(name, (14, 14)))).eval()
    x = maps((14, 14), dtype=torch.float32)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x), block(x))
        assert other.attention_block == block.attention_block


@EVERY_MODULE
def test_trains_under_bfloat16_autocast(name):
    block = at_site(name, (14, 14), **fitting(name, (14, 14))).train()
    x = maps((14, 14), dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    out.float().square().sum().backward()
    assert out.shape == x.shape
    for tensor in (x, *block.parameters()):
        assert torch.isfinite(tensor.grad).all()


@EVERY_MODULE
def test_an_outer_residual_adds_the_input(name):
    options = fitting(name, (14, 14))
    plain = draw(at_site(name, (14, 14), **options)).eval()
    outer = at_site(name, (14, 14), residual=True, **options).eval()
    outer.block.load_state_dict(plain.state_dict())
    x = maps((14, 14), dtype=torch.float32)
    assert torch.equal(outer(x), x + plain(x))


# Cost. -------------------------------------------------------------------------------------------


@EVERY_OPTION
def test_every_operator_is_counted(spec, option):
    for value in option.values:
        nominal = {**BESIDE.get((spec.name, option.name), {}), option.name: value}
        size = map_for(spec.name, nominal)
        cost = block_cost(spec.name, MapShape(CHANNELS, *size), nominal)  # a warning is an error
        assert cost.flops > 0


def test_what_se_costs():
    # 1 x 1 squeezes: 64 numbers to 8 and back with biases; mean and gate of 12,544 numbers.
    expected = Cost(
        params=64 * 8 + 8 + 8 * 64 + 64,
        trainable_params=64 * 8 + 8 + 8 * 64 + 64,
        macs=2 * 64 * 8,
        flops=2 * 2 * 64 * 8 + 8 + 64 + 8 + 4 * 64 + 2 * 64 * 14 * 14,
    )
    assert block_cost("timm:se", MapShape(64, 14, 14), {}) == expected


def test_what_non_local_attention_costs():
    # t, p, g: 64 to 8, z: 8 to 64, each at 49 pixels with biases; 49 x 49 similarities of 8
    # channels, scaled, their softmax (5 operations each), and 49 x 49 x 8 sums; norm; sum.
    macs = 4 * 64 * 8 * 49 + 2 * 49 * 49 * 8
    others = 3 * 8 * 49 + 64 * 49 + (1 + 5) * 49 * 49 + 2 * 64 * 49 + 64 * 49
    cost = block_cost("timm:nl", MapShape(64, 7, 7), {})
    assert (cost.macs, cost.flops) == (macs, 2 * macs + others)


# Networks. ---------------------------------------------------------------------------------------

SITES = site_table("resnet20", (3, 32, 32), 10)


def resolved(block, **options):
    return resolve(Architecture("resnet20", (Placement("stage", block, options),)), SITES)


def test_a_network_with_global_context():
    architecture = resolved("timm:gc", reduction=4)
    assert label(architecture) == "resnet20 + timm:gc stage width=4/8/16"
    assert not has_closed_cost(architecture)
    network = build_network(architecture, seed=0)
    out = network(torch.randn(2, 3, 32, 32))
    out.sum().backward()
    assert out.shape == (2, 10)
    # At C channels: C weights and a bias look, C h + h and h C + C squeeze, and 2 h of the norm.
    widths = {16: 4, 32: 8, 64: 16}
    params = sum(c + 1 + 2 * c * h + h + c + 2 * h for c, h in widths.items())
    cost = measure_cost(network, (3, 32, 32))
    assert cost.params == SITES.cost.params + params
    shapes = [MapShape(16, 32, 32), MapShape(32, 16, 16), MapShape(64, 8, 8)]
    added = [block_cost("timm:gc", shape, {"reduction": 4}) for shape in shapes]
    assert cost == sum(added, SITES.cost)


def test_equal_networks_have_one_digest():
    assert resolved("timm:gc").digest == resolved("timm:gc", reduction=8, gate="sigmoid").digest
    assert resolved("timm:gc").digest != resolved("timm:gc", reduction=4).digest
    assert resolved("timm:gca").digest == resolved("timm:gc", combine="add", gate="tanh").digest
    assert resolved("timm:gca", width=8, residual=True) == resolved(
        "timm:gc", combine="add", width=8, residual=True
    )
    assert resolved("timm:gca").placements[0].block == "timm:gc"
    assert resolved("timm:se").digest != resolved("se").digest
    again = Architecture.from_json(resolved("timm:sk", dilation=2).to_json())
    assert resolve(again, SITES) == resolved("timm:sk", kernel_sizes="5+9")


def test_the_map_sets_what_is_made_for_its_size():
    architecture = resolved("timm:bottleneck", feat_size="3x3")
    sizes = [dict(p.options)["feat_size"] for p in architecture.placements]
    assert sizes == ["32x32", "16x16", "8x8"]
    with torch.device("meta"):
        network = build_network(architecture)
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)


def test_two_seeds_start_differently_and_one_alike():
    first, again, other = (
        build_network(resolved("timm:ela"), seed=seed).state_dict() for seed in (0, 0, 1)
    )
    key = next(key for key in first if key.endswith("module.conv_h.weight"))
    assert torch.equal(first[key], again[key])
    assert not torch.equal(first[key], other[key])


# Messages. ---------------------------------------------------------------------------------------


def test_names_are_apart_from_the_projects_own():
    assert not set(NAMES) & set(registry.names())
    assert not set(registry.adapted_specs()) & set(registry.specs())
    assert [spec.name for spec in registry.adapted_specs()] == list(NAMES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "timm:gcc",
            "unknown timm module 'timm:gcc'. Did you mean 'timm:gc'? timm's modules: timm:se, ",
        ),
        ("TIMM:GC", "unknown timm module 'TIMM:GC'. Did you mean 'timm:gc'?"),
        ("gc", "unknown block 'gc'. Did you mean 'timm:gc'? Blocks: none, se, "),
        ("ge", "unknown block 'ge'. Did you mean 'timm:ge'? Blocks: none, se, "),
        ("sea", "and timm's own modules as timm:NAME, such as timm:gc"),
    ],
)
def test_unknown_names(given, message):
    with pytest.raises(BlockError, match=re.escape(message)):
        registry.create(given, CHANNELS)


@pytest.mark.parametrize(
    ("block", "options", "message"),
    [
        ("se", {"rd_ratio": 0.1}, "timm:se has no option 'rd_ratio'."),
        ("se", {"reduction": 0}, "timm:se.reduction: 0 is not a number above 0"),
        ("se", {"reduction": float("nan")}, "timm:se.reduction: nan is not a number above 0"),
        ("se", {"width": 0}, "timm:se.width: 0 is neither 'auto' nor a whole number from 1"),
        ("se", {"act": "swish"}, "timm:se.act: 'swish' is none of them; allowed: relu, relu6"),
        ("eca", {"kernel_size": 4}, "timm:eca.kernel_size: 4 is neither 'auto' nor an odd number"),
        ("ecam", {"kernel_size": 1}, "from 3; allowed: odd numbers from 3, auto"),
        ("eca", {"beta": float("inf")}, "timm:eca.beta: inf is not a finite number"),
        ("ela", {"kernel_size": 2}, "timm:ela.kernel_size: 2 is not an odd number from 1"),
        ("ge", {"extent": 3}, "timm:ge.extent: 3 is not an even number from 0"),
        (
            "ge",
            {"feat_size": "7"},
            "timm:ge.feat_size: '7' is no height and width; allowed: height",
        ),
        ("sk", {"kernel_sizes": "3"}, "'3' is no list of odd numbers from 3; allowed: two or more"),
        ("sk", {"kernel_sizes": "3+4"}, "timm:sk.kernel_sizes: '3+4' is no list of odd numbers"),
        ("bat", {"drop_rate": 1}, "timm:bat.drop_rate: 1 is not a number from 0 to below 1"),
        ("bat", {"block_size": 1}, "timm:bat.block_size: 1 is not a whole number from 2"),
        (
            "lambda",
            {"heads": 7},
            "64 channels cannot be split into 7 equal heads; heads that can: 1",
        ),
        ("halo", {"heads": 64, "qk_ratio": 0.1}, "leaves 64 heads no channel; set dim_head"),
        (
            "bat",
            {"groups": 3},
            "3 groups do not divide the squeezed layer's 16 channels; set width",
        ),
        ("splat", {"radix": 3}, "64 channels cannot be split into radix x groups = 3 equal parts"),
        ("splat", {"width": 9}, "width 9 is neither a multiple of radix 2 nor 32 or more"),
        ("splat", {"groups": 4, "width": 34}, "4 groups do not divide the squeezed layer's 34"),
        (
            "sk",
            {"kernel_sizes": "3+5+7"},
            "64 channels cannot be split between 3 paths; set split_",
        ),
        ("sk", {"groups": 3}, "3 groups do not divide the 32 channels of a path; set groups: 1"),
        ("ceca", {"kernel_size": 131}, "goes more than once round 64 channels; the largest that"),
    ],
)
def test_wrong_options(block, options, message):
    with pytest.raises(BlockError, match=re.escape(message)):
        registry.create(f"timm:{block}", CHANNELS, **options)


@pytest.mark.parametrize(
    ("block", "options", "size", "message"),
    [
        ("halo", {}, (14, 14), "block_size 8; those that fit: 1, 2, 7, 14"),
        ("bat", {}, (9, 6), "block_size 7; those that fit: 3"),
        ("bat", {}, (9, 8), "block_size 7; those that fit: none"),
        ("lambda", {"heads": 5}, (7, 7), "equal heads; heads that can: 1, 2, 4, 8, 16, 32, 64"),
        (
            "splat",
            {"kernel_size": 7, "dilation": 2, "padding_mode": "reflect"},
            (6, 9),
            "cannot be filled by padding_mode reflect; set zeros",
        ),
    ],
)
def test_a_site_that_does_not_fit_is_refused_with_the_cure(block, options, size, message):
    with pytest.raises(SiteError, match=re.escape(message)):
        registry.spec(f"timm:{block}").in_use(options, MapShape(CHANNELS, *size))


def test_the_largest_circle_that_fits_can_be_built():
    assert (
        at_site("timm:ceca", (7, 7), kernel_size=129)(maps((7, 7), dtype=torch.float32)).dim() == 4
    )


def test_a_map_of_another_size_is_refused():
    message = "timm:bottleneck was made for maps of 7 x 7 pixels, not 8 x 7; give feat_size: 8x7"
    with pytest.raises(SiteError, match=re.escape(message)):
        registry.create("timm:bottleneck", CHANNELS)(torch.ones(1, CHANNELS, 8, 7))
    with pytest.raises(SiteError, match="timm:bat: a map of 8 x 7 pixels has no whole blocks"):
        registry.create("timm:bat", CHANNELS)(torch.ones(1, CHANNELS, 8, 7))


def test_a_timm_without_the_module_or_an_argument_says_so(monkeypatch):
    class Older(nn.Module):
        def __init__(self, channels, bias=True):
            super().__init__()

    monkeypatch.setattr(timm_adapter.timm, "__version__", "1.0.20")
    monkeypatch.delattr(FACTORY, "CoordAttn")
    message = "timm:coord: the installed timm 1.0.20 has no CoordAttn; install timm 1.0.31 or newer"
    with pytest.raises(BlockError, match=re.escape(message)):
        registry.create("timm:coord", CHANNELS)
    monkeypatch.setattr(FACTORY, "StripAttn", Older)
    message = "timm:strip: the installed timm 1.0.20 has no argument "
    with pytest.raises(BlockError, match=re.escape(message)):
        registry.create("timm:strip", CHANNELS)
    assert timm.__version__ == "1.0.20"


@EVERY_MODULE
def test_built_alone_with_the_defaults_it_takes_its_usual_map(name):
    size = (8, 8) if name == "timm:halo" else (7, 7)
    block = registry.create(name, CHANNELS)
    assert dict(block.attention_block[1]) == registry.spec(name).complete({})
    assert block(torch.ones(2, CHANNELS, *size)).shape == (2, CHANNELS, *size)
