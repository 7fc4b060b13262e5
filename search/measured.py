"""What of a backbone must be measured with torch, kept in the user's cache folder.

The parts of a backbone and what each architecture keeps for training, ``blocks.memory``. They hold
for the versions of torch and timm and for the code of ``blocks`` that measured them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blocks
from blocks.architecture import Architecture
from blocks.cached import read_cached, write_cached
from blocks.errors import BlockError
from blocks.parts import ends_of
from blocks.site import SiteTable

if TYPE_CHECKING:
    from torch import nn


def backbone_parts(table: SiteTable) -> list[dict[str, Any]]:
    """What each part of a backbone costs and keeps, from the stem to the head."""
    kept = _read(table)
    if "parts" not in kept:
        kept["parts"] = _measured_parts(table)
        write_cached(_file(table), kept)
    parts: list[dict[str, Any]] = kept["parts"]
    return parts


def kept_for_training(
    table: SiteTable, architectures: Iterable[Architecture]
) -> dict[str, int | None]:
    """Bytes that a training of each resolved architecture keeps for an image, by its digest.

    None where a block of it cannot be measured without numbers.
    """
    wanted = {architecture.digest: architecture for architecture in architectures}
    kept = _read(table)
    known: dict[str, int | None] = kept.get("kept", {})
    if not wanted.keys() <= known.keys():
        known = {**known, **{d: _measured(a, table) for d, a in wanted.items() if d not in known}}
        write_cached(_file(table), {**kept, "kept": known})
    return {digest: known[digest] for digest in wanted}


def peaks_of(table: SiteTable, architecture: Architecture) -> dict[str, int]:
    """Of a resolved architecture: bytes per image at the peak of training and inference, params.

    ``training_peak`` and ``inference_peak`` as ``blocks.memory`` has them; ``params`` counts. Where
    a network's peaks cannot be told for one image, half as much again as what training keeps
    stands for the one, and what it keeps for the other.
    """
    kept = _read(table)
    known: dict[str, dict[str, int]] = kept.get("peaks", {})
    if architecture.digest not in known:
        known = {**known, architecture.digest: _measured_peaks(table, architecture)}
        write_cached(_file(table), {**kept, "peaks": known})
    return known[architecture.digest]


def remember(
    table: SiteTable, kept: dict[str, int | None], peaks: dict[str, dict[str, int]]
) -> None:
    """Take over what another process has measured, as these functions return it."""
    known = _read(table)
    measured = {**known.get("kept", {}), **kept}
    at_peak = {**known.get("peaks", {}), **peaks}
    write_cached(_file(table), {**known, "kept": measured, "peaks": at_peak})


def _measured_peaks(table: SiteTable, architecture: Architecture) -> dict[str, int]:
    from blocks.memory import measure_memory

    network = _on_meta(table, architecture)
    try:
        memory = measure_memory(network, table.input_shape)
        peaks = (memory.training_peak, memory.inference_peak)
    except BlockError:  # it runs other operators for other sizes of a batch
        kept = _measured(architecture, table) or 0
        peaks = (kept * 3 // 2, kept)
    return {
        "training_peak": peaks[0],
        "inference_peak": peaks[1],
        "params": sum(parameter.numel() for parameter in network.parameters()),
    }


def _on_meta(table: SiteTable, architecture: Architecture) -> nn.Module:
    """The network of an architecture, without numbers."""
    import torch

    from blocks.build import build_network

    channels, *size = table.input_shape
    with torch.device("meta"):
        return build_network(
            architecture,
            num_classes=table.classes,
            in_channels=channels,
            input_size=(size[0], size[1]),
        )


def _measured(architecture: Architecture, table: SiteTable) -> int | None:
    from blocks.memory import kept_bytes

    try:
        return kept_bytes(architecture, table)
    except BlockError:
        return None


def _measured_parts(table: SiteTable) -> list[dict[str, Any]]:
    from blocks.cost import cost_by_part
    from blocks.memory import memory_by_part

    network = _on_meta(table, Architecture(table.backbone))
    ends = ends_of(table)
    costs = cost_by_part(network, table.input_shape, ends)
    memory = memory_by_part(network, table.input_shape, ends)
    return [
        {
            "part": part,
            **cost.to_json(),
            "kept_bytes": memory[part].kept,
            "inference_peak_bytes": memory[part].inference_peak,
        }
        for part, cost in costs.items()
    ]


def _file(table: SiteTable) -> str:
    content = hashlib.sha256()
    shown = (table.backbone, table.input_shape, table.classes, version("torch"), version("timm"))
    content.update(repr(shown).encode())
    for source in sorted(Path(str(blocks.__file__)).parent.rglob("*.py")):
        content.update(source.read_bytes())
    return f"measured/{table.backbone}-{content.hexdigest()[:24]}.json"


def _read(table: SiteTable) -> dict[str, Any]:
    kept = read_cached(_file(table))
    return kept if isinstance(kept, dict) else {}
