"""How fast a training comes to its accuracy: numbers derived from a stored learning curve.

All are of the validation accuracy after every epoch, so they can be computed at any later time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.errors import StudyError
from search.outcome import EpochResult

EPOCHS, SECONDS, AREA = "epochs_to_target", "seconds_to_target", "curve_area"


@dataclass(frozen=True)
class Reached:
    """When a curve reached a target.

    Args:
        epochs: The first epoch whose validation accuracy is the target or more.
        seconds: Wall time of all epochs up to that one, their validations included.
    """

    epochs: int
    seconds: float


def reached(curve: Sequence[EpochResult], target: float) -> Reached | None:
    """When a curve first reached a validation accuracy; None where it never did."""
    seconds = 0.0
    for result in curve:
        seconds += result.seconds
        if result.accuracy >= target:
            return Reached(result.epoch, seconds)
    return None


def to_target(curve: Sequence[EpochResult], target: float) -> dict[str, float | None]:
    """Epochs and seconds to a target, by name; None where the curve never reached it."""
    found = reached(curve, target)
    if found is None:
        return {EPOCHS: None, SECONDS: None}
    return {EPOCHS: found.epochs, SECONDS: found.seconds}


def curve_area(accuracies: Sequence[float]) -> float:
    """The mean height of a validation curve, by trapezoids over epochs from the first to the last.

    With accuracies a_1 to a_E it is (a_1 / 2 + a_2 + ... + a_(E-1) + a_E / 2) / (E - 1), a share
    from 0 to 1; of one epoch, a_1. Nothing is taken to be known before the first epoch.

    Args:
        accuracies: On validation, after every epoch; one or more.
    """
    first, last = accuracies[0], accuracies[-1]
    if len(accuracies) == 1:
        return first
    return (sum(accuracies) - (first + last) / 2) / (len(accuracies) - 1)


def check_target(target: float) -> None:
    """Refuse a target that no accuracy can be compared with.

    Raises:
        StudyError: It is not a share above 0 and up to 1.
    """
    if not 0 < target <= 1:
        cure = f"; write {target / 100:g} for {target:g} %" if 1 < target <= 100 else ""
        raise StudyError(
            f"--target-accuracy is {target:g}; it must be a share above 0 and up to 1{cure}"
        )
