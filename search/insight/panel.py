"""Grad-CAM side by side: a figure with a row per image and a column per trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from blocks.errors import StudyError, listing
from search.insight.gradcam import upsampled
from search.insight.store import GRADCAM

if TYPE_CHECKING:
    from search.explain import Explained, Explanation

FORMATS = (".png", ".svg", ".pdf")
CELL = 1.35  # inches
LABEL_WIDTH = 20
DOTS_PER_INCH = 150


def check_output(output: str) -> Path:
    """Refuse a place for a figure before anything is computed.

    Raises:
        StudyError: It is no figure's name, or its folder is not there.
    """
    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise StudyError(
            f"--output {output!r}: name a file that ends in {listing(FORMATS)}, such as"
            f" {path.with_suffix('.png').name}"
        )
    if not path.absolute().parent.is_dir():
        raise StudyError(
            f"--output {output!r}: there is no folder {path.absolute().parent}; make it first"
        )
    return path


def write_panel(explanation: Explanation, path: Path) -> None:
    """Write the figure: the images, and on each what speaks for the class that a trial predicts.

    Raises:
        StudyError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    seen = [each for each in explanation.trials if each.is_seen]
    rows, columns = len(explanation.numbers), 1 + len(seen)
    figure = Figure(figsize=(CELL * columns + 0.2, (CELL + 0.25) * rows + 0.5), dpi=DOTS_PER_INCH)
    axes = figure.subplots(rows, columns, squeeze=False)
    pictures = [_picture(each) for each in explanation.split.gazed(explanation.numbers).pictures]
    for row, picture in enumerate(pictures):
        _draw(axes[row, 0], picture)
        facts = seen[0].insights[GRADCAM].content["images"][row]
        _name(axes[row, 0], f"image {facts['image']}, class {facts['true']}", "black")
    for column, each in enumerate(seen, start=1):
        _column(axes[:, column], each, pictures)
    axes[0, 0].set_title(explanation.split.name, fontsize=7)
    figure.tight_layout(pad=0.4)
    try:
        figure.savefig(path)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be written: {error.strerror}; name another file (--output)"
        ) from None


def _column(axes: Any, each: Explained, pictures: list[NDArray[np.uint8]]) -> None:
    cams = each.insights[GRADCAM]
    maps = torch.from_numpy(cams.arrays["predicted"].astype(np.float32))
    large = upsampled(maps, (pictures[0].shape[0], pictures[0].shape[1])).numpy()
    for axis, picture, heat, facts in zip(
        axes, pictures, large, cams.content["images"], strict=True
    ):
        _draw(axis, picture)
        axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65, interpolation="bilinear")
        is_right = facts["predicted"] == facts["true"]
        text = f"{facts['predicted']} ({100 * facts['probability']:.0f} %)"
        _name(axis, text if is_right else f"{text}, wrong", "black" if is_right else "#b3420a")
    label = each.trial.label
    short = label if len(label) <= LABEL_WIDTH else f"{label[: LABEL_WIDTH - 3]}..."
    axes[0].set_title(f"trial {each.trial.number}\n{short}", fontsize=7)


def _picture(picture_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image as figures want it, (H, W, 3)."""
    if len(picture_CHW) not in (1, 3):
        picture_CHW = picture_CHW[:1]
    return np.broadcast_to(picture_CHW, (3, *picture_CHW.shape[1:])).transpose(1, 2, 0)


def _draw(axis: Any, picture_HWC: NDArray[np.uint8]) -> None:
    axis.imshow(picture_HWC, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def _name(axis: Any, text: str, colour: str) -> None:
    axis.set_xlabel(text, fontsize=6.5, color=colour, labelpad=2)
