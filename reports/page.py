"""The report: one HTML file that opens offline and says what a study found.

Everything is inside it: style, script, data, figures. Its Content-Security-Policy lets nothing
else run or load. The same database gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from blocks.errors import StudyError
from reports import sections, wording
from reports.beside import beside_section
from reports.charts import front_views, hidden_below
from reports.figures import front_chart, marker_icon
from reports.findings import Findings
from reports.insight import insight_section
from reports.learnt import learnt_section
from reports.payload import first_order, page_json
from reports.records import read_records
from search.database import DEFAULT_STORAGE

FOLDER = Path(__file__).parent
GENERATOR = "attention-search"
MARK = f'<meta name="generator" content="{GENERATOR}'.encode()
MARK_WITHIN = 4096
FLAG = "--output; of search run and plan, --report"
ROWS_WITHOUT_SCRIPT = 100
QUESTION = (
    "Which attention block should the network have, where, at what cost, and is the difference"
    " real?"
)
TRIAL_COLUMNS = (  # key of the page's data, heading, class
    ("number", "Trial", "num"),
    ("label", "Candidate", ""),
    ("state", "State", ""),
    ("accuracy", "Accuracy", "num"),
    ("gain", "Gain", "num"),
    ("test", "Test", "num"),
    ("flops", "FLOPs", "num"),
    ("macs", "MACs", "num"),
    ("params", "Parameters", "num"),
    ("seed", "Seed", "num"),
    ("epochs", "Epochs", "num"),
    ("seconds", "Time", "num"),
)


def write_report(
    study: str | None = None,
    *,
    storage: str = DEFAULT_STORAGE,
    output: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the report of a study.

    Args:
        study: Its name; without one, the study that was run last.
        storage: The database's URL.
        output: Where the file goes; without one, ``STUDY-report.html`` in the current folder.

    Returns:
        The file.

    Raises:
        StudyError: There is no such study, or the file cannot be written there.
    """
    findings = Findings(read_records(storage, study))
    name = findings.records.study.name
    path = report_path(name, output)
    check_place(path)
    _replace(path, render(findings))
    return path


def report_path(study: str, output: str | os.PathLike[str] | None = None) -> Path:
    """Where a study's report goes: to ``output``, else to ``STUDY-report.html`` here."""
    return Path(output) if output is not None else Path(f"{_file_name(study)}-report.html")


def _file_name(study: str) -> str:
    """A study's name as part of a file's: names from elsewhere may hold anything."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", study).lstrip(".-")[:64] or "study"


def check_place(path: Path) -> None:
    """Refuse a place that is not for this file.

    Raises:
        StudyError: It is a folder, lies in none, or holds a file of somebody else.
    """
    if path.is_dir():
        raise StudyError(
            f"{path} is a folder; name a file, such as {path / 'report.html'} ({FLAG})"
        )
    if not path.absolute().parent.is_dir():
        raise StudyError(
            f"there is no folder {path.absolute().parent} for the report; make it, or name another"
            f" file ({FLAG})"
        )
    if path.exists() and not _is_ours(path):
        raise StudyError(
            f"{path} is there already and is no report of this tool, so it is left as it is; name"
            f" another file ({FLAG})"
        )


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return MARK in file.read(MARK_WITHIN)
    except OSError:
        return False


def _replace(path: Path, text: str) -> None:
    """Write beside, then replace: a reader sees the old file or the new one, never half of it."""
    try:
        handle, beside = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name[:40]}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise StudyError(
            f"{path} cannot be written: {error.strerror}; name another file ({FLAG})"
        ) from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# The text. ---------------------------------------------------------------------------------------


def render(findings: Findings) -> str:
    """The whole file."""
    style, script = _own_file("page.css"), _own_file("page.js")
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            generator=f"{GENERATOR} {_version()}",
            policy=content_policy(style, script),
            style=Markup(style),
            script=Markup(script),
            **_content(findings),
        )
    )


def _content(findings: Findings) -> dict[str, Any]:
    """Everything that the template shows."""
    records = findings.records
    views = front_views(findings)
    order = first_order(records)
    provenance = sections.provenance_rows(records)
    return {
        "study": records.study,
        "records": records,
        "findings": findings,
        "facts": sections.facts(findings),
        "states": sections.state_counts(records),
        "status_words": sections.status_words(records),
        "unfinished": sections.is_unfinished(records),
        "cards": sections.cards(findings),
        "verdict": findings.verdict(),
        "caution": findings.caution(),
        "chart": front_chart(findings, views[findings.first_view]) if views else None,
        "question": records.study.settings.get("question") or QUESTION,
        "objective_titles": [wording.title(name) for name in records.study.objectives],
        "has_band": bool(views) and views[findings.first_view].band is not None,
        "band_points": f"{100 * (findings.chance or 0.0):.{findings.decimals}f}",
        "hidden_below": hidden_below(findings) if views else 0,
        "axes": [(metric, wording.heading(metric)) for metric in findings.axes],
        "timed": records.timed,
        "trial_columns": _trial_columns(timed=records.timed),
        "split_digest": sections.split_digest(records),
        "types": [(name, marker_icon(records.types, name)) for name in _shown_types(findings)],
        "mean_rows": sections.mean_rows(findings),
        "front_rows": sections.front_rows(findings),
        "front_more": max(len(records.front) - sections.FRONT_ROWS_AT_MOST, 0),
        "beside": beside_section(findings),
        "learnt": learnt_section(findings),
        "insight": insight_section(findings),
        "type_rows": sections.type_rows(findings),
        "trial_rows": [sections.trial_row(findings, t) for t in order[:ROWS_WITHOUT_SCRIPT]],
        "proposals": sections.proposal_rows(records),
        "caps": sections.cap_rows(records),
        "impossible": sections.impossible_rows(records),
        "failures": sections.failure_rows(records),
        "cut_off": sections.cut_off(records),
        "provenance": provenance,
        "mixed": sections.mixed_words(provenance),
        "dirty": any(
            row["name"] == "code.dirty" and "True" in dict(row["values"]) for row in provenance
        ),
        "settings": sections.setting_rows(records),
        "space_rows": list(sections.flattened(records.study.space_content)),
        "glossary": sections.glossary(timed=records.timed),
        "wording": wording,
        "data": page_json(findings, views, order),
    }


def _trial_columns(*, timed: bool) -> tuple[tuple[str, str, str], ...]:
    """The columns of all trials; latency stands behind the costs where it was measured."""
    if not timed:
        return TRIAL_COLUMNS
    at = 1 + [key for key, _, _ in TRIAL_COLUMNS].index("params")
    return (*TRIAL_COLUMNS[:at], ("latency_ratio", "Latency", "num"), *TRIAL_COLUMNS[at:])


def _shown_types(findings: Findings) -> list[str]:
    """Types with a complete trial, in the order of the legend."""
    traits = findings.records.traits
    present = {traits[trial.number].type for trial in findings.records.successes}
    return [name for name in findings.records.types if name in present]


def content_policy(style: str, script: str) -> str:
    """What the page may load and run: itself."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}';"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _own_file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _version() -> str:
    try:
        return version(GENERATOR)
    except PackageNotFoundError:
        return "from a checkout"
