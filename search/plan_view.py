"""What a run would do, for people: the preview's plain data as text and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from search import enqueued
from search.even_tuning import WORDS as TUNED
from search.kept import size_words
from search.output import count, duration, percent, several, table

BARS = " ▁▂▃▄▅▆▇█"
REASONS = 3

Data = Mapping[str, Any]


def plan_parts(data: Data) -> Iterator[str | Table]:
    """The preview in the order in which one reads it."""
    yield _headline(data)
    if data["tune_baseline"]:
        yield f"for no attention {TUNED} (study.tune_baseline)"
    for given in data["enqueue"]:
        yield f"enqueued: {enqueued.words(given)}"
    yield from data["remarks"]
    if data["stored"]:
        yield from _stored(data["stored"], data["study"])
    yield from _size(data["space_size"])
    if data["caps"]["rules"]:
        yield from _caps(data["caps"])
    if "params" in data["costs"]:
        yield from _costs(data)
    yield from _first(data)
    if data["forecast"]:
        yield from _forecast(data)
    if data["budget"]:
        yield from _budget(data["budget"])
    for note in data["notes"]:
        yield f"note: {note}"


def _headline(data: Data) -> str:
    trials = f"{several(data['trials'], 'trial')} of {several(data['epochs'], 'epoch')}"
    return (
        f"{data['study']}: {data['space']} on {', '.join(map(str, data['backbones']))},"
        f" {data['data']['name']}; {trials}, {several(data['seeds'], 'seed')} a candidate,"
        f" sampler {_sampler(data)}; nothing is trained or written here"
    )


def _sampler(data: Data) -> str:
    """Who proposes, and why where ``auto`` chose it."""
    because = data["sampler_because"]
    return f"auto, which is {data['sampler']} here ({because})" if because else data["sampler"]


def _stored(stored: Data, study: str) -> Iterator[str]:
    states = ", ".join(f"{n} {state}" for state, n in stored["states"].items()) or "no trials"
    yield f"stored study {study}: {states}; {several(stored['left'], 'trial')} left of its total"
    if not stored["changes"]:
        return
    lines = "\n".join(f"  {line}" for line in stored["changes"])
    yield (
        f"it has another space or setting (- stored, + planned):\n{lines}\n"
        "  search run refuses to go on without --extend; with it:"
    )
    kept = stored["kept"]
    fates = f"{several(kept, 'stored trial')} {'fits and is' if kept == 1 else 'fit and are'} kept"
    fates += " in the search"
    fallen = [
        f"{stored[key]:,} {words}"
        for key, words in (("outside", "outside of it"), ("over_cap", "over a cap now"))
        if stored[key]
    ]
    gone = f"; {' and '.join(fallen)}, kept in the database alone" if fallen else ""
    new = stored["new_candidates"]
    more = "" if new is None else f"; {several(new, 'candidate')} new to it"
    yield f"  {fates}{gone}{more}"


# The space. --------------------------------------------------------------------------------------


def amount(data: Data) -> str:
    """A count for people: ``136``, ``about 1,200 (1,100 to 1,350)``."""
    if data["exact"]:
        return f"{_big(data['value'])} (exact)"
    return f"about {_big(data['value'])} ({_big(data['low'])} to {_big(data['high'])})"


def _big(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"{number:.3g}"


def share(data: Data) -> str:
    """A share for people: ``12.5 %``, ``12.5 % (11.0 to 14.1)``."""
    if data["exact"]:
        return percent(data["share"])
    return f"{percent(data['share'])} ({100 * data['low']:.1f} to {100 * data['high']:.1f})"


def _size(size: Data) -> Iterator[str | Table]:
    rows = [
        ("proposals", amount(size["proposals"])),
        ("distinct architectures", amount(size["architectures"])),
        (
            "distinct candidates",
            f"without number: {', '.join(size['ranges'])} is a range"
            if size["candidates"] is None
            else amount(size["candidates"]),
        ),
    ]
    impossible = size["impossible"]
    if impossible["count"]:
        rows.append(("proposals that fit no site", share(impossible)))
        rows += [
            ("", f"{row['count']:,}: {row['reason']}") for row in impossible["reasons"][:REASONS]
        ]
    how = size["proposals"]["how"]
    yield f"\nSpace{f': {how}' if how else ''}"
    yield table("", ("", "how many"), rows)


def _caps(caps: Data) -> Iterator[str | Table]:
    rows = [(row["rule"], share(row)) for row in caps["rules"]]
    if len(rows) > 1:
        rows.append(("together", share(caps["together"])))
    yield "\nCandidates that a cap rejects, at no cost"
    yield table("", ("cap", "share"), rows)


def histogram(counts: Sequence[int]) -> str:
    """Counts as a row of bars; the smallest bar is one that is not empty."""
    most = max(counts)
    steps = len(BARS) - 1
    return "".join(BARS[-(-steps * number // most) if number else 0] for number in counts)


def _costs(data: Data) -> Iterator[str | Table]:
    costs, memory = data["costs"], data["memory"]
    rows = [_spread(name, costs[name], count) for name in ("params", "macs", "flops")]
    if memory:
        rows.append(_spread("memory", memory["kept_bytes"], size_words))
    whose = "all candidates" if costs["complete"] else f"{costs['of']:,} candidates at random"
    sampled = f"; memory kept to train, per image, of {memory['of']}" if memory else ""
    columns = ("", "min", "25 %", "median", "75 %", "max", "baseline", "min to max")
    yield f"\nCosts of {whose}{sampled}"
    yield table("", columns, rows)


def _spread(name: str, spread: Data, words: Any) -> tuple[str, ...]:
    keys = ("min", "first_quartile", "median", "third_quartile", "max")
    numbers = [words(spread[key]) for key in keys]
    bare = ", ".join(words(value) for value in spread["baseline"].values())
    return (name, *numbers, bare, histogram(spread["histogram"]["counts"]))


# The trials. -------------------------------------------------------------------------------------


def _first(data: Data) -> Iterator[str | Table]:
    rows = [
        (
            row["number"],
            row["label"] + (" (baseline)" if row["baseline"] else ""),
            count(row["flops"]),
            count(row["macs"]),
            count(row["params"]),
            f"taken over from {row['origin']}" if row["origin"] else "",
        )
        for row in data["first"]
    ]
    columns = ["trial", "block", "flops", "macs", "params", ""]
    if rows:
        yield "\nFirst trials"
        yield table("", columns, rows, droppable=("macs", "params"))
    if not data["first_settled"]:
        yield "the next proposals depend on results"
    elif data["first_note"]:
        yield f"no more: then {data['first_note']}"
    known = data["taken_over"]
    if known["known"]:
        whose = "the space's" if known["complete"] else "the looked at"
        yield (
            f"{known['known']:,} of {whose} {known['of']:,} pairs of candidate and seed are in the"
            " database already, and would be taken over"
        )


def _span(data: Data, words: Any) -> str:
    return f"{words(data['value'])} ({words(data['low'])} to {words(data['high'])})"


def _forecast(data: Data) -> Iterator[str | Table]:
    forecast = data["forecast"]
    rows = [
        (
            row["which"],
            row["label"],
            count(row["flops"]),
            f"{row['images_per_second']:,.0f}",
            f"{row['evaluated_per_second']:,.0f}",
        )
        for row in forecast["timed"]
    ]
    columns = ("timed", "block", "flops", "trained images/s", "evaluated images/s")
    together = forecast["processes"]
    yield f"\nPace in {together} {'process' if together == 1 else 'processes'} at once"
    yield table("", columns, rows)
    because = f" ({data['workers_because']})" if data["workers_because"] else ""
    yield (
        f"forecast: {_span(forecast['trial_seconds'], duration)} a trial;"
        f" {several(forecast['trials'], 'trial')} to train by"
        f" {several(forecast['workers'], 'worker')}{because}:"
        f" {_span(forecast['wall_seconds'], duration)},"
        f" {_span(forecast['device_hours'], lambda h: f'{h:.2f}')} {forecast['unit']} hours"
    )


def _points(difference: float | None) -> str:
    return "-" if difference is None else f"{100 * difference:.2f}"


def _budget(budget: Data) -> Iterator[str | Table]:
    rows = [
        (
            row["epochs"],
            row["seeds"],
            row["candidates"],
            row["trials"],
            _points(row["detectable"]),
            _points(row["detectable_holm"]),
            row["compared"],
        )
        for row in budget["options"]
    ]
    columns = (
        "epochs", "seeds", "candidates", "trials", "detectable", "with Holm", "blocks compared"
    )  # fmt: skip
    yield (
        f"\nWhat fits into {budget['budget']}, and the smallest difference from the baseline, in"
        f" points, found with {100 * budget['power']:.0f} % at alpha {budget['alpha']:g}"
    )
    yield table("", columns, rows)
    noise = budget["noise"]
    yield f"noise of a paired difference: {100 * noise['sd']:.2f} points; {noise['from']}"
    simulation = budget["simulation"]
    if simulation:
        yield (
            f"(a simulation of {simulation['studies']:,} studies with {simulation['seeds']} seeds"
            f" found {100 * simulation['found']:.0f} % of differences of that size,"
            f" {100 * simulation['found_holm']:.0f} % with Holm)"
        )
