"""DenseNet: a unit is a dense layer, which adds channels to what all layers before it made.

Huang et al., arXiv:1608.06993. A layer's result is the new channels alone, so that ``standard`` is
what will be joined to the older ones; a 3x3 convolution is its last operation, so that this is
``inner`` too. ``pre`` is on the older channels, joined, on their way into this layer alone. What is
joined is a map of its own only at the end of a dense block: ``post`` of the last layer, the stage.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from blocks.families.units import Unit, children, stage_point, stem_point
from blocks.site import BEFORE, INNER, PRE, STANDARD, Point


def points(network: nn.Module) -> Iterator[Point]:
    """Points of timm's ``DenseNet``: the stem's is behind the max-pool."""
    yield stem_point("features.pool0")
    blocks = [path for path in children(network, "features") if "denseblock" in path]
    for stage, block in enumerate(blocks, start=1):
        layers = children(network, block)
        for number, layer in enumerate(layers, start=1):
            unit = Unit(stage, number, layer)
            yield unit.point(PRE, "norm1", side=BEFORE)
            yield unit.point(STANDARD, "", also=(INNER,))
        yield stage_point(stage, block, last_unit=len(layers))
