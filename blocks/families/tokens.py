"""Transformers of timm: ``VisionTransformer`` (tokens) and ``SwinTransformer`` (maps N, H, W, C).

A unit is an encoder block, which has two branches, self-attention and the layers after it. Blocks
go to the second: ``pre`` before its norm, ``standard`` at its end, before the addition. A shortcut
is no module there, so ``identity`` is not offered, and no convolution is, so ``inner`` is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from blocks.families.units import Unit, stage_point, stem_point
from blocks.site import BEFORE, NHWC, POST, PRE, STANDARD, TOKENS, Point

QUARTERS = 4


def vit_points(network: Any) -> Iterator[Point]:
    """Points of a ``VisionTransformer``, whose stages are the quarters of its depth.

    The stem's map is the input of the first block: patches with their positions. Blocks see the
    tokens of patches as a map; the class token passes by. Where it alone is classified, the last
    encoder block's second branch and output move nothing in the patches that is seen again: it has
    no sites, and the last stage ends before it.
    """
    layout: dict[str, Any] = {
        "layout": TOKENS,
        "prefix": network.num_prefix_tokens,
        "grid": tuple(network.patch_embed.grid_size),
    }
    yield stem_point("norm_pre", **layout)
    depth = len(network.blocks)
    seen = depth - 1 if network.global_pool == "token" else depth
    ends = [min(depth * quarter // QUARTERS, seen) for quarter in range(1, QUARTERS + 1)]
    first = 0
    for stage, end in enumerate(ends, start=1):
        for index in range(first, end):
            unit = Unit(stage, index - first + 1, f"blocks.{index}", **layout)
            yield from _branch_points(unit)
            if index < end - 1:
                yield unit.point(POST, "")
        yield stage_point(stage, f"blocks.{end - 1}", last_unit=end - first, **layout)
        first = end


def swin_points(network: nn.Module) -> Iterator[Point]:
    """Points of a ``SwinTransformer``: the stem's map is that of the patches and their norm."""
    yield stem_point("patch_embed", layout=NHWC)
    for stage, (name, layer) in enumerate(network.get_submodule("layers").named_children(), 1):
        blocks = list(layer.get_submodule("blocks").named_children())
        for number, (child, block) in enumerate(blocks, start=1):
            path = f"layers.{name}.blocks.{child}"
            height, width = block.input_resolution  # type: ignore[misc]
            # The second branch works on tokens, though the unit takes and returns a map.
            yield from _branch_points(Unit(stage, number, path, TOKENS, grid=(height, width)))
            if number < len(blocks):
                yield Unit(stage, number, path, NHWC).point(POST, "")
        yield stage_point(stage, f"layers.{name}", last_unit=len(blocks), layout=NHWC)


def _branch_points(unit: Unit) -> Iterator[Point]:
    yield unit.point(PRE, "norm2", side=BEFORE)
    yield unit.point(STANDARD, "drop_path2", side=BEFORE)
