"""Several parents on one study in PostgreSQL: leases, and what each learns of the others."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from instant import PROVENANCE, accuracy_of, drive, outcome_of
from sqlalchemy import create_engine, insert, inspect, select, text, update

from blocks.errors import StudyError
from reports.page import write_report
from search import sharing, show, tables
from search.database import open_for_reading, open_for_writing, storage_url
from search.holding import held_from_all
from search.kept import read_kept
from search.leases import (
    SETTING,
    LeaseLostError,
    Leases,
    lease_seconds,
    living_parents,
    one_at_a_time,
)
from search.outcome import EpochResult
from search.provenance import checksum
from search.reading import find_study, read_attempts, read_proposals, read_trials
from search.store import Store
from search.study import run_study

PARENT = Path(__file__).parents[1] / "support" / "parent.py"
SMALL = """
backbone: resnet20
attention:
  type: [none, se]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
"""  # five distinct candidates (test_engine.py)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def finish(study, assignment, **changes):
    trial = study.trials[assignment.trial]
    return study.on_finish(trial.number, replace(outcome_of(trial), **changes), PROVENANCE)


def expire(study, number):
    """Let the lease of a trial run out."""
    row = tables.leases.c
    with study.store.transaction() as connection:
        connection.execute(
            update(tables.leases)
            .where(row.kind == "trial", row.number == number)
            .values(expires=text("clock_timestamp() - interval '1 second'"))
        )


def look(study):
    """Ask again at once: no waiting between two looks."""
    study.sharing._look_again = 0.0
    return study.next_assignment()


def mirrored_trials(url):
    """The trials of Optuna's study; its connections are closed."""
    storage = optuna.storages.RDBStorage(url)
    trials = optuna.load_study(study_name="attention", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    return trials


def attempts(study, number):
    found = read_attempts(study.store.engine, study.id)
    return [(a.number, a.ending) for a in found if a.trial == number]


# Two parents, one after the other in this process. -----------------------------------------------


@pytest.mark.parametrize("sampler", ["nsga2", "random", "grid"])
def test_parents_in_turn_never_have_the_same_trial(parents, sampler):
    first, second = (parents(trials=14, sampler=sampler) for _ in range(2))
    taken = []
    while True:
        assigned = [(study, look(study)) for study in (first, second)]
        assigned = [(study, a) for study, a in assigned if a is not None]
        if not assigned:
            break
        taken += [a.trial for _, a in assigned]
        for study, assignment in assigned:
            finish(study, assignment)
    assert sorted(taken) == list(range(14))
    stored = read_trials(first.store.engine, first.id)
    assert [t.number for t in stored] == list(range(14))
    assert len({(t.digest, t.seed) for t in stored}) == 14
    rows = read_proposals(first.store.engine, first.id)
    assert [row.number for row in rows] == list(range(len(rows)))
    assert not [row for row in rows if row.state == "open"]
    for study in (first, second):
        look(study)
        assert study.is_finished
        for trial in stored:
            held = study.trials[trial.number]
            assert (held.state, held.digest, held.measurements) == (
                trial.state, trial.digest, trial.measurements,
            )  # fmt: skip
        told = {p.number: p.state.name for p in study.proposer.study.trials}
        assert told == {row.number: {"failed": "FAIL"}.get(row.state, row.state.upper())
                        for row in rows}  # fmt: skip


def test_the_means_of_replicates_are_told_whoever_trained_them(parents):
    first, second = (parents(trials=6, seeds=3) for _ in range(2))
    while True:
        assigned = [(study, look(study)) for study in (first, second)]
        assigned = [(study, a) for study, a in assigned if a is not None]
        if not assigned:
            break
        for study, assignment in reversed(assigned):
            finish(study, assignment)
    rows = [p for p in read_proposals(first.store.engine, first.id) if p.digest]
    accepted = [row for row in rows if row.verdict == "accepted"]
    assert len(accepted) == 2
    for row in accepted:
        assert row.state == "complete"
        assert row.values[0] == pytest.approx(fmean(accuracy_of(row.digest, s) for s in range(3)))


def test_the_baseline_is_there_once(parents):
    studies = [parents(trials=5) for _ in range(3)]
    stored = read_trials(studies[0].store.engine, studies[0].id)
    assert [t.baseline for t in stored] == [True]


def test_a_small_space_is_exhausted_by_both_together(parents, small):
    first, second = (parents(small, trials=30, sampler="random") for _ in range(2))
    done = 0
    while not (first.is_finished and second.is_finished):
        for study in (first, second):
            assignment = look(study)
            if assignment is not None:
                finish(study, assignment)
                done += 1
    assert done == 5
    assert "(5 in the study)" in first.note
    assert "(5 in the study)" in second.note
    before = len(read_proposals(first.store.engine, first.id))
    assert look(first) is None
    assert len(read_proposals(first.store.engine, first.id)) == before, "it draws no more"


def test_a_parent_waits_for_what_others_evaluate(parents):
    first, second = (parents(trials=2) for _ in range(2))
    assignments = [look(first), look(first)]
    assert look(second) is None
    assert second.sharing.elsewhere
    assert not second.is_finished
    for assignment in assignments:
        finish(first, assignment)
    assert look(second) is None
    assert not second.sharing.elsewhere
    assert second.is_finished


def test_a_dead_parents_trial_is_taken_over_as_another_attempt(parents):
    first, second = (parents(trials=2) for _ in range(2))
    dead = look(first)
    other = look(second)
    assert other.trial != dead.trial
    finish(second, other)
    assert look(second) is None, "the lease is good"
    expire(first, dead.trial)
    again = look(second)
    assert (again.trial, again.seed, again.architecture) == (
        dead.trial, dead.seed, dead.architecture,
    )  # fmt: skip
    assert again.attempt == dead.attempt + 1 == 2
    finish(second, again)
    assert attempts(second, dead.trial) == [(1, "lost"), (2, "complete")]
    (cause,) = {a.cause for a in read_attempts(second.store.engine, second.id)
                if a.ending == "lost"}  # fmt: skip
    assert cause == "parent ended: its lease ran out"


def test_who_lost_the_lease_records_nothing(parents):
    first, second = (parents(trials=3) for _ in range(2))
    slow = look(first)
    expire(first, slow.trial)
    again = look(second)
    assert again.trial == slow.trial
    before = read_attempts(first.store.engine, first.id)
    with pytest.raises(LeaseLostError, match="ran out.*dropped"):
        finish(first, slow, seconds=99.0)
    trial = read_trials(first.store.engine, first.id)[slow.trial]
    assert (trial.state, trial.measurements) == ("running", {})
    assert read_attempts(first.store.engine, first.id) == before
    finish(second, again)
    trial = read_trials(first.store.engine, first.id)[slow.trial]
    assert (trial.state, trial.seconds) == ("complete", 0.01)
    assert len(trial.measurements) == 3
    with pytest.raises(LeaseLostError):
        finish(first, slow, seconds=99.0)
    finish(first, look(first))
    assert first.trials[slow.trial].state == "complete", "it goes on with others"


def test_a_lease_that_ran_out_and_nobody_took_is_still_its_parents(parents):
    first = parents(trials=1)
    assignment = look(first)
    expire(first, assignment.trial)
    assert finish(first, assignment).state == "complete"


def test_a_training_whose_lease_was_lost_is_stopped(parents):
    first, second = (parents(trials=2) for _ in range(2))
    assignment = look(first)
    epoch = EpochResult(1, 0.5, 0.8, 0.4, 0.9, 0.1, 0.01)
    assert first.on_epoch(assignment.trial, epoch)
    expire(first, assignment.trial)
    look(second)
    first.sharing.leases.renew()
    assert not first.on_epoch(assignment.trial, epoch)


def test_renewing_keeps_a_lease(parents):
    first = parents(trials=1)
    assignment = look(first)
    expire(first, assignment.trial)
    assert first.sharing.leases.held_trials() == set()
    first.sharing.leases.renew()
    assert first.sharing.leases.held_trials() == {assignment.trial}


def test_a_lost_worker_and_an_interrupt_give_the_trial_back(parents):
    first, second = (parents(trials=2) for _ in range(2))
    assignment = look(first)
    first.on_lost(assignment.trial, "its worker ended with signal 9")
    assert look(second).trial == assignment.trial
    first.on_lost(assignment.trial, "twice")  # it is not its own any more
    assert attempts(first, assignment.trial) == [(1, "lost"), (2, None)]
    second.interrupt()
    assert attempts(first, assignment.trial) == [(1, "lost"), (2, "interrupted")]
    assert look(first).trial == assignment.trial


def test_a_worker_that_dies_again_and_again_fails_its_trial(parents):
    study = parents(trials=1)
    for _ in range(3):
        study.on_lost(look(study).trial, "its worker ended with signal 9")
    (trial,) = read_trials(study.store.engine, study.id)
    assert trial.state == "failed"


def test_who_decided_too_late_decides_anew(parents, monkeypatch):
    @contextmanager
    def unguarded(*arguments):  # the database has shut this parent out, because it was stopped
        yield

    first, second = (parents(trials=9, sampler="random") for _ in range(2))
    finish(first, look(first))
    rivals = []
    decide = first._decide

    def overtaken():
        if not rivals:
            rivals.append(look(second))
        return decide()

    monkeypatch.setattr(sharing, "one_at_a_time", unguarded)
    monkeypatch.setattr(first, "_decide", overtaken)
    assignment = look(first)
    assert {assignment.trial, rivals[0].trial} == {1, 2}
    stored = read_trials(first.store.engine, first.id)
    assert len({t.digest for t in stored}) == 3
    rows = read_proposals(first.store.engine, first.id)
    assert [row.number for row in rows] == list(range(len(rows)))


def test_a_finished_trial_is_not_taken_by_who_did_not_know(parents, monkeypatch):
    first, second = (parents(trials=2) for _ in range(2))
    assignment = look(first)
    finish(first, assignment)
    second.sharing.leases.evaluates.clear()
    with pytest.raises(sharing.LeaseTakenError):
        second.store.start_attempt(second.id, assignment.trial, owner="late")
    assert attempts(first, assignment.trial) == [(1, "complete")]
    assert second.sharing.leases.held_trials() == set()


def test_what_a_training_found_is_trained_once(parents, tmp_path):
    path = tmp_path / "learnt.yaml"
    path.write_text(
        "backbone: resnet20\nattention:\n  type: {none: {}, fca: {frequency: [nas, nas4]}}\n"
        "  placement: [stage, stem]\ntraining: {epochs: 1}\n"
    )
    first, second = (parents(str(path), trials=50, sampler="random") for _ in range(2))

    def found(trial):
        written = json.dumps(trial.architecture)
        settled = written.replace("nas16", "0,0").replace("nas4", "0,0")
        return None if settled == written else json.loads(settled)

    while not (first.is_finished and second.is_finished):
        for study in (first, second):
            assignment = look(study)
            if assignment is not None:
                finish(study, assignment, found=found(study.trials[assignment.trial]))
    labels = [t.label for t in read_trials(first.store.engine, first.id)]
    assert len(labels) == 1 + 4 + 2  # as one parent alone (test_engine.py)
    assert sum(label.endswith("(found)") for label in labels) == 2


# What parents spend, fail over, and repeat together. ---------------------------------------------


def test_what_another_parent_has_spent_counts_for_the_budget(parents, monkeypatch):
    first = parents(trials=9, device_hours=1.0)
    second = parents(trials=9, device_hours=1.0)
    second.owner = second.meter.owner = "another host pid 1"  # here both are one process
    for study in (first, second):
        finish(study, look(study))
    assert not first.budget_reached()
    row = tables.attempts.c
    with first.store.transaction() as connection:  # another parent's attempt of two hours
        connection.execute(
            update(tables.attempts)
            .where(row.owner == "another host pid 1")
            .values(
                started="2026-01-01T00:00:00.000+00:00", finished="2026-01-01T02:00:00.000+00:00"
            )
        )
    running = look(first)
    assert running is not None, "it looks now and then"
    first.meter._looked -= 60
    finish(first, running)
    assert look(first) is None
    assert first.budget_reached() == "the 1 device-hours are spent"
    assert first.meter.device_seconds == pytest.approx(7200, abs=5)


def test_a_parent_whose_budget_is_reached_does_not_wait_for_others(parents):
    first, second = parents(trials=9, patience=1), parents(trials=9)
    finish(first, look(first))
    running = look(second)
    measured = (("validation", "accuracy", 0.1), ("test", "accuracy", 0.1))
    finish(first, look(first), measurements=measured)
    assert look(first) is None
    assert first.sharing.elsewhere
    assert first.budget_reached() == "the front has not moved for 1 trials"
    assert first.is_finished
    assert not first.is_done, "so the study is not said to have ended"
    finish(second, running)


def test_failed_trials_are_not_retried_while_others_run(parents):
    first = parents(trials=2)
    finish(first, look(first), state="failed")
    with pytest.raises(StudyError, match="failed trials stay as they are.*--retry-failed"):
        parents(trials=2, retry_failed=True)
    assert read_trials(first.store.engine, first.id)[0].state == "failed"
    first.sharing.leave("interrupted", "")
    again = parents(trials=2, retry_failed=True)
    assert again.retried == [0]
    assert look(again).trial == 0


def test_a_mistake_under_a_lost_lease_does_not_count(parents):
    first, second = (parents(trials=2) for _ in range(2))
    slow = look(first)
    expire(first, slow.trial)
    look(second)
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: x'
    with pytest.raises(LeaseLostError):
        finish(first, slow, state="failed", traceback=trace)
    assert first.mistakes.trials == {}
    assert first.meter._running == {}, "its device is free"


def test_a_given_proposal_is_taken_by_one_parent(parents, small):
    given = ["type=se,placement=stem,reduction=16"]
    first, second = (parents(small, trials=5, enqueue=given) for _ in range(2))
    finish(first, look(first))
    assert first.trials[0].baseline
    finish(second, look(second))
    assert second.trials[1].parameters["reduction"] == 16
    while (assignment := look(first)) is not None:
        finish(first, assignment)
    assert (list(first.given), first.remarks) == ([], [])
    rows = read_proposals(first.store.engine, first.id)
    assert sum("given" in row.system_attributes for row in rows) == 1


def test_another_seed_that_one_parent_decided_on_is_known_to_the_other(parents, small):
    first, second = (parents(small, trials=40, sampler="random", max_seeds=3) for _ in range(2))
    taken = []
    while not (first.is_finished and second.is_finished) and len(taken) < 60:
        assigned = [(study, look(study)) for study in (first, second)]
        taken += [a.trial for _, a in assigned if a is not None]
        for study, assignment in assigned:
            if assignment is not None:
                finish(study, assignment)
    assert sorted(taken) == list(range(len(taken)))
    stored = read_trials(first.store.engine, first.id)
    assert len({(t.digest, t.seed) for t in stored}) == len(stored) > 5
    assert not [r for r in read_proposals(first.store.engine, first.id) if r.state == "open"]
    assert first.repeats == second.repeats == {}


def test_kept_weights_are_each_parents_own(parents, tmp_path, monkeypatch, small):
    def folder(name):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)

    def train(study):
        assignment = look(study)
        path = Path(assignment.keep)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"weights {assignment.trial}".encode())
        kept = {"sha256": checksum(path), "bytes": path.stat().st_size}
        finish(study, assignment, kept=kept)

    def files():
        found = (tmp_path / name for name in ("one", "two"))
        return [sorted(p.name for p in f.rglob("*.safetensors")) for f in found]

    folder("one")
    first = parents(small, trials=4, keep_weights="all")
    train(first)
    folder("two")
    second = parents(small, trials=4, keep_weights="all")
    train(second)
    assert files() == [["small-0.safetensors"], ["small-1.safetensors"]]
    assert sorted(read_kept(first.store.engine, first.id)) == [0, 1]
    second.keeper.close()
    third = parents(small, trials=4, keep_weights="all")
    assert sorted(third.keeper.files) == [1]
    third.keeper.close()
    assert sorted(read_kept(first.store.engine, first.id)) == [0, 1]
    assert files() == [["small-0.safetensors"], ["small-1.safetensors"]]


# What others may do meanwhile. -------------------------------------------------------------------


def test_another_space_is_refused_while_others_run(parents, tmp_path, small):
    first = parents(small, trials=3, study="s")
    drive(first)
    other = tmp_path / "other.yaml"
    other.write_text(SMALL.replace("[4, 16]", "[4, 8, 16]"))
    with pytest.raises(StudyError, match="is being run by .*--extend"):
        parents(str(other), trials=4, study="s", extend=True)
    first.sharing.leave("finished", "")
    grown = parents(str(other), trials=4, study="s", extend=True)
    assert drive(grown) == 1


def test_the_last_parent_says_how_the_study_stands(parents):
    first, second = (parents(trials=3) for _ in range(2))
    engine = first.store.engine
    first.sharing.leave("interrupted", "")
    assert find_study(engine, "attention").status == "running"
    assert living_parents(engine, first.id) == [second.sharing.leases.owner]
    second.sharing.leave("interrupted", "")
    assert find_study(engine, "attention").status == "interrupted"
    with engine.connect() as connection:
        assert connection.execute(select(tables.leases)).all() == []


def test_one_parent_keeps_the_mirror_until_it_lets_go(parents):
    first, second = (parents(trials=3) for _ in range(2))
    assert [s.sharing.may_mirror() for s in (first, second, first)] == [True, False, True]
    first.sharing.end_mirror()
    assert second.sharing.may_mirror()
    first.sharing.end_mirror()  # not its own: nothing happens
    assert not first.sharing.may_mirror()


def test_who_is_stopped_while_it_decides_does_not_stop_the_others(postgres):
    engines = [create_engine(postgres) for _ in range(2)]
    entered, leave = threading.Event(), threading.Event()

    def stopped():
        with one_at_a_time(engines[0], "s", 2):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=stopped)
    thread.start()
    entered.wait(20)
    started = time.monotonic()
    with one_at_a_time(engines[1], "s", 5):
        waited = time.monotonic() - started
        assert thread.is_alive()
    leave.set()
    thread.join()
    assert waited > 0.1
    with one_at_a_time(engines[0], "s", 5), one_at_a_time(engines[1], "another", 5):
        pass
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf", "nan", ""])
def test_a_lease_is_a_number_of_seconds(monkeypatch, given):
    monkeypatch.setenv(SETTING, given)
    with pytest.raises(StudyError, match="no number of seconds above 0"):
        lease_seconds()


def test_places_of_parents_that_died_are_taken_again(parents):
    first = parents(trials=1)
    with first.store.transaction() as connection:
        connection.execute(
            insert(tables.leases).values(
                study_id=first.id, kind="parent", number=1, owner="dead", attempt=0,
                expires=text("clock_timestamp() - interval '1 second'"),
            )
        )  # fmt: skip
    second = parents(trials=1)
    owners = {first.sharing.leases.owner, second.sharing.leases.owner}
    assert set(living_parents(first.store.engine, first.id)) == owners
    assert isinstance(second.sharing.leases, Leases)


# The ordinary things on PostgreSQL. --------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["nsga2", "grid"])
def test_one_parent_proposes_what_it_does_on_sqlite(parents, opened, tmp_path, sampler):
    whole = opened(trials=25, sampler=sampler, url=f"sqlite:///{tmp_path}/whole.db")
    drive(whole)
    for stop_after in (6, 9):
        study = parents(trials=25, sampler=sampler)
        drive(study, stop_after=stop_after)
        study.sharing.leave("interrupted", "")
    study = parents(trials=25, sampler=sampler)
    assert drive(study) == 10
    assert [study.trials[n].digest for n in range(25)] == [
        whole.trials[n].digest for n in range(25)
    ]


def test_a_study_is_shown_and_reported(parents, postgres, tmp_path):
    study = parents(trials=6, seeds=2)
    drive(study, state_of=lambda t: "failed" if t.number == 3 else "complete")
    engine = open_for_reading(storage_url(postgres))
    data = show.study_data(engine, "attention")
    assert [t["number"] for t in data["trials"]] == list(range(6))
    assert data["trials"][3]["error"] == "planted"
    assert show.one_trial_data(engine, "attention", 2)["attempts"][0]["ending"] == "complete"
    assert show.studies_data(engine)[0]["trials"] == 6
    with engine.connect() as connection, pytest.raises(Exception, match="read-only"):
        connection.execute(text("DELETE FROM search_trials"))
    engine.dispose()
    path = write_report("attention", storage=postgres, output=str(tmp_path / "r.html"))
    assert "attention" in Path(path).read_text(encoding="utf-8")


def test_large_networks_have_room(parents, postgres):
    study = parents(trials=1)
    flops = 8 * 10**9  # more than 32 bits hold; ResNet-50 has as many
    with study.store.transaction() as connection:
        connection.execute(update(tables.candidates).values(flops=flops))
    assert read_trials(study.store.engine, study.id)[0].flops == flops


def test_columns_of_an_earlier_version_are_widened(postgres):
    engine = open_for_writing(storage_url(postgres))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE search_candidates ALTER COLUMN macs TYPE INTEGER"))
    engine.dispose()
    engine = open_for_writing(storage_url(postgres))
    columns = {c["name"]: str(c["type"]) for c in inspect(engine).get_columns("search_candidates")}
    engine.dispose()
    assert columns["macs"] == columns["flops"] == "BIGINT"


def test_tables_are_made_by_many_at_once(postgres):
    failed = []

    def open_():
        try:
            open_for_writing(storage_url(postgres)).dispose()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=open_) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    engine = open_for_reading(storage_url(postgres))
    with engine.connect() as connection:
        assert len(connection.execute(select(tables.schema)).all()) == 1
    engine.dispose()


def test_a_server_that_is_not_there_is_said(tmp_path):
    url = storage_url(f"postgresql://nobody@/none?host={tmp_path}")
    assert url.drivername == "postgresql+psycopg"
    with pytest.raises(StudyError, match="cannot be opened: .*its server runs"):
        open_for_writing(url)


def test_a_second_parent_in_the_same_folder_is_refused(postgres, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = open_for_writing(storage_url(postgres))
    with (
        held_from_all(Path("studies.artefacts"), "attention", Store(engine)),
        pytest.raises(StudyError, match="is being run by .*in a folder of its own"),
    ):
        run_study("attention", storage=postgres, trials=1, workers=1)
    engine.dispose()


# Parents in processes of their own. --------------------------------------------------------------


@pytest.fixture
def start(postgres, tmp_path):
    """Start a parent in a folder of its own; what is left at the end is killed."""
    running = []

    def start_(name, trials, pause, space="attention", lease=2, **flags):
        (tmp_path / name).mkdir(exist_ok=True)
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), str(PARENT.parent)]),
            SETTING: str(lease),
        }
        command = [sys.executable, PARENT, name, space, postgres, trials, pause, json.dumps(flags)]
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path / name,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start_
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


def said(process):
    """All that a parent said, once it has ended by itself."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines()


def wait_for(process, words):
    for line in process.stdout:
        if words in line:
            return int(line.split()[1].rstrip(":"))
    raise AssertionError(process.stderr.read())


@pytest.fixture
def stored(postgres):
    """The study as it is stored."""
    engines = []

    def read(name="attention"):
        engine = open_for_reading(storage_url(postgres))
        engines.append(engine)
        study = find_study(engine, name)
        return (
            study,
            read_trials(engine, study.id),
            read_attempts(engine, study.id),
            read_proposals(engine, study.id),
        )

    yield read
    for engine in engines:
        engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{"sampler": "random"}, {"sampler": "nsga2", "seeds": 2}])
def test_three_parents_run_every_trial_once(start, stored, postgres, flags):
    processes = [start(name, 36, 0.05, **flags) for name in ("one", "two", "three")]
    ended = [line for p in processes for line in said(p) if line.startswith("ended")]
    study, trials, tries, proposals = stored()
    assert sorted(ended) == sorted(f"ended {n}" for n in range(36))
    assert [t.number for t in trials] == list(range(36))
    assert {t.state for t in trials} == {"complete"}
    assert len({(t.digest, t.seed) for t in trials}) == 36
    assert sum(t.baseline and t.seed == 0 for t in trials) == 1
    assert [(a.trial, a.number, a.ending) for a in tries] == [(n, 1, "complete") for n in range(36)]
    by_parent = Counter(a.provenance["device"] for a in tries)
    assert len(by_parent) >= 2, by_parent
    assert [p.number for p in proposals] == list(range(len(proposals)))
    assert not [p for p in proposals if p.state == "open"]
    assert study.status == "finished"
    seen = mirrored_trials(postgres)
    assert [t.user_attrs["digest"] for t in seen] == [t.digest for t in trials]
    assert {t.state.name for t in seen} == {"COMPLETE"}


@pytest.mark.slow
def test_a_killed_parents_trial_is_evaluated_by_another(start, stored, postgres):
    killed = start("killed", 10, 600)
    number = wait_for(killed, "took")
    others = [start(name, 10, 0.1) for name in ("one", "two")]
    killed.send_signal(signal.SIGKILL)
    for process in others:
        assert json.loads(said(process)[-1]) == {"trials": 10, "note": "", "bad": ""}
    study, trials, tries, _ = stored()
    assert {t.state for t in trials} == {"complete"}
    assert len({(t.digest, t.seed) for t in trials}) == len(trials) == 10
    endings = [(a.number, a.ending) for a in tries if a.trial == number]
    assert endings == [(1, "lost"), (2, "complete")]
    assert len(tries) == 11
    assert study.status == "finished"
    assert {t.state.name for t in mirrored_trials(postgres)} == {"COMPLETE"}


@pytest.mark.slow
def test_a_parent_that_was_stopped_past_its_lease_records_nothing(start, stored):
    stopped = start("stopped", 6, 1.0)
    number = wait_for(stopped, "took")
    stopped.send_signal(signal.SIGSTOP)
    said(start("other", 6, 0.05))
    stopped.send_signal(signal.SIGCONT)
    lines = said(stopped)
    assert any(line.startswith(f"lost {number}: its lease of 2 s ran out") for line in lines)
    _, trials, tries, _ = stored()
    assert {t.state for t in trials} == {"complete"}
    made = {a.trial: a.provenance.get("device") for a in tries if a.ending == "complete"}
    assert made == dict.fromkeys(range(6), "other")
    endings = [(a.number, a.ending) for a in tries if a.trial == number]
    assert endings == [(1, "lost"), (2, "complete")]


@pytest.mark.slow
def test_parents_that_are_killed_again_and_again_lose_and_double_nothing(start, stored):
    for round_ in range(4):
        crowd = [start(f"{round_}-{n}", 30, 0.1, lease=1) for n in range(2)]
        for process in crowd:
            wait_for(process, "took")
        time.sleep(0.2 * round_)
        for process in crowd:
            process.kill()
    said(start("last", 30, 0.01, lease=1))
    study, trials, tries, proposals = stored()
    assert [t.number for t in trials] == list(range(30))
    assert {t.state for t in trials} == {"complete"}
    assert len({(t.digest, t.seed) for t in trials}) == 30
    complete = Counter(a.trial for a in tries if a.ending == "complete")
    assert complete == dict.fromkeys(range(30), 1)
    assert {a.ending for a in tries} == {"complete", "lost"}
    assert [p.number for p in proposals] == list(range(len(proposals)))
    assert study.status == "finished"


@pytest.mark.slow
def test_two_commands_train_one_study_together(postgres, tmp_path, small):
    command = [sys.executable, "-P", "-m", "search.cli", "run", "--space", small, "--storage"]
    command += [postgres, "--trials", "4", "--workers", "1"]
    processes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        processes.append(
            subprocess.Popen(
                command,
                cwd=tmp_path / name,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", SETTING: "5"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert "report: small-report.html" in out
    engine = open_for_reading(storage_url(postgres))
    study = find_study(engine, "small")
    assert [a.ending for a in read_attempts(engine, study.id)] == ["complete"] * 4
    owners = {a.owner for a in read_attempts(engine, study.id)}
    assert len(owners) == 2
    engine.dispose()
