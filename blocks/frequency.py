"""FcaNet's DCT frequencies: the published sets, their scaling to a map, and their one spelling.

Qin, Zhang, Wu and Li, "FcaNet: Frequency Channel Attention Networks", ICCV 2021,
arXiv:2012.11879. The sets are data of the authors' code (cfzd/FcaNet, ``model/layer.py``): pairs
(u, v) on a 7 x 7 grid, u the vertical (H) and v the horizontal (W) frequency, the best first.

A frequency is written as a set's name (``top16``) or as pairs joined by plus signs
(``0,0+6,0``); group i of the channels takes pair i, so the order of the pairs matters. ``nas``
(in 16 groups; ``nas4``: in 4) leaves the choice to the training: every group learns weights of all.
Pure arithmetic: no torch.
"""

from __future__ import annotations

import re

from blocks.errors import BlockError, listing, suggestion

Pairs = tuple[tuple[int, int], ...]

GRID = 7
SET_SIZES = (1, 2, 4, 8, 16, 32)

_TOP = (
    "00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 "
    "46 63 33 53 55 21 61 52 54 32 31 41 23 20 65 13"
)
_LOW = (
    "00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 "
    "14 23 32 41 50 06 15 24 33 42 51 60 16 25 34 43"
)
_BOT = (
    "66 14 34 36 26 43 11 24 44 45 56 15 42 62 25 51 "
    "64 13 65 20 23 41 31 32 54 52 61 21 55 53 33 63"
)


def _pairs_of(digits: str) -> Pairs:
    return tuple((int(pair[0]), int(pair[1])) for pair in digits.split())


RANKINGS: dict[str, Pairs] = {
    "top": _pairs_of(_TOP),
    "low": _pairs_of(_LOW),
    "bot": _pairs_of(_BOT),
}
FREQUENCY_SETS: dict[str, Pairs] = {
    f"{ranking}{size}": pairs[:size] for ranking, pairs in RANKINGS.items() for size in SET_SIZES
}
SINGLES: tuple[str, ...] = tuple(f"{u},{v}" for u in range(GRID) for v in range(GRID))

LEARNT_GROUPS = 16
_LEARNT = re.compile(r"nas([1-9]\d{0,3})?")
_PAIR = re.compile(r"\s*([0-6])\s*,\s*([0-6])\s*")


def parse_frequency(text: str) -> Pairs:
    """Read a frequency: the name of a set or explicit pairs, in the order written.

    Raises:
        BlockError: The text is neither a set's name nor pairs "u,v" of 0 to 6.
    """
    if text in FREQUENCY_SETS:
        return FREQUENCY_SETS[text]
    matches = [_PAIR.fullmatch(part) for part in str(text).split("+")]
    if any(match is None for match in matches):
        near = suggestion(text, FREQUENCY_SETS)
        raise BlockError(
            f"unknown frequency {text!r}.{near} Allowed: {listing(FREQUENCY_SETS)}, nas (learnt;"
            f" nas4: in 4 groups), or pairs of 0 to {GRID - 1} such as '0,0+6,0'"
        )
    return tuple((int(match[1]), int(match[2])) for match in matches if match)


def learnt_groups(text: str) -> int | None:
    """Groups of channels that learn their frequencies, 16 for ``nas``; None: they are given."""
    match = _LEARNT.fullmatch(text)
    return int(match[1] or LEARNT_GROUPS) if match else None


def group_count(text: str) -> int:
    """Into how many groups of channels a frequency splits a map.

    Raises:
        BlockError: As ``parse_frequency``.
    """
    return learnt_groups(text) or len(parse_frequency(text))


def frequency_text(pairs: Pairs) -> str:
    """Spell pairs out: ``((0, 0), (6, 0))`` is ``0,0+6,0``."""
    return "+".join(f"{u},{v}" for u, v in pairs)


def sorted_frequency(text: str) -> str:
    """Sort an explicit list of pairs; the name of a set stays as it is.

    A space draws explicit lists as sets of frequencies, so two orders of one list are one choice.

    Raises:
        BlockError: As ``parse_frequency``, or a pair is given twice.
    """
    if text in FREQUENCY_SETS:
        return text
    if (groups := learnt_groups(text)) is not None:
        return f"nas{groups}"
    pairs = tuple(sorted(parse_frequency(text)))
    if len(set(pairs)) < len(pairs):
        raise BlockError(f"frequency {text!r} names a pair twice; give every pair once")
    return frequency_text(pairs)


def shortest_equal(pairs: Pairs) -> Pairs:
    """The shortest list that assigns the same frequency to every channel.

    Groups are contiguous and equally wide, so ``a a b b`` over 4 groups is ``a b`` over 2.
    """
    for size in range(1, len(pairs) + 1):
        repeat = len(pairs) // size
        if len(pairs) % size == 0 and pairs == tuple(
            p for p in pairs[::repeat] for _ in range(repeat)
        ):
            return pairs[::repeat]
    return pairs


def frequency_name(text: str) -> str:
    """The published name of a frequency where it has one, else its pairs."""
    if learnt_groups(text) is not None:
        return text
    pairs = parse_frequency(text)
    named = (name for name, members in FREQUENCY_SETS.items() if members == pairs)
    return next(named, frequency_text(pairs))


def scaled_index(index: int, size: int, *, authors: bool = False) -> int:
    """The DCT index that frequency ``index`` of the 7-grid has on a map ``size`` pixels long.

    From 7 pixels on the authors' integer rule, ``index * (size // 7)``, which keeps the frequency
    per pixel. Below 7 theirs sends every frequency to 0; here ``min(size - 1, round(index * size /
    7))``, so that no basis vanishes (``authors=True``: their rule everywhere).
    """
    if size >= GRID or authors:
        return index * (size // GRID)
    return min(size - 1, round(index * size / GRID))


def representative_index(index: int, size: int, *, authors: bool = False) -> int:
    """The smallest frequency of the 7-grid with the same DCT index on a map of this size."""
    target = scaled_index(index, size, authors=authors)
    return next(other for other in range(GRID) if scaled_index(other, size) == target)
