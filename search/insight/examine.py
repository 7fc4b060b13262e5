"""One trained network put to all questions: in two passes, over a split and over chosen images.

What is kept is bounded whatever the network. A trial keeps, for n images of a data set with K
classes: per image a picture of at most 64 x 64 and two Grad-CAM maps of at most 14 x 14; per site
at most 64 channels x (4 + 10 classes) gains and maps of at most 14 x 14 and 10 of 7 x 7; and for
one site of every stage two attention maps of at most 8 heads, 14 x 14 and 8 bits each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from blocks.backbone import site_table
from blocks.build import MadeFor
from search.insight.attention_maps import (
    AttentionSummary,
    AttentionTally,
    attention_blocks,
    diagonal,
    relative_entropy,
)
from search.insight.frequency import FrequencyShares, FrequencyTally, frequency_blocks
from search.insight.gates import GainStatistics, GainTally, shrunk
from search.insight.gradcam import grad_cam_of, last_stage, scaled
from search.insight.placed import Observer, Placed, placed_blocks, run_observed
from search.insight.store import FREQUENCY, GATES, GRADCAM, MAPS, Insight

PICTURE_SIDE, MAP_SIDE, CLASS_MAP_SIDE = 64, 14, 7
CHANNELS_KEPT, CLASSES_KEPT, HEADS_KEPT = 64, 10, 8
IMAGES_ATTENDED = 64
# Blocks with attention between pixels whose weights this tool cannot see.
UNSEEN_WEIGHTS = ("timm:nl", "timm:bat")

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Gazed:
    """The images that are looked at.

    Args:
        numbers: In their split.
        images: Normalised, (n, C, H, W).
        pictures: As they are, 8-bit, (n, C, H, W).
        labels: True classes (n,).
    """

    numbers: list[int]
    images: Tensor
    pictures: NDArray[np.uint8]
    labels: Tensor


@dataclass(frozen=True)
class Overview:
    """What a pass over a split says of a network.

    Args:
        right: Which images are classified right, (N,).
        insights: Kind -> what was seen: gates, frequency; kinds without anything are left out.
        notes: What could not be seen.
    """

    right: NDArray[np.bool_]
    insights: dict[str, Insight]
    notes: list[str]


def survey(network: nn.Module, images: Tensor, labels: Tensor, classes: int) -> Overview:
    """The gains of all blocks and the energies of all frequency groups, over many images.

    Args:
        network: Trained, of ``blocks.build``.
        images: Normalised, (N, C, H, W).
        labels: True classes (N,).
        classes: How many there are.
    """
    placed = placed_blocks(network)
    gains = [(block, GainTally(classes)) for block in placed]
    energies = [
        (block, module, FrequencyTally(module))
        for block in _wholes(placed)
        for module in frequency_blocks(block.module)
    ]
    observers: list[tuple[nn.Module, Observer]] = [(b.module, tally) for b, tally in gains]
    observers += [(module, tally) for _, module, tally in energies]
    shares_NK = run_observed(network, images, labels, observers)
    insights = {}
    seen = [(block, tally) for block, tally in gains if tally.images]
    if seen:
        insights[GATES] = _gates([(block, tally.statistics()) for block, tally in seen])
    picked = [(block, tally.shares()) for block, _, tally in energies if tally.images]
    if picked:
        insights[FREQUENCY] = _frequencies(picked)
    idle = [block.key for block, tally in gains if not tally.images]
    right = (shares_NK.argmax(dim=1) == labels).cpu().numpy()
    return Overview(right, insights, _notes(network, placed, idle))


def _wholes(placed: Sequence[Placed]) -> list[Placed]:
    """What stands at sites, without the members of compositions, which it holds."""
    return [block for block in placed if not block.part]


def _notes(network: nn.Module, placed: Sequence[Placed], idle: Sequence[str]) -> list[str]:
    """What cannot be seen of this network, in words."""
    notes = []
    if not placed:
        notes.append("no attention is inserted: Grad-CAM alone")
    own = _own_attention(network)
    if own:
        modules = "1 module" if own == 1 else f"{own} modules"
        notes.append(f"the backbone's own attention ({modules}) is part of it and not measured")
    notes += [f"{key} was not run and has no numbers" for key in idle]
    for name in UNSEEN_WEIGHTS:
        keys = [block.key for block in placed if block.block == name]
        if keys:
            notes.append(
                f"{name} does not say its attention weights (a method attention_weights would):"
                f" no maps at {', '.join(keys)}, its gains alone"
            )
    return notes


def _own_attention(network: nn.Module) -> int:
    """Modules of attention that the backbone has of its own."""
    made_for: Any = getattr(network, "made_for", None)
    if not isinstance(made_for, MadeFor):
        return 0
    return site_table(made_for.backbone, made_for.shape, made_for.classes).own_attention


def gaze(network: nn.Module, gazed: Gazed) -> dict[str, Insight]:
    """Grad-CAM and attention maps of chosen images.

    Args:
        network: Trained, of ``blocks.build``.
        gazed: The images.

    Returns:
        Kind -> what was seen: gradcam, and maps where a block says its weights.
    """
    tallies = [
        (block, AttentionTally(module), module)
        for block in _wholes(placed_blocks(network))
        for module in attention_blocks(block.module)
    ]
    shares_BK = run_observed(
        network,
        gazed.images,
        gazed.labels,
        [(module, tally) for _, tally, module in tallies],
        batch=8,
    )
    insights = {GRADCAM: _grad_cams(network, gazed, shares_BK)}
    seen = [(b, tally.summary(), module) for b, tally, module in tallies if tally.images]
    if seen:
        insights[MAPS] = _maps(seen)
    return insights


# What is kept of each kind. ----------------------------------------------------------------------


def number(value: float) -> float | None:
    """A number for JSON, to six digits; None where there is none."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _numbers(values: Tensor) -> list[float | None]:
    return [number(value) for value in values.tolist()]


def _half(values: Tensor) -> NDArray[Any]:
    return values.detach().float().cpu().numpy().astype(np.float16)


def _evenly(count: int, at_most: int) -> NDArray[np.int64]:
    """Numbers below ``count``, at most so many, evenly spread."""
    return np.linspace(0, count - 1, min(count, at_most)).round().astype(np.int64)


def _gates(found: Sequence[tuple[Placed, GainStatistics]]) -> Insight:
    arrays: Arrays = {}
    sites: list[dict[str, Any]] = []
    for block, gains in found:
        mean_C = gains.mean_C[~gains.mean_C.isnan()]
        sites.append(
            {
                "site": block.key,
                "stage": block.stage,
                "block": block.block,
                "member": bool(block.part),
                "channels": len(gains.mean_C),
                "unseen_channels": len(gains.mean_C) - len(mean_C),
                "gain": number(float(mean_C.mean())),
                "between_channels": number(float(mean_C.std(correction=0))),
                "across_images": number(float(gains.deviation_C.square().nanmean().sqrt())),
                "specificity": number(gains.specificity),
                "by_channels": number(gains.by_channels),
                "by_pixels": number(gains.by_pixels),
            }
        )
        arrays |= _gain_arrays(block.key, gains)
    stages = [_stage(number, sites) for number in sorted({site["stage"] for site in sites})]
    first = found[0][1]
    content = {
        "images": first.images,
        "by_chance": number(first.by_chance),
        "stages": stages,
        "sites": sites,
    }
    return Insight(content, arrays)


def _gain_arrays(key: str, gains: GainStatistics) -> Arrays:
    """Gains of channels (mean, deviation, specificity, then classes), and maps of gains."""
    device = gains.mean_C.device
    channels = torch.from_numpy(_evenly(len(gains.mean_C), CHANNELS_KEPT)).to(device)
    classes = gains.class_mean_KC[:CLASSES_KEPT]
    rows = [gains.mean_C, gains.deviation_C, gains.specificity_C, *classes]
    return {
        f"{key}.channels": channels.cpu().numpy().astype(np.uint16),
        f"{key}.gains": _half(torch.stack(rows)[:, channels]),
        f"{key}.map": _half(shrunk(gains.map_HW, MAP_SIDE)),
        f"{key}.class_maps": _half(shrunk(gains.class_map_KHW[:CLASSES_KEPT], CLASS_MAP_SIDE)),
    }


def _stage(stage: int, sites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means over the sites of a stage; members of compositions are in their wholes."""
    of = [site for site in sites if site["stage"] == stage and not site["member"]]
    names = ("gain", "between_channels", "across_images", "specificity")
    return {"stage": stage, "sites": len(of)} | {name: _mean(of, name) for name in names}


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return number(sum(values) / len(values)) if values else None


def _frequencies(found: Sequence[tuple[Placed, FrequencyShares]]) -> Insight:
    sites = []
    for block, shares in found:
        columns = (shares.shares, shares.means, shares.energies)
        groups = [
            {
                "u": u,
                "v": v,
                "share": number(share),
                "mean_share": number(mean),
                "energy": number(energy),
            }
            for (u, v), share, mean, energy in zip(shares.pairs, *columns, strict=True)
        ]
        for group, weight in zip(groups, shares.weights, strict=False):  # none where given
            group["weight"] = number(weight)
        sites.append(
            {
                "site": block.key,
                "stage": block.stage,
                "size": list(shares.size),
                "distinct": shares.distinct,
                "groups": groups,
                "spectrum": [_numbers(row) for row in shares.spectrum_uv],
            }
        )
    return Insight({"sites": sites})


def _grad_cams(network: nn.Module, gazed: Gazed, shares_BK: Tensor) -> Insight:
    predicted_B = shares_BK.argmax(dim=1)
    cams = {
        "true": grad_cam_of(network, gazed.images, gazed.labels),
        "predicted": grad_cam_of(network, gazed.images, predicted_B),
    }
    images = [
        {
            "image": gazed.numbers[row],
            "true": int(gazed.labels[row]),
            "predicted": int(predicted_B[row]),
            "probability": number(float(shares_BK[row, predicted_B[row]])),
            "true_probability": number(float(shares_BK[row, gazed.labels[row]])),
            "evidence": {name: bool(maps[row].max() > 0) for name, maps in cams.items()},
        }
        for row in range(len(gazed.numbers))
    ]
    site = last_stage(network)
    content = {"site": site.name, "size": list(cams["true"].shape[1:]), "images": images}
    arrays = {name: _half(scaled(shrunk(maps, MAP_SIDE))) for name, maps in cams.items()}
    return Insight(content, {"pictures": small_pictures(gazed.pictures), **arrays})


def small_pictures(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (n, C, H, W) reduced to at most 64 x 64 pixels."""
    height, width = pictures.shape[2:]
    factor = PICTURE_SIDE / max(height, width)
    if factor >= 1:
        return pictures
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = functional.interpolate(torch.from_numpy(pictures).float(), size=size, mode="area")
    reduced: NDArray[np.uint8] = small.round().clamp(0, 255).to(torch.uint8).numpy()
    return reduced


def _maps(found: Sequence[tuple[Placed, AttentionSummary, nn.Module]]) -> Insight:
    sites, arrays = [], {}
    for block, summary, module in found:
        sites.append(_map_numbers(block, summary, module))
    last = {block.stage: (block, summary) for block, summary, _ in found}
    for block, summary in last.values():
        for name, maps in (("received", summary.received_BNHW), ("centre", summary.centre_BNHW)):
            arrays[f"{block.site}.{name}"] = _eight_bits(shrunk(maps[:, :HEADS_KEPT], MAP_SIDE))
    return Insight({"images": found[0][1].images, "sites": sites}, arrays)


def _map_numbers(block: Placed, summary: AttentionSummary, module: nn.Module) -> dict[str, Any]:
    height, width = summary.size
    corner = diagonal(height, width)
    heads = [
        {
            "entropy": number(entropy),
            "relative_entropy": number(relative_entropy(entropy, height * width)),
            "distance": number(distance),
            "relative_distance": number(distance / corner) if corner else None,
        }
        for entropy, distance in zip(
            summary.entropy_N.tolist(), summary.distance_N.tolist(), strict=True
        )
    ]
    gamma = getattr(module, "gamma", None)
    return {
        "site": block.key,
        "stage": block.stage,
        "block": block.block,
        "size": [height, width],
        "uniform_distance": number(summary.uniform_distance),
        "gamma": number(float(gamma.detach()))
        if isinstance(gamma, Tensor) and gamma.numel() == 1
        else None,
        "heads": heads,
    }


def _eight_bits(maps: Tensor) -> NDArray[Any]:
    """Maps (..., H, W), each scaled so that its largest number is 255."""
    peaks = maps.amax(dim=(-2, -1), keepdim=True)
    return (maps / peaks.where(peaks > 0, 1) * 255).round().to(torch.uint8).cpu().numpy()
