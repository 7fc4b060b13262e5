"""Bringing one study's rows and files into the target, as ``joining`` has decided.

Files come first, under the names that their trials will have; then all rows in one transaction. A
kill between the two leaves files that no row names, which the next run of that study takes away.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, update
from sqlalchemy.engine import URL

from search import tables
from search.database import add_missing, artefacts_of, home_of
from search.failures import PARENT_ENDED, said
from search.joined_runs import add_runs, last_heard, runs_here, runs_there
from search.joining import Brought, Joining
from search.outcome import FINISHED, LOST, RUNNING, SUCCEEDED, WAITING
from search.provenance import checksum
from search.reading import trials_within
from search.records import OPEN, REPLICATED, TrialRecord, now
from search.source import Row, Source, chunks
from search.verdict import candidate_verdict

CUT_OFF = said(PARENT_ENDED, "it was being evaluated when its study was merged")
ENDED = said(PARENT_ENDED, "")
KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,16})?")

# What a trial leaves beside attempts and files: copied as it is, under the trial's key here.
RECORDS = tuple(
    table
    for name, table in tables.metadata.tables.items()
    if "trial_id" in table.c and name not in (tables.attempts.name, tables.artefacts.name)
)
# What belongs to a study beside trials and proposals: comes with a study that is taken over whole.
STUDYS = tuple(
    table
    for name, table in tables.metadata.tables.items()
    if "study_id" in table.c
    and table not in (tables.trials, tables.proposals, tables.leases, tables.runs)
)


# Files. ------------------------------------------------------------------------------------------


@dataclass
class Files:
    """Files that lie beside the target, and what could not be brought.

    Args:
        rows: Number of a trial -> the rows of its files.
        problems: Sentences.
    """

    rows: dict[int, list[Row]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.rows.values()))


def copy_files(joining: Joining, target: URL) -> Files:
    """Copy the files of the trials that come; one that is gone or changed stays behind."""
    owners = {key: trial for trial in joining.trials for key in trial.sources}
    files = Files()
    for row in joining.source.rows_of(tables.artefacts, "trial_id", owners):
        trial = owners[row["trial_id"]]
        known = files.rows.setdefault(trial.number, [])
        problem = _copy(joining, trial, row, target, known)
        if problem:
            name = f"{joining.record['name']} {trial.row['number']}"
            files.problems.append(f"{row['kind']} of {name} stay behind: {problem}")
    return files


def _copy(joining: Joining, trial: Brought, row: Row, target: URL, known: list[Row]) -> str:
    """Copy one file, checked, and note its row; what stood against it, if anything."""
    home = joining.source.home.resolve()
    path = (home / row["path"]).resolve()
    if not path.is_relative_to(home):
        return f"{row['path']} lies outside of {home}"
    if not KIND.fullmatch(row["kind"]) or not SUFFIX.fullmatch(path.suffix):
        return f"{row['path']} has no name that such a file may have"
    if not path.is_file():
        return f"{path} is not there"
    again = f"-{len(known) + 1}" if known else ""
    name = f"{joining.name}-{trial.number}{again}{path.suffix}"
    place = artefacts_of(target) / row["kind"] / name
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    try:
        shutil.copyfile(path, part)
        if checksum(part) != row["sha256"]:
            return f"{path} is not what was kept: its checksum is another"
        part.replace(place)
    except OSError as error:
        return f"{place} cannot be written: {error.strerror}"
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    kept = {"kind": row["kind"], "sha256": row["sha256"], "bytes": row["bytes"]}
    known.append({**kept, "path": place.relative_to(home_of(target)).as_posix()})
    return ""


def drop_checkpoints(joining: Joining, target: URL) -> None:
    """Take away what unfinished trainings had come to that have their result now."""
    folder = artefacts_of(target) / "checkpoints"
    for trial in joining.trials:
        if trial.fills is not None:
            Path(folder / f"{joining.name}-{trial.number}.pt").unlink(missing_ok=True)


# Rows. -------------------------------------------------------------------------------------------


def write_joining(connection: Connection, joining: Joining, files: Files) -> None:
    """Write all of it within the transaction that is open."""
    source, record = joining.source, joining.record
    digests = [trial.row["candidate_digest"] for trial in joining.trials]
    digests += [row["candidate_digest"] for row in joining.proposals]
    _add_by_digest(connection, source, tables.candidates, digests)
    split = record["identity"]["data"]["split_digest"]
    _add_by_digest(connection, source, tables.splits, [split])
    study = joining.into.id if joining.into is not None else _add_study(connection, joining)
    _insert(connection, tables.proposals, [{**p, "study_id": study} for p in joining.proposals])
    keys = _add_trials(connection, study, joining.trials)
    _add_records(connection, joining, keys)
    runs = runs_there(source, record["id"])
    _add_attempts(connection, joining, keys, {"there": runs, "here": runs_here(connection, study)})
    add_runs(connection, study, runs)
    owned = [
        {**row, "trial_id": keys[number]} for number, rows in files.rows.items() for row in rows
    ]
    _insert(connection, tables.artefacts, owned)
    _settle(connection, study)


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _add_by_digest(
    connection: Connection, source: Source, table: Table, digests: Iterable[str | None]
) -> None:
    key = next(iter(table.primary_key.columns))
    wanted = sorted({digest for digest in digests if digest is not None})
    known = {
        digest
        for some in chunks(wanted)
        for digest in connection.execute(select(key).where(key.in_(some))).scalars()
    }
    rows = source.rows_of(table, key.name, [digest for digest in wanted if digest not in known])
    add_missing(connection, table, rows)


def _add_study(connection: Connection, joining: Joining) -> int:
    source, record = joining.source, joining.record
    _add_by_digest(connection, source, tables.spaces, [record["space_digest"]])
    values = {key: v for key, v in record.items() if key not in ("id", "content")}
    values |= {"name": joining.name}
    if record["status"] == RUNNING:
        values["status"] = "interrupted"
    key = connection.execute(insert(tables.studies).values(**values)).inserted_primary_key
    assert key is not None  # an insert of one row has a key
    for table in STUDYS:
        rows = source.rows(table, table.c.study_id == record["id"])
        _insert(connection, table, [_moved(row, "study_id", key[0]) for row in rows])
    return int(key[0])


def _moved(row: Mapping[str, Any], column: str, key: int) -> Row:
    """A row that belongs to another study or trial; a key of its own is given anew."""
    return {**{name: value for name, value in row.items() if name != "id"}, column: key}


def _add_trials(connection: Connection, study: int, trials: Iterable[Brought]) -> dict[int, int]:
    """Add trials, or fill those that wait; number -> key."""
    keys: dict[int, int] = {}
    new = []
    for trial in trials:
        values = {
            "state": trial.state,
            "epochs": trial.row["epochs"],
            "error": trial.row["error"],
            "seconds": trial.row["seconds"],
            "finished": (trial.row["finished"] or now()) if trial.state in FINISHED else None,
            "origin_trial_id": trial.origin,
        }
        if trial.fills is None:
            place = {"number": trial.number, "proposal": trial.proposal}
            new.append({**_moved(trial.row, "study_id", study), **values, **place})
            continue
        keys[trial.number] = trial.fills
        key = tables.trials.c.id == trial.fills
        connection.execute(update(tables.trials).where(key).values(**values))
        for table in RECORDS:
            connection.execute(delete(table).where(table.c.trial_id == trial.fills))
    _insert(connection, tables.trials, new)
    column = tables.trials.c
    for some in chunks(values["number"] for values in new):
        query = select(column.number, column.id)
        query = query.where(column.study_id == study, column.number.in_(some))
        keys |= {row.number: row.id for row in connection.execute(query)}
    return keys


def _add_records(connection: Connection, joining: Joining, keys: Mapping[int, int]) -> None:
    """Copy what trials left; what one has not itself is that of the trial that it adopts."""
    owners = {key: trial for trial in joining.trials for key in trial.sources}
    for table in RECORDS:
        rows = joining.source.rows_of(table, "trial_id", owners)
        own = {row["trial_id"] for row in rows}
        taken = [
            _moved(row, "trial_id", keys[trial.number])
            for row in rows
            if (trial := owners[row["trial_id"]]).adopts != row["trial_id"]
            or trial.row["id"] not in own
        ]
        _insert(connection, table, taken)


def _add_attempts(
    connection: Connection,
    joining: Joining,
    keys: Mapping[int, int],
    runs: Mapping[str, list[Row]],
) -> None:
    """Copy every start of the trials that come, numbered on after those that are here.

    A start that was seen before its end, in an earlier merge, is replaced.
    """
    owners = {key: trial for trial in joining.trials for key in trial.sources}
    rows = joining.source.rows_of(tables.attempts, "trial_id", owners)
    made = [row["provenance_digest"] for row in rows]
    _add_by_digest(connection, joining.source, tables.provenance, made)
    filled = {trial.fills for trial in joining.trials if trial.fills is not None}
    for row in rows:
        if (key := keys[owners[row["trial_id"]].number]) in filled:
            _drop_attempt(connection, key, row)
    last = {key: _close_attempts(connection, key, runs["here"]) for key in filled}
    new = []
    for row in sorted(rows, key=lambda row: (row["started"], row["id"])):
        key = keys[owners[row["trial_id"]].number]
        last[key] = last.get(key, 0) + 1
        new.append({**_ended(row, runs["there"]), "trial_id": key, "number": last[key]})
    _insert(connection, tables.attempts, new)


def _drop_attempt(connection: Connection, key: int, row: Row) -> None:
    attempt = tables.attempts.c
    same = (attempt.owner == row["owner"]) & (attempt.started == row["started"])
    connection.execute(delete(tables.attempts).where(attempt.trial_id == key, same))


def _close_attempts(connection: Connection, key: int, runs: Iterable[Row]) -> int:
    """End a trial's open attempts; the last number among them all."""
    attempt = tables.attempts.c
    still = (attempt.trial_id == key) & attempt.finished.is_(None)
    for row in connection.execute(select(tables.attempts).where(still)).mappings().all():
        ended = {"finished": last_heard(runs, dict(row)), "ending": LOST, "cause": ENDED}
        connection.execute(update(tables.attempts).where(attempt.id == row["id"]).values(**ended))
    last = select(func.max(attempt.number)).where(attempt.trial_id == key)
    return connection.execute(last).scalar_one() or 0


def _ended(row: Row, runs: Iterable[Row]) -> Row:
    """An attempt without its key; one that was under way has been cut off."""
    values = {name: value for name, value in row.items() if name != "id"}
    if row["finished"] is None:
        values |= {"finished": last_heard(runs, row), "ending": LOST, "cause": CUT_OFF}
    return values


def _settle(connection: Connection, study: int) -> None:
    """Tell open proposals what their candidates have come to; bring total and status up to date."""
    row = tables.studies
    record = connection.execute(select(row).where(row.c.id == study)).one()
    trials = trials_within(connection, study)
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.digest, []).append(trial)
    settings = {**record.settings, "trials": max(record.settings["trials"], len(trials))}
    proposal = tables.proposals.c
    query = select(proposal.number, proposal.candidate_digest, proposal.verdict)
    query = query.where(proposal.study_id == study, proposal.state == OPEN)
    for number, digest, verdict in connection.execute(query).all():
        group = groups.get(digest, [])
        if settings.get("latency") and any(_is_untimed(trial) for trial in group):
            continue
        enough = 1 if verdict == REPLICATED else settings["seeds"]
        told = candidate_verdict(group, number, record.objectives, enough)
        if told is not None:
            place = (proposal.study_id == study) & (proposal.number == number)
            values = {"state": told[0], "objective_values": told[1]}
            connection.execute(update(tables.proposals).where(place).values(**values))
    waits = any(trial.state == WAITING for trial in trials)
    ended = record.status in ("finished", "exhausted")
    status = "interrupted" if waits and ended else record.status
    changed = {"settings": settings, "status": status}
    connection.execute(update(row).where(row.c.id == study).values(**changed))


def _is_untimed(trial: TrialRecord) -> bool:
    return trial.state in SUCCEEDED and trial.latency_ratio is None
