"""Any network that says where its features are: timm's ``feature_info``.

Its features are the stages' maps, and the first of them the stem's where its module is named so.
The network runs once on the meta device, so that how each map lies in memory is known. What a unit
is, and so in-block, is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from blocks.errors import BackboneError
from blocks.families.units import stage_point, stem_point
from blocks.site import NCHW, NHWC, Point

_STEM = re.compile(r"(?:^|.*[._])(?:stem|conv|bn|norm|act|relu|patch_embed)[_\w]*\d*(?:\.\w+)?")
_BLOCK = re.compile(r"(?:^|[._])(?:stages?|layers?|blocks?|levels?|layer\d)(?:[._]|$|\d)")


def points(network: nn.Module) -> Iterator[Point]:
    """Points of a network of timm that has feature information.

    Raises:
        BackboneError: It has none, or its features are not maps that modules return.
    """
    features = _features(network)
    layouts = _layouts(network, features)
    stage = 0
    for number, (path, _) in enumerate(features):
        if number == 0 and _STEM.fullmatch(path) and not _BLOCK.search(path):
            yield stem_point(path, layout=layouts[path])
            continue
        stage += 1
        yield stage_point(stage, path, layout=layouts[path])


def _refusal(network: nn.Module, why: str) -> BackboneError:
    return BackboneError(
        f"no sites are known for networks of timm's class {type(network).__name__}: {why}; choose a"
        " backbone of a family in docs/backbones.md"
    )


def _features(network: nn.Module) -> list[tuple[str, int]]:
    """Paths of the modules whose results are features, each with its channels."""
    told: Any = getattr(network, "feature_info", None)
    rows = [(str(row["module"]), int(row["num_chs"])) for row in told or () if row.get("module")]
    if not rows:
        raise _refusal(network, "it has no feature information")
    modules = dict(network.named_modules())
    for path, _ in rows:
        if path not in modules:
            raise _refusal(network, f"its feature {path!r} is no module")
    return list(dict(rows).items())


def _layouts(network: nn.Module, features: list[tuple[str, int]]) -> dict[str, str]:
    shapes: dict[str, Any] = {}

    def note(path: str) -> Any:
        def returned(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes[path] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return returned

    hooks = [network.get_submodule(p).register_forward_hook(note(p)) for p, _ in features]
    try:
        with torch.no_grad():
            network(torch.empty(1, *_usual_input(network), device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: _layout(network, path, shapes.get(path), channels) for path, channels in features}


def _layout(network: nn.Module, path: str, shape: Any, channels: int) -> str:
    if shape is None:
        raise _refusal(network, f"its feature {path!r} does not run as a module")
    if len(shape) == 4 and channels in (shape[1], shape[3]):
        return NCHW if shape[1] == channels else NHWC
    raise _refusal(network, f"its feature {path!r} is no map, but of shape {list(shape)}")


def _usual_input(network: nn.Module) -> tuple[int, int, int]:
    told: Any = getattr(network, "pretrained_cfg", None) or {}
    _, height, width = told.get("input_size", (3, 224, 224))
    weights = next(p for p in network.parameters() if p.ndim == 4)
    return int(weights.shape[1]), height, width
