"""Causes, the policy of each, and what a study does about them."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from instant import drive, outcome_of

from search import failures, show
from search.deaths import death_cause, memory_kills, telling_line
from search.failures import (
    MAX_HALVINGS,
    MISTAKE,
    POLICIES,
    Deaths,
    Mistakes,
    cause_of,
    last_lines,
    said,
    signature,
)
from search.outcome import FAILED, FINISHED, MOST_ERROR, WAITING, Outcome, storable
from search.reading import read_attempts, read_curves, read_proposals, read_trials

TRACEBACK = """Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/search/trial.py", line 135, in evaluate_candidate
    said = _trained(assignment)
           ^^^^^^^^^^^^^^^^^^^^
  File "{own}", line {line}, in forward
    return x.view({shape})
  File "/venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 9, in _call
    return forward(x)
{type}: shape '[{shape}]' is invalid
of an input of size {size}
"""


def traceback(own="/home/me/own.py", line=12, shape="3, 7", size=64, kind="RuntimeError"):
    return TRACEBACK.format(own=own, line=line, shape=shape, size=size, type=kind)


# The table. --------------------------------------------------------------------------------------


def test_every_policy_leaves_a_trial_waiting_or_finished():
    assert {policy.state for policy in POLICIES.values()} <= {WAITING, *FINISHED}
    for policy in POLICIES.values():
        again = policy.state == WAITING
        assert again == (policy.ending in ("lost", "interrupted"))
        assert again or not policy.deaths
    assert POLICIES["out of memory"].halvings == MAX_HALVINGS == 2
    assert [p.cause for p in POLICIES.values() if p.equal] == ["error"]


@pytest.mark.parametrize("cause", POLICIES)
def test_a_cause_is_read_back_from_what_is_stored(cause):
    policy = POLICIES[cause]
    assert cause_of(said(cause, "words: and more"), policy.ending) == cause


@pytest.mark.parametrize(
    ("text", "ending", "cause"),
    [
        # As the version before stored them.
        ("its worker ended with signal 9", "lost", "crashed"),
        ("the study was stopped", "interrupted", "stopped"),
        ("RuntimeError: x", "failed", "error"),
        ("training loss is nan in epoch 1", "diverged", "not a number"),
        ("trained, but its latency could not be measured: x", "complete", ""),
        ("", "complete", ""),
        ("", None, ""),
    ],
)
def test_what_earlier_versions_stored_has_a_cause_too(text, ending, cause):
    assert cause_of(text, ending) == cause


# Deaths. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "cause", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "signal 9 (SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "killed", "signal 15 (SIGTERM)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "signal 11 (SIGSEGV)"),
        ("os.abort()", "crashed", "signal 6 (SIGABRT)"),
        ("sys.exit(3)", "crashed", "exit code 3"),
        ("sys.exit(0)", "crashed", "exit code 0"),
    ],
)
def test_a_kill_is_told_from_a_crash(end, cause, words):
    code = subprocess.run([sys.executable, "-c", f"import os, signal, sys; {end}"]).returncode
    text = death_cause(code, "last words")
    assert text == f"{cause}: its worker ended with {words}: last words"
    assert cause_of(text, "lost") == cause


def test_the_systems_want_of_memory_is_told_from_a_users_kill():
    assert cause_of(death_cause(-9, starved=True), "lost") == "killed for memory"
    assert cause_of(death_cause(-15, starved=True), "lost") == "killed"
    assert cause_of(death_cause(-11, starved=True), "lost") == "crashed"
    assert memory_kills() >= 0


def test_a_native_fault_says_where_it_was():
    code = (
        "import faulthandler, ctypes\nfaulthandler.enable()\n"
        "def broken():\n    ctypes.string_at(0)\nbroken()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGSEGV
    assert telling_line(done.stderr) == "Fatal Python error: Segmentation fault"
    assert "in broken" in done.stderr
    assert telling_line("first\nsecond\n\n") == "second"
    assert telling_line("") == ""


def test_three_deaths_without_coming_further_are_too_many():
    deaths = Deaths()
    noted = [deaths.is_too_many(7, epochs, "killed: x") for epochs in (0, 0, 0)]
    assert noted == [False, False, True]
    # After epochs 1, 1, 2 and 3 it had come further; at 3 again, and after 2, it had not.
    deaths = Deaths()
    noted = [deaths.is_too_many(7, epochs, "crashed: x") for epochs in (1, 1, 2, 3, 3, 2)]
    assert noted == [False, False, False, False, False, True]
    assert not deaths.is_too_many(8, 0, "killed: x")


def test_a_trial_that_comes_further_between_deaths_is_not_given_up(opened):
    study = opened(trials=2)
    drive(study, stop_after=1)
    for epoch in range(1, 6):
        assignment = study.next_assignment()
        result = outcome_of(study.trials[1]).epochs[0]
        study.on_epoch(assignment.trial, replace(result, epoch=epoch))
        study.on_lost(assignment.trial, said("killed", "signal 9"), "its last words")
    assert study.trials[1].state == WAITING
    drive(study)
    assert study.trials[1].state == "complete"
    attempts = [a for a in read_attempts(study.store.engine, study.id) if a.trial == 1]
    assert [a.ending for a in attempts] == ["lost"] * 5 + ["complete"]
    assert attempts[0].traceback == "its last words"


def test_a_trial_that_is_given_up_has_the_last_cause(opened):
    study = opened(trials=2)
    drive(study, stop_after=1)
    for _ in range(3):
        number = study.next_assignment().trial
        study.on_lost(number, death_cause(-11, "Segmentation fault"), "where")
    last = read_attempts(study.store.engine, study.id)[-1]
    assert last.ending == "failed"
    assert last.cause.startswith("crashed: 3 workers died over it; the last: crashed: its worker")
    assert last.traceback == "where"


# Equal mistakes. ---------------------------------------------------------------------------------


def test_equal_mistakes_are_equal_whatever_their_messages_say():
    one = signature(traceback())
    assert one == (
        "RuntimeError",
        ("/venv/lib/python3.11/site-packages/torch/nn/modules/module.py", "9", "_call"),
        ("/home/me/own.py", "12", "forward"),
    )
    assert signature(traceback(shape="9, 9", size=4)) == one
    assert signature(traceback(line=13)) != one
    assert signature(traceback(kind="ValueError")) != one
    assert signature(traceback(own="/home/me/other.py")) != one


def test_this_tools_own_frames_count_although_it_is_installed():
    inside = traceback(own="/venv/lib/python3.11/site-packages/blocks/eca.py")
    assert signature(inside)[2] == (
        "/venv/lib/python3.11/site-packages/blocks/eca.py", "12", "forward",
    )  # fmt: skip


def test_of_a_chain_of_exceptions_the_last_counts():
    chain = "Traceback (most recent call last):\n"
    chain += "  File \"a.py\", line 1, in f\nKeyError: 'x'\n"
    chain += "\nDuring handling of the above exception, another exception occurred:\n\n"
    assert signature(chain + traceback()) == signature(traceback())


def test_a_real_traceback_is_read():
    code = "def f(x):\n    return 1 / x\nf(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert signature(done.stderr)[:2] == ("ZeroDivisionError", ("<string>", "2", "f"))
    assert last_lines(done.stderr)[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    "text", ["", "no traceback at all", "Traceback (most recent call last):\n"]
)
def test_without_frames_nothing_is_equal(text):
    assert signature(text) is None
    assert Mistakes().note(1, "error", text) == []


def test_the_third_equal_mistake_is_one_too_many():
    mistakes = Mistakes()
    assert mistakes.note(1, "error", traceback(size=1)) == []
    assert mistakes.note(2, "error", traceback(line=99)) == []
    assert mistakes.note(4, "error", traceback(size=2)) == []
    assert mistakes.note(5, "out of memory", traceback(size=2)) == []
    assert mistakes.note(6, "error", traceback(size=3)) == [1, 4, 6]


def fail(study, text):
    """Let the next trial fail with a traceback."""
    assignment = study.next_assignment()
    error = text.strip().splitlines()[-2]
    study.on_finish(assignment.trial, Outcome("failed", error=error, traceback=text), {})
    return assignment.trial


def test_a_study_stops_after_three_equal_tracebacks_and_runs_again(opened):
    study = opened(trials=9)
    drive(study, stop_after=1)
    fail(study, traceback(size=1))
    fail(study, traceback(line=50))
    fail(study, traceback(size=2))
    running = study.next_assignment()
    assert study.why_idle() == ""
    fail(study, traceback(size=3))
    assert study.next_assignment() is None
    assert study.why_idle() == "the same mistake has ended too many trials"
    assert not study.is_finished, "what runs is finished"
    study.on_finish(running.trial, outcome_of(study.trials[running.trial]), {})
    assert study.is_finished
    status, note = study.ending()
    assert status == "stopped"
    assert "ended trials 1, 3, 5 (RuntimeError" in note
    assert "\n" not in note
    result = study.result()
    assert "  of an input of size 3\n`search show attention 5` shows the whole" in result.stopped
    # The count starts anew with every process.
    again = opened(trials=9)
    fail(again, traceback(size=4))
    fail(again, traceback(size=5))
    assert drive(again) == 1
    assert len(again.trials) == 9


def test_failed_trials_are_tried_again_under_their_numbers(opened, mirrored):
    states = {1: "failed", 3: "failed", 4: "diverged"}
    study = opened(trials=6)
    drive(study, state_of=lambda trial: states.get(trial.number, "complete"))
    mirrored(study)
    before = {t.number: (t.digest, t.seed) for t in study.trials.values()}
    again = opened(trials=6, retry_failed=True)
    assert again.retried == [1, 3]
    assert [again.trials[n].state for n in (1, 3, 4)] == ["waiting", "waiting", "diverged"]
    assert read_curves(again.store.engine, again.id).keys() == {0, 2, 4, 5}
    open_ = [p.digest for p in read_proposals(again.store.engine, again.id) if p.state == "open"]
    assert open_ == [before[1][0], before[3][0]]
    numbers = []
    while (assignment := again.next_assignment()) is not None:
        numbers.append((assignment.trial, assignment.attempt))
        again.on_finish(assignment.trial, outcome_of(again.trials[assignment.trial]), {})
    assert numbers == [(1, 2), (3, 2)]
    assert {t.number: (t.digest, t.seed) for t in again.trials.values()} == before
    stored = read_trials(again.store.engine, again.id)
    assert [t.state for t in stored] == ["complete"] * 4 + ["diverged", "complete"]
    assert [t.error for t in stored][:4] == [""] * 4
    told = {p.digest: p.state for p in read_proposals(again.store.engine, again.id)}
    assert [told[before[n][0]] for n in (1, 3, 4)] == ["complete", "complete", "failed"]
    attempts = [a for a in read_attempts(again.store.engine, again.id) if a.trial == 1]
    assert [a.ending for a in attempts] == ["failed", "complete"]
    assert attempts[0].traceback == "Traceback of the planted error"
    mirrored(again, rebuild=True)
    assert opened(trials=6, retry_failed=True).retried == []


# What is shown. ----------------------------------------------------------------------------------


def test_causes_are_counted_and_named(opened):
    study = opened(trials=4)
    drive(study, stop_after=1)
    study.on_lost(study.next_assignment().trial, death_cause(-9))
    fail(study, traceback())
    number = study.next_assignment().trial
    study.on_finish(number, Outcome("diverged", error="loss is nan"), {})
    study.next_assignment()
    study.interrupt()
    data = show.study_data(study.store.engine, "attention")
    assert data["causes"] == {"killed": 1, "stopped": 1, "not a number": 1, "error": 1}
    assert failures.failures_words(data["causes"]).startswith("1 killed, 1 stopped")
    assert [trial.get("cause") for trial in data["trials"]] == [None, "error", "not a number", None]
    one = show.one_trial_data(study.store.engine, "attention", 1)
    assert [a["kind"] for a in one["attempts"]] == ["killed", "error"]
    assert "own.py" in one["attempts"][1]["traceback"]


def test_a_study_without_failures_says_nothing_of_them(opened):
    study = opened(trials=2)
    drive(study)
    assert "causes" not in show.study_data(study.store.engine, "attention")


def test_what_anybodys_code_says_can_be_kept(parents):
    words = storable("odd \udcff and \0 " + "y" * 5000, MOST_ERROR)
    assert words.startswith("odd \\udcff and \\x00 yyy")
    assert " [...] yyy" in words
    assert len(words) < MOST_ERROR + 10
    assert storable("plain ünïcode", MOST_ERROR) == "plain ünïcode"
    study = parents(trials=1)
    number = study.next_assignment().trial
    said = Outcome(FAILED, error="odd \udcff \0", traceback="odd \udcff \0", cause=MISTAKE)
    study.on_finish(number, Outcome.from_json(said.to_json()), {})
    assert read_trials(study.store.engine, study.id)[0].error == "odd \\udcff \\x00"
