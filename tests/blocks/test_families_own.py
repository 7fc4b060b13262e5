"""Sites of ConvNeXt, transformers, the CIFAR networks and MobileNeXt, whatever the family."""

import pytest
import torch
from placed import Warp, images_of, network_of, placed, table_of

from blocks.backbone import TIMM_BACKBONES
from blocks.own_networks import OWN_NETWORKS

TITLES = ("ConvNeXt", "ViT", "DeiT", "Swin")
NAMES = [
    *(row.name for row in OWN_NETWORKS),
    *(name for title in TITLES for name in TIMM_BACKBONES[title]),
]
RUN = [
    *("resnet20", "resnet20-b", "wrn16-4", "preact-resnet18", "mobilenext_100"),
    *("convnext_tiny", "convnextv2_tiny"),
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
]


def test_every_kind_of_network_is_run():
    assert {row.source for row in OWN_NETWORKS} == {
        row.source for row in OWN_NETWORKS if row.name in RUN
    }
    assert all(set(RUN) & set(TIMM_BACKBONES[title]) for title in TITLES)


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
