"""What candidates cost, and which of them a cap rejects, before any is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any

from blocks.architecture import architecture_cost, has_closed_cost
from blocks.formulas import Cost
from spaces.candidate import Candidate, DataFacts
from spaces.caps import violated
from spaces.census import Census
from spaces.drawing import baseline_candidates, sites_of
from spaces.estimates import Share
from spaces.metrics import COSTS, LATENCY_RATIO
from spaces.space import Space

BINS = 12


def closed_cost(candidate: Candidate) -> Cost | None:
    """What a candidate costs; None where it must be built and counted to know."""
    if not has_closed_cost(candidate.architecture):
        return None
    sites = sites_of(candidate.architecture.backbone, candidate.data)
    return architecture_cost(candidate.architecture, sites)


@dataclass(frozen=True)
class Spread:
    """How numbers are spread.

    Args:
        values: Smallest, lower quartile, median, upper quartile, largest.
        edges: Of the bins of a histogram, one more than there are bins.
        counts: Of each bin.
    """

    values: tuple[float, float, float, float, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Spread:
        """The spread of some numbers, at least one."""
        ordered = sorted(numbers)
        low, high = ordered[0], ordered[-1]
        middle = quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else [low] * 3
        bins = BINS if high > low else 1
        width = (high - low) / bins
        counts = [0] * bins
        for number in ordered:
            counts[min(bins - 1, int((number - low) / width)) if width else 0] += 1
        edges = tuple(low + width * index for index in range(bins + 1))
        return cls((low, middle[0], middle[1], middle[2], high), edges, tuple(counts))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        names = ("min", "first_quartile", "median", "third_quartile", "max")
        histogram = {"edges": list(self.edges), "counts": list(self.counts)}
        return {**dict(zip(names, self.values, strict=True)), "histogram": histogram}


@dataclass(frozen=True)
class Costing:
    """What a space's candidates cost, and what its caps say of them.

    Args:
        counted: The candidates whose costs are known in closed form, with them.
        uncounted: How many others there are among those that were looked at.
        complete: Whether all of the space's candidates were looked at.
        over: Digests of those that a cap rejects; the baselines never are.
        rules: Cap -> how many it rejects if it stood alone.
        measured: Caps that the run alone can apply, by the clock.
        baselines: Backbone -> what it costs without attention, each at its first size.
    """

    counted: tuple[tuple[Candidate, Cost], ...]
    uncounted: int
    complete: bool
    over: frozenset[str]
    rules: Mapping[str, int]
    measured: tuple[str, ...]
    baselines: Mapping[str, Cost]

    @property
    def allowed(self) -> list[tuple[Candidate, Cost]]:
        """Those that no cap rejects."""
        return [pair for pair in self.counted if pair[0].digest not in self.over]

    def share(self, count: int) -> Share:
        """A number of them as a share of all."""
        return Share(count, len(self.counted), exact=self.complete and not self.uncounted)

    def caps_json(self) -> dict[str, Any]:
        """What caps reject, as plain data."""
        return {
            "together": self.share(len(self.over)).to_json(),
            "rules": [{"rule": r, **self.share(n).to_json()} for r, n in self.rules.items()],
            "measured": list(self.measured),
        }

    def costs_json(self) -> dict[str, Any]:
        """How costs are spread, as plain data."""
        shown: dict[str, Any] = {
            "of": len(self.counted),
            "complete": self.complete,
            "uncounted": self.uncounted,
        }
        for metric in COSTS if self.counted else ():
            spread = Spread.of(getattr(cost, metric) for _, cost in self.counted)
            bare = {name: getattr(cost, metric) for name, cost in self.baselines.items()}
            shown[metric] = {**spread.to_json(), "baseline": bare}
        return shown


def costing_of(space: Space, data: DataFacts, census: Census) -> Costing:
    """Cost the candidates of a census, and put them to the caps."""
    bare = [candidate for candidate, _ in baseline_candidates(space, data)]
    free = {candidate.digest for candidate in bare}
    costs = [(candidate, closed_cost(candidate)) for candidate in census.found]
    counted = tuple((candidate, cost) for candidate, cost in costs if cost is not None)
    exact = [c for c in space.constraints if c.metric != LATENCY_RATIO]
    rules = {str(constraint): 0 for constraint in exact}
    over = set()
    for constraint in exact:
        alone = replace(space, constraints=(constraint,))
        for candidate, cost in counted:
            if candidate.digest not in free and violated(alone, candidate, cost):
                rules[str(constraint)] += 1
                over.add(candidate.digest)
    return Costing(
        counted,
        len(costs) - len(counted),
        census.complete,
        frozenset(over),
        rules,
        tuple(str(c) for c in space.constraints if c.metric == LATENCY_RATIO),
        {
            candidate.architecture.backbone: sites_of(
                candidate.architecture.backbone, candidate.data
            ).cost
            for candidate in bare
        },
    )


def by_flops(counted: Sequence[tuple[Candidate, Cost]], places: int) -> list[Candidate]:
    """Candidates spread evenly over the order of their FLOPs, the first and the last among them."""
    ordered = [candidate for candidate, _ in sorted(counted, key=lambda pair: pair[1].flops)]
    if len(ordered) <= places:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(index * last / (places - 1))] for index in range(places)]
