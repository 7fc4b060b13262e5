"""The backbones, where blocks attach to each family, and the tables of their sites.

A table of sites is traced once on the meta device and kept in the user's cache folder, so that a
space is read, drawn and costed without torch from then on.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.cached import read_cached, write_cached
from blocks.errors import BackboneError, listing, suggestion
from blocks.families.classes import family_of
from blocks.options import MapShape
from blocks.own_networks import OWN_NETWORKS, OwnNetwork
from blocks.site import BEFORE, NHWC, SHORTCUT, TOKENS, Point, Site, SiteTable
from blocks.timm_names import known_names

if TYPE_CHECKING:
    from torch import nn

Size = tuple[int, int]
Build = Callable[[int, int, Size], "nn.Module"]
# Classes of timm's networks whose images must be multiples of their patches.
OF_PATCHES = ("VisionTransformer", "VisionTransformerDistilled", "SwinTransformer")
PLAIN = "-plain"  # at the end of a name: without the attention that the backbone has of its own


@dataclass(frozen=True)
class Backbone:
    """One row of the table of backbones.

    Args:
        name: The name in spaces.
        build: Builds it from (number of classes, channels of the images, their height and width).
        family: The adapter that lists where blocks attach, as "module:function" of ``families``;
            empty: that of the network's class.
        title: One line for the catalogue.
        small: Whether it is made for small images (32 x 32, 10 classes) as in CIFAR papers.
        image: Height and width of the images for which it was published, where it is not small.
    """

    name: str
    build: Build
    family: str
    title: str
    small: bool = False
    image: int = 224

    def points(self, network: nn.Module) -> list[Point]:
        """Where blocks attach to the network."""
        family = self.family or family_of(type(network).__name__)
        module, _, function = family.partition(":")
        adapter = getattr(importlib.import_module(f"blocks.families.{module}"), function)
        found: Iterable[Point] = adapter(network)
        return list(found)


def _own(row: OwnNetwork) -> Backbone:
    def build(num_classes: int, in_channels: int, size: Size) -> nn.Module:
        return row.build(num_classes, in_channels)

    return Backbone(row.name, build, row.family, row.title, small=row.small)


def _build_timm(name: str, num_classes: int, in_channels: int, size: Size) -> nn.Module:
    timm = importlib.import_module("timm")
    facts = timm.get_pretrained_cfg(name, allow_unregistered=True)
    made_for = {}
    if facts is not None and facts.fixed_input_size and facts.input_size[1:] != size:
        made_for = {"img_size": size}
    network: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **made_for
    )
    if type(network).__name__ in OF_PATCHES:
        _check_patches(name, size, network.patch_embed.patch_size)  # type: ignore[union-attr, arg-type]
    return network


def _check_patches(name: str, size: Size, patch: Size) -> None:
    """Refuse an image that its patches do not cover."""
    if all(side >= unit and side % unit == 0 for side, unit in zip(size, patch, strict=True)):
        return
    covered = [max(unit, side - side % unit) for side, unit in zip(size, patch, strict=True)]
    raise BackboneError(
        f"{name} cannot take images of {size[0]} x {size[1]} pixels: height and width must be"
        f" multiples of its patches' {patch[0]} x {patch[1]}. Resize to {covered[0]} x"
        f" {covered[1]}, or choose another backbone"
    )


def _build_plain(name: str, num_classes: int, in_channels: int, size: Size) -> nn.Module:
    from blocks.own_attention import remove_own

    network = backbone(name).build(num_classes, in_channels, size)
    remove_own(network, name)
    return network


def _timm(name: str, family: str = "") -> Backbone:
    title = f"timm's {name}" + (f", {family}" if family else "")
    image = 299 if family == "Inception" else 224
    return Backbone(name, partial(_build_timm, name), "", title, image=image)


# Those that are listed and tested one by one, by what their papers call them.
TIMM_BACKBONES: dict[str, tuple[str, ...]] = {
    "ResNet": (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet50d"),
        *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d"),
        "seresnet50",
    ),
    "pre-activation ResNet": ("resnetv2_50", "resnetv2_18", "resnetv2_101"),
    "DenseNet": ("densenet121", "densenet169", "densenet201"),
    "MobileNetV2": ("mobilenetv2_100", "mobilenetv2_140"),
    "MobileNetV3": ("mobilenetv3_large_100", "mobilenetv3_small_100"),
    "MNASNet": ("mnasnet_100",),
    "EfficientNet": ("efficientnet_b0", "efficientnet_b1", "efficientnetv2_rw_t"),
    "GhostNet": ("ghostnet_100",),
    "RegNet": ("regnetx_004", "regnetx_032", "regnety_004", "regnety_032"),
    "VGG": ("vgg16_bn", "vgg11_bn", "vgg19_bn", "vgg16"),
    "Inception": ("inception_v3", "inception_v4"),
    "ConvNeXt": ("convnext_tiny", "convnext_small", "convnext_base", "convnextv2_tiny"),
    "ViT": ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"),
    "DeiT": ("deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"),
    "Swin": ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"),
}

BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        *(_own(row) for row in OWN_NETWORKS),
        *(_timm(name, family) for family, names in TIMM_BACKBONES.items() for name in names),
    )
}


def names() -> tuple[str, ...]:
    """The backbones of the table; any other model of timm can be chosen too."""
    return tuple(BACKBONES)


def backbone(name: str) -> Backbone:
    """The row of a backbone: of the table, of timm, or one of these with "-plain" at the end.

    Raises:
        BackboneError: There is no such backbone.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    base = name.removesuffix(PLAIN)
    if base != name and base:
        row = backbone(base)
        title = f"{row.title} without its own attention"
        return replace(row, name=name, build=partial(_build_plain, base), title=title)
    timm_names = known_names()
    if name in timm_names:
        return _timm(name)
    near = _nearest(name.partition(".")[0].lower(), timm_names)
    raise BackboneError(f"unknown backbone {name!r}.{near} Backbones: {choices()}")


def _nearest(word: str, timm_names: Iterable[str]) -> str:
    """The nearest name in words; of names as near, the first of the table."""
    close = difflib.get_close_matches(word, {*BACKBONES, *timm_names}, n=12, cutoff=0.5)
    near = {name: difflib.SequenceMatcher(None, name, word).ratio() for name in close}
    nearest = [name for name in near if near[name] == max(near.values())]
    return suggestion(word, [name for name in BACKBONES if name in nearest][:1] or nearest)


def choices() -> str:
    """What backbones there are, for messages: small ones, one of each family, and the rest."""
    small = [row.name for row in BACKBONES.values() if row.small]
    firsts = [names[0] for names in TIMM_BACKBONES.values()]
    return (
        f"{listing([*small, *firsts])}, ... (docs/backbones.md); any other model of timm; and"
        f" NAME{PLAIN}, a backbone without the attention that it has of its own"
    )


def trace_sites(name: str, input_shape: tuple[int, int, int], classes: int) -> SiteTable:
    """Build a backbone on the meta device; note every site's map and the whole cost.

    Raises:
        BackboneError: The backbone is unknown, or too deep for images of this size.
    """
    import torch

    from blocks.cost import measure_cost
    from blocks.own_attention import count_own

    row = backbone(name)
    channels, *size = input_shape
    try:
        with torch.device("meta"):
            network = row.build(classes, channels, (size[0], size[1])).eval()
        own_attention = count_own(network)
        points = row.points(network)
        shapes: dict[str, MapShape] = {}
        for point in points:
            _note_shape(network, point, shapes)
        cost = measure_cost(network, input_shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(f"{name} cannot take images of {input_shape}: {error}") from error
    for point in points:
        if point.name not in shapes:
            raise BackboneError(
                f"{name}: site {point.name} cannot be had, as {point.path} does not run on its own"
            )
    sites = tuple(Site(**vars(point), shape=shapes[point.name]) for point in points)
    return SiteTable(name, input_shape, classes, sites, cost, own_attention)


def _note_shape(network: nn.Module, point: Point, shapes: dict[str, MapShape]) -> None:
    """Have a network note the map at a point when it runs.

    A shortcut without a module has the map that its unit is given.
    """
    parent, _, name = point.path.rpartition(".")
    host = getattr(network.get_submodule(parent), name)

    def given(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shapes[point.name] = _map_shape(point, inputs[0])

    def returned(module: nn.Module, inputs: Any, output: Any) -> None:
        shapes[point.name] = _map_shape(point, output)

    if host is None:
        network.get_submodule(parent).register_forward_pre_hook(given)
    elif point.side in (BEFORE, SHORTCUT):
        host.register_forward_pre_hook(given)
    else:
        host.register_forward_hook(returned)


def _map_shape(point: Point, x: Any) -> MapShape:
    """The map of a tensor that lies in memory as the point says."""
    if point.layout == NHWC:
        height, width, channels = x.shape[1:]
        return MapShape(channels, height, width)
    if point.layout == TOKENS:
        return MapShape(x.shape[-1], *point.grid)
    return MapShape(*x.shape[1:])


@cache
def site_table(name: str, input_shape: tuple[int, int, int], classes: int) -> SiteTable:
    """The sites of a backbone at an input shape (C, H, W): kept from an earlier trace, or traced.

    Raises:
        BackboneError: The backbone is unknown or cannot take images of this size.
    """
    backbone(name)
    file = f"sites/{_trace_key(name, input_shape, classes)}.json"
    with suppress(ValueError, KeyError, TypeError):
        return SiteTable.from_json(read_cached(file))
    table = trace_sites(name, input_shape, classes)
    write_cached(file, table.to_json())
    return table


def _trace_key(name: str, input_shape: tuple[int, int, int], classes: int) -> str:
    """A trace holds for these versions and this code of ours alone."""
    content = hashlib.sha256()
    for part in (name, input_shape, classes, version("torch"), version("timm")):
        content.update(repr(part).encode())
    here = Path(__file__).parent
    sources = [
        "backbone.py",
        "cost.py",
        "formulas.py",
        "own_attention.py",
        "own_networks.py",
        "parts.py",
    ]
    sources += ["cifar_preact.py", "cifar_resnet.py", "mobilenext.py", "site.py"]
    for source in [*(here / source for source in sources), *sorted(here.glob("families/*.py"))]:
        content.update(source.read_bytes())
    return f"{name}-{content.hexdigest()[:24]}"
