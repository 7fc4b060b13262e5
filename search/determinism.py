"""Refusing, before any trial, what of a space cannot be trained bit for bit alike on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blocks.architecture import Architecture, Placement
from blocks.errors import StudyError, ToolError
from blocks.options import MapShape
from search.plan import StudyPlan
from spaces.candidate import Candidate
from spaces.drawing import sites_of, usual_candidates

LISTED = 5000  # candidates that are all examined


def check_deterministic(plan: StudyPlan) -> None:
    """Refuse a deterministic study on a GPU whose networks cannot be repeated there.

    Raises:
        StudyError: Some cannot: which, because of what, and the cure.
    """
    if not plan.deterministic or plan.device != "cuda":
        return
    problems = list(unrepeatable_parts(plan))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise StudyError(
            "--deterministic: torch has no deterministic implementation on a GPU of what these"
            f" use in training:\n{lines}\n  Leave them out of {plan.space.source}, or run without"
            " --deterministic (--no-deterministic)"
        )


def unrepeatable_parts(plan: StudyPlan) -> Iterator[str]:
    """The blocks and backbones of a space that cannot be repeated on a GPU, a line for each."""
    candidates = list(usual_candidates(plan.space, plan.data, limit=LISTED))
    for name in sorted({candidate.architecture.backbone for candidate in candidates}):
        words = _of_backbone(name, next(c for c in candidates if c.architecture.backbone == name))
        if words:
            yield f"{name}: {words}"
    placed: dict[str, dict[tuple[Any, ...], tuple[Placement, MapShape]]] = {}
    for candidate in candidates:
        sites = sites_of(candidate.architecture.backbone, candidate.data)
        shapes = {site.name: site.shape for site in sites.sites}
        for placement in candidate.architecture.placements:
            shape = shapes[placement.site]
            key = (placement.options, shape)
            placed.setdefault(placement.block, {})[key] = (placement, shape)
    for block, places in sorted(placed.items()):
        words = _of_block(list(places.values()))
        if words:
            yield f"{block}: {words}"


def _of_backbone(name: str, candidate: Candidate) -> str:
    from blocks.build import build_network

    def made() -> Any:
        return build_network(
            Architecture(name, (), candidate.architecture.input_size),
            num_classes=candidate.data.classes,
            in_channels=candidate.data.input_shape[0],
        )

    return ", ".join(_found(made, candidate.data.input_shape))


def _of_block(places: list[tuple[Placement, MapShape]]) -> str:
    """What a block uses that cannot be repeated, and where, over all options and maps of it."""
    from blocks import registry

    cannot: dict[str, tuple[Placement, MapShape]] = {}
    count = 0
    for placement, shape in places:

        def made(placement: Placement = placement, shape: MapShape = shape) -> Any:
            return registry.create(placement.block, shape.channels, **placement.settings)

        found = _found(made, (shape.channels, shape.height, shape.width))
        count += bool(found)
        for words in found:
            cannot.setdefault(words, (placement, shape))
    if not cannot:
        return ""
    placement, shape = next(iter(cannot.values()))
    options = ", ".join(f"{name}={value}" for name, value in placement.settings.items())
    example = f"{placement.block}({options}) at a map of {shape}"
    some = "" if count == len(places) else f" in {count} of {len(places)} of its forms"
    return f"{', '.join(cannot)}{some}, such as {example}"


def _found(made: Any, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """What a network uses that cannot be repeated; nothing where it cannot be examined.

    torch itself then refuses it when it is trained.
    """
    import torch

    from blocks.determinism import unrepeatable

    try:
        with torch.device("meta"):
            network = made()
        return unrepeatable(network, shape)
    except (ToolError, RuntimeError, NotImplementedError):
        return ()
