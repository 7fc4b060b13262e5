"""The same search by a naive loop, by the rungs of the ladder, and by `search run`."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from naive_loop import BATCH_SIZE, CANDIDATES, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY

from search.study import run_study

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROOT = BENCHMARKS.parents[1]
SPACE = """
backbone: resnet20
attention:
  type:
    none: {{}}
    se: {{reduction: [4, 8, 16]}}
    eca: {{kernel_size: [3, 5]}}
    coord: {{reduction: 16}}
    simam: {{}}
    cbam: {{reduction: [8, 16]}}
    fca: {{frequency: [top2, top16], reduction: 16}}
  placement: in-block
training: {{epochs: {epochs}, batch_size: {batch_size}, learning_rate: {learning_rate},
           momentum: {momentum}, weight_decay: {weight_decay}, crop: {crop}, flip: {flip}}}
objectives: {{accuracy: max, flops: min}}
"""


@dataclass(frozen=True)
class Task:
    """What all of them search.

    Args:
        data: The data set.
        epochs: Of each candidate.
        crop: Pixels around an image.
        flip: Whether images are mirrored at random.
        include: A file that registers the data set, if it needs one.
        seeds: Trials of each candidate.
    """

    data: str
    epochs: int
    crop: int
    flip: bool
    include: str = ""
    seeds: int = 1

    @property
    def trials(self):
        return self.seeds * len(CANDIDATES)


@dataclass(frozen=True)
class Searched:
    """What all candidates took, of wall time and of the processors', and their accuracies.

    The processors' time depends less on what else runs; of a loop with processes that load images
    it is the main one's alone.
    """

    seconds: float
    cpu_seconds: float
    accuracies: dict

    @property
    def per_hour(self):
        return 3600 * len(self.accuracies) / self.seconds

    @property
    def accuracy(self):
        return fmean(self.accuracies.values())


def script(name, task, folder, *, seed, **switches):
    """Start one of the scripts beside the tests; its result is read by ``result_of``."""
    file = Path(folder, f"{name}-{time.monotonic_ns()}.db")
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--storage", f"sqlite:///{file}"]
    command += ["--data", task.data, "--epochs", str(task.epochs), "--crop", str(task.crop)]
    command += ["--seed", str(seed), "--seeds", str(task.seeds), *(["--flip"] if task.flip else [])]
    command += ["--include", task.include] if task.include else []
    for switch, value in switches.items():
        flag = f"--{switch.replace('_', '-')}"
        command += [flag] if value is True else [flag, str(value)]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(BENCHMARKS)])}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**environment, **paths}, text=True
    )


def result_of(process):
    """What a script has printed last."""
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return Searched(**json.loads(said.splitlines()[-1]))


def naive(task, folder, *, seed, **switches):
    """The naive loop; the time is that of Optuna's loop, imports apart."""
    return result_of(script("naive_loop", task, folder, seed=seed, **switches))


def rung(task, folder, *, seed, processes=1, **switches):
    """The loop with changes; processes side by side share the candidates."""
    parts = [
        script("ladder_loop", task, folder, seed=seed, part=part, parts=processes, **switches)
        for part in range(processes)
    ]
    results = [result_of(part) for part in parts]
    accuracies = {name: a for result in results for name, a in result.accuracies.items()}
    seconds = max(result.seconds for result in results)
    return Searched(seconds, sum(result.cpu_seconds for result in results), accuracies)


def ours(task, folder, *, seed, device="cpu", workers=None, overrides=()):
    """`search run` as it is by default; the time is that of all, the workers' start included."""
    number = time.monotonic_ns()
    file = Path(folder, f"space-{number}.yaml")
    file.write_text(
        SPACE.format(
            epochs=task.epochs,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            crop=task.crop,
            flip="random" if task.flip else "none",
        )
    )
    started, before = time.perf_counter(), _children()
    result = run_study(
        file,
        study="ours",
        storage=f"sqlite:///{folder}/ours-{number}.db",
        data=task.data,
        trials=task.trials,
        seeds=task.seeds,
        sampler="grid",
        seed=seed,
        device=device,
        workers=workers,
        overrides=overrides,
        includes=[task.include] if task.include else [],
    )
    seconds = time.perf_counter() - started
    assert [trial.state for trial in result.trials] == ["complete"] * task.trials
    accuracies = {f"{trial.label}, seed {trial.seed}": trial.accuracy for trial in result.trials}
    assert len(accuracies) == task.trials
    return Searched(seconds, _children() - before, accuracies)


def _children():
    """Seconds of processors that ended child processes have taken, their imports included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
