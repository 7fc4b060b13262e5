"""Which images are looked at: those on which the trials disagree, before others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blocks.errors import StudyError

USUAL = 8
AT_MOST = 32


def parse_images(text: str | None) -> int | tuple[int, ...]:
    """Read ``--images``: how many ("8"), or which ("0,5,9"; "5," is the one of number 5).

    Raises:
        StudyError: It is neither, or too many.
    """
    if text is None:
        return USUAL
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    count = len(numbers) if "," in text else next(iter(numbers), 0)
    if not numbers or min(numbers) < 0 or not 1 <= count <= AT_MOST:
        raise StudyError(
            f"--images {text!r}: write how many (8; at most {AT_MOST}), or the numbers of images of"
            " the split (0,5,9)"
        )
    return tuple(dict.fromkeys(numbers)) if "," in text else count


def chosen_images(
    wanted: int | tuple[int, ...], right: Sequence[NDArray[np.bool_]], size: int, split: str
) -> list[int]:
    """The images to look at.

    Args:
        wanted: How many, or which.
        right: For each trial which images it classifies right, (N,).
        size: Images of the split.
        split: Its name, for messages.

    Returns:
        Of a number: those that some trials classify right and others wrong come first, then the
        others, both in the order of the split.

    Raises:
        StudyError: An image is not there.
    """
    if isinstance(wanted, tuple):
        beyond = [number for number in wanted if number >= size]
        if beyond:
            raise StudyError(f"--images {beyond[0]}: the {split} split has images 0 to {size - 1}")
        return list(wanted)
    table = np.stack(list(right))
    disputed = table.any(axis=0) & ~table.all(axis=0)
    order = np.argsort(~disputed, kind="stable")
    return [int(number) for number in order[:wanted]]
