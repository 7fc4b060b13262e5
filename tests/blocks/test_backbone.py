import json

import pytest

from blocks import backbone
from blocks.backbone import site_table, trace_sites
from blocks.errors import BackboneError
from blocks.options import MapShape


def shapes(table, where):
    return [
        (site.shape.channels, site.shape.height, site.shape.width) for site in table.expand(where)
    ]


def sites_of_stage(stage):
    """Three units; what would be the last one's ``post`` is the stage."""
    names = [
        f"stage{stage}.unit{unit}.{position}"
        for unit in (1, 2, 3)
        for position in ("pre", "inner", "standard", "identity", "post")
    ]
    return [*names[:-1], f"stage{stage}"]


def test_resnet20_sites():
    table = site_table("resnet20", (3, 32, 32), 10)
    assert [site.name for site in table.sites] == [
        "stem",
        *sites_of_stage(1),
        *sites_of_stage(2),
        *sites_of_stage(3),
    ]
    assert table.positions == ("standard", "pre", "post", "identity", "inner")
    assert [table.units(stage) for stage in (1, 2, 3, 4)] == [3, 3, 3, 0]
    assert shapes(table, "stem") == [(16, 32, 32)]
    assert shapes(table, "stage") == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert shapes(table, "in-block") == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    paths = {site.name: site.path for site in table.sites}
    assert paths["stem"] == "act1"
    assert paths["stage2"] == "layer2"
    assert paths["stage2.unit3.standard"] == "layer2.2.bn2"


def test_sites_of_an_odd_image_that_is_not_square():
    # Stride 2, kernel 3, padding 1: 25 -> 13 -> 7 and 18 -> 9 -> 5.
    table = site_table("resnet20-b", (1, 25, 18), 10)
    assert shapes(table, "stage") == [(16, 25, 18), (32, 13, 9), (64, 7, 5)]


@pytest.mark.parametrize(
    ("name", "units", "expansion", "norm"),
    [
        ("resnet18", [2, 2, 2, 2], 1, "bn2"),
        ("resnet34", [3, 4, 6, 3], 1, "bn2"),
        ("resnet50", [3, 4, 6, 3], 4, "bn3"),
        ("resnet101", [3, 4, 23, 3], 4, "bn3"),
    ],
)
def test_timm_resnet_sites(name, units, expansion, norm):
    table = site_table(name, (3, 224, 224), 1000)
    planes = [(64, 56), (128, 28), (256, 14), (512, 7)]
    maps = [(width * expansion, side) for width, side in planes]
    assert shapes(table, "stem") == [(64, 56, 56)]  # after max-pool
    assert shapes(table, "stage") == [(channels, side, side) for channels, side in maps]
    for stage, (count, (channels, side)) in enumerate(zip(units, maps, strict=True), start=1):
        assert shapes(table, f"stage{stage}.in-block") == [(channels, side, side)] * count
    assert table.expand("stem")[0].path == "maxpool"
    assert table.expand("stage2.unit1.standard")[0].path == f"layer2.0.{norm}"


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("resnet18", 11_689_512, "1.8141"),
        ("resnet34", 21_797_672, "3.6638"),
        ("resnet50", 25_557_032, "4.0892"),
        ("resnet101", 44_549_160, "7.8014"),
        ("resnet152", 60_192_808, "11.5136"),
    ],
)
def test_published_costs_of_the_timm_backbones(name, params, gmacs):
    cost = site_table(name, (3, 224, 224), 1000).cost
    assert cost.params == cost.trainable_params == params
    assert f"{cost.macs / 1e9:.4f}" == gmacs


def test_published_costs_of_the_cifar_backbones():
    plain = site_table("resnet20", (3, 32, 32), 10).cost
    assert (plain.params, plain.macs) == (269_722, 40_551_040)
    projected = site_table("resnet20-b", (3, 32, 32), 10).cost
    # 16 x 32 + 2 * 32 and 32 x 64 + 2 * 64 parameters more; 512 * 256 + 2048 * 64 macs more.
    assert projected.params == 269_722 + 576 + 2_176 == 272_474
    assert projected.macs == 40_551_040 + 131_072 + 131_072


def test_input_channels_and_classes_count():
    base = site_table("resnet20", (3, 32, 32), 10).cost
    grey = site_table("resnet20", (1, 32, 32), 10).cost
    assert base.params - grey.params == 2 * 9 * 16
    more = site_table("resnet20", (3, 32, 32), 100).cost
    assert more.params - base.params == 90 * 65


def test_unknown_backbones_are_refused_with_the_nearest():
    message = r"unknown backbone 'resnet81'\. Did you mean 'resnet\d+'\? Backbones: resnet20, "
    with pytest.raises(BackboneError, match=message):
        site_table("resnet81", (3, 32, 32), 10)
    with pytest.raises(BackboneError, match="unknown backbone"):
        backbone.backbone("")


@pytest.mark.parametrize("name", backbone.names())
def test_every_backbone_has_sites_of_every_placement_and_a_title(name):
    row = backbone.backbone(name)
    side = 32 if row.small else 224
    table = site_table(name, (3, side, side), 10)
    assert {site.placement for site in table.sites} == {"stem", "stage", "in-block"}
    assert len({site.name for site in table.sites}) == len(table.sites)
    assert len({(site.path, site.side) for site in table.sites}) == len(table.sites)
    assert row.title


def test_images_that_a_backbone_cannot_take_are_refused():
    with pytest.raises(BackboneError, match=r"resnet20 cannot take images of \(3, 0, 0\)"):
        trace_sites("resnet20", (3, 0, 0), 10)


def test_table_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = site_table.__wrapped__("resnet20", (3, 20, 20), 10)
    (kept,) = tmp_path.rglob("*.json")
    assert kept.is_relative_to(tmp_path / "attention-search" / "sites")
    monkeypatch.setattr(backbone, "trace_sites", lambda *_: pytest.fail("traced again"))
    assert site_table.__wrapped__("resnet20", (3, 20, 20), 10) == table


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"sites": 1}'])
def test_a_damaged_table_is_traced_again(text, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = site_table.__wrapped__("resnet20", (3, 20, 20), 10)
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text(text, encoding="utf-8")
    assert site_table.__wrapped__("resnet20", (3, 20, 20), 10) == table
    assert json.loads(kept.read_text(encoding="utf-8")) == json.loads(json.dumps(table.to_json()))


def test_tables_of_different_inputs_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    inputs = [("resnet20", (3, 20, 20), 10), ("resnet20", (3, 20, 20), 5)]
    inputs += [("resnet20", (3, 20, 24), 10), ("resnet20-b", (3, 20, 20), 10)]
    tables = [site_table.__wrapped__(*given) for given in inputs]
    assert len(list(tmp_path.rglob("*.json"))) == 4
    assert [site_table.__wrapped__(*given) for given in inputs] == tables
    assert tables[2].expand("stem")[0].shape == MapShape(16, 20, 24)


def test_a_cache_folder_that_cannot_be_is_no_obstacle(tmp_path, monkeypatch):
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    table = site_table.__wrapped__("resnet20", (3, 20, 20), 10)
    assert table.expand("stem")[0].shape == MapShape(16, 20, 20)
