"""What trainings have learnt of their networks, site by site, and the trials that trained it anew.

A network whose frequencies are left to the training (``frequency: nas``) comes to an ordinary
architecture, which is a trial of its own: here the two are brought together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from blocks.errors import BlockError
from blocks.frequency import frequency_name
from search.reading import read_findings, read_trials
from search.records import TrialRecord

Placements = Sequence[Mapping[str, Any]]
FREQUENCY = "frequency"


@dataclass(frozen=True)
class Learnt:
    """One training that has learnt something, and what became of it.

    Args:
        trial: The trial that learnt.
        sites: Site -> what stands there in its place, in words.
        anew: Trials of the ordinary architecture, with the same settings of training.
    """

    trial: TrialRecord
    sites: Mapping[str, str]
    anew: tuple[TrialRecord, ...]

    @property
    def numbers(self) -> list[int]:
        """Of the trials that trained it anew."""
        return [trial.number for trial in self.anew]


def learnt_by_trials(
    findings: Mapping[int, Mapping[str, Any]], trials: Iterable[TrialRecord]
) -> list[Learnt]:
    """What the trials of a study have learnt, by number.

    Args:
        findings: Trial number -> the architecture that its training came to.
        trials: The study's.
    """
    by_number = {trial.number: trial for trial in trials}
    return [
        _learnt(by_number[number], findings[number], by_number.values())
        for number in sorted(findings)
        if number in by_number
    ]


def learnt_data(engine: Engine, study: int, number: int) -> dict[str, Any]:
    """What a trial's training has found and which trials trained it anew, or who found it.

    Args:
        engine: Of the database.
        study: Its row.
        number: The trial's.
    """
    findings = read_findings(engine, study)
    learnt = learnt_by_trials(findings, read_trials(engine, study)) if findings else []
    found_by = [one.trial.number for one in learnt if number in one.numbers]
    data: dict[str, Any] = {"found_by": found_by} if found_by else {}
    for one in learnt:
        if one.trial.number == number:
            data["found"] = findings[number]
            data["found_sites"] = dict(one.sites)
            data["found_trials"] = one.numbers
    return data


def _learnt(trial: TrialRecord, found: Mapping[str, Any], trials: Iterable[TrialRecord]) -> Learnt:
    before = {p["site"]: p for p in trial.architecture["placements"]}
    sites = {
        str(p["site"]): _words(before.get(p["site"], {}).get("options", {}), p["options"])
        for p in found["placements"]
        if p != before.get(p["site"])
    }
    anew = (t for t in trials if t.architecture == found and t.training == trial.training)
    return Learnt(trial, sites, tuple(anew))


def _words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The options that are others now."""
    changed = {n: v for n, v in sorted(after.items()) if before.get(n) != v}
    return ", ".join(
        frequency_words(str(value)) if name == FREQUENCY else f"{name} {value}"
        for name, value in changed.items()
    )


def frequency_words(text: str) -> str:
    """A frequency by its published name, else by its pairs."""
    try:
        name = frequency_name(text)
    except BlockError:  # stored by a version that knew more names
        return text
    return name.replace("+", " + ") if "," in name else name


def sites_words(placements: Placements) -> list[tuple[str, str, str]]:
    """(sites, block, options) of an architecture, equal neighbours together."""
    rows: list[tuple[list[str], str, str]] = []
    for placement in placements:
        options = dict(placement.get("options", {}))
        words = [f"{n} {_option(n, v)}" for n, v in sorted(options.items())]
        words += ["starts as the identity"] * bool(placement.get("identity_start"))
        block, said = str(placement["block"]), ", ".join(words)
        if rows and rows[-1][1:] == (block, said):
            rows[-1][0].append(str(placement["site"]))
        else:
            rows.append(([str(placement["site"])], block, said))
    return [(", ".join(sites), block, said) for sites, block, said in rows]


def _option(name: str, value: Any) -> str:
    return frequency_words(str(value)) if name == FREQUENCY else str(value)
