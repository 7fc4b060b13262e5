"""The published figures: networks that can be built, and the parameters that their papers print."""

import pytest

from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.backbone import site_table
from spaces.published_figures import ERROR, FIGURES, IMAGENET, PublishedFigure

EVERY_FIGURE = pytest.mark.parametrize("figure", FIGURES, ids=str)
INPUTS = {IMAGENET: ((3, 224, 224), 1000), "cifar10": ((3, 32, 32), 10)}


def sites_of(figure, backbone=None):
    shape, classes = INPUTS[figure.data]
    return site_table(backbone or figure.backbone, shape, classes)


def architecture_of(figure):
    sites = sites_of(figure)
    return resolve(Architecture(figure.backbone, figure.placements), sites), sites


@EVERY_FIGURE
def test_every_figure_is_of_a_network_that_can_be_built(figure):
    architecture, sites = architecture_of(figure)
    assert architecture.placements
    assert figure.is_of(architecture, sites)
    assert not figure.is_of(resolve(Architecture(figure.backbone), sites), sites)


@EVERY_FIGURE
def test_every_figure_says_where_it_was_read(figure):
    assert "github.com/" in figure.source
    assert "commit " in figure.source
    assert 20 < (100 - figure.value if figure.measure == ERROR else figure.value) < 100
    if figure.baseline is not None:
        assert abs(figure.value - figure.baseline) < 3


# (backbone, block, option that tells them apart) -> parameters as published or counted from the
# authors' module, with 1000 classes (10 on CIFAR-10).
PARAMETERS = {
    ("mobilenetv2_100", "se", 24): 3_888_208,
    ("mobilenetv2_100", "cbam", 24): 3_889_808,
    ("mobilenetv2_100", "coord", 32): 3_950_648,
    ("resnet50", "se", 16): 28_088_024,
    ("resnet50", "spse", 16): 28_480_728,
    ("resnet50", "rgse", 16): 28_212_440,
    ("resnet50", "fca", 16): 28_071_976,
    ("resnet34", "fca", 16): 21_954_856,
    ("resnet20", "selfatt", None): 286_189,
    ("resnet20", "mha", None): 291_677,
}


@pytest.mark.parametrize("key", PARAMETERS, ids=str)
def test_the_networks_have_the_parameters_that_were_published(key):
    backbone, block, reduction = key
    figure = next(
        one
        for one in FIGURES
        if (one.backbone, one.placements[0].block) == (backbone, block)
        and one.placements[0].settings.get("reduction") == reduction
    )
    architecture, sites = architecture_of(figure)
    assert architecture_cost(architecture, sites).params == PARAMETERS[key]


def test_the_kernels_of_eca_net_give_its_80_parameters():
    (figure,) = [one for one in FIGURES if one.blocks == {"eca"}]
    architecture, sites = architecture_of(figure)
    assert architecture_cost(architecture, sites).params - sites.cost.params == 80


def test_a_difference_is_positive_where_attention_helps():
    by_block = {(f.paper.split(", 2")[0], f.placements[0].block): f.difference for f in FIGURES}
    assert by_block["CNNtention", "selfatt"] == pytest.approx(0.0048)  # 91.44 - 90.96
    assert by_block["Coordinate attention", "coord"] == pytest.approx(0.020)  # 74.3 - 72.3
    assert by_block[
        "SPSE and RGSE, Pattern Recognition 121 (2022) 108159", "rgse"
    ] == pytest.approx(0.0221)  # 24.48 - 22.27, errors
    assert by_block["FcaNet", "fca"] is None


def test_a_network_is_matched_by_what_it_is():
    figure = PublishedFigure(
        "p", "s", "cifar10", "resnet20", (Placement("stage", "se", {"reduction": 32}),), 91.0, 90.0
    )
    sites = site_table("resnet20", (3, 32, 32), 10)

    def of(*placements):
        return figure.is_of(resolve(Architecture("resnet20", placements), sites), sites)

    # r = 32 and r = 64 are one wide on 16 and 32 channels, and 2 and 1 wide on 64.
    each = [Placement(f"stage{s}", "se", {"reduction": r}) for s, r in ((1, 16), (2, 64), (3, 32))]
    assert of(*each)
    assert of(Placement("stage", "se", {"reduction": 32}))
    assert not of(Placement("stage", "se", {"reduction": 64}))
    assert not of(Placement("stage", "se", {"reduction": 32}, identity_start=True))
    assert not of(Placement("in-block", "se", {"reduction": 32}))
    assert not of(Placement("stage", "cse", {"reduction": 32}))
    assert not of(*each[:2])
    # The same attention in another backbone is the same attention there.
    other = site_table("resnet32", (3, 32, 32), 10)
    there = resolve(Architecture("resnet32", (Placement("stage", "se", {"reduction": 32}),)), other)
    assert figure.is_of(there, other)
