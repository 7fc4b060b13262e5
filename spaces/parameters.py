"""The values that one setting of a space may take: a list of choices, or a range of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from blocks.options import OptionValue


@dataclass(frozen=True)
class Choice:
    """One of several values; a single one is a fixed setting.

    Args:
        values: The values, in the order written.
    """

    values: tuple[OptionValue, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.values) == 1

    @property
    def default(self) -> OptionValue:
        """The value of the baseline: the first."""
        return self.values[0]


@dataclass(frozen=True)
class Range:
    """Any number from ``low`` to ``high``.

    Args:
        low: The smallest value.
        high: The largest value.
        log: Whether proportions rather than differences count.
        declared: The value of the baseline; None: the middle.
    """

    low: float
    high: float
    log: bool = False
    declared: float | None = None

    is_fixed = False

    @property
    def is_integer(self) -> bool:
        """Whether only whole numbers are meant: both ends are of that type."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def default(self) -> float:
        """The value of the baseline: the declared one, else the middle (geometric where log)."""
        if self.declared is not None:
            return self.declared
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(middle) if self.is_integer else middle


Domain = Choice | Range
Choose = Callable[[str, Domain], OptionValue]


def fixed(value: OptionValue) -> Choice:
    """A setting with one value."""
    return Choice((value,))
