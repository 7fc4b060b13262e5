"""Results of a plan that other studies in the database have already: they cost no training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Pair = tuple[str, int]  # a candidate's digest, and a seed


@dataclass(frozen=True)
class TakenOver:
    """Of the pairs of candidate and seed that a study may still come to, those that are known.

    Args:
        known: How many another study has.
        of: How many there are, or were looked at.
        complete: Whether these are all that there are.
    """

    known: int
    of: int
    complete: bool

    def to_train(self, left: int) -> int:
        """Of so many trials that are left, how many are trained: as many as chance will have it.

        Where all that there are will be tried, this is exact.
        """
        return left - round(left * self.known / self.of) if self.complete and self.of else left

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"known": self.known, "of": self.of, "complete": self.complete}


def taken_over(
    pairs: Iterable[Pair], elsewhere: Mapping[Pair, str], had: Iterable[Pair], *, complete: bool
) -> TakenOver:
    """What others know of a study.

    Args:
        pairs: All that it may come to, or those that are looked at.
        elsewhere: What other studies have, and which trial of theirs it is.
        had: What the study has itself.
        complete: Whether the pairs are all that there are.
    """
    open_ = set(pairs) - set(had)
    return TakenOver(len(open_ & elsewhere.keys()), len(open_), complete)
