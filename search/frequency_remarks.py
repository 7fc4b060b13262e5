"""Which of FcaNet's frequencies are one and the same on small maps, said before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from blocks.frequency import GRID, Pairs, learnt_groups, parse_frequency, scaled_index
from blocks.options import dct_shape
from spaces.candidate import Candidate
from spaces.drawing import sites_of
from spaces.space import Space

BLOCK = "fca"
OPTION = "frequency"
MOST_SETS = 4  # that are named for one size of map


def frequency_remarks(space: Space, candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """For each size of map under 7 x 7: the frequencies that coincide, and what is left of sets.

    A map of N pixels has N frequencies a side, so that some of the 7-grid's are the same there
    (``blocks.frequency.scaled_index``). Compositions are not looked into.

    Args:
        space: Says which frequencies there are.
        candidates: Of the space; where their blocks are says which maps there are.
    """
    given = {text: parse_frequency(text) for text in _given(space)}
    used = {pair for pairs in given.values() for pair in pairs}
    return tuple(
        _words(size, given)
        for size in sorted(_small_maps(candidates))
        if len(_distinct(used, size)) < len(used)
    )


def _given(space: Space) -> Iterator[str]:
    """The frequencies that a space gives its blocks; learnt ones are none yet."""
    if BLOCK not in space.attention.blocks.values:
        return
    for name, choice in space.attention.options(BLOCK):
        if name.rpartition(".")[2] == OPTION:
            yield from (str(text) for text in choice.values if learnt_groups(str(text)) is None)


def _small_maps(candidates: Iterable[Candidate]) -> set[tuple[int, int]]:
    """Heights and widths under the grid's that a candidate's blocks see."""
    found = set()
    for candidate in candidates:
        sites = sites_of(candidate.architecture.backbone, candidate.data)
        for placement in candidate.architecture.placements:
            settings = placement.settings
            if placement.block != BLOCK or settings.get("authors"):
                continue
            for site in sites.expand(placement.site):
                size = dct_shape(site.shape, settings.get("dct_size", "map"))
                if min(size) < GRID:
                    found.add(size)
    return found


def _distinct(pairs: Iterable[tuple[int, int]], size: tuple[int, int]) -> set[tuple[int, int]]:
    """The pairs as DCT indices of a map of this height and width."""
    height, width = size
    return {(scaled_index(u, height), scaled_index(v, width)) for u, v in pairs}


def _words(size: tuple[int, int], given: dict[str, Pairs]) -> str:
    height, width = size
    sides = [height] if height == width else [height, width]
    same = ", ".join(dict.fromkeys(words for side in sides for words in _same(side)))
    left = [
        f"{text} has {len(_distinct(pairs, size))} different ones of {len(pairs)}"
        for text, pairs in given.items()
        if len(_distinct(pairs, size)) < len(set(pairs))
    ]
    sets = f"; {', '.join(left[:MOST_SETS])}" if left else ""
    more = f" and {len(left) - MOST_SETS} more sets repeat some" if len(left) > MOST_SETS else ""
    return (
        f"on maps of {height} x {width} frequencies coincide ({same}){sets}{more}; choices that"
        " differ in nothing else are one candidate"
    )


def _same(side: int) -> Iterator[str]:
    """Indices of the 7-grid that are one on a map so many pixels long: ``1 = 2``."""
    groups: dict[int, list[int]] = {}
    for index in range(GRID):
        groups.setdefault(scaled_index(index, side), []).append(index)
    yield from (" = ".join(map(str, group)) for group in groups.values() if len(group) > 1)
