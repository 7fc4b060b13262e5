"""The layout of the front chart: where points, ticks, lines and labels go, for every way to see it.

A view is one cost on the x axis, on one scale, at one size. All views are laid out here, once; the
page's script and the static figure only draw them. Coordinates are in pixels of the view's own
drawing area, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import quantiles
from typing import Any

from reports import wording
from reports.findings import LATENCY, Findings
from search.records import TrialRecord

SIZES = {"narrow": (400, 430), "medium": (720, 470), "wide": (1120, 520)}
SCALES = ("linear", "log")
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 58.0, 18.0, 14.0, 62.0
LETTER_WIDTH, LETTER_HEIGHT = 6.7, 15.0
STRONG, FAINT = 6.5, 3.6
LATENCY_TITLE = "Time of one image, as a multiple of no attention's"
LABELS_AT_MOST = 40
LONGEST_LABEL = 34

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Axis:
    """Values to pixels.

    Args:
        low: Value at ``start``.
        high: Value at ``end``.
        start: Pixel of the low end.
        end: Pixel of the high end.
        log: Whether equal ratios are equally long.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside are put at the nearer end."""
        inside = min(max(value, self.low), self.high)
        share = (self._map(inside) - self._map(self.low)) / (
            self._map(self.high) - self._map(self.low)
        )
        return round(self.start + share * (self.end - self.start), 1)

    def _map(self, value: float) -> float:
        return math.log(value) if self.log else value


@dataclass(frozen=True)
class View:
    """The front chart seen one way.

    Args:
        metric: The cost on the x axis.
        scale: "linear" or "log".
        width: Of the drawing.
        height: Of the drawing.
        plot: The inner area.
        x: Of the costs.
        y: Of the accuracies.
        x_ticks: (pixel, value, value relative to the baseline).
        y_ticks: (pixel, value).
        title: Of the x axis.
        line: The front of accuracy against this cost alone, as an SVG path.
        lines: (pixel, text, text's x, text's y, text's anchor) of every baseline.
        band: Top and bottom of what is within reach of chance of the baseline.
        labels: (trial, text, x, y, anchor) of the labelled members of the front.
        band_label: (text, x, y, anchor) of the band, where there is room.
        members: Trials on ``line``.
    """

    metric: str
    scale: str
    width: int
    height: int
    plot: Box
    x: Axis
    y: Axis
    x_ticks: list[tuple[float, str, str]]
    y_ticks: list[tuple[float, str]]
    title: str
    line: str
    lines: list[tuple[float, str, float, float, str]]
    band: tuple[float, float] | None
    labels: list[tuple[int, str, float, float, str]]
    band_label: tuple[str, float, float, str] | None
    members: list[int]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def front_views(findings: Findings) -> dict[str, View]:
    """Every view of the front chart, by ``metric-scale-size``; none without results."""
    if not findings.records.successes:
        return {}
    return {
        f"{metric}-{scale}-{size}": _view(findings, metric, scale, size)
        for metric in findings.axes
        for scale in SCALES
        for size in SIZES
    }


def _view(findings: Findings, metric: str, scale: str, size: str) -> View:
    width, height = SIZES[size]
    plot = (MARGIN_LEFT, MARGIN_TOP, width - MARGIN_RIGHT, height - MARGIN_BOTTOM)
    left, top, right, bottom = plot
    y = Axis(*accuracy_range(findings), bottom, top)
    x = Axis(*_cost_range(findings, metric), left, right, scale == "log")
    stairs = findings.staircase(metric)
    places = [(x(getattr(t, metric)), y(t.accuracy or 0.0)) for t in stairs]
    labelling = Labelling(findings, metric, x, y, plot, _steps(places, right))
    lines = labelling.baselines()
    band = _band(findings, y)
    return View(
        metric,
        scale,
        width,
        height,
        plot,
        x,
        y,
        _x_ticks(findings, metric, x),
        _y_ticks(y),
        _axis_title(metric, size),
        _path(places, right),
        lines,
        band,
        labelling.front(stairs),
        labelling.band(band),
        [trial.number for trial in stairs],
    )


def _axis_title(metric: str, size: str) -> str:
    name = wording.title(metric)
    words = {"params": "Parameters of the whole network", LATENCY: LATENCY_TITLE}
    whole = words.get(metric, f"{name} for one image")
    return whole if size != "narrow" else whole.partition(" of ")[0]


# Ranges and ticks. -------------------------------------------------------------------------------


def accuracy_range(findings: Findings) -> tuple[float, float]:
    """The accuracies that are shown: all but far outliers below, which would flatten the rest."""
    records = findings.records
    values = sorted(t.accuracy for t in records.successes if t.accuracy is not None)
    kept = [t.accuracy for t in findings.front_trials if t.accuracy is not None]
    kept += [baseline.accuracy for baseline in records.baselines.values()]
    low = min([_fence(values), *kept])
    high = max(values)
    spread = max(high - low, 0.01)
    return low - 0.06 * spread, high + 0.06 * spread


def hidden_below(findings: Findings) -> int:
    """How many complete trials are less accurate than the axis reaches."""
    low, _ = accuracy_range(findings)
    return sum((trial.accuracy or 0.0) < low for trial in findings.records.successes)


def _fence(values: Sequence[float]) -> float:
    """The lowest value that is no outlier: at most 3 interquartile ranges below the quartile."""
    if len(values) < 8:
        return values[0]
    lower, _, upper = quantiles(values, n=4)
    fence = lower - 3 * max(upper - lower, 0.005)
    return min(value for value in values if value >= fence)


def _cost_range(findings: Findings, metric: str) -> tuple[float, float]:
    values = [float(getattr(trial, metric)) for trial in findings.records.with_value(metric)]
    low, high = min(values), max(values)
    spread = max(high - low, 0.02 if metric == LATENCY else max(0.002 * high, 1.0))
    return max(low - 0.05 * spread, low / 2), high + 0.05 * spread


def nice_step(span: float, count: int) -> float:
    """The round step that gives about ``count`` ticks over a span."""
    rough = span / max(count, 1)
    unit = float(10.0 ** math.floor(math.log10(rough)))
    return next(unit * f for f in (1.0, 2.0, 2.5, 5.0, 10.0) if unit * f >= rough * 0.999)


def even_ticks(low: float, high: float, count: int) -> tuple[list[float], float]:
    """Round values between two, and their step."""
    step = nice_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)], step


def _y_ticks(y: Axis) -> list[tuple[float, str]]:
    values, step = even_ticks(100 * y.low, min(100 * y.high, 100.0), int((y.start - y.end) / 55))
    decimals = _decimals(step)
    return [(y(value / 100), f"{value:.{decimals}f}{wording.THIN}%") for value in values]


def _decimals(step: float) -> int:
    """Decimals that tell multiples of a step apart."""
    return next((d for d in range(12) if abs(round(step, d) - step) < step * 1e-6), 0)


def _x_ticks(findings: Findings, metric: str, x: Axis) -> list[tuple[float, str, str]]:
    values = _apart(_cost_ticks(x), x)
    factor, unit = next(((f, u) for f, u in wording.UNITS if x.high >= f), wording.UNITS[-1])
    unit = "×" if metric == LATENCY else unit
    step = min((b - a for a, b in pairwise(values)), default=factor)
    decimals = _decimals(step / factor)
    reference = _only_baseline(findings, metric)
    return [
        (
            x(value),
            f"{value / factor:.{decimals}f}{wording.THIN if unit.isalpha() else ''}{unit}",
            wording.change(value, reference) if reference else "",
        )
        for value in values
    ]


def _cost_ticks(x: Axis) -> list[float]:
    """Round costs within an axis, two at least."""
    values = _decades(x) if x.log and x.high / x.low > 5 else []
    room = max(int((x.end - x.start) / 105), 2)
    while len(values) < 2:
        values = even_ticks(x.low, x.high, room)[0]
        room += 1
    return values


def _decades(x: Axis) -> list[float]:
    """1, 2 and 5 times the powers of ten within an axis."""
    first, last = math.floor(math.log10(x.low)), math.ceil(math.log10(x.high))
    values = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
    return [value for value in values if x.low <= value <= x.high]


def _apart(values: list[float], axis: Axis, distance: float = 74.0) -> list[float]:
    """Those values whose texts do not touch, from the left."""
    kept: list[float] = []
    for value in values:
        if not kept or axis(value) - axis(kept[-1]) >= distance:
            kept.append(value)
    return kept


def _only_baseline(findings: Findings, metric: str) -> float | None:
    """The baseline's cost where there is one backbone."""
    baselines = list(findings.records.baselines.values())
    return float(getattr(baselines[0], metric)) if len(baselines) == 1 else None


# Lines. ------------------------------------------------------------------------------------------


def _band(findings: Findings, y: Axis) -> tuple[float, float] | None:
    baselines = list(findings.records.baselines.values())
    if len(baselines) != 1 or findings.chance is None:
        return None
    middle = baselines[0].accuracy
    return y(middle + findings.chance), y(middle - findings.chance)


def _path(places: Sequence[tuple[float, float]], right: float) -> str:
    """A staircase from the cheapest point to the right edge."""
    (x, y), *rest = places
    steps = "".join(f"H{x:g}V{y:g}" for x, y in rest)
    return f"M{x:g} {y:g}{steps}H{right:g}"


def _steps(places: Sequence[tuple[float, float]], right: float) -> list[Box]:
    """The staircase's lines as thin boxes, to keep labels off them."""
    boxes: list[Box] = []
    for (x, y), (next_x, next_y) in zip(places, [*places[1:], (right, places[-1][1])], strict=True):
        boxes.append((x, y - 1, next_x, y + 1))
        boxes.append((next_x - 1, min(y, next_y), next_x + 1, max(y, next_y)))
    return boxes


# Labels. -----------------------------------------------------------------------------------------


class Labelling:
    """Puts texts where they cover no front point and no other text.

    Args:
        findings: Whose points.
        metric: The cost on the x axis.
        x: Of the costs.
        y: Of the accuracies.
        plot: Where texts may be.
        steps: Lines that texts had better not cross.
    """

    def __init__(
        self, findings: Findings, metric: str, x: Axis, y: Axis, plot: Box, steps: list[Box]
    ) -> None:
        self.findings, self.metric, self.x, self.y = findings, metric, x, y
        self.plot = plot
        self.steps = steps
        seen = {trial.number for trial in findings.records.with_value(metric)}
        trials = [*findings.front_trials[:200], *_baseline_trials(findings)]
        trials = [trial for trial in trials if trial.number in seen]
        self.taken = [_around(*self._place(trial), 8) for trial in trials]
        others = findings.records.with_value(metric)[:400]
        self.faint = [_around(*self._place(trial), 4) for trial in others]

    def _place(self, trial: TrialRecord) -> tuple[float, float]:
        return self.x(float(getattr(trial, self.metric))), self.y(trial.accuracy or 0.0)

    def baselines(self) -> list[tuple[float, str, float, float, str]]:
        """One horizontal line per backbone with its text, which goes to an end of the line."""
        found = self.findings.records.baselines
        left, _, right, _ = self.plot
        lines = []
        for name, baseline in found.items():
            text = "no attention" if len(found) == 1 else f"no attention, {name}"
            pixel = self.y(baseline.accuracy)
            spots = [
                (x, pixel + dy, anchor)
                for dy in (-6.0, 15.0)
                for x, anchor in ((right - 6, "end"), (left + 6, "start"))
            ]
            spot = self._free(text, iter(spots)) or spots[0]
            self.taken.append(_box(text, *spot))
            lines.append((pixel, text, *spot))
        return lines

    def front(self, first: Sequence[TrialRecord]) -> list[tuple[int, str, float, float, str]]:
        """Labels of front members, those of the shown front first, as far as there is room."""
        numbers = {trial.number for trial in first}
        rest = [
            t
            for t in self.findings.front_trials
            if t.number not in numbers and getattr(t, self.metric) is not None
        ]
        members = [t for t in first if t.number in self.findings.records.front]
        labels = []
        for trial in [*members, *rest][:LABELS_AT_MOST]:
            text = _shortened(trial.label)
            spot = self._free(text, _spots(*self._place(trial)))
            if spot is not None and not trial.baseline:
                self.taken.append(_box(text, *spot))
                labels.append((trial.number, text, *spot))
        return labels

    def band(self, band: tuple[float, float] | None) -> tuple[str, float, float, str] | None:
        """What the band means, in a corner of it that is free."""
        if band is None:
            return None
        text = "one seed cannot tell these from no attention"
        left, _, right, _ = self.plot
        high, low = band
        spots = [
            (x, y, anchor)
            for y in (high + 18, low - 8)
            for x, anchor in ((left + 8, "start"), (right - 8, "end"))
        ]
        spot = self._free(text, iter(spots), strict=True)
        return None if spot is None else (text, *spot)

    def _free(
        self, text: str, spots: Iterator[tuple[float, float, str]], *, strict: bool = False
    ) -> tuple[float, float, str] | None:
        """The first spot that covers nothing; else one that only covers lines or faint points."""
        second: tuple[int, tuple[float, float, str]] | None = None
        for spot in spots:
            box = _box(text, *spot)
            if not _inside(box, self.plot) or any(_overlap(box, other) for other in self.taken):
                continue
            covered = 2 * sum(_overlap(box, step) for step in self.steps)
            covered += sum(_overlap(box, point) for point in self.faint)
            if not covered:
                return spot
            if second is None or covered < second[0]:
                second = covered, spot
        return second[1] if second and not strict else None


def _baseline_trials(findings: Findings) -> list[TrialRecord]:
    return [t for t in findings.records.successes if t.baseline]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def _spots(x: float, y: float) -> Iterator[tuple[float, float, str]]:
    """Where a point's label may stand, the best first; y is that of the text's base line."""
    yield x + 11, y + 4, "start"
    yield x + 9, y - 8, "start"
    yield x - 11, y + 4, "end"
    yield x - 9, y - 8, "end"
    yield x, y - 13, "middle"
    yield x + 9, y + 17, "start"
    yield x - 9, y + 17, "end"
    yield x, y + 22, "middle"


def _box(text: str, x: float, y: float, anchor: str) -> Box:
    width = LETTER_WIDTH * len(text)
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return left, y - LETTER_HEIGHT + 4, left + width, y + 4


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _inside(box: Box, area: Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]


def offsets(types: Sequence[str]) -> Mapping[str, int]:
    """Type -> its place in the palette of colours and shapes; no attention has the first."""
    others = [name for name in types if name != "none"]
    return {"none": 0} | {name: index + 1 for index, name in enumerate(others)}
