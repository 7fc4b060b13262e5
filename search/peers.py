"""The further processes of a worker whose trials are trained by several processes together.

The first process is the worker that speaks with the parent. It starts the others as
``python -m search.worker --rank R``, hands them every assignment, and takes them with it when it
ends. Where one of them fails alone, the others would wait for it in the middle of a sum: then the
whole worker ends, and its trial is evaluated again by a new one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from search.devices import environment_of

GRACE_SECONDS = 10.0  # for the first process to meet the same end by itself


class Peers:
    """The processes of ranks 1 and up; started at once, they join when told the port.

    Args:
        options: What each is started with, beside parent and rank.
        gpus: One for each rank, rank 0's included; empty on a processor.
        processes: How many there are in all.
        device: "cpu" or "cuda".
        threads: Of each.
        deterministic: Whether they are to repeat themselves on a GPU.
    """

    def __init__(
        self,
        options: Sequence[str],
        gpus: Sequence[str],
        processes: int,
        *,
        device: str,
        threads: int,
        deterministic: bool,
    ) -> None:
        self._answered = threading.Condition()
        self._answers: dict[int, str] = {}
        self._busy = False
        self._processes: list[subprocess.Popen[bytes]] = []
        for rank in range(1, processes):
            command = [sys.executable, "-P", "-m", "search.worker", *options]
            command += ["--parent", str(os.getpid()), "--rank", str(rank)]
            own = gpus[rank] if gpus else None
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment_of(own, device, threads, deterministic=deterministic),
            )
            self._processes.append(process)
            reader = threading.Thread(target=self._read, args=(rank, process), daemon=True)
            reader.start()

    def send(self, message: dict[str, Any]) -> None:
        """Tell all of them the same."""
        line = json.dumps(message).encode() + b"\n"
        for process in self._processes:
            assert process.stdin is not None  # it is a pipe
            process.stdin.write(line)
            process.stdin.flush()

    def give(self, assignment: dict[str, Any]) -> None:
        """Hand all of them an assignment that this process takes up too."""
        with self._answered:
            self._answers.clear()
            self._busy = True
        self.send({"do": "evaluate", "assignment": assignment})

    def settled(self, seconds: float = GRACE_SECONDS) -> bool:
        """Whether all have come to an end of the assignment too, and none has failed."""
        with self._answered:
            self._answered.wait_for(lambda: len(self._answers) == len(self._processes), seconds)
            self._busy = False
            ends = list(self._answers.values())
        return len(ends) == len(self._processes) and not any(ends)

    @property
    def broken(self) -> bool:
        """Whether one has died or comes to no end; what this process met then does not count."""
        with self._answered:
            there = len(self._answers) == len(self._processes)
        return not there or any(process.poll() is not None for process in self._processes)

    def _read(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            self._note(rank, str(json.loads(line)["error"]))
        self._note(rank, f"it ended with code {process.wait()}")

    def _note(self, rank: int, error: str) -> None:
        """Note how a process has ended an assignment; where it failed alone, end everything."""
        with self._answered:
            self._answers[rank] = error
            self._answered.notify_all()
        if not error:
            return
        time.sleep(GRACE_SECONDS)
        with self._answered:
            alone = self._busy
        if alone:
            print(f"process {rank} of the trial failed: {error}", file=sys.stderr, flush=True)
            os._exit(1)
