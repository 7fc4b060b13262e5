"""Worker processes on this machine, and the loop that drives a study with them.

A worker is ``python -m search.worker``: one assignment at a time, one JSON object per line through
its pipes. It is started when there is work for it and stays warm. The parent alone writes to the
database.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from blocks.errors import StudyError
from search.deaths import death_cause, memory_kills, telling_line
from search.devices import environment_of, gpus_of
from search.engine import Study
from search.interruption import Interrupted
from search.leases import LeaseLostError
from search.outcome import FAILED, Assignment, EpochResult, Outcome, storable
from search.plan import StudyPlan
from search.watch import Watch
from spaces.candidate import Candidate

TICK_SECONDS = 0.25
LEAVE_SECONDS = 5.0
MAX_FAILED_STARTS = 3
TAIL_BYTES = 4000


class Worker:
    """One process and what it is doing.

    Args:
        plan: Says device, threads and included files.
        index: Its place, which decides its GPU.
    """

    def __init__(self, plan: StudyPlan, index: int) -> None:
        self.assignment: Assignment | None = None
        self.ready = False
        self.provenance: dict[str, Any] = {}
        self.last_words = ""
        self._memory_kills = memory_kills()
        self._buffer = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self.process = subprocess.Popen(
            _command(plan, index),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(plan, index),
            start_new_session=True,
        )
        assert self.process.stdout is not None  # it is a pipe
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def stdout(self) -> Any:
        """The pipe on which it answers."""
        return self.process.stdout

    def give(self, assignment: Assignment) -> None:
        """Hand it an assignment, now or as soon as it is ready."""
        self.assignment = assignment
        if self.ready:
            self.send({"do": "evaluate", "assignment": assignment.to_json()})

    def send(self, message: dict[str, Any]) -> None:
        """Write a message; a worker that has died is noticed by its silence."""
        assert self.process.stdin is not None  # it is a pipe
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def messages(self) -> tuple[list[dict[str, Any]], bool]:
        """(what it has said since, whether it has ended).

        A process that it has left behind can keep its pipe open.
        """
        gone = self.process.poll() is not None
        ended = False
        while True:
            chunk = self.stdout.read(65536)
            if chunk is None:
                ended = gone
                break
            if not chunk:
                ended = True
                break
            self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines if line], ended

    def cause_of_death(self) -> str:
        """Why it has ended, as it is stored; ``last_words`` is then what it left."""
        code = self.process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - TAIL_BYTES))
        words = self._errors.read().decode(errors="replace").strip()
        self.last_words = storable(words, TAIL_BYTES)
        starved = memory_kills() > self._memory_kills
        return death_cause(code, telling_line(self.last_words), starved=starved)

    def close(self, *, at_once: bool) -> None:
        """End the process: politely, or at once."""
        if at_once:
            self.process.kill()
        else:
            self.send({"do": "leave"})
        try:
            self.process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            with suppress(OSError, BrokenPipeError):
                stream.close() if stream else None


def _command(plan: StudyPlan, index: int) -> list[str]:
    command = [sys.executable, "-P", "-m", "search.worker", "--parent", str(os.getpid())]
    command += ["--device", plan.device, "--threads", str(plan.threads)]
    if plan.deterministic:
        command.append("--deterministic")
    if plan.processes > 1:
        command += ["--processes", str(plan.processes)]
        command += ["--gpus", ",".join(gpus_of(index, plan.gpus, plan.processes))]
    for path in plan.includes:
        command += ["--include", path]
    return command


def _environment(plan: StudyPlan, index: int) -> dict[str, str]:
    own = next(iter(gpus_of(index, plan.gpus, plan.processes)), None)
    return environment_of(own, plan.device, plan.threads, deterministic=plan.deterministic)


class Pool:
    """Drives one study with several workers until there is nothing left to do."""

    def __init__(self, study: Study, watch: Watch) -> None:
        self.study = study
        self.watch = watch
        self.selector = selectors.DefaultSelector()
        self.slots: list[Worker | None] = [None] * study.plan.workers
        self.failed_starts = 0
        self.asking = 0  # the slot for which an assignment is being chosen
        self.stopped: list[int] = []
        study.screen.time = self._time
        self.announced = ""
        self.unheard: list[tuple[int, dict[str, Any]]] = []  # outcomes that came while one decided
        self.ended: list[int] = []  # slots whose worker ended then

    def run(self, stopped: list[int]) -> None:
        """Keep the workers busy until the study ends or a signal arrives.

        Raises:
            Interrupted: A signal arrived.
            StudyError: Workers cannot be started.
        """
        self.stopped = stopped
        while True:
            self._check_stopped()
            self._assign()
            while self._hear_the_rest():
                self._assign()
            running = sum(bool(worker and worker.assignment) for worker in self.slots)
            if not running and not self._is_awaiting():
                return
            self._announce(running)
            heard = {key.data for key, _ in self.selector.select(TICK_SECONDS)}
            for index, worker in enumerate(self.slots):
                if worker and (index in heard or worker.process.poll() is not None):
                    self._hear(index)
            self.study.meter.beat()
            self.watch.tick()

    def _is_awaiting(self) -> bool:
        """Whether other parents evaluate trials that this one is to wait for."""
        return self.study.sharing.elsewhere and not self.study.is_finished

    def _assign(self) -> None:
        for index, worker in enumerate(self.slots):
            if worker is not None and worker.assignment is not None:
                continue
            self.asking = index
            assignment = self.study.next_assignment()
            if assignment is None:
                return
            self._worker(index).give(assignment)

    def _worker(self, index: int) -> Worker:
        """The worker of a slot, started where there is none."""
        worker = self.slots[index]
        if worker is None:
            worker = self.slots[index] = Worker(self.study.plan, index)
            self.selector.register(worker.stdout, selectors.EVENT_READ, index)
        return worker

    def _check_stopped(self) -> None:
        if self.stopped:
            raise Interrupted

    def _time(self, candidate: Candidate) -> Outcome:
        """Have the worker that waits for a trial time a candidate's network; others go on."""
        worker = self._worker(self.asking)
        worker.give(self.study.timing_assignment(candidate))
        while True:
            self._check_stopped()
            self.watch.tick()
            for key, _ in self.selector.select(TICK_SECONDS):
                if self.slots[key.data] is not worker:
                    self._overhear(key.data)
            messages, ended = worker.messages()
            for message in messages:
                if message["say"] == "outcome":
                    worker.assignment = None
                    return Outcome.from_json(message["outcome"])
                self._answer(worker, message)
            if ended:
                worker.assignment = None  # no trial is lost with it
                return Outcome(FAILED, error=self._bury(self.asking, worker))

    def _overhear(self, index: int) -> None:
        """Let another worker train on while a network is timed; how its trial ended can wait.

        A decision is being made: nothing may be recorded before it is.
        """
        worker = self.slots[index]
        assert worker is not None  # only slots with a worker are registered
        messages, ended = worker.messages()
        for message in messages:
            if message["say"] == "outcome":
                self.unheard.append((index, message))
            else:
                self._answer(worker, message)
        if ended:
            self.selector.unregister(worker.stdout)
            self.ended.append(index)

    def _hear_the_rest(self) -> bool:
        """Take in what had to wait for a decision; whether there was anything."""
        unheard, self.unheard = self.unheard, []
        ended, self.ended = self.ended, []
        for index, message in unheard:
            worker = self.slots[index]
            assert worker is not None  # it is buried after it was heard
            self._answer(worker, message)
        for index in ended:
            worker = self.slots[index]
            assert worker is not None  # as it was when it ended
            self._bury(index, worker)
        return bool(unheard or ended)

    def _announce(self, running: int) -> None:
        """Say once why no further trial is begun although there is something left to do."""
        why = self.study.why_idle()
        if why and why != self.announced:
            what = "1 trial that runs is" if running == 1 else f"{running} trials that run are"
            self.watch.said(f"{why}: no further trial is begun; {what} finished")
        self.announced = why

    def _hear(self, index: int) -> None:
        worker = self.slots[index]
        assert worker is not None  # only slots with a worker are registered
        messages, ended = worker.messages()
        for message in messages:
            self._answer(worker, message)
        if ended:
            self._bury(index, worker)

    def _answer(self, worker: Worker, message: dict[str, Any]) -> None:
        if message["say"] == "ready":
            worker.ready = True
            self.failed_starts = 0
            worker.provenance = message["provenance"]
            if worker.assignment is not None:
                worker.give(worker.assignment)
            return
        assert worker.assignment is not None  # a worker speaks of its assignment alone
        number = worker.assignment.trial
        if message["say"] == "epoch":
            result = EpochResult(**message["result"])
            worker.send({"go_on": self.study.on_epoch(number, result)})
            self.watch.epoch(self.study.trials[number], result)
            return
        provenance = {**worker.provenance, "attempt": worker.assignment.attempt}
        worker.assignment = None
        outcome = Outcome.from_json(message["outcome"])
        if outcome.latency is not None:
            provenance["latency"] = outcome.latency
        try:
            trial = self.study.on_finish(number, outcome, provenance)
        except LeaseLostError as error:
            self.watch.lost(self.study.trials[number], str(error))
            return
        self.watch.finished(trial)

    def _bury(self, index: int, worker: Worker) -> str:
        """A worker has ended by itself: its trial is evaluated again by another; why it ended."""
        with suppress(KeyError):  # where it ended while a network was timed
            self.selector.unregister(worker.stdout)
        cause = worker.cause_of_death()
        worker.close(at_once=True)
        self.slots[index] = None
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS:
                raise StudyError(f"workers cannot start: {cause}. `search doctor` says what works")
        if worker.assignment is not None:
            number = worker.assignment.trial
            self.study.on_lost(number, cause, worker.last_words)
            trial = self.study.trials[number]
            self.watch.lost(trial, cause)
            if trial.state == FAILED:  # too many have died over it
                self.watch.finished(trial)
        return cause

    def close(self, *, at_once: bool) -> None:
        """End all workers."""
        for worker in self.slots:
            if worker is not None:
                worker.close(at_once=at_once)
        self.selector.close()


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Inside, the first interrupt or termination is noted; a second one interrupts as usual."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # signals arrive in the main thread alone
        return

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_locally(study: Study, watch: Watch) -> None:
    """Run a study with worker processes on this machine until there is nothing left to do.

    Raises:
        Interrupted: An interrupt or termination signal arrived.
        StudyError: Workers cannot be started.
    """
    pool = Pool(study, watch)
    done = False
    with _noted_signals() as stopped:
        study.store.outlast.arm(watch.said, lambda: bool(stopped))
        try:
            pool.run(stopped)
            done = True
        finally:
            pool.close(at_once=not done)


__all__ = ["Pool", "Worker", "run_locally"]
