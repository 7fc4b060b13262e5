"""The caps of a space: what a candidate may cost, known before it is trained.

``params``, ``macs``, ``flops`` and ``memory`` are exact. ``latency_ratio`` is measured, by whoever
runs the study (``search.screen``).
"""

from __future__ import annotations

import math
from functools import lru_cache

from blocks.architecture import Architecture
from blocks.formulas import Cost
from spaces.candidate import Candidate, DataFacts
from spaces.drawing import sites_of
from spaces.metrics import LATENCY_RATIO, MEMORY
from spaces.space import Constraint, Space


def memory_of(architecture: Architecture, data: DataFacts) -> int:
    """Bytes of float32 maps that a training keeps of each image, ``blocks.memory.kept_bytes``.

    Args:
        architecture: Resolved.
        data: Says the images' shape.
    """
    from blocks.memory import kept_bytes  # torch loads here

    sized = data.of_size(architecture.input_size)
    return kept_bytes(architecture, sites_of(architecture.backbone, sized))


@lru_cache(maxsize=256)
def baseline_value(metric: str, backbone: str, data: DataFacts) -> float:
    """What a backbone without attention costs of a metric that can be capped.

    Args:
        metric: Its name.
        backbone: The backbone's.
        data: At the size of image in question.
    """
    if metric == LATENCY_RATIO:
        return 1.0
    if metric == MEMORY:
        return memory_of(Architecture(backbone, (), data.input_shape[1:]), data)
    return float(getattr(sites_of(backbone, data).cost, metric))


def cap_of(constraint: Constraint, backbone: str, data: DataFacts) -> float:
    """The largest value that a constraint allows networks of a backbone."""
    return constraint.cap(baseline_value(constraint.metric, backbone, data))


def violated(space: Space, candidate: Candidate, cost: Cost) -> list[str]:
    """The exact caps that a candidate is over, each with its value and cap.

    Args:
        space: Has the caps; one of ``latency_ratio`` is left out.
        candidate: In question.
        cost: Its exact cost.
    """
    over = []
    for constraint in space.constraints:
        metric = constraint.metric
        if metric == LATENCY_RATIO:
            continue
        cap = cap_of(constraint, candidate.architecture.backbone, candidate.data)
        value = (
            memory_of(candidate.architecture, candidate.data)
            if metric == MEMORY
            else getattr(cost, metric)
        )
        if value > cap:
            over.append(f"{metric} {value:,} is over {math.floor(cap):,} ({constraint.text})")
    return over


def still_stands(space: Space, reason: str) -> bool:
    """Whether a cap that has rejected a candidate, in the words of ``violated``, is still there."""
    return any(f"{c.metric} " in reason and f"({c.text})" in reason for c in space.constraints)
