"""The ordinary architecture that learnt frequencies have come to."""

import pytest
import torch

from blocks.architecture import Architecture, Placement, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.fca import FrequencyChannelAttention
from blocks.found import found_architecture

SITES = site_table("resnet20", (1, 14, 14), 10)


def built(placement):
    architecture = resolve(Architecture("resnet20", (placement,)), SITES)
    network = build_network(architecture, in_channels=1, input_size=14)
    learnt = [m for m in network.modules() if isinstance(m, FrequencyChannelAttention)]
    for number, module in enumerate(learnt):
        with torch.no_grad():
            module.alpha[:, 7 * number + 2] = 1  # frequency (number, 2) in every group
    return network, architecture


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_every_site_has_its_own_frequencies(start, residual):
    options = (("frequency", "nas4"), ("residual", residual))
    network, architecture = built(Placement("stage", "fca", options, start))
    found = found_architecture(network, architecture, SITES)
    rows = {p.site: dict(p.options) for p in found.placements}
    # Four groups with one frequency are one group; maps of 14, 7 and 4 pixels, and on 4 pixels
    # frequency 2 of the grid is index 1, like frequency 1.
    frequencies = {site: row["frequency"] for site, row in rows.items()}
    assert frequencies == {"stage1": "0,2", "stage2": "1,2", "stage3": "1,1"}
    assert all(row.get("residual", False) == residual for row in rows.values())
    assert all(p.identity_start == start for p in found.placements)
    build_network(found, in_channels=1, input_size=14)


def test_members_of_compositions_are_found():
    blocks = "sequential(blocks=(simam + fca(frequency=nas2))) + fca(frequency=nas1, reduction=4)"
    placement = Placement("stage1", "parallel", (("blocks", blocks), ("combine", "mean")))
    network, architecture = built(placement)
    found = found_architecture(network, architecture, SITES)
    text = dict(found.placements[0].options)["blocks"]
    assert text == (
        "fca(frequency=0,2, reduction=4) + "
        "sequential(blocks=(simam(energy_lambda=0.0001) + fca(frequency=1,2, reduction=16)))"
    )


def test_where_nothing_is_learnt_there_is_nothing_to_find():
    architecture = resolve(Architecture("resnet20", (Placement("stage", "se"),)), SITES)
    network = build_network(architecture, in_channels=1, input_size=14)
    assert found_architecture(network, architecture, SITES) is None
