"""A worker that trains nothing, and times a network only while another's training goes on.

As a script: ``python timing_worker.py --parent PID FOLDER``; a file ``trained`` in the folder says
that a parent has let a training go on after an epoch.
"""

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path

from instant import PROVENANCE
from instant_worker import result_of

from search.outcome import Outcome
from search.worker import _read_messages, _send, die_with_parent

PATIENCE = 15.0  # seconds in which another worker starts and trains an epoch


def timed(trained):
    """The outcome of a timing: far too slow where nobody trained meanwhile."""
    until = time.monotonic() + PATIENCE
    while not trained.exists() and time.monotonic() < until:
        time.sleep(0.02)
    ratio = 1.0 if trained.exists() else 1000.0
    time.sleep(0.3)  # the other's outcome comes before this one
    measured = (("speed", "latency_ratio", ratio), ("speed", "latency_ms", 1.0))
    return Outcome("complete", measurements=measured)


def main():
    parent, trained = int(sys.argv[2]), Path(sys.argv[3]) / "trained"
    die_with_parent(parent)
    messages = queue.SimpleQueue()
    threading.Thread(target=_read_messages, args=(sys.stdin, messages), daemon=True).start()
    _send(sys.stdout, {"say": "ready", "provenance": PROVENANCE})
    while (message := messages.get())["do"] != "leave":
        assignment = message["assignment"]
        if assignment["trained"]:
            _send(sys.stdout, {"say": "outcome", "outcome": timed(trained).to_json()})
            continue
        result = result_of(assignment, 1)
        _send(sys.stdout, {"say": "epoch", "result": result.__dict__})
        assert json.dumps(messages.get()) == '{"go_on": true}'
        trained.touch()
        measured = [(split, "accuracy", result.accuracy) for split in ("validation", "test")]
        measured.append(("speed", "latency_ratio", 1.0))
        outcome = Outcome("complete", (result,), tuple(measured), 0.01)
        _send(sys.stdout, {"say": "outcome", "outcome": outcome.to_json()})
    os._exit(0)


if __name__ == "__main__":
    main()
