"""What trainings have learnt of their networks, as rows for the page."""

from __future__ import annotations

from typing import Any

from reports import wording
from reports.figures import marker_icon
from reports.findings import Findings
from search.learnt import Learnt
from search.records import TrialRecord


def learnt_section(findings: Findings) -> list[dict[str, Any]]:
    """Every training that has learnt something, with its sites; empty where none has."""
    return [_row(findings, one) for one in findings.records.learnt if one.sites]


def _row(findings: Findings, one: Learnt) -> dict[str, Any]:
    kind = findings.records.traits[one.trial.number].type
    return {
        "number": one.trial.number,
        "label": one.trial.label,
        "seed": one.trial.seed,
        "icon": marker_icon(findings.records.types, kind),
        "accuracy": _accuracy(findings, one.trial),
        "anew": [(t.number, _accuracy(findings, t)) for t in one.anew],
        "sites": list(one.sites.items()),
    }


def _accuracy(findings: Findings, trial: TrialRecord) -> str:
    return wording.percent(trial.accuracy, findings.decimals)
