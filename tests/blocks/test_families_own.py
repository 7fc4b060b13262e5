"""Sites of ConvNeXt, transformers, the CIFAR networks and MobileNeXt, whatever the family."""

import os
from pathlib import Path

import pytest
import torch
from placed import Warp, golden, images_of, network_of, placed, table_of

from blocks.backbone import BACKBONES
from blocks.own_networks import OWN_NETWORKS

GOLDEN = Path(__file__).parent / "sites"
FAMILIES = ("preact", "sandglass", "convnext", "tokens")
NAMES = [
    name
    for name, row in BACKBONES.items()
    if row.family.partition(":")[0] in FAMILIES or name in {own.name for own in OWN_NETWORKS}
]
RUN = [
    *("resnet20", "resnet20-b", "wrn16-4", "preact-resnet18", "mobilenext_100"),
    *("convnext_tiny", "convnextv2_tiny"),
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
]


@pytest.mark.parametrize("name", NAMES)
def test_sites_are_those_of_the_golden_file(name):
    """After a change that is meant: SITES_WRITE=1 python -m pytest THIS_FILE, and read the diff."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SITES_WRITE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(golden(name), encoding="utf-8")
    assert golden(name) == path.read_text(encoding="utf-8")


def test_every_kind_of_network_is_run():
    assert {BACKBONES[name].family for name in RUN} == {BACKBONES[name].family for name in NAMES}


@pytest.mark.parametrize("name", RUN)
def test_a_block_at_any_site_sees_the_tables_map_once_and_changes_the_result(name):
    network, x = network_of(name), images_of(name, batch=1)
    table = table_of(name)
    with torch.no_grad():
        plain = network(x)
        for site in [site for site in table.sites if tried(site, table)]:
            warp = Warp(site.shape)
            with placed(network, site, warp):
                changed = network(x)
            assert warp.calls == 1, site.name
            assert changed.isfinite().all()
            assert not torch.equal(changed, plain), site.name
        assert torch.equal(network(x), plain)


def tried(site, table):
    """All sites of first, second and last units."""
    return site.unit <= 2 or site.unit == table.units(site.stage)


@pytest.mark.parametrize("name", NAMES)
def test_every_site_has_one_name_and_one_place(name):
    sites = table_of(name).sites
    assert len({site.name for site in sites}) == len(sites)
    assert len({(site.path, site.side) for site in sites}) == len(sites)
    assert {site.placement for site in sites} == {"stem", "stage", "in-block"}


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_ends_with_a_site_and_has_units(name):
    table = table_of(name)
    assert [site.stage for site in table.expand("stage")] == list(range(1, table.stages + 1))
    for stage in range(1, table.stages + 1):
        assert len(table.expand(f"stage{stage}.in-block")) == table.units(stage) > 0
