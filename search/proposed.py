"""What became of a study's proposals, counted."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine, func, select

from search import tables
from search.records import ACCEPTED, IMPOSSIBLE, OVER_CAP, REPEATED, REPLICATED

# Verdict -> (key of the data, words for people).
MEANINGS = {
    ACCEPTED: ("new", "new"),
    REPEATED: ("replaced", "repeated and replaced"),
    REPLICATED: ("replicated", "repeated, as further seeds"),
    OVER_CAP: ("rejected", "over a cap"),
    IMPOSSIBLE: ("impossible", "of no network"),
}


def proposal_counts(engine: Engine, study_id: int) -> dict[str, int]:
    """How many proposals were new, repeated (replaced or replicated), rejected or impossible."""
    proposal = tables.proposals.c
    query = (
        select(proposal.verdict, func.count())
        .where(proposal.study_id == study_id)
        .group_by(proposal.verdict)
    )
    with engine.connect() as connection:
        found = {row[0]: row[1] for row in connection.execute(query)}
    return {key: found.get(verdict, 0) for verdict, (key, _) in MEANINGS.items()}


def proposal_words(counts: Mapping[str, int]) -> str:
    """The same for people; empty where no proposal was anything but new."""
    if sum(counts.values()) == counts["new"]:
        return ""
    shown = [f"{counts[key]} {words}" for key, words in MEANINGS.values() if counts[key]]
    return f"{sum(counts.values())} proposals: {', '.join(shown)}"
