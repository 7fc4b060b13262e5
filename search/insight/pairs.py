"""Frequency groups put together by their pair: on small maps several groups take the same one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PairShare:
    """What a frequency picks up.

    Args:
        pair: (u, v) on the 7-grid, as "0,1".
        groups: How many groups of channels have it.
        share: Share of the energy of these channels.
    """

    pair: str
    groups: int
    share: float


def by_pair(groups: Iterable[Mapping[str, Any]]) -> list[PairShare]:
    """The pairs of a block, the largest share first; groups count by their energy."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for group in groups:
        found.setdefault(f"{group['u']},{group['v']}", []).append(group)
    shares = [PairShare(pair, len(of), _share(of)) for pair, of in found.items()]
    return sorted(shares, key=lambda share: -share.share)


def _share(groups: Iterable[Mapping[str, Any]]) -> float:
    weighted = [((g["share"] or 0.0) * (g["energy"] or 0.0), g["energy"] or 0.0) for g in groups]
    energy = sum(weight for _, weight in weighted)
    return sum(part for part, _ in weighted) / energy if energy else 0.0
