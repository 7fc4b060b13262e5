"""The pool's workers: how their ends are noticed."""

import os
import signal
import sys
import time
from contextlib import suppress

from search import workers
from search.plan import make_plan
from search.workers import Worker

LEAVES_ONE_BEHIND = """
import os, sys, time
if os.fork():
    print('{"say": "ready", "provenance": {}}', flush=True)
    os._exit(3)
time.sleep(60)
"""


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
