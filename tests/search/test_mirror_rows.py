import sqlite3
from datetime import datetime

import optuna
import pytest
from instant import drive
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from search import mirror as mirror_module
from search import mirror_rows

SPACE = {
    "type": CategoricalDistribution(("none", "se", True, 3)),
    "rate": FloatDistribution(0.001, 1.0, log=True),
    "cutout": IntDistribution(0, 4),
}
TABLES = {  # -> what a row is found by, beside its trial's number
    "trials": [],
    "trial_values": ["objective"],
    "trial_params": ["param_name"],
    "trial_user_attributes": ["key"],
    "trial_system_attributes": ["key"],
    "trial_intermediate_values": ["step"],
}
KEYS = {
    "trial_id",
    "trial_value_id",
    "param_id",
    "trial_user_attribute_id",
    "trial_system_attribute_id",
}


def made(number, state, values=None, **more):
    trial = create_trial(state=state, values=values, **more)
    trial.number = number
    trial.datetime_start = datetime(2026, 7, 1, 12, 0, number, 250_000)
    trial.datetime_complete = datetime(2026, 7, 1, 13) if state.is_finished() else None
    return trial


def trials():
    whole = {"type": "se", "rate": 0.01, "cutout": 3}
    return [
        made(
            0,
            TrialState.COMPLETE,
            [0.9, 1e6],
            params=whole,
            distributions=SPACE,
            user_attrs={"digest": "c1-x", "seed": 0, "baseline": False, "label": 'é "r"'},
            constraints={"params <= 1k": -3.0},
        ),
        made(
            1,
            TrialState.COMPLETE,
            [float("inf"), float("-inf")],
            params={"type": True},
            distributions={"type": SPACE["type"]},
        ),
        made(2, TrialState.FAIL, user_attrs={"error": "planted"}),
        made(3, TrialState.RUNNING, params={"type": 3}, distributions={"type": SPACE["type"]}),
        made(4, TrialState.PRUNED),
    ]


def study_in(folder, name):
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/{name}.db")
    study = optuna.create_study(
        study_name="s", storage=storage, directions=["maximize", "minimize"]
    )
    return study, storage


def rows_of(path):
    """All that Optuna's tables say of trials, without the keys that the database gives."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    numbers = {row["trial_id"]: row["number"] for row in connection.execute("SELECT * FROM trials")}
    found = {}
    for table, by in TABLES.items():
        for row in connection.execute(f"SELECT * FROM {table}"):
            key = (table, numbers[row["trial_id"]], *(row[name] for name in by))
            assert key not in found
            found[key] = {name: row[name] for name in row.keys() if name not in KEYS}  # noqa: SIM118
    connection.close()
    return found


def test_every_field_is_what_add_trial_writes(tmp_path):
    theirs, _ = study_in(tmp_path, "theirs")
    for trial in trials():
        theirs.add_trial(trial)
    ours, storage = study_in(tmp_path, "ours")
    mirror_rows.add_trials(storage, ours._study_id, trials()[:2])
    mirror_rows.add_trials(storage, ours._study_id, trials()[2:])
    written = rows_of(tmp_path / "ours.db")
    assert written == rows_of(tmp_path / "theirs.db")
    assert len(written) == 5 + 4 + 5 + 5 + 1  # trials, values, parameters, attributes, constraint
    seen = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/ours.db")
    assert [t.values for t in seen.trials[:2]] == [[0.9, 1e6], [float("inf"), float("-inf")]]
    assert seen.trials[0].params == {"type": "se", "rate": 0.01, "cutout": 3}
    assert seen.trials[0].constraints == {"params <= 1k": -3.0}
    seen.tell(3, [0.5, 1.0])  # what was entered as running can be told
    assert seen.trials[3].state is TrialState.COMPLETE


def test_trials_go_in_whole_and_as_the_next_ones_alone(tmp_path):
    study, storage = study_in(tmp_path, "study")
    mirror_rows.add_trials(storage, study._study_id, trials()[:1])
    with pytest.raises(ValueError, match="has 1 trials where 2 were put"):
        mirror_rows.add_trials(storage, study._study_id, trials()[2:])
    broken = trials()[1:3]
    broken[1].user_attrs = {"label": object()}
    with pytest.raises(TypeError):
        mirror_rows.add_trials(storage, study._study_id, broken)
    assert len(optuna.load_study(study_name="s", storage=storage).trials) == 1


def test_an_optuna_with_other_tables_is_left_to_itself(monkeypatch, opened, mirrored, storage):
    assert mirror_rows.are_known()
    monkeypatch.setitem(mirror_rows.KNOWN, "TrialModel", {"trial_id"})
    mirror_rows.are_known.cache_clear()
    try:
        assert not mirror_rows.are_known()
    finally:
        monkeypatch.undo()
        mirror_rows.are_known.cache_clear()
    monkeypatch.setattr(mirror_module, "are_known", lambda: False)
    monkeypatch.setattr(mirror_module, "add_trials", None)
    study = opened(trials=4)
    drive(study)
    mirrored(study)
    seen = optuna.load_study(study_name="attention", storage=storage)
    assert [t.values[0] for t in seen.trials] == [t.accuracy for t in study.trials.values()]
