"""What the tool itself costs per trial, beside Optuna's loop in memory and on its SQLite storage.

Trials end at once. The loops of Optuna keep one sampler for the whole study, as its users do. From
a result received to the next dispatch ours decides, stores and starts: what it does on the path.
"In all" has the mirror too, until it is up to date. ``BENCH_TRIALS`` bounds the number of trials.
"""

import os
import time
from statistics import fmean, median

import optuna
import pytest
from instant import PROVENANCE, outcome_of

from search.database import open_for_writing, storage_url
from search.mirror import Mirror
from search.plan import make_plan
from search.store import Store
from search.study import open_study

# The processors' time of this process: other programs disturb it less than the wall's.
CLOCK = time.process_time
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
MOST = int(os.environ.get("BENCH_TRIALS", "10000"))
# Optuna's mark on a part of TPE, which users of it meet too.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SIZES = {"random": 10_000, "nsga2": 10_000, "tpe": 1_000, "gp": 60}
IN_SQLITE = 300  # its trials cost tens of milliseconds each, and more as they grow
SPACE = """
backbone: resnet20
attention:
  type: [none, se, eca, fca, simam, cbam]
  placement: [stem, stage, in-block]
  reduction: [4, 8, 16, 32]
training:
  epochs: 1
  batch_size: [32, 64]
  learning_rate: {low: 0.001, high: 1.0, log: true}
  weight_decay: {low: 0.00001, high: 0.01, log: true}
  momentum: {low: 0.5, high: 0.99}
  label_smoothing: {low: 0.0, high: 0.2}
  warmup: {low: 0.05, high: 0.5}
  cutout: {low: 0, high: 4}
objectives: {accuracy: max, flops: min}
study: {tune_baseline: false}
"""
MAKE = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=10, seed=0),
    "tpe": lambda: optuna.samplers.TPESampler(
        n_startup_trials=10, multivariate=True, group=True, constant_liar=True, seed=0
    ),
    "gp": lambda: optuna.samplers.GPSampler(seed=0, warn_independent_sampling=False),
}


def ours(folder, space, sampler, trials, *, mirrored=False):
    """Seconds from each result to the next dispatch; with the mirror, all seconds that passed."""
    url = f"sqlite:///{folder}/ours-{sampler}-{trials}-{time.monotonic_ns()}.db"
    plan = make_plan(space, storage=url, trials=trials, sampler=sampler)
    engine = open_for_writing(storage_url(url))
    study = open_study(plan, Store(engine))[0]
    mirror = None
    if mirrored:
        mirror = Mirror(
            plan.storage,
            plan.study,
            study.objectives,
            caps=study.above_caps,
            distributions=study.mirrored_distributions(),
            lock=study.store.lock,
            trials=lambda: list(study.trials.values()),
        )
        mirror.start()
        study.changed = mirror.changed
    began = CLOCK()
    assignment = study.next_assignment()
    passed = []
    while assignment is not None:
        outcome = outcome_of(study.trials[assignment.trial])
        received = CLOCK()
        study.on_finish(assignment.trial, outcome, PROVENANCE)
        assignment = study.next_assignment()
        passed.append(CLOCK() - received)
    if mirror is not None:
        mirror.close()
        assert mirror.problem == ""
        passed = [(CLOCK() - began) / trials] * trials
    assert len(passed) == trials
    engine.dispose()
    return passed


def optunas(storage, sampler, trials, *, flat):
    """Seconds per trial of the loop that a user of Optuna would write for the same space."""
    study = optuna.create_study(
        storage=storage, sampler=sampler, directions=["maximize", "minimize"]
    )
    passed = []
    for number in range(trials):
        began = CLOCK()
        trial = study.ask()
        block = trial.suggest_categorical("type", ["none", "se", "eca", "fca", "simam", "cbam"])
        if flat or block != "none":
            trial.suggest_categorical("placement", ["stem", "stage", "in-block"])
        if flat or block in ("se", "fca", "cbam"):
            trial.suggest_categorical("reduction", [4, 8, 16, 32])
        trial.suggest_categorical("batch_size", [32, 64])
        trial.suggest_float("learning_rate", 0.001, 1.0, log=True)
        trial.suggest_float("weight_decay", 0.00001, 0.01, log=True)
        trial.suggest_float("momentum", 0.5, 0.99)
        trial.suggest_float("label_smoothing", 0.0, 0.2)
        trial.suggest_float("warmup", 0.05, 0.5)
        trial.suggest_int("cutout", 0, 4)
        study.tell(trial, [0.9 + number * 37 % 101 / 1000, 1e6 + number * 53 % 97])
        passed.append(CLOCK() - began)
    return passed


def milliseconds(passed):
    return 1000 * fmean(passed)


@pytest.fixture
def space(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sampler", SIZES)
def test_from_a_result_to_the_next_dispatch(tmp_path, space, sampler):
    trials = min(SIZES[sampler], MOST)
    rounds = ROUNDS if trials <= 1000 and sampler != "gp" else 1
    rows = []
    for _ in range(rounds):
        mine = ours(tmp_path, space, sampler, trials)
        theirs = optunas(None, MAKE[sampler](), trials, flat=sampler == "gp")
        rows.append((milliseconds(mine), milliseconds(theirs)))
    mean, memory = (median(column) for column in zip(*rows, strict=True))
    end = max(10, trials // 20)
    early, late = (milliseconds(part) for part in (mine[400:600] or mine, mine[-end:]))
    print(
        f"\n{sampler}, {trials:,} instant trials, {rounds} rounds: from a result to the next"
        f" dispatch {mean:.2f} ms, Optuna's loop in memory {memory:.2f} ms: {mean / memory:.2f}"
        f" times; around trial 500 {early:.2f} ms, the last {end} {late:.2f} ms"
        f" (in memory {milliseconds(theirs[-end:]):.2f} ms)"
    )
    assert mean <= 1.5 * memory
    if sampler in ("random", "nsga2"):
        assert late <= 2 * early


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe"])
def test_in_all_beside_optunas_sqlite(tmp_path, space, sampler):
    trials = min(IN_SQLITE, MOST)
    rows = []
    for number in range(ROUNDS):
        mine = ours(tmp_path, space, sampler, trials, mirrored=True)
        url = f"sqlite:///{tmp_path}/optuna-{sampler}-{number}.db"
        rows.append(
            (milliseconds(mine), milliseconds(optunas(url, MAKE[sampler](), trials, flat=False)))
        )
    mean, file = (median(column) for column in zip(*rows, strict=True))
    print(
        f"\n{sampler}, {trials} instant trials, {ROUNDS} rounds: in all, the mirror with it,"
        f" {mean:.2f} ms a trial; Optuna in SQLite {file:.2f} ms: {mean / file:.2f} times"
    )
    assert mean <= 0.5 * file
