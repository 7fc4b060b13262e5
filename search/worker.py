"""A worker process: reads assignments from standard input, writes results to standard output.

Started as ``python -m search.worker``; one JSON object per line in both directions. It pays the
import of torch once, pins its threads, and ends when its parent ends, whatever the reason: the
kernel kills it with the parent where it can (PR_SET_PDEATHSIG), and a thread that reads standard
input ends it at end of file everywhere.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import queue
import signal
import sys
import threading
from typing import Any, TextIO

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process with its parent; end now where that is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _read_messages(stream: TextIO, messages: queue.SimpleQueue[Any]) -> None:
    for line in stream:
        messages.put(json.loads(line))
    os._exit(1)  # the parent closed the pipe: nobody would read what is being computed


def _send(stream: TextIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def main() -> None:
    """Evaluate assignments until told to leave."""
    parser = argparse.ArgumentParser(prog="python -m search.worker", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process to live with")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--include", action="append", default=[], help="a file with own blocks")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means

    # Results go to the pipe; what libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_messages, args=(sys.stdin, messages), daemon=True)
    reader.start()

    import torch

    from search.include import include
    from search.outcome import Assignment, EpochResult
    from search.provenance import worker_provenance
    from search.trial import evaluate_candidate

    torch.set_num_threads(arguments.threads)
    for path in arguments.include:
        include(path)
    device = torch.device(arguments.device)
    provenance = worker_provenance(arguments.device, arguments.threads)
    _send(answers, {"say": "ready", "provenance": provenance})

    def goes_on(result: EpochResult) -> bool:
        _send(answers, {"say": "epoch", "result": result.__dict__})
        return bool(messages.get()["go_on"])

    while True:
        message = messages.get()
        if message["do"] == "leave":
            os._exit(0)  # everything is sent; taking torch down in order would cost a second
        assignment = Assignment(**message["assignment"])
        outcome = evaluate_candidate(
            assignment, device=device, goes_on=goes_on, provenance=provenance
        )
        _send(answers, {"say": "outcome", "outcome": outcome.to_json()})


if __name__ == "__main__":
    main()
