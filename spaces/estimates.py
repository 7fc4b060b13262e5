"""Numbers of a space with how sure they are: counted, or estimated from random draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations


@dataclass(frozen=True)
class Amount:
    """A count, exact or estimated.

    Args:
        value: The count, or its estimate.
        low: The lower end of its 95 % interval.
        high: The upper end.
        exact: Whether it was counted.
        how: How it came about, in words; empty where it was counted one by one.
    """

    value: int
    low: int
    high: int
    exact: bool = True
    how: str = ""

    @classmethod
    def counted(cls, value: int, how: str = "") -> Amount:
        """An exact count."""
        return cls(value, value, value, how=how)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "exact": self.exact,
            "how": self.how,
        }


@dataclass(frozen=True)
class Share:
    """Part of a whole.

    Args:
        count: Of those that were looked at, how many it is.
        of: How many were looked at.
        exact: Whether they are all there are; else they were drawn at random.
    """

    count: int
    of: int
    exact: bool = True

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """At 95 %; both ends are the value where it was counted."""
        return (self.value, self.value) if self.exact else wilson(self.count, self.of)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        low, high = self.interval
        return {
            "share": self.value,
            "low": low,
            "high": high,
            "count": self.count,
            "of": self.of,
            "exact": self.exact,
        }


def wilson(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was seen ``count`` times in ``of`` random draws.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if not of:
        return 0.0, 1.0
    share = count / of
    middle = share + Z * Z / (2 * of)
    half = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    scale = 1 + Z * Z / of
    low = 0.0 if count == 0 else (middle - half) / scale
    high = 1.0 if count == of else (middle + half) / scale
    return low, high


def distinct_kinds(counts: Iterable[int]) -> Amount:
    """How many kinds there are, from how often each kind that was drawn was drawn.

    Chao, "Nonparametric estimation of the number of classes in a population", Scandinavian Journal
    of Statistics 11, 1984, in its bias-corrected form with the log-normal interval of Chao,
    Biometrics 43, 1987. Where some kinds are drawn more easily than others it is a lower bound.

    Args:
        counts: Of each kind that was seen, how often.
    """
    seen = list(counts)
    kinds = len(seen)
    once, twice = seen.count(1), seen.count(2)
    unseen = once * (once - 1) / (2 * (twice + 1))
    if not unseen:
        return Amount(kinds, kinds, kinds, exact=False)
    total = kinds + unseen
    if twice:
        ratio = once / twice
        variance = twice * (ratio**4 / 4 + ratio**3 + ratio**2 / 2)
    else:
        variance = once * (once - 1) / 2 + once * (2 * once - 1) ** 2 / 4 - once**4 / (4 * total)
    spread = math.exp(Z * math.sqrt(math.log1p(variance / unseen**2)))
    low, high = kinds + unseen / spread, kinds + unseen * spread
    return Amount(round(total), math.floor(low), math.ceil(high), exact=False)


def leaves(branchings: Sequence[float]) -> Amount:
    """How many ways there are through a tree of questions, from random ways through it.

    Knuth, "Estimating the efficiency of backtrack programs", Mathematics of Computation 29, 1975:
    the product of the numbers of answers along a way that was taken at random has the number of
    ways as its mean.

    Args:
        branchings: That product, for each way that was taken; two or more.
    """
    middle = fmean(branchings)
    half = Z * stdev(branchings) / math.sqrt(len(branchings))
    low, high = math.floor(max(1.0, middle - half)), math.ceil(middle + half)
    return Amount(round(middle), low, high, exact=False)
