"""A worker that trains nothing: it speaks as ``search.worker`` does, and needs no torch.

As a script: ``python instant_worker.py --parent PID [--seconds S]``; every epoch takes about S.
"""

import argparse
import json
import os
import queue
import random
import signal
import sys
import threading
import time

from instant import PROVENANCE, accuracy_of

from search.outcome import EpochResult, Outcome
from search.worker import _read_messages, _send, die_with_parent


def result_of(assignment, epoch):
    """What an epoch of a trial gives: always the same."""
    what = json.dumps([assignment["architecture"], assignment["training"]], sort_keys=True)
    accuracy = accuracy_of(what, assignment["seed"]) - 0.01 / epoch
    return EpochResult(epoch, 0.5, 0.8, 0.4, accuracy, 0.1, 0.01)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    messages = queue.SimpleQueue()
    threading.Thread(target=_read_messages, args=(sys.stdin, messages), daemon=True).start()
    _send(sys.stdout, {"say": "ready", "provenance": PROVENANCE})
    while (message := messages.get())["do"] != "leave":
        assignment, results = message["assignment"], []
        for epoch in range(1, assignment["training"]["epochs"] + 1):
            time.sleep(random.uniform(0, 2 * arguments.seconds))
            results.append(result_of(assignment, epoch))
            _send(sys.stdout, {"say": "epoch", "result": results[-1].__dict__})
            messages.get()
        last = results[-1].accuracy
        measured = (
            ("validation", "accuracy", last),
            ("test", "accuracy", last - 0.01),
            ("validation", "curve_area", last),
        )
        outcome = Outcome("complete", tuple(results), measured, 0.01)
        _send(sys.stdout, {"say": "outcome", "outcome": outcome.to_json()})
    os._exit(0)


if __name__ == "__main__":
    main()
