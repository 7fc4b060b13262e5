"""What the tool itself costs per trial: durable rounds of ask and tell beside Optuna's own."""

import time
from statistics import median

import optuna
import pytest
from instant import drive

from search.database import open_for_writing, storage_url
from search.plan import make_plan
from search.store import Store
from search.study import open_study

TRIALS = 200
ROUNDS = 5
SPACE = """
backbone: resnet20
attention:
  type: [none, se, eca, fca, simam, cbam]
  placement: [stem, stage, in-block]
  reduction: [4, 8, 16, 32]
training: {epochs: 1, learning_rate: {low: 0.001, high: 1.0, log: true}}
"""


def ours(folder, space, sampler, number):
    url = f"sqlite:///{folder}/ours-{sampler}-{number}.db"
    plan = make_plan(space, storage=url, trials=TRIALS, sampler=sampler)
    engine = open_for_writing(storage_url(url))
    study = open_study(plan, Store(engine))[0]
    started = time.perf_counter()
    assert drive(study) == TRIALS
    seconds = time.perf_counter() - started
    engine.dispose()
    return seconds


def optunas(storage, sampler):
    """The loop that a user of Optuna would write for the same space."""
    study = optuna.create_study(
        storage=storage, sampler=sampler, directions=["maximize", "minimize", "minimize"]
    )
    started = time.perf_counter()
    for number in range(TRIALS):
        trial = study.ask()
        block = trial.suggest_categorical("type", ["none", "se", "eca", "fca", "simam", "cbam"])
        if block != "none":
            trial.suggest_categorical("placement", ["stem", "stage", "in-block"])
        if block in ("se", "fca", "cbam"):
            trial.suggest_categorical("reduction", [4, 8, 16, 32])
        trial.suggest_float("learning_rate", 0.001, 1.0, log=True)
        study.tell(trial, [0.9 + number % 7 / 100, 1e6 + number % 5, 1e5 + number % 3])
    return time.perf_counter() - started


@pytest.mark.benchmark
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_a_durable_trial_costs_less_than_through_optunas_sqlite(tmp_path, sampler):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    make = {
        "random": lambda: optuna.samplers.RandomSampler(seed=0),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=10, seed=0),
    }[sampler]
    rows = []
    for number in range(ROUNDS):
        memory = optunas(None, make())
        file = optunas(f"sqlite:///{tmp_path}/optuna-{sampler}-{number}.db", make())
        rows.append((ours(tmp_path, space, sampler, number), memory, file))
    mine, memory, file = (median(column) / TRIALS * 1000 for column in zip(*rows, strict=True))
    print(
        f"\n{sampler}, {TRIALS} instant trials, {ROUNDS} rounds: ours, durable {mine:.2f} ms a"
        f" trial; Optuna in memory {memory:.2f} ms, in SQLite {file:.2f} ms"
    )
    assert mine < file
