"""Any network that says where its features are: timm's ``feature_info``.

Its features are the stages' maps. The stem's is what its module ``stem`` or ``patch_embed`` gives,
or else its first feature, where that is not a stage's. The network runs once on the meta device, so
that how each map lies in memory is known. What a unit is, and so in-block, is not.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from blocks.attach import Followed
from blocks.errors import BackboneError
from blocks.families.units import stage_point, stem_point
from blocks.site import NCHW, NHWC, TOKENS, Point

STEMS = ("stem", "patch_embed")
_BEFORE_STAGES = re.compile(r"(\w+\.)?(layer0|conv|bn|norm|act|relu|stem|patch)\w*(\.\w+)*", re.I)


def points(network: nn.Module) -> Iterator[Point]:
    """Points of a network of timm that has feature information.

    Raises:
        BackboneError: It has none, or its features are not maps that modules return.
    """
    features = _features(network)
    shapes = _shapes(network, [*STEMS, *features])
    layouts = {path: _layout(network, path, shapes, n) for path, n in features.items()}
    first, *_ = features
    found = {path: _layout_of_stem(network, path, shapes, layouts[first]) for path in STEMS}
    stem = next((path for path in STEMS if path not in features and found[path]), "")
    if _BEFORE_STAGES.fullmatch(first):
        stem = stem or first
        del features[first]
    _check_attached(network, [*([stem] if stem else []), *features])
    if stem:
        yield stem_point(stem, **_lies(network, shapes[stem], {**found, **layouts}[stem]))
    for stage, path in enumerate(features, start=1):
        yield stage_point(stage, path, **_lies(network, shapes[path], layouts[path]))


def _lies(network: nn.Module, shape: tuple[int, ...], layout: str) -> dict[str, Any]:
    """How a feature lies in memory, as a point says it."""
    if layout != TOKENS:
        return {"layout": layout}
    rows, columns = _grid(network)
    return {"layout": TOKENS, "prefix": shape[1] - rows * columns, "grid": (rows, columns)}


def _refusal(network: nn.Module, why: str) -> BackboneError:
    return BackboneError(
        f"no sites are known for networks of timm's class {type(network).__name__}: {why}; choose a"
        " backbone of a family in docs/backbones.md"
    )


def _features(network: nn.Module) -> dict[str, int]:
    """Channels of the features, by the path of the module that returns each."""
    told: Any = getattr(network, "feature_info", None)
    rows = {str(row["module"]): int(row["num_chs"]) for row in told or () if row.get("module")}
    if not rows:
        raise _refusal(network, "it has no feature information")
    modules = dict(network.named_modules())
    for path in rows:
        if path not in modules:
            raise _refusal(network, f"its feature {path!r} is no module")
    return rows


def _run(network: nn.Module) -> None:
    """Run on one image of the size that the network was made for."""
    told: Any = getattr(network, "pretrained_cfg", None) or {}
    channels, height, width = told.get("input_size", (3, 224, 224))
    channels = getattr(network, "in_chans", channels)
    with torch.no_grad():
        network(torch.empty(1, channels, height, width, device="meta"))


def _shapes(network: nn.Module, paths: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of what modules return; none where that is no tensor."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Any:
        def returned(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes[path] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return returned

    modules = dict(network.named_modules())
    hooks = [modules[p].register_forward_hook(note(p)) for p in paths if p in modules]
    try:
        _run(network)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _refusal(network, f"it did not run on its usual image: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _layout_of_stem(network: nn.Module, path: str, shapes: dict[str, Any], next_to: str) -> str:
    """How a stem's tokens or square map lie in memory: a map's sides are equal.

    As the next feature where its channels are too. Empty where it is neither.
    """
    shape = shapes.get(path, ())
    if len(shape) == 3 and shape[1] in _tokens(network):
        return TOKENS
    if len(shape) != 4:
        return ""
    _, first, second, third = shape
    if first == second == third:
        return next_to if next_to in (NCHW, NHWC) else ""
    return NCHW if second == third else NHWC if first == second else ""


def _layout(network: nn.Module, path: str, shapes: dict[str, Any], channels: int) -> str:
    shape = shapes.get(path)
    if shape is None:
        raise _refusal(network, f"its feature {path!r} does not run as a module")
    if len(shape) == 4 and channels in (shape[1], shape[3]):
        return NCHW if shape[1] == channels else NHWC
    if len(shape) == 3 and shape[2] == channels and shape[1] in _tokens(network):
        return TOKENS
    raise _refusal(network, f"its feature {path!r} is no map, but of shape {list(shape)}")


def _grid(network: nn.Module) -> tuple[int, int]:
    """Rows and columns of an image's patches; (0, 0) where they are no grid."""
    for name in reversed(STEMS):
        grid: Any = getattr(getattr(network, name, None), "grid_size", None)
        if grid:
            return grid[0], grid[1]
    return 0, 0


def _tokens(network: nn.Module) -> tuple[int, ...]:
    """Tokens of an image whose patches are a grid, without and with class tokens before them."""
    rows, columns = _grid(network)
    patches = rows * columns
    return (patches, patches + int(getattr(network, "num_prefix_tokens", 0))) if rows else ()


def _check_attached(network: nn.Module, paths: list[str]) -> None:
    """Try that the network runs with something behind each of its modules."""
    twin = copy.deepcopy(network)
    for path in sorted(paths, key=lambda path: -path.count(".")):
        parent, _, child = path.rpartition(".")
        host = twin.get_submodule(path)
        setattr(twin.get_submodule(parent), child, Followed(host, nn.Identity()))
    try:
        _run(twin)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise _refusal(network, f"blocks cannot be put behind its features: {error}") from error
