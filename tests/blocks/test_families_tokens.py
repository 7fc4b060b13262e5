"""Vision transformers: blocks on tokens and on maps with channels last, permuted by hand."""

import pytest
import timm
import torch
from placed import Warp, Zeros, images_of, network_of, placed, table_of, unchanged, unit_with
from torch import nn

from blocks.attach import TokenMap, attach
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.errors import BackboneError
from blocks.families import tokens
from blocks.options import MapShape
from blocks.site import Site

VIT, DISTILLED = "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"
SWIN = "swin_tiny_patch4_window7_224"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        (VIT, 5_717_416),
        ("vit_small_patch16_224", 22_050_664),
        ("vit_base_patch16_224", 86_567_656),
        ("deit_tiny_patch16_224", 5_717_416),
        (DISTILLED, 5_910_800),
        (SWIN, 28_288_354),
        ("swin_small_patch4_window7_224", 49_606_258),
    ],
)
def test_published_parameters(name, params):
    assert site_table(name, (3, 224, 224), 1000).cost.params == params


def test_macs_of_a_vision_transformer_by_formula():
    tokens_, width = 197, 192
    attention = 4 * tokens_ * width * width + 2 * tokens_ * tokens_ * width
    unit = attention + 2 * tokens_ * width * 4 * width
    patches = 196 * width * 3 * 16 * 16
    cost = site_table(VIT, (3, 224, 224), 1000).cost
    assert cost.macs == patches + 12 * unit + width * 1000


def warp_tokens(x, grid, prefix):
    """The warp of ``placed`` on tokens, pixel by pixel."""
    height, width = grid
    as_map = torch.empty(x.shape[0], x.shape[2], height, width)
    for row in range(height):
        for column in range(width):
            as_map[:, :, row, column] = x[:, prefix + row * width + column]
    warped, out = Warp()(as_map), x.clone()
    for row in range(height):
        for column in range(width):
            out[:, prefix + row * width + column] = warped[:, :, row, column]
    return out


def encoder_by_hand(unit, x, attended, position=None, block=unchanged):
    """The second branch and what surrounds it, from the result of the first."""

    def at(place, value):
        return block(value) if position == place else value

    branch = unit.mlp(getattr(unit.norm2, "host", unit.norm2)(at("pre", attended)))
    return at("post", attended + at("standard", branch))


@pytest.mark.parametrize("position", ["standard", "pre", "post"])
@pytest.mark.parametrize(("name", "prefix"), [(VIT, 1), (DISTILLED, 2)])
def test_positions_of_vision_transformers(name, prefix, position):
    network = network_of(name)
    unit = network.blocks[4]
    (site,) = table_of(name).expand(f"stage2.unit2.in-block.{position}")
    assert site.shape == MapShape(192, 4, 6)
    x, y = unit_with(name, network, "blocks.4", site, Warp(site.shape))
    assert x.shape == (2, prefix + 24, 192)

    def block(value):
        return warp_tokens(value, (4, 6), prefix)

    with torch.no_grad():
        attended = x + unit.attn(unit.norm1(x))
        expected = encoder_by_hand(unit, x, attended, position, block)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        if position != "pre":  # the tokens before the pixels are as they were
            plain = encoder_by_hand(unit, x, attended)
            torch.testing.assert_close(y[:, :prefix], plain[:, :prefix], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", ["standard", "pre", "post"])
@pytest.mark.parametrize(("stage", "number"), [(1, 1), (2, 1), (3, 3)])
def test_positions_of_swin(stage, number, position):
    network = network_of(SWIN)
    path = f"layers.{stage - 1}.blocks.{number - 1}"
    unit = network.get_submodule(path)
    (site,) = table_of(SWIN).expand(f"stage{stage}.unit{number}.in-block.{position}")
    x, y = unit_with(SWIN, network, path, site, Warp(site.shape))
    batch, height, width, channels = x.shape
    assert site.shape == MapShape(channels, height, width)

    def block(value):
        return warp_tokens(value, (height, width), 0)

    with torch.no_grad():
        attended = (x + unit._attn(unit.norm1(x))).reshape(batch, -1, channels)
        expected = encoder_by_hand(unit, x, attended, position, block)
    expected = expected.reshape(batch, height, width, channels)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "path"), [(VIT, "blocks.10"), (SWIN, "layers.2.blocks.4")])
def test_zeros_at_standard_leave_the_first_branch_in_the_pixels(name, path):
    network = network_of(name)
    unit = network.get_submodule(path)
    (site,) = (s for s in table_of(name).sites if s.path == f"{path}.drop_path2")
    x, y = unit_with(name, network, path, site, Zeros())
    with torch.no_grad():
        first = (unit._attn if name == SWIN else unit.attn)(unit.norm1(x))
    pixels = (slice(None), slice(site.prefix, None))
    torch.testing.assert_close(y[pixels], (x + first)[pixels], rtol=1e-4, atol=1e-4)


def test_the_stem_of_a_vision_transformer_is_the_input_of_the_first_block():
    network, x = network_of(VIT), images_of(VIT)
    (site,) = table_of(VIT).expand("stem")
    with torch.no_grad():
        embedded = network._pos_embed(network.patch_embed(x))
        warped = warp_tokens(embedded, (4, 6), 1)
        expected = network.head(network.norm(network.blocks(warped))[:, 0])
        with placed(network, site, Warp(site.shape)):
            torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_stem_and_stage_of_swin_are_maps_with_channels_last():
    network, x, table = network_of(SWIN), images_of(SWIN), table_of(SWIN)
    stem, stage = table.expand("stem")[0], table.expand("stage2")[0]

    def warp(value):
        return Warp()(value.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    with torch.no_grad():
        value = network.layers[1](network.layers[0](warp(network.patch_embed(x))))
        expected = network.head(network.norm(network.layers[3](network.layers[2](warp(value)))))
        with placed(network, stem, Warp(stem.shape)), placed(network, stage, Warp(stage.shape)):
            torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_stages_of_a_vision_transformer_are_quarters_that_are_seen_again():
    ends = [site.path for site in table_of(VIT).expand("stage")]
    assert ends == ["blocks.2", "blocks.5", "blocks.8", "blocks.10"]
    assert not any(site.path.startswith("blocks.11") for site in table_of(VIT).sites)


def test_where_the_pixels_are_averaged_the_last_block_has_sites_too():
    network = timm.create_model(VIT, global_pool="avg", num_classes=4, img_size=(32, 48)).eval()
    points = list(tokens.vit_points(network))
    assert [p.path for p in points if p.placement == "stage"][-1] == "blocks.11"
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        plain = network(x)
        attach(network, Site(**vars(points[-1]), shape=MapShape(192, 2, 3)), Warp())
        assert not torch.equal(network(x), plain)


def test_what_the_last_block_does_to_the_pixels_is_not_seen():
    """Why it has no sites: the class token alone is classified."""
    network, x = network_of(VIT), images_of(VIT)
    with torch.no_grad():
        plain = network(x)
        handle = network.blocks[11].register_forward_hook(
            lambda module, inputs, output: torch.cat((output[:, :1], 0 * output[:, 1:]), 1)
        )
        assert torch.equal(network(x), plain)
        handle.remove()


@pytest.mark.parametrize(
    ("name", "size", "cure"),
    [
        (VIT, (224, 230), "multiples of its patches' 16 x 16. Resize to 224 x 224"),
        (VIT, (8, 32), "Resize to 16 x 32"),
        (SWIN, (30, 64), "multiples of its patches' 4 x 4. Resize to 28 x 64"),
    ],
)
def test_images_that_patches_do_not_cover_are_refused(name, size, cure):
    with pytest.raises(BackboneError, match=f"{name} cannot take images of {size[0]} x") as refusal:
        site_table(name, (3, *size), 10)
    assert cure in str(refusal.value)


@pytest.mark.parametrize(("name", "size"), [(VIT, (16, 32)), (SWIN, (32, 32)), (SWIN, (4, 8))])
def test_small_images(name, size):
    network = build_network(
        {"backbone": name, "placements": [{"site": "stage1", "block": "eca"}]},
        input_size=size,
        num_classes=3,
        seed=0,
    )
    assert network(torch.randn(2, 3, *size)).shape == (2, 3)


def test_tokens_without_a_prefix_are_viewed_not_copied():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    x = torch.randn(2, 21, 3)
    out = TokenMap(Spy(), MapShape(3, 3, 7), prefix=0)(x)
    assert out.data_ptr() == x.data_ptr() == seen[0].data_ptr()
    TokenMap(Spy(), MapShape(3, 4, 5), prefix=1)(x)
    assert seen[1].data_ptr() == x[:, 1:].data_ptr()
    assert seen[1].stride()[1:] == (1, 15, 3)  # channels last, as the tokens lie


@pytest.mark.parametrize("name", [VIT, SWIN])
def test_compiled_whole_and_exported(name):
    placements = [
        {"site": "stem", "block": "se"},
        {"site": "stage2.in-block", "block": "eca"},
        {"site": "stage2.in-block.pre", "block": "se"},
        {"site": "stage3", "block": "coord"},
    ]
    network = build_network(
        {"backbone": name, "placements": placements}, input_size=(32, 48), num_classes=3, seed=0
    ).eval()
    x = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        plain = network(x)
        torch.compiler.reset()
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), plain)
        exported = torch.export.export(network, (x,)).module()
        torch.testing.assert_close(exported(x), plain)
    torch.compiler.reset()
