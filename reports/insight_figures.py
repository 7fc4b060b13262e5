"""Pictures of what attention does: Grad-CAM over images, attention maps, and one small chart."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from reports.figures import colour, marker

SHOWN_SIDE = 84  # CSS pixels of a picture's longer side
LEAST_SIDE = 56  # pixels of its file, so that a small map is smooth
MOST_OPACITY = 0.85
# Dark violet over red to pale yellow: rising in lightness, and told apart by all colour vision.
HEAT = np.array([(20, 11, 53), (101, 21, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])


def heat_colours(heat_HW: NDArray[Any]) -> NDArray[Any]:
    """Numbers of 0 to 1 as colours, (H, W, 3)."""
    places = np.linspace(0, 1, len(HEAT))
    flat = np.clip(np.nan_to_num(heat_HW), 0, 1)
    return np.stack([np.interp(flat, places, HEAT[:, band]) for band in range(3)], axis=-1)


def overlaid(picture_CHW: NDArray[np.uint8], heat_HW: NDArray[Any] | None) -> Markup:
    """An image in grey with a map over it in colour, or the image alone, as an ``img`` element.

    Args:
        picture_CHW: 8-bit; one channel or three.
        heat_HW: Of 0 to 1; any size.
    """
    from PIL import Image

    height, width = picture_CHW.shape[1:]
    factor = max(1, -(-LEAST_SIDE // max(height, width)))
    shown = (width * factor, height * factor)
    bands = picture_CHW if len(picture_CHW) == 3 else np.repeat(picture_CHW[:1], 3, axis=0)
    picture = Image.fromarray(bands.transpose(1, 2, 0)).resize(shown, Image.Resampling.NEAREST)
    if heat_HW is None:
        return _element(picture)
    grey = np.asarray(picture.convert("L"), dtype=np.float64)[..., None]
    small = Image.fromarray(np.nan_to_num(heat_HW).astype(np.float32))
    heat = np.clip(np.asarray(small.resize(shown, Image.Resampling.BILINEAR)), 0, 1)
    opacity = (MOST_OPACITY * heat)[..., None]
    mixed = grey * (1 - opacity) + heat_colours(heat) * opacity
    return _element(Image.fromarray(mixed.round().astype(np.uint8)))


def map_picture(map_HW: NDArray[np.uint8]) -> Markup:
    """An attention map of 0 to 255 alone, as an ``img`` element."""
    from PIL import Image

    colours = heat_colours(map_HW / 255.0).round().astype(np.uint8)
    return _element(Image.fromarray(colours), side=SHOWN_SIDE * 2 // 3)


def _element(picture: Any, *, side: int = SHOWN_SIDE) -> Markup:
    """A picture as a PNG inside the page; what it shows stands beside it in words."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    scale = side / max(picture.size)
    return Markup(
        '<img class="cam" alt="" width="{}" height="{}" src="data:image/png;base64,{}">'
    ).format(
        round(picture.width * scale),
        round(picture.height * scale),
        base64.b64encode(file.getvalue()).decode(),
    )


@dataclass(frozen=True)
class Line:
    """Class specificity of one trial by stage.

    Args:
        trial: Its number.
        kind: The number of its block type, for colour and marker.
        values: Stage -> specificity; a stage without a number is left out.
    """

    trial: int
    kind: int
    values: Mapping[int, float]


LEFT, TOP, RIGHT, BOTTOM = 46, 14, 582, 196
WIDTH, HEIGHT = 640, 236
LABEL_STEP = 13


def specificity_chart(lines: Sequence[Line], by_chance: float | None) -> Markup:
    """Class specificity against depth, one line per trial; the table below has the numbers."""
    stages = sorted({stage for line in lines for stage in line.values})
    if not stages:
        return Markup("")
    step = (RIGHT - LEFT - 60) / max(len(stages) - 1, 1)
    xs = {stage: LEFT + 30 + index * step for index, stage in enumerate(stages)}
    parts = [*_scale(xs), _chance(by_chance)]
    parts += [_drawn(line, xs) for line in lines]
    parts += _ends(lines, xs)
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="specific-title">'
        '<title id="specific-title">Class specificity of gains by stage; the numbers are in the'
        " table below</title>{}</svg>"
    ).format(WIDTH, HEIGHT, Markup("").join(parts))


def _y(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * min(max(value, 0.0), 1.0)


def _scale(xs: Mapping[int, float]) -> list[Markup]:
    rows = [
        Markup(
            '<path class="grid" d="M{} {:g}H{}"/>'
            '<text class="tick" x="{}" y="{:g}" text-anchor="end">{}</text>'
        ).format(LEFT, _y(v), RIGHT, LEFT - 8, _y(v) + 4, f"{v:g}")
        for v in (0, 0.25, 0.5, 0.75, 1)
    ]
    names = [
        Markup('<text class="tick" x="{:g}" y="{}" text-anchor="middle">{}</text>').format(
            x, BOTTOM + 18, f"stage {stage}" if stage else "stem"
        )
        for stage, x in xs.items()
    ]
    return [*rows, *names]


def _chance(by_chance: float | None) -> Markup:
    if by_chance is None:
        return Markup("")
    return Markup('<path class="baseline" d="M{} {:g}H{}"/>').format(LEFT, _y(by_chance), RIGHT)


def _drawn(line: Line, xs: Mapping[int, float]) -> Markup:
    places = [(xs[stage], _y(value)) for stage, value in sorted(line.values.items())]
    path = "M" + "L".join(f"{x:g} {y:.1f}" for x, y in places)
    marks = "".join(f"M{x:g} {y:.1f}{marker(line.kind, 4.5)}" for x, y in places)
    return Markup('<path class="line {0}" d="{1}"/><path class="{0}" d="{2}"/>').format(
        colour(line.kind), path, marks
    )


def _ends(lines: Sequence[Line], xs: Mapping[int, float]) -> list[Markup]:
    """Trial numbers at the ends of their lines, moved apart where they would overlap."""
    ends = sorted(
        ((_y(line.values[max(line.values)]), line) for line in lines if line.values),
        key=lambda end: (end[0], end[1].trial),
    )
    texts, last = [], -float("inf")
    for y, line in ends:
        last = max(y, last + LABEL_STEP)
        texts.append(
            Markup('<text class="tick" x="{:g}" y="{:.1f}">{}</text>').format(
                xs[max(line.values)] + 10, last + 4, line.trial
            )
        )
    return texts
