"""The server of a shared study goes away in the middle: waited for, and nothing lost or doubled."""

import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass

import pytest
import quick
from instant import PROVENANCE, drive, outcome_of
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from blocks.errors import StorageFault
from search import faults
from search.database import open_for_reading, open_for_writing, storage_url
from search.faults import fault_of
from search.leases import SETTING, Heartbeat, LeaseLostError
from search.postgres import PATIENCE, patience_of
from search.reading import find_study, read_attempts, read_proposals, read_trials


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(faults, "RETRY_SECONDS", 0.05)


@pytest.fixture
def cut(postgres_server, postgres):
    """End every connection to the test's database, as a restart of its server does."""
    name = storage_url(postgres).database
    url = postgres_server("postgres")
    engine = create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    ended = text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def cut_():
        with engine.connect() as connection:
            connection.execute(ended)

    yield cut_
    engine.dispose()


@pytest.fixture
def armed(parents):
    """A parent as one that runs, and what it says."""

    def armed_(**flags):
        study = parents(**flags)
        said = []
        study.store.outlast.arm(said.append, lambda: False)
        return study, said

    return armed_


def once(function, before):
    """The function; at its first call ``before`` is called before it."""
    called = []

    def wrapped(*args, **named):
        if not called:
            called.append(1)
            before()
        return function(*args, **named)

    return wrapped


def stored(study):
    engine = study.store.engine
    trials, tries = read_trials(engine, study.id), read_attempts(engine, study.id)
    return trials, tries, read_proposals(engine, study.id)


def check_whole(trials, tries, proposals, total):
    """Exact totals, no pair twice, one success a trial, every attempt ended and every one told."""
    assert [t.number for t in trials] == list(range(total))
    assert {t.state for t in trials} == {"complete"}
    assert len({(t.digest, t.seed) for t in trials}) == total
    successes = Counter(a.trial for a in tries if a.ending == "complete")
    assert successes == dict.fromkeys(range(total), 1)
    assert all(a.finished is not None for a in tries)
    assert all(a.cause for a in tries if a.ending != "complete")
    assert [p.number for p in proposals] == list(range(len(proposals)))
    assert not [p for p in proposals if p.state == "open"]


# Which fault it is. ------------------------------------------------------------------------------


def error_of(url, *statements):
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    except DBAPIError as error:
        return error
    finally:
        engine.dispose()
    return None


def test_errors_of_a_server_are_told_apart(postgres, tmp_path):
    killed = error_of(postgres, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert fault_of(killed) is faults.GONE
    nowhere = error_of(f"postgresql+psycopg://nobody@/none?host={tmp_path}", "SELECT 1")
    assert fault_of(nowhere) is faults.GONE
    slow = error_of(postgres, "SET statement_timeout = 10", "SELECT pg_sleep(5)")
    assert fault_of(slow) is faults.LOCKED
    fixed = error_of(postgres, "SET TRANSACTION READ ONLY", "CREATE TABLE x (y INTEGER)")
    assert fault_of(fixed).words == "it can only be read"
    assert "primary server" in fault_of(fixed).cure
    assert fault_of(error_of(postgres, "SELECT * FROM nothing")) is None
    assert fault_of(error_of(postgres, "SELECT 1 / 0")) is None


@dataclass
class CodedError(Exception):
    sqlstate: str | None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("53100", "its disk is full"),
        ("53300", "its server has no connection or memory left"),
        ("57P01", "its server cannot be reached"),
        ("08006", "its server cannot be reached"),
        ("40P01", "another program keeps it locked"),
        ("58030", "its disk cannot be read or written"),
        (None, "its server cannot be reached"),
        ("23505", None),
        ("XX001", None),
    ],
)
def test_codes_of_a_server(code, words):
    fault = fault_of(OperationalError("", {}, CodedError(code)))
    assert (fault and fault.words) == words


def test_a_silent_server_is_not_waited_for_without_end():
    url = storage_url("postgresql://me@server/studies?connect_timeout=3")
    assert patience_of(url) == {n: v for n, v in PATIENCE.items() if n != "connect_timeout"}
    assert patience_of(storage_url("sqlite:///x.db")) == {}
    engine = create_engine(url, connect_args=patience_of(url))
    engine.dispose()


# One parent whose connections are cut. -----------------------------------------------------------


def test_a_decision_that_a_cut_spoilt_is_made_again(armed, opened, cut, monkeypatch):
    study, said = armed(trials=12, sampler="nsga2")
    whole = opened(trials=12, sampler="nsga2")
    assert drive(whole) == 12
    assert drive(study, stop_after=4) == 4
    monkeypatch.setattr(study.store, "add_trials", once(study.store.add_trials, cut))
    assert drive(study, stop_after=4) == 4
    monkeypatch.setattr(study.store, "_take", once(study.store._take, cut))
    assert drive(study) == 4
    assert len(said) == 4
    assert "its server cannot be reached; check that its server runs" in said[0]
    assert said[1].endswith("can be written again")
    trials, tries, proposals = stored(study)
    check_whole(trials, tries, proposals, 12)
    assert len(tries) == 12
    expected = stored(whole)
    assert [t.digest for t in trials] == [t.digest for t in expected[0]]
    assert [p.values for p in proposals] == [p.values for p in expected[2]]


@pytest.mark.parametrize("method", ["_end_attempt", "_tell"])
def test_a_result_that_a_cut_kept_from_being_written_is_written_once(
    armed, cut, monkeypatch, method
):
    study, said = armed(trials=6, seeds=2)
    assert drive(study, stop_after=3) == 3
    monkeypatch.setattr(study.store, method, once(getattr(study.store, method), cut))
    assert drive(study) == 3
    assert len(said) == 2
    check_whole(*stored(study), 6)
    assert {n: t.state for n, t in study.trials.items()} == dict.fromkeys(range(6), "complete")
    assert study.is_finished


def test_a_result_that_was_written_before_the_cut_is_not_taken_for_lost(armed, cut, monkeypatch):
    study, said = armed(trials=6)
    real, answers = study.store.finish_trial, []

    def unanswered(*args, **named):
        key = real(*args, **named)
        answers.append(key)
        if len(answers) == 1:
            cut()
            raise OperationalError("COMMIT", {}, CodedError(None))
        return key

    monkeypatch.setattr(study.store, "finish_trial", unanswered)
    assert drive(study) == 6
    assert answers[0] == answers[1]
    assert len(set(answers)) == 6
    assert len(said) == 2
    check_whole(*stored(study), 6)


def test_a_trial_that_was_taken_before_the_cut_is_begun_all_the_same(armed, cut, monkeypatch):
    # Its lease is this parent's and is renewed with the others; nobody else could ever take it.
    study, said = armed(trials=4)
    real, answers = study.store.start_attempt, []

    def unanswered(*args, **named):
        answers.append(args[1])
        key = real(*args, **named)
        if len(answers) == 1:
            cut()
            raise OperationalError("COMMIT", {}, CodedError(None))
        return key

    monkeypatch.setattr(study.store, "start_attempt", unanswered)
    assert drive(study) == 4
    assert study.is_finished
    assert len(said) == 2
    check_whole(*stored(study), 4)


def test_a_trial_that_another_took_over_during_the_cut_is_lost(armed, parents, cut, monkeypatch):
    study, _ = armed(trials=2)
    other = parents(trials=2)
    assignment = study.next_assignment()

    def taken():
        cut()
        with study.store.engine.begin() as connection:
            connection.execute(text("UPDATE search_leases SET expires = now() - interval '1 s'"))
        assert drive(other) == 2
        raise OperationalError("", {}, CodedError(None))

    monkeypatch.setattr(study.store, "finish_trial", once(study.store.finish_trial, taken))
    outcome = outcome_of(study.trials[assignment.trial])
    with pytest.raises(LeaseLostError):
        study.on_finish(assignment.trial, outcome, PROVENANCE)
    trials, tries, proposals = stored(study)
    endings = [(a.number, a.ending) for a in tries if a.trial == assignment.trial]
    assert endings == [(1, "lost"), (2, "complete")]
    check_whole(trials, tries, proposals, 2)
    assert study.next_assignment() is None
    assert study.is_finished


def test_a_death_counts_once_however_often_it_is_written(armed, cut, monkeypatch):
    study, said = armed(trials=1)
    number = study.next_assignment().trial
    monkeypatch.setattr(study.store, "_end_attempt", once(study.store._end_attempt, cut))
    study.on_lost(number, "killed: planted")
    assert study.next_assignment().trial == number
    study.on_lost(number, "killed: planted")
    assert len(said) == 2
    assert study.trials[number].state == "waiting", "two deaths are not three"
    assert drive(study) == 1
    _, tries, _ = stored(study)
    assert [a.ending for a in tries] == ["lost", "lost", "complete"]


def test_a_server_that_stays_away_ends_the_study_and_its_leases(armed, monkeypatch):
    monkeypatch.setattr(faults, "WAIT_SECONDS", 0.2)
    study, _ = armed(trials=2)
    assignment = study.next_assignment()

    def gone(*args):
        raise OperationalError("", {}, CodedError(None))

    monkeypatch.setattr("search.sharing.one_at_a_time", gone)
    with pytest.raises(StorageFault, match="its server cannot be reached. What had finished is"):
        study.on_finish(assignment.trial, outcome_of(study.trials[assignment.trial]), PROVENANCE)
    assert study.store.outlast.given_up
    study.sharing.fall_silent()
    assert not study.sharing._heartbeat._thread.is_alive()
    monkeypatch.undo()


def test_leases_that_nobody_could_renew_are_left_to_their_parents(armed):
    first, _ = armed(trials=3)
    second, _ = armed(trials=3)
    running = [first.next_assignment().trial for _ in range(2)]
    with first.store.engine.begin() as connection:
        ran_out = "UPDATE search_leases SET expires = now() - interval '1 s'"
        connection.execute(text(ran_out))
    second.sharing.leases.be_patient()
    assert drive(second) == 1, "the one that nobody had"
    assert second.sharing.elsewhere
    for number in running:
        first.on_finish(number, outcome_of(first.trials[number]), PROVENANCE)
    check_whole(*stored(first), 3)
    assert len(stored(first)[1]) == 3


def test_a_heartbeat_that_fails_makes_patient(armed, monkeypatch):
    study, _ = armed(trials=1)
    leases = study.sharing.leases
    leases.seconds = 0.2
    assert leases.patient_until == 0.0

    def gone():
        raise OperationalError("", {}, CodedError(None))

    monkeypatch.setattr(leases, "renew", gone)
    heartbeat = Heartbeat(leases)
    until = time.monotonic() + 10
    while not leases.patient_until and time.monotonic() < until:
        time.sleep(0.01)
    heartbeat.close()
    assert leases.patient_until > time.monotonic()


# Whole parents. ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_parents_outlast_cuts_and_restarts(postgres_server, postgres, cut, tmp_path):
    context = multiprocessing.get_context("forkserver")
    given = {"trials": 40, "epochs": 2, "workers": 2, "seeds": 2, "sampler": "random"}
    processes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        arguments = (
            tmp_path / name,
            "attention",
            0.1,
            {"storage": postgres, **given},
            {SETTING: "4"},
        )
        processes.append(context.Process(target=quick.run_in, args=arguments, daemon=True))
    for process in processes:
        process.start()
    open_for_writing(storage_url(postgres)).dispose()
    count = text("SELECT count(*) FROM search_trials WHERE state = 'complete'")
    watching = create_engine(postgres, pool_pre_ping=True)
    for target, hit in ((4, cut), (10, cut), (16, "immediate"), (24, "fast"), (30, cut)):
        until = time.monotonic() + 60
        while True:
            with watching.connect() as connection:
                if connection.execute(count).scalar_one() >= target:
                    break
            assert time.monotonic() < until
            time.sleep(0.05)
        if hit is cut:
            cut()
            continue
        watching.dispose()
        postgres_server.stop(hit)
        time.sleep(1)
        postgres_server.start()
    for process in processes:
        process.join(90)
        assert process.exitcode == 0
    watching.dispose()
    engine = open_for_reading(storage_url(postgres))
    study = find_study(engine, "attention")
    trials, tries = read_trials(engine, study.id), read_attempts(engine, study.id)
    check_whole(trials, tries, read_proposals(engine, study.id), 40)
    engine.dispose()
    assert study.status == "finished"
    assert {a.cause for a in tries if a.ending == "lost"} <= {"parent ended: its lease ran out"}
