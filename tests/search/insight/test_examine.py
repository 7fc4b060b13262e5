import json

import numpy as np
import pytest
import torch
from torch import nn

from blocks import registry
from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from blocks.registry import names, spec
from search.batches import resident
from search.datasets import load_data
from search.insight.examine import Gazed, gaze, small_pictures, survey
from search.insight.placed import placed_blocks
from search.insight.store import packed


@pytest.fixture(scope="module")
def digits():
    data = load_data("digits")
    [(images, labels)] = resident(data, torch.device("cpu")).part("validation")
    return images, labels, data.images["validation"]


def opened(*placements, seed=0):
    """A network whose blocks all take effect, though it was not trained."""
    network = build_network(
        Architecture("resnet20", placements, (14, 14)), in_channels=1, seed=seed
    )
    torch.manual_seed(seed)
    for placed in placed_blocks(network):
        for parameter in placed.module.parameters():
            nn.init.normal_(parameter, std=0.3)
    return network


def seen(network, digits, images=40, gazed=3):
    x, labels, pictures = digits
    overview = survey(network, x[:images], labels[:images], 10)
    rows = list(range(gazed))
    found = gaze(network, Gazed(rows, x[rows], pictures[rows], labels[rows]))
    return overview, found | overview.insights


def test_a_network_without_attention_has_grad_cam_alone_and_says_so(digits):
    overview, insights = seen(opened(), digits)
    assert list(insights) == ["gradcam"]
    assert overview.notes == ["no attention is inserted: Grad-CAM alone"]
    assert overview.right.shape == (40,)
    content = insights["gradcam"].content
    assert (content["site"], content["size"]) == ("stage3", [4, 4])
    assert [row["image"] for row in content["images"]] == [0, 1, 2]
    assert insights["gradcam"].arrays["pictures"].shape == (3, 1, 14, 14)
    maps = insights["gradcam"].arrays["predicted"]
    assert maps.shape == (3, 4, 4)
    evidence = [row["evidence"]["predicted"] for row in content["images"]]
    assert maps.max((1, 2)).tolist() == [float(there) for there in evidence]


NEEDS_OTHER_MAPS = ("rgse",)  # 7 x 7 windows
NAMED = {"cse": "se"}  # which it is, with biases


@pytest.mark.parametrize(
    "block", [n for n in names() if n not in ("none", *NEEDS_OTHER_MAPS)] + ["timm:gc", "timm:nl"]
)
def test_every_block_has_gains(block, digits):
    network = opened(Placement("stage2", block))
    overview, insights = seen(network, digits)
    whole = insights["gates"].content["sites"][0]
    assert (whole["site"], whole["block"], whole["channels"]) == (
        "stage2",
        NAMED.get(block, block),
        32,
    )
    assert whole["gain"] is not None
    assert 0 <= whole["by_channels"] <= 1 + 1e-5
    json.dumps([insight.content for insight in insights.values()], allow_nan=False)
    if block == "timm:nl":
        assert "timm:nl does not say its attention weights" in overview.notes[0]
        assert "maps" not in insights
    else:
        assert overview.notes == []
    assert ("maps" in insights) == (block in ("selfatt", "mha"))
    assert ("frequency" in insights) == (block == "fca")


def test_stages_are_means_of_their_sites_without_members(digits):
    pair = {"blocks": "se + fca(frequency=top4)"}
    network = opened(
        Placement("stage1.unit1.standard", "sequential", pair), Placement("stage1", "eca")
    )
    _, insights = seen(network, digits)
    content = insights["gates"].content
    assert [site["member"] for site in content["sites"]].count(True) == 2
    wholes = [site for site in content["sites"] if not site["member"]]
    (stage,) = content["stages"]
    assert (stage["stage"], stage["sites"]) == (1, 2)
    for name in ("gain", "specificity"):
        assert stage[name] == pytest.approx(sum(s[name] for s in wholes) / 2, rel=1e-5)
    (frequency,) = insights["frequency"].content["sites"]
    assert frequency["site"] == "stage1.unit1.standard"
    assert [(g["u"], g["v"]) for g in frequency["groups"]] == [(0, 0), (0, 1), (6, 0), (0, 5)]
    assert np.shape(frequency["spectrum"]) == (7, 7)


def test_other_backbones_and_their_own_attention(digits):
    placed = (Placement("stage3", "se", identity_start=True),)
    network = build_network(Architecture("seresnet50", placed, (32, 32)), seed=0)
    x = torch.randn(4, 3, 32, 32)
    overview = survey(network, x, torch.arange(4), 10)
    assert "16 modules" in overview.notes[0]
    assert overview.insights["gates"].content["sites"][0]["gain"] == pytest.approx(1.0)


@pytest.mark.parametrize("block", ["se", "cbam", pytest.param("mha", id="mha"), "fca"])
def test_a_trial_takes_less_than_200_kilobytes(block, digits):
    """In every unit, with eight images: arrays as they are stored, and the numbers as JSON."""
    network = opened(*(Placement("in-block", block), Placement("stage", block)))
    _, insights = seen(network, digits, images=360, gazed=8)
    size = sum(
        len(packed(insight.arrays)) + len(json.dumps(insight.content))
        for insight in insights.values()
    )
    assert size < 200_000


def test_pictures_are_reduced():
    pictures = np.full((2, 3, 200, 100), 7, dtype=np.uint8)
    assert small_pictures(pictures).shape == (2, 3, 64, 32)
    assert (small_pictures(pictures) == 7).all()
    assert small_pictures(pictures[..., :50, :64]).shape == (2, 3, 50, 64)


def test_names_cover_the_registry():
    assert spec("rgse").name in NEEDS_OTHER_MAPS


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_tokens_are_maps(backbone):
    """Gains and attention maps have the size of the grid of patches, not of a row of tokens."""
    placed = (Placement("stage1", "se"), Placement("stage2", "mha", {"heads": 2}))
    network = build_network(Architecture(backbone, placed, (64, 64)), seed=0)
    x, labels = torch.randn(4, 3, 64, 64), torch.arange(4)
    pictures = np.zeros((4, 3, 64, 64), dtype=np.uint8)
    overview = survey(network, x, labels, 10)
    found = gaze(network, Gazed([0, 1, 2, 3], x, pictures, labels))
    first, second = overview.insights["gates"].content["sites"]
    assert (first["site"], second["site"]) == ("stage1", "stage2")
    assert first["by_channels"] == pytest.approx(1.0, abs=1e-5)
    size = {"vit_tiny_patch16_224": [4, 4], "swin_tiny_patch4_window7_224": [8, 8]}[backbone]
    assert found["maps"].content["sites"][0]["size"] == size
    assert found["maps"].arrays["stage2.centre"].shape == (4, 2, *size)


class Looking(nn.Module):
    """A user's own block that says its weights: every pixel looks at the first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x * self.gate + x[:, :, :1, :1]

    def attention_weights(self, x, queries=slice(None)):
        pixels = x.shape[2] * x.shape[3]
        weights = torch.zeros(len(x), 1, pixels, pixels)
        weights[..., 0] = 1
        return weights[:, :, queries]


def test_a_users_block_joins_by_its_method(digits, monkeypatch):
    monkeypatch.setattr(registry, "_BLOCKS", dict(registry._BLOCKS))
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    registry.register("looking")(Looking)
    network = build_network(
        Architecture("resnet20", (Placement("stage3", "looking"),), (14, 14)), in_channels=1
    )
    _, insights = seen(network, digits)
    (site,) = insights["maps"].content["sites"]
    assert site["block"] == "looking"
    assert site["heads"][0]["entropy"] == 0
    assert insights["maps"].arrays["stage3.received"].max((0, 1))[0].tolist() == [255, 0, 0, 0]
