"""What attention does in the trials that ``search explain`` has looked at, as rows for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports import wording
from reports.charts import offsets
from reports.figures import marker_icon
from reports.findings import Findings
from reports.insight_figures import Line, map_picture, overlaid, specificity_chart
from reports.records import StudyRecords
from search.insight.pairs import by_pair
from search.insight.store import FREQUENCY, GATES, GRADCAM, MAPS, Insight
from search.records import TrialRecord

TRIALS_AT_MOST, IMAGES_AT_MOST = 8, 8  # 72 pictures of 64 x 64: less than a megabyte
LINES_AT_MOST, ROWS_AT_MOST, GROUPS_AT_MOST = 12, 120, 6

Kinds = Mapping[str, Insight]


def insight_section(findings: Findings) -> dict[str, Any] | None:
    """All of the section; None where nothing was looked at."""
    records = findings.records
    if not records.insights:
        return None
    trials = [trial for trial in records.trials if trial.number in records.insights]
    pictured = _comparable(records, trials)
    return {
        "trials": len(trials),
        "split": _first_cam(records, pictured).get("split", "validation"),
        "heads": [_head(records, trial) for trial in pictured],
        "images": _image_rows(records, pictured),
        "more": len(trials) - len(pictured),
        "notes": _notes(records, trials),
        "chart": _chart(records, trials),
        "chance": _chance(records, trials),
        "surveyed": _surveyed(records, trials),
        "stages": _stage_rows(records, trials),
        "frequencies": _frequency_rows(records, trials),
        "maps": _map_rows(records, trials),
        "map_pictures": _map_pictures(records, pictured),
        "map_image": next((row["image"] for row in _cams(records, pictured[0])), None),
    }


def _comparable(records: StudyRecords, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that were shown the images of the latest look, the most accurate and baselines first.

    Trials can be looked at one by one, with images of their own; side by side stand those alone
    that saw the same.
    """
    latest = max(trials, key=lambda t: (records.insights[t.number][GRADCAM].created, -t.number))
    same = [t for t in trials if _shown(records, t) == _shown(records, latest)]
    ranked = sorted(same, key=lambda t: (not t.baseline, -(t.accuracy or 0.0), t.number))
    return ranked[:TRIALS_AT_MOST]


def _cams(records: StudyRecords, trial: TrialRecord) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = records.insights[trial.number][GRADCAM].content["images"]
    return rows


def _shown(records: StudyRecords, trial: TrialRecord) -> tuple[object, ...]:
    content = records.insights[trial.number][GRADCAM].content
    return content.get("split"), *(row["image"] for row in content["images"])


def _first_cam(records: StudyRecords, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    return records.insights[trials[0].number][GRADCAM].content


def _head(records: StudyRecords, trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "label": "no attention" if trial.baseline else trial.label,
        "icon": marker_icon(records.types, records.traits[trial.number].type),
    }


def _image_rows(records: StudyRecords, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    cams = {trial.number: records.insights[trial.number][GRADCAM] for trial in trials}
    first = cams[trials[0].number]
    return [
        {
            "image": facts["image"],
            "true": facts["true"],
            "picture": overlaid(first.arrays["pictures"][row], None),
            "cells": [_cam_cell(cams[trial.number], row) for trial in trials],
        }
        for row, facts in enumerate(first.content["images"][:IMAGES_AT_MOST])
    ]


def _cam_cell(cam: Insight, row: int) -> dict[str, Any]:
    facts = cam.content["images"][row]
    return {
        "picture": overlaid(cam.arrays["pictures"][row], cam.arrays["predicted"][row]),
        "predicted": facts["predicted"],
        "probability": wording.percent(facts["probability"], 0),
        "right": facts["predicted"] == facts["true"],
    }


def _notes(records: StudyRecords, trials: Sequence[TrialRecord]) -> list[str]:
    return [
        f"Trial {trial.number}: {note}."
        for trial in trials
        for note in records.insights[trial.number][GRADCAM].content.get("notes", ())
        if not (trial.baseline and note.startswith("no attention"))
    ]


# Gains. ------------------------------------------------------------------------------------------


def _contents(
    records: StudyRecords, trials: Sequence[TrialRecord], kind: str
) -> list[tuple[TrialRecord, dict[str, Any]]]:
    return [
        (trial, records.insights[trial.number][kind].content)
        for trial in trials
        if kind in records.insights[trial.number]
    ]


def _chart(records: StudyRecords, trials: Sequence[TrialRecord]) -> Any:
    places = offsets(records.types)
    lines = [
        Line(
            trial.number,
            places[records.traits[trial.number].type],
            {
                stage["stage"]: stage["specificity"]
                for stage in content["stages"]
                if stage["specificity"] is not None
            },
        )
        for trial, content in _contents(records, trials, GATES)
    ]
    drawn = [line for line in lines if line.values][:LINES_AT_MOST]
    return specificity_chart(drawn, _least_chance(records, trials))


def _least_chance(records: StudyRecords, trials: Sequence[TrialRecord]) -> float | None:
    chances = [c["by_chance"] for _, c in _contents(records, trials, GATES)]
    return min((chance for chance in chances if chance is not None), default=None)


def _chance(records: StudyRecords, trials: Sequence[TrialRecord]) -> str:
    chance = _least_chance(records, trials)
    return wording.DASH if chance is None else wording.fixed(chance, 3)


def _surveyed(records: StudyRecords, trials: Sequence[TrialRecord]) -> int:
    return max((c["images"] for _, c in _contents(records, trials, GATES)), default=0)


def _number(value: float | None, decimals: int = 3) -> str:
    text = wording.DASH if value is None else wording.fixed(value, decimals)
    return text.replace("-", wording.MINUS)


def stage_word(stage: int) -> str:
    """A stage's name: 0 is the stem."""
    return f"stage {stage}" if stage else "stem"


def _stage_rows(records: StudyRecords, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    names = ("gain", "between_channels", "across_images", "specificity")
    rows = [
        _head(records, trial)
        | {
            "stage": stage_word(stage["stage"]),
            "sites": stage["sites"],
            "numbers": [_number(stage[name]) for name in names],
        }
        for trial, content in _contents(records, trials, GATES)
        for stage in content["stages"]
    ]
    return rows[:ROWS_AT_MOST]


# Frequencies and attention between pixels. -----------------------------------------------------


def _frequency_rows(records: StudyRecords, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    rows = [
        _head(records, trial)
        | {
            "site": site["site"],
            "map": f"{site['size'][0]} × {site['size'][1]}",
            "distinct": site["distinct"],
            "groups": _groups(site["groups"]),
        }
        for trial, content in _contents(records, trials, FREQUENCY)
        for site in content["sites"]
    ]
    return rows[:ROWS_AT_MOST]


def _groups(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The frequencies with the largest shares, and how many there are beside."""
    found = by_pair(groups)
    shown = [(share.pair, wording.percent(share.share)) for share in found[:GROUPS_AT_MOST]]
    more = len(found) - len(shown)
    return shown + ([(f"{more} more", "")] if more else [])


def _map_rows(records: StudyRecords, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    rows = [
        _head(records, trial)
        | {
            "site": site["site"],
            "heads": len(site["heads"]),
            "gamma": _number(site["gamma"]),
            "entropy": _span(site["heads"], "relative_entropy", 3),
            "distance": _span(site["heads"], "distance", 2),
            "share": _span(site["heads"], "relative_distance", 3),
            "uniform": _number(site["uniform_distance"], 2),
        }
        for trial, content in _contents(records, trials, MAPS)
        for site in content["sites"]
    ]
    return rows[:ROWS_AT_MOST]


def _span(heads: Sequence[Mapping[str, Any]], name: str, decimals: int) -> str:
    values = [head[name] for head in heads if head[name] is not None]
    if not values:
        return wording.DASH
    low, high = (wording.fixed(value, decimals) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _map_pictures(records: StudyRecords, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Where the middle of the first image looks, head by head; one site of every stage."""
    rows = []
    for trial, _ in _contents(records, trials, MAPS):
        arrays = records.insights[trial.number][MAPS].arrays
        for name in sorted(arrays):
            site, _, what = name.rpartition(".")
            if what == "centre":
                heads = [map_picture(head) for head in arrays[name][0]]
                rows.append(_head(records, trial) | {"site": site, "pictures": heads})
    return rows
