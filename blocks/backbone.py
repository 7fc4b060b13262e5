"""The backbones, where blocks attach to each family, and the tables of their sites.

A table of sites is traced once on the meta device and kept in the user's cache folder, so that a
space is read, drawn and costed without torch from then on.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.errors import BackboneError, listing, suggestion
from blocks.options import MapShape
from blocks.site import IN_BLOCK, STAGE, STANDARD, STEM, Site, SiteTable

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class AttachPoint:
    """A place in a family of backbones, before its map's shape is known."""

    name: str
    placement: str
    stage: int
    unit: int
    position: str
    path: str


Adapter = Callable[["nn.Module"], Iterator[AttachPoint]]


@dataclass(frozen=True)
class Backbone:
    """One row of the table of backbones.

    Args:
        name: The name in spaces.
        build: Builds it from (number of classes, channels of the images).
        adapter: Lists where blocks attach.
        title: One line for the catalogue.
        small: Whether it is made for small images (32 x 32, 10 classes) as in CIFAR papers.
    """

    name: str
    build: Callable[[int, int], nn.Module]
    adapter: Adapter
    title: str
    small: bool = False


def _residual_points(network: nn.Module, *, stem: str) -> Iterator[AttachPoint]:
    """Sites of networks made of ``layer1`` ... ``layerN``, each a sequence of residual units.

    The last norm of a unit's branch is its highest-numbered ``bn``.
    """
    yield AttachPoint(STEM, STEM, 0, 0, "", stem)
    stages = [name for name, _ in network.named_children() if name.startswith("layer")]
    for stage, layer in enumerate(stages, start=1):
        units = list(network.get_submodule(layer).named_children())
        for unit, (child, module) in enumerate(units, start=1):
            norm = max(name for name, _ in module.named_children() if name.startswith("bn"))
            name = f"stage{stage}.unit{unit}.{STANDARD}"
            yield AttachPoint(name, IN_BLOCK, stage, unit, STANDARD, f"{layer}.{child}.{norm}")
        yield AttachPoint(f"stage{stage}", STAGE, stage, 0, "", layer)


def _cifar_points(network: nn.Module) -> Iterator[AttachPoint]:
    return _residual_points(network, stem="act1")


def _timm_resnet_points(network: nn.Module) -> Iterator[AttachPoint]:
    return _residual_points(network, stem="maxpool")


def _cifar_resnet(units: int, *, projection: bool) -> Callable[[int, int], nn.Module]:
    def build(num_classes: int, in_channels: int) -> nn.Module:
        module = importlib.import_module("blocks.cifar_resnet")
        network: nn.Module = module.CifarResNet(
            units, num_classes=num_classes, in_channels=in_channels, projection=projection
        )
        return network

    return build


def _timm(name: str) -> Callable[[int, int], nn.Module]:
    def build(num_classes: int, in_channels: int) -> nn.Module:
        timm = importlib.import_module("timm")
        network: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_channels
        )
        return network

    return build


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "resnet20",
            _cifar_resnet(3, projection=False),
            _cifar_points,
            "CIFAR ResNet-20, parameter-free shortcuts (He et al., option A)",
            small=True,
        ),
        Backbone(
            "resnet20-b",
            _cifar_resnet(3, projection=True),
            _cifar_points,
            "CIFAR ResNet-20, projection shortcuts (option B)",
            small=True,
        ),
        *(
            Backbone(name, _timm(name), _timm_resnet_points, f"timm's {name}")
            for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
        ),
    )
}


def names() -> tuple[str, ...]:
    """The backbones that can be chosen."""
    return tuple(BACKBONES)


def backbone(name: str) -> Backbone:
    """The row of a backbone.

    Raises:
        BackboneError: There is no such backbone.
    """
    if name not in BACKBONES:
        near = suggestion(name, BACKBONES)
        raise BackboneError(f"unknown backbone {name!r}.{near} Backbones: {listing(BACKBONES)}")
    return BACKBONES[name]


def trace_sites(name: str, input_shape: tuple[int, int, int], classes: int) -> SiteTable:
    """Build a backbone on the meta device; note every site's map and the whole cost.

    Raises:
        BackboneError: The backbone is unknown, or too deep for images of this size.
    """
    import torch

    from blocks.cost import measure_cost

    row = backbone(name)
    with torch.device("meta"):
        network = row.build(classes, input_shape[0]).eval()
    points = list(row.adapter(network))
    shapes: dict[str, MapShape] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes[path] = MapShape(*output.shape[1:])

        return hook

    for point in points:
        network.get_submodule(point.path).register_forward_hook(note(point.path))
    try:
        cost = measure_cost(network, input_shape)
    except RuntimeError as error:
        raise BackboneError(f"{name} cannot take images of {input_shape}: {error}") from error
    sites = tuple(
        Site(p.name, p.placement, p.stage, p.unit, p.position, p.path, shapes[p.path])
        for p in points
    )
    return SiteTable(name, input_shape, classes, sites, cost)


@cache
def site_table(name: str, input_shape: tuple[int, int, int], classes: int) -> SiteTable:
    """The sites of a backbone at an input shape (C, H, W): kept from an earlier trace, or traced.

    Raises:
        BackboneError: The backbone is unknown or cannot take images of this size.
    """
    backbone(name)
    kept = _cache_folder() / f"{_trace_key(name, input_shape, classes)}.json"
    try:
        return SiteTable.from_json(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    table = trace_sites(name, input_shape, classes)
    _keep(kept, table)
    return table


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("attention-search") / "sites"


def _trace_key(name: str, input_shape: tuple[int, int, int], classes: int) -> str:
    """A trace holds for these versions and this code of ours alone."""
    content = hashlib.sha256()
    for part in (name, input_shape, classes, version("torch"), version("timm")):
        content.update(repr(part).encode())
    here = Path(__file__).parent
    for source in ("backbone.py", "cifar_resnet.py", "cost.py", "formulas.py", "site.py"):
        content.update((here / source).read_bytes())
    return f"{name}-{content.hexdigest()[:24]}"


def _keep(path: Path, table: SiteTable) -> None:
    """Write a table beside its place and move it there; a read-only cache is no error."""
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(table.to_json()), encoding="utf-8")
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
