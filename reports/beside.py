"""Published figures beside a study's own, as rows for the page."""

from __future__ import annotations

from typing import Any

from reports import wording
from reports.figures import marker_icon
from reports.findings import Findings
from search.beside import CONSISTENT, NOT_CONSISTENT, Beside, beside_published, unread_tables

DECIMALS = 2  # as papers print them


def beside_section(findings: Findings) -> dict[str, Any] | None:
    """All of the section; None where nothing that was trained is known to be published."""
    records = findings.records
    found = beside_published(records.study, records.trials)
    unread = [str(table) for table in unread_tables(records.trials)]
    if not found and not unread:
        return None
    return {
        "rows": [_row(findings, one) for one in found],
        "sources": list(dict.fromkeys(_source(one) for one in found)),
        "unread": unread,
        "words": _verdict_words(found),
    }


def _row(findings: Findings, one: Beside) -> dict[str, Any]:
    figure = one.figure
    return {
        "label": one.label,
        "icon": marker_icon(
            findings.records.types, findings.records.traits[one.trials[0].number].type
        ),
        "place": f"{figure.backbone} on {figure.data}, {figure.paper}",
        "published": f"{wording.fixed(figure.value, DECIMALS)}{wording.THIN}% {figure.measure}",
        "gain": _points(figure.difference),
        "ours": wording.percent(one.accuracy, DECIMALS),
        "difference": _points(one.difference),
        "interval": " to ".join(_points(end) for end in one.interval or ()),
        "seeds": len(one.differences),
        "verdict": one.verdict,
        "why": "; ".join(one.why),
    }


def _points(difference: float | None) -> str:
    return wording.DASH if difference is None else wording.points(difference, DECIMALS)


def _source(one: Beside) -> str:
    note = f"; {one.figure.note}" if one.figure.note else ""
    return f"{one.figure.paper}: {one.figure.source}{note}"


def _verdict_words(found: list[Beside]) -> str:
    """How many figures stand to ours in which way."""
    if not found:
        return "No figure of what was trained here is known."
    agree = sum(one.verdict == CONSISTENT for one in found)
    differ = sum(one.verdict == NOT_CONSISTENT for one in found)
    rest = len(found) - agree - differ
    parts = [
        f"{count} {words}"
        for count, words in (
            (agree, "consistent with ours"),
            (differ, "not consistent with ours"),
            (rest, "that cannot be compared here"),
        )
        if count
    ]
    return f"{wording.counted(len(found), 'published figure')}: {wording.enumerated(parts)}."
