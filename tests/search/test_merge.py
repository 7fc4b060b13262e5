"""Joining databases: what comes, what stays, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from instant import PROVENANCE, accuracy_of, drive, outcome_of
from sqlalchemy import create_engine, select, text, update

from blocks.errors import StudyError
from search import copying, tables
from search.answers import read_answers
from search.database import checkpoint, open_for_reading, open_for_writing, storage_url
from search.holding import held
from search.insight.store import GATES, Insight, read_insights, write_insights
from search.kept import read_kept
from search.merge import merge
from search.outcome import Answers
from search.provenance import checksum
from search.reading import (
    find_study,
    read_attempts,
    read_curves,
    read_findings,
    read_proposals,
    read_studies,
    read_trials,
)
from search.spending import device_seconds, read_runs, read_spans, wall_seconds

SMALL = """
backbone: resnet20
attention:
  type: [none, se, eca]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
constraints: {params: 270000}
"""


@pytest.fixture
def other(tmp_path):
    """The URL of another database, in a folder of its own."""
    (tmp_path / "other").mkdir()
    return f"sqlite:///{tmp_path}/other/other.db"


@pytest.fixture
def engines():
    opened = []

    def open_(url):
        opened.append(open_for_reading(storage_url(url)))
        return opened[-1]

    yield open_
    for engine in opened:
        engine.dispose()


def file(url):
    return url.removeprefix("sqlite:///")


def content(url):
    """All rows of our tables and of Optuna's."""
    engine = create_engine(url)
    with engine.connect() as connection:
        names = connection.execute(
            text("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ).scalars()
        found = {
            name: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {name}"))]
            for name in names.all()
        }
    engine.dispose()
    return found


def pairs(trials):
    return {(trial.digest, trial.seed) for trial in trials}


def trials_of(engines, url, name="attention"):
    engine = engines(url)
    return read_trials(engine, find_study(engine, name).id)


def finish(study):
    """Close a study's database as a process does at its end."""
    checkpoint(study.store.engine)
    study.store.engine.dispose()


# A study that is not there yet. ------------------------------------------------------------------


def test_a_study_that_is_lacking_comes_whole(opened, storage, other, engines):
    theirs = opened(trials=6, url=other)
    drive(theirs, state_of=lambda t: "failed" if t.number == 3 else "complete")
    (row,) = merge([file(other)], storage=storage)
    assert (row.outcome, row.added, row.completed, row.there) == ("taken over", 6, 0, 0)
    source, target = engines(other), engines(storage)
    (left,), (right,) = read_studies(source), read_studies(target)
    assert left.status == "running", "nobody has ended it"
    assert replace(left, id=0, status="interrupted") == replace(right, id=0)
    for read in (read_proposals, read_curves, read_attempts, read_findings):
        assert read(source, left.id) == read(target, right.id), read.__name__
    for here, there in zip(
        read_trials(target, right.id), read_trials(source, left.id), strict=True
    ):
        assert replace(here, id=0) == replace(there, id=0)
    assert read_attempts(target, right.id)[0].provenance["versions"] == PROVENANCE["versions"]


@pytest.mark.parametrize("sampler", ["nsga2", "grid"])
def test_a_study_taken_over_goes_on_as_it_would_have(opened, storage, other, tmp_path, sampler):
    whole = opened(trials=25, sampler=sampler, url=f"sqlite:///{tmp_path}/whole.db")
    drive(whole)
    drive(opened(trials=25, sampler=sampler, url=other), stop_after=14)
    merge([file(other)], storage=storage)
    study = opened(sampler=sampler)
    assert drive(study) == 11
    assert [study.trials[n].digest for n in range(25)] == [
        whole.trials[n].digest for n in range(25)
    ]


def test_what_somebody_evaluates_there_waits_here(opened, storage, other, engines):
    theirs = opened(trials=4, url=other)
    drive(theirs, stop_after=2)
    running = theirs.next_assignment().trial
    merge([file(other)], storage=storage)
    engine = engines(storage)
    study = find_study(engine, "attention")
    assert study.status == "interrupted"
    assert {t.number: t.state for t in read_trials(engine, study.id)}[running] == "waiting"
    attempt = [a for a in read_attempts(engine, study.id) if a.trial == running][-1]
    assert (attempt.ending, attempt.cause) == ("lost", copying.CUT_OFF)
    assert drive(opened(trials=4)) == 2


def test_reused_trials_keep_their_origin_whatever_the_order_of_studies(
    opened, storage, other, engines
):
    drive(opened(trials=2, study="second", url=other))
    drive(opened(trials=6, study="first", url=other))  # two of them reused
    drive(opened(trials=6, study="second", url=other))  # four of them reused
    assert [row.outcome for row in merge([file(other)], storage=storage)] == ["taken over"] * 2
    for name in ("first", "second"):
        here, there = trials_of(engines, storage, name), trials_of(engines, other, name)
        assert [t.measurements for t in here] == [t.measurements for t in there]
    states = [t.state for t in trials_of(engines, storage, "second")]
    # They depend on each other: one of them cannot come after the other, and owns its results.
    assert states in (["complete"] * 6, ["complete"] * 2 + ["reused"] * 4)


def test_a_reused_trial_without_its_origin_has_its_records_itself(opened, storage, other, engines):
    drive(opened(trials=3, study="first", url=other))
    drive(opened(trials=3, study="second", url=other))
    (row,) = merge([file(other)], storage=storage, study="second")
    assert row.added == 3
    here = trials_of(engines, storage, "second")
    assert [t.state for t in here] == ["complete"] * 3
    assert [t.origin for t in here] == [None] * 3
    engine = engines(storage)
    (study,) = read_studies(engine)
    assert sorted(read_curves(engine, study.id)) == [0, 1, 2]
    assert [a.ending for a in read_attempts(engine, study.id)] == ["complete"] * 3
    merge([file(other)], storage=storage)
    assert [t.origin for t in trials_of(engines, storage, "first")] == [None] * 3


# A study that is there already. ------------------------------------------------------------------


def joined(opened, storage, other):
    """Two databases in which one study was run by different samplers, and what both have."""
    ours, theirs = opened(trials=8, sampler="grid"), opened(trials=9, sampler="random", url=other)
    drive(ours)
    drive(theirs, state_of=lambda t: "failed" if t.number == 8 else "complete")
    both = pairs(ours.trials.values()) & pairs(theirs.trials.values())
    assert 1 <= len(both) < 8, "the baseline at least, and not all"
    return ours, theirs, both


def test_trials_that_are_lacking_are_numbered_on(opened, storage, other, engines):
    ours, theirs, both = joined(opened, storage, other)
    (row,) = merge([file(other)], storage=storage)
    assert (row.outcome, row.added, row.there) == ("added to", 9 - len(both), len(both))
    trials = trials_of(engines, storage)
    assert [t.number for t in trials] == list(range(17 - len(both)))
    assert [t.digest for t in trials[:8]] == [ours.trials[n].digest for n in range(8)]
    assert pairs(trials) == pairs(ours.trials.values()) | pairs(theirs.trials.values())
    for trial in trials:
        if trial.state == "complete":
            assert trial.accuracy == accuracy_of(trial.digest, trial.seed)
    assert [t.baseline for t in trials] == [True] + [False] * (len(trials) - 1)
    assert sum(t.state == "failed" for t in trials) == 1


def test_front_total_and_mirror_are_right_afterwards(opened, storage, other, engines):
    joined(opened, storage, other)
    merge([file(other)], storage=storage)
    trials = trials_of(engines, storage)
    points = {t.number: (-t.accuracy, t.flops, t.params) for t in trials if t.accuracy is not None}

    def beaten(point):
        return any(
            all(a <= b for a, b in zip(rival, point, strict=True)) and rival != point
            for rival in points.values()
        )

    front = sorted(number for number, point in points.items() if not beaten(point))
    study = optuna.load_study(study_name="attention", storage=storage)
    assert len(study.trials) == len(trials)
    assert sorted(t.number for t in study.best_trials) == front
    (record,) = read_studies(engines(storage))
    assert record.settings["trials"] == len(trials)


def test_a_study_goes_on_after_a_merge(opened, storage, other, mirrored):
    _, _, both = joined(opened, storage, other)
    merge([file(other)], storage=storage)
    before = 17 - len(both)
    for sampler in ("nsga2", "tpe", "random", "grid"):
        study = opened(trials=before + 4, sampler=sampler)
        assert drive(study) == 4
        before += 4
    assert len(pairs(study.trials.values())) == before
    rows = read_proposals(study.store.engine, study.id)
    assert [row.number for row in rows] == list(range(len(rows)))
    of = {row.number: row.digest for row in rows}
    assert all(t.proposal is None or of[t.proposal] == t.digest for t in study.trials.values())
    assert not [row for row in rows if row.state == "open"]
    mirrored(study)


def test_merging_twice_changes_nothing(opened, storage, other):
    joined(opened, storage, other)
    merge([file(other)], storage=storage)
    before = content(storage)
    (row,) = merge([file(other)], storage=storage)
    assert row.outcome == "already there"
    assert (row.added, row.completed, row.there) == (0, 0, 9)
    assert content(storage) == before


def test_two_databases_at_once_and_in_either_order_hold_the_same(opened, other, tmp_path, engines):
    third = f"sqlite:///{tmp_path}/third.db"
    drive(opened(trials=7, sampler="random", url=other))
    drive(opened(trials=7, sampler="grid", url=third))
    one, two = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "two"))
    assert [r.outcome for r in merge([file(other), file(third)], storage=one)] == [
        "taken over",
        "added to",
    ]
    merge([file(third), file(other)], storage=two)
    assert pairs(trials_of(engines, one)) == pairs(trials_of(engines, two))


def test_a_trial_that_waits_takes_the_result_that_the_other_has(
    opened, storage, other, engines, tmp_path
):
    drive(opened(trials=5, url=other))
    ours = opened(trials=5)
    drive(ours, stop_after=3)
    cut = ours.next_assignment()  # and killed: it is stored as running
    left = Path(cut.checkpoint)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half a training")
    (row,) = merge([file(other)], storage=storage)
    assert (row.outcome, row.completed, row.added, row.there) == ("added to", 1, 1, 3)
    engine = engines(storage)
    study = find_study(engine, "attention")
    trial = read_trials(engine, study.id)[cut.trial]
    assert trial.state == "complete"
    assert trial.accuracy == accuracy_of(trial.digest, 0)
    told = {p.digest: p for p in read_proposals(engine, study.id)}[trial.digest]
    assert (told.state, told.values[0]) == ("complete", trial.accuracy)
    attempts = [a for a in read_attempts(engine, study.id) if a.trial == cut.trial]
    assert [(a.number, a.ending) for a in attempts] == [(1, "lost"), (2, "complete")]
    assert not left.exists()
    assert drive(opened(trials=5)) == 0


def test_a_trial_seen_under_way_is_completed_by_a_later_merge(opened, storage, other, engines):
    theirs = opened(trials=4, url=other)
    drive(theirs, stop_after=2)
    under_way = theirs.next_assignment().trial
    merge([file(other)], storage=storage)
    theirs.on_finish(under_way, outcome_of(theirs.trials[under_way]), PROVENANCE)
    drive(theirs)
    (row,) = merge([file(other)], storage=storage)
    assert (row.completed, row.added) == (1, 1)
    engine = engines(storage)
    study = find_study(engine, "attention")
    attempts = [a for a in read_attempts(engine, study.id) if a.trial == under_way]
    assert [(a.number, a.ending) for a in attempts] == [(1, "complete")]
    assert {t.state for t in read_trials(engine, study.id)} == {"complete"}


def test_a_failure_there_is_no_result(opened, storage, other, engines):
    drive(opened(trials=3, url=other), state_of=lambda t: "failed" if t.number else "complete")
    ours = opened(trials=3)
    drive(ours, stop_after=1)
    waits = ours.next_assignment().trial
    merge([file(other)], storage=storage)
    assert trials_of(engines, storage)[waits].state == "running", "it is ours to try"


def test_further_seeds_belong_to_the_candidate_that_is_there(opened, storage, other, engines):
    drive(opened(trials=3, sampler="random"))
    drive(opened(trials=6, seeds=2, sampler="random", url=other))
    merge([file(other)], storage=storage)
    trials = trials_of(engines, storage)
    assert sorted(t.seed for t in trials) == [0, 0, 0, 1, 1, 1]
    for trial in trials:
        assert trial.proposal == next(t.proposal for t in trials if t.digest == trial.digest)


def test_what_is_over_a_cap_is_known_once(opened, storage, other, engines, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    drive(opened(str(path), trials=3, sampler="grid"))
    drive(opened(str(path), trials=40, sampler="random", url=other))
    merge([file(other)], storage=storage)
    engine = engines(storage)
    study = find_study(engine, "small")
    refused = [p for p in read_proposals(engine, study.id) if p.verdict == "rejected"]
    assert len(refused) == len({p.digest for p in refused}) > 0
    assert drive(opened(str(path), trials=40, sampler="random")) == 0


# What is refused. --------------------------------------------------------------------------------


def test_another_study_of_the_same_name_is_refused_with_the_cure(opened, storage, other, engines):
    drive(opened(trials=2))
    drive(opened(trials=3, epochs=5, url=other))
    before = content(storage)
    (row,) = merge([file(other)], storage=storage)
    assert row.outcome == "refused"
    for words in ("-epochs: 12", "+epochs: 5", "--study attention --as NAME"):
        assert words in row.why
    assert content(storage) == before
    (row,) = merge([file(other)], storage=storage, name="attention-5")
    assert (row.outcome, row.into, row.added) == ("taken over", "attention-5", 3)
    assert [s.name for s in read_studies(engines(storage))] == ["attention", "attention-5"]
    (row,) = merge([file(other)], storage=storage, study="attention", name="attention-5")
    assert row.outcome == "already there"


def test_the_others_of_a_refused_studys_database_come(opened, storage, other, engines):
    drive(opened(trials=2))
    drive(opened(trials=2, epochs=5, url=other))
    drive(opened(trials=2, study="more", url=other))
    outcomes = {row.study: row.outcome for row in merge([file(other)], storage=storage)}
    assert outcomes == {"attention": "refused", "more": "taken over"}


def test_a_study_that_is_being_run_is_refused(opened, storage, other, tmp_path):
    study = opened(trials=2)
    drive(study)
    drive(opened(trials=3, url=other))
    with held(study.plan.artefacts, "attention", study.store):
        (row,) = merge([file(other)], storage=storage)
    assert row.outcome == "refused"
    assert "is being run by process" in row.why
    assert "wait for it, or stop it" in row.why
    assert merge([file(other)], storage=storage)[0].outcome == "added to"


def test_a_newer_schema_is_refused_and_nothing_is_made(opened, storage, other, tmp_path):
    drive(opened(trials=1, url=other))
    engine = open_for_writing(storage_url(other))
    with engine.begin() as connection:
        connection.execute(update(tables.schema).values(version=99))
    engine.dispose()
    with pytest.raises(StudyError, match="newer version of this tool.*schema 99"):
        merge([file(other)], storage=storage)
    assert not (tmp_path / "studies.db").exists()


@pytest.mark.parametrize(
    ("others", "flags", "words"),
    [
        (["nosuch.db"], {}, "nosuch.db: there is no such file"),
        (["{target}"], {}, "is the database that is merged into"),
        (["{other}"], {"study": "atention"}, "no study 'atention'. Did you mean 'attention'"),
        (["{other}"], {"name": "b"}, "--as b names one study, and there are 2"),
        (["{other}"], {"study": "attention", "name": "../b"}, "--as '../b' is no name"),
        (["http://x/y"], {}, "no database URL"),
    ],
)
def test_wrong_use_is_refused(opened, storage, other, others, flags, words):
    drive(opened(trials=1))
    drive(opened(trials=1, url=other))
    drive(opened(trials=1, study="more", url=other))
    names = {"target": file(storage), "other": file(other)}
    before = content(storage)
    with pytest.raises(StudyError, match=words):
        merge([given.format(**names) for given in others], storage=storage, **flags)
    assert content(storage) == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_another_name_of_the_target_is_the_target(opened, storage, tmp_path, link):
    drive(opened(trials=1))
    link(file(storage), tmp_path / "again.db")
    with pytest.raises(StudyError, match="is the database that is merged into"):
        merge([str(tmp_path / "again.db")], storage=storage)


def test_a_target_that_cannot_be_written_is_said_and_left_as_it_was(
    opened, storage, other, monkeypatch
):
    drive(opened(trials=2))
    drive(opened(trials=3, study="more", url=other))
    before = content(storage)

    def full(connection, joining, files):
        connection.exec_driver_sql("PRAGMA query_only = ON")
        try:
            copying.write_joining(connection, joining, files)
        finally:
            connection.exec_driver_sql("PRAGMA query_only = OFF")

    monkeypatch.setattr("search.merge.write_joining", full)
    (row,) = merge([file(other)], storage=storage)
    assert row.outcome == "refused"
    assert "it can only be read" in row.why
    assert content(storage) == before
    monkeypatch.undo()
    (row,) = merge([file(other)], storage=storage)
    assert (row.outcome, row.added) == ("taken over", 3)


def test_a_name_that_would_leave_the_folder_is_refused(opened, storage, other, tmp_path):
    drive(opened(trials=1, url=other))
    engine = open_for_writing(storage_url(other))
    with engine.begin() as connection:
        connection.execute(update(tables.studies).values(name="../../evil"))
    engine.dispose()
    (row,) = merge([file(other)], storage=storage)
    assert row.outcome == "refused"
    assert "--as NAME" in row.why


# Nothing by halves, nothing changed there. -------------------------------------------------------


def test_a_failure_in_the_middle_leaves_nothing(opened, storage, other, monkeypatch):
    joined(opened, storage, other)
    before = content(storage)

    def fails(*arguments):
        raise KeyboardInterrupt

    for step in ("_add_attempts", "_settle"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(copying, step, fails)
            merge([file(other)], storage=storage)
        assert content(storage) == before
    assert merge([file(other)], storage=storage)[0].outcome == "added to"


KILLED = """
import os, signal, sys
from search import copying, merge
steps = iter(range(int(sys.argv[3])))
wrapped = copying._insert
def insert(*arguments):
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    wrapped(*arguments)
copying._insert = insert
merge.merge([sys.argv[1]], storage=sys.argv[2])
"""


@pytest.mark.slow
def test_killed_at_any_step_it_is_all_or_nothing(opened, storage, other):
    joined(opened, storage, other)
    before = content(storage)
    for step in range(1, 8, 2):
        command = [sys.executable, "-c", KILLED, file(other), storage, str(step)]
        assert subprocess.run(command, check=False).returncode == -9
        assert content(storage) == before
    assert merge([file(other)], storage=storage)[0].outcome == "added to"


def test_the_source_is_never_changed(opened, storage, other):
    study = opened(trials=4, url=other)
    drive(study)
    finish(study)
    before = hashlib.sha256(Path(file(other)).read_bytes()).hexdigest()
    merge([file(other)], storage=storage)
    merge([file(other)], storage=storage, name="again")
    assert hashlib.sha256(Path(file(other)).read_bytes()).hexdigest() == before


def test_a_database_of_a_version_with_fewer_tables_merges(opened, storage, other, engines):
    study = opened(trials=3, url=other)
    drive(study)
    gone = ("insights", "answers", "classes", "epochs", "findings", "splits", "artefacts")
    with study.store.transaction() as connection:
        for name in gone:
            connection.execute(text(f"DROP TABLE search_{name}"))
    merge([file(other)], storage=storage)
    assert len(trials_of(engines, storage)) == 3


def test_every_table_is_merged_by_a_stated_rule():
    stated = {table.name for table in (*copying.RECORDS, *copying.STUDYS)}
    stated |= {
        f"search_{name}"
        for name in ("studies", "spaces", "candidates", "splits", "provenance", "trials",
                     "proposals", "attempts", "artefacts", "leases", "runs", "schema")
    }  # fmt: skip
    assert stated == set(tables.metadata.tables)


# What was spent. ---------------------------------------------------------------------------------

DAY = "2026-01-0{}T00:00:00.000+00:00"
HOURS = "2026-01-0{}T0{}:00:00.000+00:00"


def spend(study, day, *, owner, hours, devices=1.0):
    """As if one process of this name had run the study, with one attempt, on that day."""
    attempts, runs = tables.attempts, tables.runs
    with study.store.transaction() as connection:
        ended = {"started": DAY.format(day), "finished": HOURS.format(day, hours)}
        connection.execute(update(attempts).values(owner=owner, **ended))
        spent = {"started": DAY.format(day), "seconds": hours * 3600.0, "devices": devices}
        connection.execute(update(runs).values(owner=owner, **spent))


def spent(engine):
    study = find_study(engine, "attention")
    spans = read_spans(engine, study.id)
    runs = read_runs(engine, study.id, spans)
    return wall_seconds(runs, spans) / 3600, device_seconds(runs, spans) / 3600


@pytest.mark.parametrize(("day", "hours"), [(2, (5.0, 11.0)), (1, (3.0, 11.0))])
def test_what_was_spent_in_both_adds_up(opened, storage, other, engines, day, hours):
    ours, theirs = opened(trials=1), opened(trials=2, sampler="random", url=other)
    assert (drive(ours), drive(theirs)) == (1, 2)
    spend(ours, 1, owner="here pid 1", hours=3)
    spend(theirs, day, owner="there pid 1", hours=2, devices=4.0)
    merge([file(other)], storage=storage)
    assert spent(engines(storage)) == hours, "3 h + 4 devices x 2 h of the one trial that came"
    merge([file(other)], storage=storage)
    assert spent(engines(storage)) == hours


def test_a_study_taken_over_has_spent_what_it_had(opened, storage, other, engines):
    theirs = opened(trials=2, url=other)
    drive(theirs, stop_after=1)
    under_way = theirs.next_assignment().trial
    spend(theirs, 1, owner="there pid 1", hours=2)
    key = read_trials(theirs.store.engine, 1)[under_way].id
    with theirs.store.transaction() as connection:
        still = tables.attempts.c.trial_id == key
        connection.execute(update(tables.attempts).where(still).values(finished=None))
    merge([file(other)], storage=storage)
    engine = engines(storage)
    (cut,) = (a for a in read_attempts(engine, 1) if a.trial == under_way)
    assert cut.finished == HOURS.format(1, 2), "when its process was last heard of"
    assert spent(engine) == (2.0, 4.0)
    with theirs.store.transaction() as connection:  # it runs on there, and is heard of later
        connection.execute(update(tables.runs).values(seconds=3 * 3600.0))
    theirs.on_finish(under_way, outcome_of(theirs.trials[under_way]), PROVENANCE)
    merge([file(other)], storage=storage)
    with engine.connect() as connection:
        assert connection.execute(select(tables.runs.c.seconds)).scalars().all() == [3 * 3600.0]


# What trials leave. ------------------------------------------------------------------------------


def train(study, *, keep=True):
    """Finish the next trial with everything that a training leaves."""
    assignment = study.next_assignment()
    trial = study.trials[assignment.trial]
    path = Path(assignment.keep)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"weights of {trial.digest}".encode())
    kept = {"sha256": checksum(path), "bytes": path.stat().st_size} if keep else None
    answers = (Answers("validation", 9, np.packbits([1] * 9).tobytes(), ((5, 5, 4), (4, 4, 5))),)
    outcome = replace(outcome_of(trial), kept=kept, answers=answers, found=trial.architecture)
    study.on_finish(trial.number, outcome, PROVENANCE)
    return study.trials[trial.number]


def test_all_that_a_trial_leaves_comes_with_it(opened, storage, other, engines, tmp_path):
    drive(opened(trials=3, sampler="grid"))
    theirs = opened(trials=4, sampler="random", url=other, keep_weights="all")
    for _ in range(4):
        train(theirs)
    stored = read_trials(theirs.store.engine, theirs.id)
    seen = Insight({"images": 1}, {"gate": np.ones(3)}, "")
    write_insights(theirs.store.engine, stored[3].id, {GATES: seen})
    (row,) = merge([file(other)], storage=storage)
    engine = engines(storage)
    study = find_study(engine, "attention")
    number = next(t.number for t in read_trials(engine, study.id) if t.digest == stored[3].digest)
    assert number != 3, "it has another number here"
    answers = read_answers(engine, study.id)[number]["validation"]
    assert answers.tolist() == [True] * 9
    insight = read_insights(engine, study.id, number)[number][GATES]
    assert insight.content == {"images": 1}
    assert insight.arrays["gate"].tolist() == [1, 1, 1]
    assert read_findings(engine, study.id)[number] == stored[3].architecture
    kept = read_kept(engine, study.id)
    assert row.files == len(kept) == row.added
    path = tmp_path / kept[number].path
    assert path.name == f"attention-{number}.safetensors"
    assert path.read_bytes() == f"weights of {stored[3].digest}".encode()
    assert checksum(path) == kept[number].sha256
    again = opened(trials=row.added + 3, keep_weights="all")
    again.keeper.close()
    assert sorted(read_kept(again.store.engine, again.id)) == sorted(kept)


@pytest.mark.parametrize("harm", ["gone", "changed", "outside", "absolute", "link", "kind"])
def test_a_file_that_is_not_what_it_was_stays_behind(
    opened, storage, other, engines, tmp_path, harm
):
    theirs = opened(trials=2, url=other, keep_weights="all")
    train(theirs)
    (kept,) = read_kept(theirs.store.engine, theirs.id).values()
    path = tmp_path / "other" / kept.path
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(path.read_bytes())
    values = {
        "outside": {"path": "../secret.safetensors"},
        "absolute": {"path": str(secret)},
        "kind": {"kind": "../weights"},
    }.get(harm)
    if harm == "gone":
        path.unlink()
    elif harm == "changed":
        path.write_bytes(b"other weights")
    elif harm == "link":
        path.unlink()
        path.symlink_to(secret)
    else:
        with theirs.store.transaction() as connection:
            connection.execute(update(tables.artefacts).values(**values))
    (row,) = merge([file(other)], storage=storage)
    assert (row.outcome, row.files) == ("taken over", 0)
    (problem,) = row.problems
    assert "of attention 0 stay behind" in problem
    engine = engines(storage)
    assert read_kept(engine, find_study(engine, "attention").id) == {}
    assert not list((tmp_path / "studies.artefacts").rglob("*.safetensors*"))


def test_the_mirror_of_a_grown_space_is_made_anew_where_it_no_longer_fits(
    opened, storage, other, mirrored, tmp_path
):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    drive(opened(str(path), trials=4, sampler="random", url=other))
    merge([file(other)], storage=storage)
    path.write_text(SMALL.replace("[4, 16]", "[2, 4, 16]"))
    study = opened(str(path), trials=6, sampler="random", extend=True)
    drive(study)
    mirrored(study)
    seen = optuna.load_study(study_name="small", storage=storage)
    assert len(seen.trials) == 6


# PostgreSQL. --------------------------------------------------------------------------------------


def test_a_study_that_parents_run_is_not_merged_into(parents, postgres, opened, tmp_path):
    study = parents(trials=2)
    url = f"sqlite:///{tmp_path}/other.db"
    drive(opened(trials=4, url=url))
    (row,) = merge([f"{tmp_path}/other.db"], storage=postgres)
    assert row.outcome == "refused"
    assert f"is being run by {study.sharing.leases.owner}" in row.why
    study.sharing.leave("interrupted", "")
    (row,) = merge([f"{tmp_path}/other.db"], storage=postgres)
    assert (row.outcome, row.added, row.completed) == ("added to", 3, 1)


def test_a_study_goes_from_sqlite_to_postgresql_and_back(
    parents, postgres, opened, storage, tmp_path
):
    ours = opened(trials=8, sampler="random")
    drive(ours, stop_after=6)
    ours.store.engine.dispose()
    (row,) = merge([f"{tmp_path}/studies.db"], storage=postgres)
    assert (row.outcome, row.added, row.problems) == ("taken over", 6, ())
    study = parents(trials=8, sampler="random")
    assert drive(study) == 2
    study.sharing.leave("finished", "")
    (row,) = merge([postgres], storage=f"sqlite:///{tmp_path}/back.db")
    assert (row.outcome, row.added, row.problems) == ("taken over", 8, ())
    (row,) = merge([postgres], storage=storage)
    assert (row.outcome, row.added, row.there) == ("added to", 2, 6)
    (row,) = merge([f"{tmp_path}/back.db"], storage=postgres)
    assert row.outcome == "already there"


# The command. ------------------------------------------------------------------------------------


def command(*arguments, cwd):
    line = [sys.executable, "-P", "-m", "search.cli", "merge", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_says_what_became_of_every_study(opened, storage, other, tmp_path):
    ours, theirs, both = joined(opened, storage, other)
    finish(theirs)
    finish(ours)
    done = command("other/other.db", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["outcome"] == "added to"
    assert row["added"] == 9 - len(both)
    done = command("other/other.db", cwd=tmp_path)
    assert done.returncode == 0
    assert "already there" in done.stdout
    assert sorted(path.name for path in tmp_path.glob("studies.db*")) == ["studies.db"]


def test_the_command_ends_with_2_where_a_study_was_refused(opened, storage, other, tmp_path):
    drive(opened(trials=1))
    drive(opened(trials=1, epochs=3, url=other))
    done = command("other/other.db", cwd=tmp_path)
    assert done.returncode == 2
    assert "refused" in done.stdout
    assert "+epochs: 3" in done.stderr
    assert "--as NAME" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_store_refuses_what_is_no_database(storage, tmp_path):
    (tmp_path / "text.db").write_text("no database, but a text that is long enough " * 30)
    with pytest.raises(StudyError, match="cannot be opened"):
        merge([str(tmp_path / "text.db")], storage=storage)


def test_a_study_may_come_into_a_database_that_holds_others(opened, storage, other, engines):
    drive(opened(trials=2, study="mine"))
    drive(opened(trials=2, url=other))
    merge([file(other)], storage=storage)
    engine = engines(storage)
    assert [s.name for s in read_studies(engine)] == ["mine", "attention"]
