"""The metrics that objectives and constraints may name, with units and direction."""

from __future__ import annotations

from dataclasses import dataclass

SPEED = "speed"  # the split of what is timed
COST = "cost"  # the split of what is known before training and is no column of its own
MOMENTS = "absolute times of different moments do not compare, a ratio to the baseline does"


@dataclass(frozen=True)
class Metric:
    """A recorded number that can be optimised or capped.

    Args:
        name: As in spaces, the database and reports.
        better: "higher" or "lower".
        meaning: What it is, with its unit.
        is_cost: Whether it is known exactly before training.
        split: Of the measurements, the one that it is among.
        instead: What to optimise instead, for one that is recorded and no objective.
        why_not: Why it is none.
    """

    name: str
    better: str
    meaning: str
    is_cost: bool
    split: str = "validation"
    instead: str = ""
    why_not: str = ""

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
        Metric(
            "memory",
            "lower",
            "bytes of float32 maps that a training keeps of each image for the backward pass",
            is_cost=False,
            split=COST,
        ),
        Metric(
            "latency_ratio",
            "lower",
            "time of one image through the network, as a multiple of the same backbone's without"
            " attention, measured in turn with it",
            is_cost=False,
            split=SPEED,
        ),
        Metric(
            "latency_ms",
            "lower",
            "milliseconds of one image through the network, median",
            is_cost=False,
            split=SPEED,
            instead="latency_ratio",
            why_not=MOMENTS,
        ),
        Metric(
            "throughput",
            "higher",
            "images a second through the network, in a larger batch",
            is_cost=False,
            split=SPEED,
            instead="latency_ratio",
            why_not=MOMENTS,
        ),
        Metric(
            "curve_area",
            "higher",
            "mean height of the validation accuracy's curve over the epochs, 0 to 1",
            is_cost=False,
        ),
        Metric(
            "epochs_to_target",
            "lower",
            "first epoch whose validation accuracy reaches the study's target_accuracy",
            is_cost=False,
            instead="curve_area",
            why_not="a curve that never reaches the target has none",
        ),
        Metric(
            "seconds_to_target",
            "lower",
            "wall time of the epochs until validation accuracy reaches the target_accuracy",
            is_cost=False,
            instead="curve_area",
            why_not="a curve that never reaches the target has none",
        ),
    )
}
OBJECTIVES = tuple(metric.name for metric in METRICS.values() if not metric.instead)
COSTS = tuple(metric.name for metric in METRICS.values() if metric.is_cost)
MEMORY, LATENCY_RATIO = "memory", "latency_ratio"
CAPPED = (*COSTS, MEMORY, LATENCY_RATIO)  # what constraints may name
