"""Figures as inline SVG text: the front chart, markers, small learning curves.

Colours are CSS classes of the page (Okabe and Ito's palette), so that they follow its light and
dark theme; every type has a shape of its own too. Texts are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from reports.charts import FAINT, STRONG, View, offsets
from reports.findings import Findings
from search.outcome import EpochResult

SHAPES_UP_TO = 2_000
DOT = "h3v3h-3z"
COLOURS = 8  # --c0 of the page's style sheet is no attention; --c1 to --c7 are given in turn


def _polygon(corners: Sequence[tuple[float, float]], radius: float) -> str:
    """A closed path through corners, all of its commands relative to where the pen is."""
    steps = []
    before = (0.0, 0.0)
    for corner in corners:
        steps.append(
            f"{(corner[0] - before[0]) * radius:.2f} {(corner[1] - before[1]) * radius:.2f}"
        )
        before = corner
    return f"m{steps[0]}l{' '.join(steps[1:])}z"


def _regular(
    corners: int, *, inner: float | None = None, size: float = 1.15
) -> list[tuple[float, float]]:
    """The corners of a regular polygon, or of a star with an inner radius."""
    count = corners if inner is None else 2 * corners
    radii = [size if inner is None or index % 2 == 0 else inner for index in range(count)]
    angles = [2 * math.pi * index / count - math.pi / 2 for index in range(count)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


_PLUS = [
    *((-0.36, -1.1), (0.36, -1.1), (0.36, -0.36), (1.1, -0.36), (1.1, 0.36), (0.36, 0.36)),
    *((0.36, 1.1), (-0.36, 1.1), (-0.36, 0.36), (-1.1, 0.36), (-1.1, -0.36), (-0.36, -0.36)),
]
SHAPES: tuple[Sequence[tuple[float, float]], ...] = (
    (),  # a circle
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
    ((0, -1.3), (1.15, 0), (0, 1.3), (-1.15, 0)),
    ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
    _PLUS,
    _regular(5, inner=0.55, size=1.35),
    _regular(6),
    _regular(5, size=1.2),
)


def marker(index: int, radius: float) -> str:
    """A marker's outline as relative path commands, to follow an ``M x y`` at its centre."""
    shape = SHAPES[index % len(SHAPES)]
    if shape:
        return _polygon(shape, radius)
    r = f"{radius:g}"
    return f"m-{r} 0a{r} {r} 0 1 0 {2 * radius:g} 0a{r} {r} 0 1 0-{2 * radius:g} 0z"


def colour(index: int) -> str:
    """The CSS class of a type's colour."""
    return "c0" if index == 0 else f"c{(index - 1) % (COLOURS - 1) + 1}"


def marker_table(types: Sequence[str]) -> dict[str, dict[str, str]]:
    """Type -> colour class and outlines, for the script."""
    return {
        name: {"colour": colour(i), "strong": marker(i, STRONG), "faint": marker(i, FAINT)}
        for name, i in offsets(types).items()
    }


def marker_icon(types: Sequence[str], name: str) -> Markup:
    """A type's marker beside text."""
    index = offsets(types)[name]
    path = f"M8 8{marker(index, 5)}"
    return Markup(
        '<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">'
        '<path class="{}" d="{}"/></svg>'
    ).format(colour(index), path)


def front_chart(findings: Findings, view: View) -> Markup:
    """The front chart, drawn for readers without scripts; the page's script draws it anew."""
    parts = [_grid(view), _baselines(view), _points(findings, view), _line(view)]
    parts += [_front(findings, view), _labels(view)]
    classes = "chart dense" if len(findings.records.successes) > SHAPES_UP_TO else "chart"
    return Markup(
        '<svg id="front-chart" class="{}" viewBox="0 0 {} {}" role="img"'
        ' aria-labelledby="chart-title chart-desc"><title id="chart-title">Accuracy against {}'
        '</title><desc id="chart-desc">{}</desc><g id="chart-body">{}</g></svg>'
    ).format(
        classes,
        view.width,
        view.height,
        view.title,
        chart_description(findings),
        Markup("").join(parts),
    )


def chart_description(findings: Findings) -> str:
    """The chart in words; the table of the front has its numbers."""
    return (
        f"One mark per complete trial, {len(findings.records.successes)} in all. Members of the"
        f" Pareto front, {len(findings.records.front)}, stand out; a stepped line joins the best"
        " accuracy at each cost. The numbers are in the tables below."
    )


def _grid(view: View) -> Markup:
    left, top, right, bottom = view.plot
    band = Markup("")
    if view.band:
        band = Markup('<rect class="band" x="{:g}" y="{:g}" width="{:g}" height="{:g}"/>').format(
            left, view.band[0], right - left, view.band[1] - view.band[0]
        )
    note = Markup("")
    if view.band_label:
        text, x, y, anchor = view.band_label
        note = Markup(
            '<text class="band-label" x="{:g}" y="{:g}" text-anchor="{}">{}</text>'
        ).format(x, y, anchor, text)
    rows = [
        Markup(
            '<path class="grid" d="M{:g} {:g}H{:g}"/>'
            '<text class="tick" x="{:g}" y="{:g}" text-anchor="end">{}</text>'
        ).format(left, y, right, left - 8, y + 4, text)
        for y, text in view.y_ticks
    ]
    columns = [
        Markup(
            '<path class="grid" d="M{0:g} {1:g}V{2:g}"/>'
            '<text class="tick" x="{0:g}" y="{3:g}" text-anchor="middle">{4}</text>'
            '<text class="tick sub" x="{0:g}" y="{5:g}" text-anchor="middle">{6}</text>'
        ).format(x, top, bottom, bottom + 17, text, bottom + 32, relative)
        for x, text, relative in view.x_ticks
    ]
    title = Markup(
        '<path class="axis" d="M{0:g} {1:g}H{2:g}"/>'
        '<text class="axis-title" x="{3:g}" y="{4:g}" text-anchor="middle">{5}</text>'
    ).format(left, bottom, right, (left + right) / 2, view.height - 10, view.title)
    return Markup("").join([band, *rows, *columns, title, note])


def _baselines(view: View) -> Markup:
    left, _, right, _ = view.plot
    return Markup("").join(
        Markup(
            '<path class="baseline" d="M{:g} {:g}H{:g}"/>'
            '<text class="baseline-label" x="{:g}" y="{:g}" text-anchor="{}">{}</text>'
        ).format(left, pixel, right, x, y, anchor, text)
        for pixel, text, x, y, anchor in view.lines
    )


def _points(findings: Findings, view: View) -> Markup:
    """The faint points, all of a type in one path; very many are dots, to keep the file small."""
    records = findings.records
    places = offsets(records.types)
    dots = len(records.successes) > SHAPES_UP_TO
    outlines: dict[str, list[str]] = {}
    for trial in records.with_value(view.metric):
        if trial.number not in records.front:
            kind = records.traits[trial.number].type
            mark = DOT if dots else marker(places[kind], FAINT)
            start = f"M{view.x(getattr(trial, view.metric)):g} {view.y(trial.accuracy or 0.0):g}"
            outlines.setdefault(kind, []).append(start + mark)
    return Markup("").join(
        Markup('<path class="faint {}" d="{}"/>').format(colour(places[kind]), "".join(paths))
        for kind, paths in outlines.items()
    )


def _line(view: View) -> Markup:
    return Markup('<path class="front-line" d="{}"/>').format(view.line)


def _front(findings: Findings, view: View) -> Markup:
    records = findings.records
    places: Mapping[str, int] = offsets(records.types)
    marks = []
    for trial in reversed(findings.front_trials):
        index = places[records.traits[trial.number].type]
        start = f"M{view.x(getattr(trial, view.metric)):g} {view.y(trial.accuracy or 0.0):g}"
        marks.append(
            Markup('<path class="strong {}" d="{}"/>').format(
                colour(index), start + marker(index, STRONG)
            )
        )
    return Markup("").join(marks)


def _labels(view: View) -> Markup:
    return Markup("").join(
        Markup('<text class="label" x="{:g}" y="{:g}" text-anchor="{}">{}</text>').format(
            x, y, anchor, text
        )
        for _, text, x, y, anchor in view.labels
    )


def sparkline(epochs: Sequence[EpochResult], *, width: int = 96, height: int = 26) -> Markup:
    """Validation accuracy by epoch, from the curve's lowest to its highest value."""
    values = finite_accuracies(epochs)
    if len(values) < 2:
        return Markup("")
    low, spread = min(values), max(max(values) - min(values), 1e-9)
    step = (width - 6) / (len(values) - 1)
    places = [
        (3 + index * step, 3 + (height - 6) * (1 - (value - low) / spread))
        for index, value in enumerate(values)
    ]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return Markup(
        '<svg class="sparkline" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img">'
        '<title>{2}</title><path d="{3}"/><circle cx="{4:.1f}" cy="{5:.1f}" r="2.2"/></svg>'
    ).format(width, height, curve_words(values), path, *places[-1])


def finite_accuracies(epochs: Sequence[EpochResult]) -> list[float]:
    """The validation accuracies of a curve; an epoch that diverged has none."""
    stored: list[float | None] = [result.accuracy for result in epochs]
    return [value for value in stored if value is not None and math.isfinite(value)]


def curve_words(values: Sequence[float]) -> Markup:
    """A learning curve in a sentence."""
    return escape(
        f"Validation accuracy over {len(values)} epochs: from {100 * values[0]:.1f} %"
        f" to {100 * values[-1]:.1f} %, at most {100 * max(values):.1f} %"
    )
