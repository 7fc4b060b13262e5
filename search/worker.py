"""A worker process: reads assignments from standard input, writes results to standard output.

Started as ``python -m search.worker``; one JSON object per line in both directions. It pays the
import of torch once, pins its threads, and ends when its parent ends, whatever the reason: the
kernel kills it with the parent where it can (PR_SET_PDEATHSIG), and a thread that reads standard
input ends it at end of file everywhere.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

from search.outcome import FAILED
from search.peers import Peers

if TYPE_CHECKING:
    import torch

    from search.distributed import Alone

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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m search.worker", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process to live with")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--processes", type=int, default=1, help="that train a trial together")
    parser.add_argument("--rank", type=int, default=0, help="of this process among them")
    parser.add_argument("--gpus", default="", help="one for each of them")
    parser.add_argument("--include", action="append", default=[], help="a file with own blocks")
    return parser.parse_args()


def _peers(arguments: argparse.Namespace) -> Peers | None:
    """The other processes of this worker's trials; None where it trains them alone, or is one."""
    if arguments.processes == 1 or arguments.rank:
        return None
    options = ["--device", arguments.device, "--threads", str(arguments.threads)]
    options += ["--processes", str(arguments.processes)]
    options += ["--deterministic"] * arguments.deterministic
    for path in arguments.include:
        options += ["--include", path]
    return Peers(
        options,
        tuple(filter(None, arguments.gpus.split(","))),
        arguments.processes,
        device=arguments.device,
        threads=arguments.threads,
        deterministic=arguments.deterministic,
    )


def _division(
    arguments: argparse.Namespace, peers: Peers | None, messages: queue.SimpleQueue[Any]
) -> Alone:
    """How this process shares its trials with others."""
    from search.distributed import ALONE, join, open_store

    if arguments.processes == 1:
        return ALONE
    store = open_store(0 if peers else messages.get()["port"])
    if peers:
        peers.send({"do": "join", "port": store.port})
    return join(store, arguments.rank, arguments.processes, arguments.device)


def main() -> None:
    """Evaluate assignments until told to leave."""
    arguments = _arguments()
    die_with_parent(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means

    # Results go to the pipe; what libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()  # a fault in native code says where it was
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_messages, args=(sys.stdin, messages), daemon=True)
    reader.start()
    peers = _peers(arguments)  # they import torch while this process does

    import torch

    from search.devices import prepare_torch
    from search.include import include
    from search.outcome import Assignment, EpochResult
    from search.provenance import worker_provenance
    from search.trial import evaluate_candidate

    prepare_torch(arguments.device, arguments.threads, deterministic=arguments.deterministic)
    for path in arguments.include:
        include(path)
    device = torch.device(arguments.device)
    division = _division(arguments, peers, messages)
    provenance = worker_provenance(
        arguments.device,
        arguments.threads,
        processes=arguments.processes,
        deterministic=arguments.deterministic,
    )
    if division.first:
        _send(answers, {"say": "ready", "provenance": provenance})

    def goes_on(result: EpochResult) -> bool:
        _send(answers, {"say": "epoch", "result": result.__dict__})
        return bool(messages.get()["go_on"])

    while True:
        message = messages.get()
        if message["do"] == "leave":
            os._exit(0)  # everything is sent; taking torch down in order would cost a second
        if message["do"] == "memory":
            _send(answers, {"say": "kept", **_kept(message)})
            continue
        if message["do"] == "probe":
            _send(answers, {"say": "probed", **_probed(message, device)})
            continue
        assignment = Assignment(**message["assignment"])
        together = peers if peers and not assignment.trained else None
        if together:
            together.give(message["assignment"])
        outcome = evaluate_candidate(
            assignment, device=device, goes_on=goes_on, provenance=provenance, division=division
        )
        failed = outcome.state == FAILED
        if not division.first:
            _send(answers, {"error": outcome.error if failed else ""})
            continue
        sound = together is None or (together.settled() and not failed)
        if failed and together and together.broken:
            print(f"another process of the trial has ended: {outcome.error}", file=sys.stderr)
            os._exit(1)  # no outcome: the trial is evaluated again
        _send(answers, {"say": "outcome", "outcome": outcome.to_json()})
        if not sound:
            os._exit(0)  # processes that have parted cannot meet again: a new worker takes over


def _probed(message: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """How fast a network trains here, beside others; what of memory was free before."""
    from search.outcome import Assignment
    from search.probe import probe

    assignment = Assignment(**message["assignment"])
    seconds, evaluation = message["seconds"], message.get("evaluation", 0.0)
    return probe(assignment, device, seconds=seconds, evaluation=evaluation)


def _kept(message: dict[str, Any]) -> dict[str, Any]:
    """What networks keep in memory for an image, and the peaks of some of them, by digest."""
    from blocks.architecture import Architecture
    from blocks.backbone import site_table
    from search.measured import kept_for_training, peaks_of

    table = site_table(message["backbone"], tuple(message["input_shape"]), message["classes"])
    asked = [Architecture.from_json(one) for one in message["architectures"]]
    peaks = {a.digest: peaks_of(table, a) for a in asked} if message["peaks"] else {}
    return {"kept": kept_for_training(table, asked), "peaks": peaks}


if __name__ == "__main__":
    main()
