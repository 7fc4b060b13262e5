"""The tables of the report, as plain rows of texts for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from reports import wording
from reports.figures import marker_icon, sparkline
from reports.findings import COSTS_SHOWN, Contender, Findings
from reports.payload import LONGEST_TRACEBACK, digest_shown
from reports.records import StudyRecords
from search.outcome import COMPLETE, DIVERGED, FAILED, FINISHED, REJECTED, RUNNING, WAITING
from search.records import ACCEPTED, IMPOSSIBLE, OVER_CAP, REPEATED, TrialRecord
from spaces.metrics import METRICS, SPEED

FRONT_ROWS_AT_MOST = 200
NUMBERS_AT_MOST = 12
CUT_OFF = ("lost", "interrupted")


def facts(findings: Findings) -> list[tuple[str, str]]:
    """What the study is, in pairs for the head of the page."""
    records = findings.records
    study = records.study
    backbones = dict.fromkeys(found.backbone for found in records.traits.values())
    pairs = [
        ("Data", _data_words(records)),
        ("Backbone", ", ".join(name for name in backbones if name)),
        ("Epochs", _plain(study.identity.get("epochs"))),
        ("Seeds", _seed_words(findings)),
        ("No attention", "at the best of the settings tried" if records.tuned else ""),
    ]
    return [(name, text) for name, text in pairs if text]


def _data_words(records: StudyRecords) -> str:
    data = records.study.identity.get("data")
    name = data.get("name", "") if isinstance(data, dict) else (data or "")
    if records.sizes is None:
        return str(name)
    train, validation, test = records.sizes
    return f"{name}: {train:,} train, {validation:,} validation, {test:,} test"


def split_digest(records: StudyRecords) -> str:
    """The identity of the data and their split."""
    data = records.study.identity.get("data")
    return str(data.get("split_digest", "")) if isinstance(data, dict) else ""


def _seed_words(findings: Findings) -> str:
    counts = sorted({len(contender.trials) for contender in findings.contenders})
    if not counts:
        return ""
    count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{count} per candidate"


def state_counts(records: StudyRecords) -> list[tuple[str, int]]:
    """State -> its number of trials; rejected candidates, which cost no trial, come last."""
    counts = Counter(trial.state for trial in records.trials)
    counts[REJECTED] += len(records.rejected)
    order = (*FINISHED, RUNNING, WAITING, REJECTED)
    return [(state, counts[state]) for state in order if counts[state]]


def is_unfinished(records: StudyRecords) -> bool:
    """Whether the numbers can still change."""
    open_states = (WAITING, RUNNING)
    return records.study.status in open_states or any(
        t.state in open_states for t in records.trials
    )


def status_words(records: StudyRecords) -> str:
    """How far the study has come, or why it ended."""
    study = records.study
    if not is_unfinished(records) or (study.note and study.status not in (WAITING, RUNNING)):
        return study.note
    done = sum(trial.state in FINISHED for trial in records.trials)
    wanted = study.settings.get("trials")
    total = f" of {wanted:,}" if isinstance(wanted, int) else ""
    return f"This study has not ended: {done:,}{total} trials are finished; the rest is to come."


# The front. --------------------------------------------------------------------------------------


def cards(findings: Findings) -> list[dict[str, Any]]:
    """The candidates that a decision is between."""
    best, cheapest = findings.best, findings.cheapest
    if best is None:
        return []
    found = [_card(findings, "Most accurate", best)]
    if cheapest is not None and cheapest is not best:
        found.append(
            _card(
                findings, f"{findings.least_word.capitalize()} within one standard error", cheapest
            )
        )
    references = findings.records.references
    baselines = [c for c in findings.contenders if c.first.digest in references]
    baselines = [c for c in baselines if c not in (best, cheapest)]
    found += [_card(findings, "No attention", baseline) for baseline in baselines[:1]]
    return found


def _card(findings: Findings, title: str, contender: Contender) -> dict[str, Any]:
    is_reference = contender.first.digest in findings.records.references
    return {
        "title": title,
        "label": "no attention" if contender.first.baseline else contender.first.label,
        "icon": _icon(findings.records, contender.first),
        "accuracy": findings.percent(contender.accuracy),
        "gain": "the reference" if is_reference else _gain_words(findings, contender),
        "costs": [_cost(contender.first, metric, findings.records) for metric in COSTS_SHOWN],
        "latency": latency_cell(contender.first) if findings.records.timed else None,
        "trial": contender.first.number,
    }


def _gain_words(findings: Findings, contender: Contender) -> str:
    baseline = findings.baseline_of(contender)
    if baseline is None:
        return ""
    return f"{findings.points(contender.accuracy - baseline.accuracy)} points"


def _cost(trial: TrialRecord, metric: str, records: StudyRecords) -> dict[str, str]:
    value = int(getattr(trial, metric))
    baseline = records.baseline_of(trial)
    return {
        "name": wording.heading(metric),
        "value": wording.quantity(value),
        "exact": f"{value:,}",
        "change": "" if baseline is None else wording.change(value, getattr(baseline, metric)),
    }


def latency_cell(trial: TrialRecord) -> dict[str, str]:
    """A trial's latency ratio, its flags, and in words how it was found."""
    ratio, speed = trial.latency_ratio, trial.speed
    if ratio is None:
        return {"value": wording.DASH, "flags": "", "exact": ""}
    first, third = (speed.get(f"latency_ratio_{name}", ratio) for name in ("first", "third"))
    milliseconds = wording.fixed(speed.get("latency_ms", 0), 3)
    exact = (
        f"quartiles {wording.ratio(first)} to {wording.ratio(third)}, {milliseconds} ms,"
        f" {speed.get('throughput', 0):,.0f} images/s"
    )
    return {
        "value": wording.ratio(ratio),
        "flags": " ".join(trial.latency_flags),
        "exact": exact,
    }


def _icon(records: StudyRecords, trial: TrialRecord) -> Markup:
    return marker_icon(records.types, records.traits[trial.number].type)


def front_rows(findings: Findings) -> list[dict[str, Any]]:
    """The front's trials, the most accurate first; then what it is compared with, if not on it."""
    records = findings.records
    compared = [t for t in records.successes if t.digest in records.references]
    baselines = [t for t in compared if t.number not in records.front]
    return [
        trial_row(findings, trial)
        | {
            "spark": sparkline(records.curves.get(trial.number, ())),
            "reference": trial.number not in records.front,
        }
        for trial in [*findings.front_trials[:FRONT_ROWS_AT_MOST], *baselines]
    ]


def trial_row(findings: Findings, trial: TrialRecord) -> dict[str, Any]:
    """One trial for a table."""
    records = findings.records
    baseline = records.baseline_of(trial)
    compared = baseline is not None and trial.accuracy is not None
    return {
        "number": trial.number,
        "state": trial.state,
        "label": trial.label,
        "baseline": trial.baseline,
        "front": trial.number in records.front,
        "icon": _icon(records, trial),
        "accuracy": findings.percent(trial.accuracy),
        "gain": findings.points((trial.accuracy or 0.0) - baseline.accuracy)
        if baseline is not None and compared
        else wording.DASH,
        "test": findings.percent(trial.test_accuracy),
        "costs": [_cost(trial, metric, records) for metric in COSTS_SHOWN],
        "latency": latency_cell(trial),
        "seed": trial.seed,
        "epochs": trial.epochs,
        "seconds": wording.duration(trial.seconds) if trial.seconds else wording.DASH,
        "digest": digest_shown(trial),
    }


def mean_rows(findings: Findings) -> list[dict[str, Any]]:
    """The front over candidates' means; empty without replicates."""
    return [_mean_row(findings, contender) for contender in findings.front_contenders]


def _mean_row(findings: Findings, contender: Contender) -> dict[str, Any]:
    values = [t.accuracy for t in contender.trials if t.accuracy is not None]
    return {
        "label": contender.first.label,
        "icon": _icon(findings.records, contender.first),
        "seeds": len(values),
        "accuracy": findings.percent(contender.accuracy),
        "lowest": findings.percent(min(values)),
        "highest": findings.percent(max(values)),
        "gain": _gain_words(findings, contender).removesuffix(" points") or wording.DASH,
        "test": findings.percent(contender.test_accuracy),
        "costs": [_cost(contender.first, metric, findings.records) for metric in COSTS_SHOWN],
        "trials": ", ".join(str(trial.number) for trial in contender.trials),
    }


# Types. ------------------------------------------------------------------------------------------


def type_rows(findings: Findings) -> list[dict[str, Any]]:
    """What each block type came to; the best one first."""
    records = findings.records
    groups: dict[str, list[TrialRecord]] = {name: [] for name in records.types}
    for trial in records.successes:
        groups[records.traits[trial.number].type].append(trial)
    tried = Counter(found.type for found in records.traits.values())
    order = sorted(
        groups, key=lambda name: -max((t.accuracy or 0.0 for t in groups[name]), default=0)
    )
    return [_type_row(findings, name, groups[name], tried[name]) for name in order]


def _type_row(
    findings: Findings, name: str, trials: Sequence[TrialRecord], tried: int
) -> dict[str, Any]:
    values = [t.accuracy for t in trials if t.accuracy is not None]
    front = sum(trial.number in findings.records.front for trial in trials)
    return {
        "name": "no attention" if name == "none" else name,
        "icon": marker_icon(findings.records.types, name),
        "trials": len(trials),
        "ended": tried - len(trials),
        "front": front,
        "best": findings.percent(max(values)) if values else wording.DASH,
        "median": findings.percent(median(values)) if values else wording.DASH,
        "ranges": [_range(findings.records, trials, metric) for metric in COSTS_SHOWN],
    }


def _range(records: StudyRecords, trials: Sequence[TrialRecord], metric: str) -> str:
    """From the least to the most that a type costs beside its baseline."""
    pairs = [
        (float(getattr(trial, metric)), float(getattr(baseline, metric)))
        for trial in trials
        if (baseline := records.baseline_of(trial)) is not None
    ]
    if not pairs:
        return wording.DASH
    low = wording.change_number(*min(pairs, key=lambda pair: pair[0] / pair[1]))
    high = wording.change_number(*max(pairs, key=lambda pair: pair[0] / pair[1]))
    return f"{low}{wording.THIN}%" if low == high else f"{low} to {high}{wording.THIN}%"


# The search. -------------------------------------------------------------------------------------

VERDICTS = {
    ACCEPTED: "became a trial",
    REPEATED: "was in the study already: not trained again",
    OVER_CAP: "over a cap: cost no training",
    IMPOSSIBLE: "fits no site of its network, or a rule of the space forbids it",
}


def proposal_rows(records: StudyRecords) -> list[tuple[str, int, str]]:
    """Verdict, how often, and what it means."""
    counts = Counter(proposal.verdict for proposal in records.proposals)
    return [(name, counts[name], VERDICTS.get(name, "")) for name in [*VERDICTS] if counts[name]]


def cap_rows(records: StudyRecords) -> list[dict[str, Any]]:
    """Which cap refused how many distinct candidates, and the nearest one."""
    groups: dict[str, list[str]] = {}
    for rejected in records.rejected:
        for reason in rejected.reason.split("; "):
            metric = reason.partition(" ")[0]
            known = metric in records.study.constraints
            cap = f"{wording.title(metric)} up to {records.study.constraints[metric]}"
            groups.setdefault(cap if known else reason, []).append(f"{rejected.label}: {reason}")
    return [
        {"cap": cap, "count": len(reasons), "example": reasons[0]}
        for cap, reasons in groups.items()
    ]


def impossible_rows(records: StudyRecords) -> list[tuple[str, int]]:
    """Why proposals fitted no site."""
    reasons = Counter(p.reason for p in records.proposals if p.verdict == IMPOSSIBLE)
    return reasons.most_common(NUMBERS_AT_MOST)


def failure_rows(records: StudyRecords) -> list[dict[str, Any]]:
    """The causes of failed and diverged trials, the most frequent first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for trial in records.trials:
        if trial.state in (FAILED, DIVERGED):
            groups.setdefault((trial.state, trial.error), []).append(trial.number)
    tracebacks = {
        a.trial: a.traceback[-LONGEST_TRACEBACK:] for a in records.attempts if a.traceback
    }
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1]))
    return [
        {
            "state": state,
            "error": error or "no cause was kept",
            "count": len(numbers),
            "trials": _some([str(number) for number in numbers]),
            "traceback": tracebacks.get(numbers[0], ""),
        }
        for (state, error), numbers in ranked[:50]
    ]


def _some(words: Sequence[str]) -> str:
    more = len(words) - NUMBERS_AT_MOST
    return ", ".join(words[:NUMBERS_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")


def cut_off(records: StudyRecords) -> int:
    """How many attempts were cut off and run again."""
    return sum(attempt.ending in CUT_OFF for attempt in records.attempts)


# Trust. ------------------------------------------------------------------------------------------


def provenance_rows(records: StudyRecords) -> list[dict[str, Any]]:
    """Versions and hardware behind the results: every distinct value, with its number of trials."""
    done = {trial.number for trial in records.successes}
    counts: dict[str, Counter[str]] = {}
    for attempt in records.attempts:
        if attempt.trial in done and attempt.ending in (COMPLETE, None):
            content = {k: v for k, v in attempt.provenance.items() if k != "attempt"}
            for name, value in flattened(content):
                counts.setdefault(name, Counter())[value] += 1
    rows = [
        {
            "name": name,
            "values": [(value or wording.DASH, count) for value, count in found.most_common(6)],
            "mixed": len(found) > 1,
        }
        for name, found in counts.items()
    ]
    return sorted(rows, key=lambda row: (not row["mixed"], str(row["name"]).startswith("versions")))


def mixed_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """A warning where the trials were not made alike."""
    names = [str(row["name"]) for row in rows if row["mixed"]]
    if not names:
        return ""
    verb = "differs" if len(names) == 1 else "differ"
    return (
        f"The trials were not all made alike: {_some(names)} {verb} between them. A difference"
        " between candidates may come from that."
    )


def flattened(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested data as (dotted name, text) pairs."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from flattened(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, _plain(content)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def setting_rows(records: StudyRecords) -> list[tuple[str, str]]:
    """The study's identity and settings."""
    study = records.study
    above = {"file": None, "question": None}  # the one is the space's, the other the page's title
    pairs = [*flattened(study.identity), *flattened({**study.settings, **above})]
    objectives = ", ".join(f"{name} {better}" for name, better in study.objectives.items())
    caps = ", ".join(f"{name} at most {cap}" for name, cap in study.constraints.items())
    rows = [("objectives", objectives), ("constraints", caps or "none"), *pairs]
    return [(name, value) for name, value in rows if value]


def glossary(*, timed: bool) -> list[tuple[str, str]]:
    """The metrics that the page shows, with their definitions."""
    return [
        (wording.heading(name), metric.meaning)
        for name, metric in METRICS.items()
        if timed or metric.split != SPEED
    ]
