"""The metrics that objectives and constraints may name, with units and direction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A recorded number that can be optimised or capped.

    Args:
        name: As in spaces, the database and reports.
        better: "higher" or "lower".
        meaning: What it is, with its unit.
        is_cost: Whether it is known exactly before training.
    """

    name: str
    better: str
    meaning: str
    is_cost: bool

    @property
    def direction(self) -> str:
        """How a space writes the better direction: "max" or "min"."""
        return "max" if self.better == "higher" else "min"


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            "higher",
            "share of validation images classified right at the last epoch, 0 to 1",
            is_cost=False,
        ),
        Metric("params", "lower", "parameters of the whole network", is_cost=True),
        Metric(
            "macs",
            "lower",
            "multiply-accumulates of convolutions, linear layers and matrix products, one image",
            is_cost=True,
        ),
        Metric("flops", "lower", "all floating-point operations for one image", is_cost=True),
    )
}
COSTS = tuple(metric.name for metric in METRICS.values() if metric.is_cost)
