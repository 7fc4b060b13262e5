"""The page's data for its script: columns rather than rows, repeated texts once.

Ten thousand trials must fit into a page of three megabytes, so digests and learning curves are
thinned where there are very many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from blocks.architecture import IDENTITY_WORDS
from reports import wording
from reports.charts import View
from reports.figures import finite_accuracies, marker_table
from reports.findings import Findings
from reports.records import StudyRecords
from search.outcome import STATES
from search.records import TrialRecord

CURVES_AT_MOST = 400
WHOLE_DIGESTS_UP_TO = 2_000
DIGEST_LETTERS = 19
LETTERS_AT_MOST = 2_300_000
LONGEST_TRACEBACK = 4_000
TRACEBACKS_AT_MOST = 50
UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def script_json(data: Any) -> Markup:
    """Data as JSON that can stand inside a script element, whatever texts it holds.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(UNSAFE))


@dataclass
class Texts:
    """Texts by number, each once."""

    all: list[str] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def number(self, text: str) -> int:
        """The number of a text."""
        if text not in self.known:
            self.known[text] = len(self.all)
            self.all.append(text)
        return self.known[text]


def page_json(findings: Findings, views: dict[str, View], order: Sequence[TrialRecord]) -> Markup:
    """The page's data as JSON; where it would be too long, without the details of most trials.

    Args:
        findings: Of the study.
        views: Of the front chart.
        order: The trials as the table shows them first.
    """
    whole = script_json(page_data(findings, views, order))
    if len(whole) <= LETTERS_AT_MOST:
        return whole
    return script_json(page_data(findings, views, order, thinned=True))


def page_data(
    findings: Findings,
    views: dict[str, View],
    order: Sequence[TrialRecord],
    *,
    thinned: bool = False,
) -> dict[str, Any]:
    """Everything that the page's script draws from.

    Args:
        findings: Of the study.
        views: Of the front chart.
        order: The trials as the table shows them first.
        thinned: Whether only the front keeps its placements and parameters.
    """
    records = findings.records
    texts = Texts()
    rows = _columns(records, order, texts)
    detailed = records.front if thinned else {trial.number for trial in order}
    rows |= _details(order, texts, detailed)
    if records.timed:
        rows |= _latencies(order)
    return {
        "study": records.study.name,
        "decimals": findings.decimals,
        "baselines": {
            name: {m: getattr(b, m) for m in ("accuracy", *findings.axes)}
            for name, b in records.baselines.items()
        },
        "states": list(STATES),
        "types": records.types,
        "markers": marker_table(records.types),
        "timed": records.timed,
        "leading": findings.leading,
        "views": {name: view.to_json() for name, view in views.items()},
        "rows": rows,
        "texts": texts.all,
        "curves": curves_shown(records, order),
    }


def _columns(
    records: StudyRecords, order: Sequence[TrialRecord], texts: Texts
) -> dict[str, list[Any]]:
    traits = records.traits
    errors = _tracebacks(records)
    letters = None if len(order) <= WHOLE_DIGESTS_UP_TO else DIGEST_LETTERS
    return {
        "number": [t.number for t in order],
        "state": [STATES.index(t.state) for t in order],
        "label": [t.label for t in order],
        "type": [records.types.index(traits[t.number].type) for t in order],
        "backbone": [texts.number(traits[t.number].backbone) for t in order],
        "front": [int(t.number in records.front) for t in order],
        "baseline": [int(t.baseline) for t in order],
        "accuracy": [_rounded(t.accuracy) for t in order],
        "test": [_rounded(t.test_accuracy) for t in order],
        "flops": [t.flops for t in order],
        "macs": [t.macs for t in order],
        "params": [t.params for t in order],
        "seed": [t.seed for t in order],
        "epochs": [t.epochs for t in order],
        "seconds": [round(t.seconds, 1) for t in order],
        "digest": [t.digest[:letters] for t in order],
        "architecture": [t.architecture_digest[:letters] for t in order],
        "error": [texts.number(t.error) if t.error else -1 for t in order],
        "traceback": [texts.number(errors[t.number]) if t.number in errors else -1 for t in order],
        "origin": [texts.number(t.origin) if t.origin else -1 for t in order],
    }


def _latencies(order: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """Latency ratio with its outer quartiles, milliseconds, throughput and flags."""

    def column(name: str) -> list[float | None]:
        return [_significant(t.speed.get(name)) for t in order]

    names = ("latency_ratio", "latency_ratio_first", "latency_ratio_third", "latency_ms")
    columns: dict[str, list[Any]] = {name: column(name) for name in (*names, "throughput")}
    return columns | {"flags": [" ".join(t.latency_flags) for t in order]}


def _significant(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _details(
    order: Sequence[TrialRecord], texts: Texts, detailed: Collection[int]
) -> dict[str, list[Any]]:
    """Placements and parameters of some trials; 0 for the others."""
    return {
        "placements": [_placements(t, texts) if t.number in detailed else 0 for t in order],
        "parameters": [_parameters(t, texts) if t.number in detailed else 0 for t in order],
    }


def _parameters(trial: TrialRecord, texts: Texts) -> list[int]:
    return [texts.number(f"{name} = {_plain(value)}") for name, value in trial.parameters.items()]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 8)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _placements(trial: TrialRecord, texts: Texts) -> list[list[int]]:
    """Groups of sites with the same block and options: [block and options, site, site, ...]."""
    groups: dict[int, list[int]] = {}
    for placement in trial.architecture.get("placements", []):
        options = placement.get("options", {}).items()
        words = [str(placement["block"]), *(f"{name}={_plain(v)}" for name, v in options)]
        words += [IDENTITY_WORDS] * bool(placement.get("identity_start"))
        group = groups.setdefault(texts.number(" ".join(words)), [])
        group.append(texts.number(str(placement["site"])))
    return [[block, *sites] for block, sites in groups.items()]


def _tracebacks(records: StudyRecords) -> dict[int, str]:
    """Trial -> the end of its last traceback, as long as there are not too many kinds."""
    found: dict[int, str] = {}
    kinds: set[str] = set()
    for attempt in records.attempts:
        text = attempt.traceback[-LONGEST_TRACEBACK:]
        if text and (text in kinds or len(kinds) < TRACEBACKS_AT_MOST):
            kinds.add(text)
            found[attempt.trial] = text
    return found


def curves_shown(records: StudyRecords, order: Sequence[TrialRecord]) -> dict[str, list[float]]:
    """Trial -> validation accuracy by epoch: of the front first, then of an even sample."""
    have = [t.number for t in order if len(records.curves.get(t.number, ())) > 1]
    front = [number for number in have if number in records.front]
    others = [number for number in have if number not in records.front]
    room = max(CURVES_AT_MOST - len(front), 0)
    chosen = [*front[:CURVES_AT_MOST], *_sample(others, room)]
    return {
        str(number): [round(a, 4) for a in finite_accuracies(records.curves[number])]
        for number in sorted(chosen)
    }


def _sample(numbers: Sequence[int], size: int) -> Iterable[int]:
    if len(numbers) <= size:
        return numbers
    return [numbers[index * len(numbers) // size] for index in range(size)]


def first_order(records: StudyRecords) -> list[TrialRecord]:
    """The trials as the table shows them first: the most accurate on top, those without last."""
    return sorted(
        records.trials,
        key=lambda t: (t.accuracy is None, -(t.accuracy or 0.0), t.flops, t.number),
    )


def digest_shown(trial: TrialRecord) -> str:
    """A candidate's digest as tables show it."""
    return wording.short_digest(trial.digest)
