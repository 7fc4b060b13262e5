"""``--sampler auto``: which sampler a study gets, by a rule that is written down.

1. grid, where all distinct candidates at all seeds fit into the trials: nothing is left to choose;
2. else TPE up to ``MODELLED`` candidates: its model is worth the milliseconds that it costs;
3. else, where every setting is a list, regularised evolution, and NSGA-II where one is a range:
   what they cost does not grow with the study.

The choice is made once and kept with the study: a larger ``--trials`` goes on with it. A changed
space (``--extend``) chooses anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.errors import SiteError
from search.records import StudyRecord
from spaces.candidate import DataFacts
from spaces.document import AUTO
from spaces.document import SAMPLERS as NAMES
from spaces.drawing import baseline_candidates, draw, enumerate_proposals, every_plain
from spaces.parameters import Choice
from spaces.space import Space

MODELLED = 1000  # candidates
LISTED = 20_000  # proposals, in search of more distinct candidates than there are trials for


def choose_sampler(
    chosen: Mapping[str, Any],
    space: Space,
    data: DataFacts,
    stored: StudyRecord | None,
    *,
    tuned: bool = False,
) -> tuple[str, str]:
    """The sampler of a study, and why it is that one where ``auto`` was asked for.

    Args:
        chosen: The settings ``sampler``, ``trials`` and ``seeds``.
        space: What may vary.
        data: The data set.
        stored: The study as it is stored, if it is.
        tuned: Whether no attention gets as many settings of training as the blocks.

    Raises:
        StudyError: A sampler that is given by its dotted name cannot propose here.
    """
    name = chosen["sampler"]
    if name == AUTO:
        kept = _kept(stored, space)
        return kept or _chosen(space, data, chosen["trials"], chosen["seeds"], tuned=tuned)
    if name not in NAMES:
        from search.samplers import try_out

        try_out(name, space.objectives, space, data)
    return name, ""


def _kept(stored: StudyRecord | None, space: Space) -> tuple[str, str] | None:
    """What ``auto`` chose when the study was made, while the space is the same."""
    if stored is None or stored.space_content != dict(space.content):
        return None
    kept = stored.settings.get(AUTO)
    return (kept["sampler"], kept["because"]) if kept else None


def _chosen(
    space: Space, data: DataFacts, trials: int, seeds: int, *, tuned: bool
) -> tuple[str, str]:
    lists = all(isinstance(domain, Choice) for domain in space.training.values())
    distinct = _distinct(space, data, trials // seeds, tuned=tuned) if lists else None
    if distinct is not None:
        each = f" at {seeds} seeds" if seeds > 1 else ""
        return "grid", f"all {distinct} distinct candidates{each} fit into {trials} trials"
    candidates = trials // seeds
    if candidates <= MODELLED:
        return "tpe", f"{candidates:,} candidates, not all there are: a model of them pays"
    why = f"{candidates:,} candidates, more than {MODELLED:,}: a model would cost too much"
    return ("evolution", f"{why}; all settings are lists") if lists else ("nsga2", why)


def _distinct(space: Space, data: DataFacts, most: int, *, tuned: bool) -> int | None:
    """How many distinct candidates there are, baselines included; None: more than ``most``."""
    found = {candidate.digest for candidate, _ in baseline_candidates(space, data)}
    for candidate in every_plain(space, data) if tuned else ():
        found.add(candidate.digest)
        if len(found) > most:
            return None
    for count, proposal in enumerate(enumerate_proposals(space, data)):
        if len(found) > most or count >= LISTED:
            return None
        try:
            found.add(draw(proposal, data).digest)
        except SiteError:
            continue
    return len(found) if len(found) <= most else None
