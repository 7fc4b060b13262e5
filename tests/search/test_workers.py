"""The pool's workers: how their ends are noticed."""

import os
import signal
import sys
import time
from contextlib import suppress

from search import workers
from search.plan import make_plan
from search.study import execute
from search.watch import Silent
from search.workers import Worker

LEAVES_ONE_BEHIND = """
import os, sys, time
if os.fork():
    print('{"say": "ready", "provenance": {}}', flush=True)
    os._exit(3)
time.sleep(60)
"""

DIES_OVER_ITS_WORK = """
import os, sys
print('{"say": "ready", "provenance": {}}', flush=True)
sys.stdin.readline()
os._exit(3)
"""


class Heard(Silent):
    def __init__(self):
        self.words = []

    def lost(self, trial, cause):
        self.words.append((trial.number, "lost", cause))

    def finished(self, trial):
        self.words.append((trial.number, trial.state, trial.error))


def test_a_trial_that_is_given_up_is_said_to_have_failed(tmp_path, monkeypatch):
    command = [sys.executable, "-S", "-c", DIES_OVER_ITS_WORK]
    monkeypatch.setattr(workers, "_command", lambda plan, index: command)
    heard = Heard()
    plan = make_plan("attention", storage=f"sqlite:///{tmp_path}/x.db", trials=1, workers=1)
    execute(plan, heard)
    died = "crashed: its worker ended with exit code 3"
    assert heard.words == [
        *[(0, "lost", died)] * 3,
        (0, "failed", f"3 workers died over it; the last: {died}"),
    ]


def test_a_worker_that_leaves_a_process_behind_is_known_to_have_ended(tmp_path, monkeypatch):
    command = [sys.executable, "-S", "-c", LEAVES_ONE_BEHIND]
    monkeypatch.setattr(workers, "_command", lambda plan, index: command)
    worker = Worker(make_plan("attention", storage=f"sqlite:///{tmp_path}/x.db", workers=1), 0)
    try:
        said, ended, until = [], False, time.monotonic() + 20
        while not ended and time.monotonic() < until:
            messages, ended = worker.messages()
            said += messages
            time.sleep(0.01)
        assert ended, "its pipe is still open in the process that it left"
        assert said == [{"say": "ready", "provenance": {}}]
        assert "exit code 3" in worker.cause_of_death()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.close(at_once=True)
