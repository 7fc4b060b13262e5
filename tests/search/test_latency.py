"""Latency as an objective and on request: what is timed when, what is kept, what is shown."""

import json
from dataclasses import replace

import optuna
import pytest
import torch
from instant import PROVENANCE, accuracy_of, outcome_of

from blocks.architecture import Architecture, Placement
from blocks.errors import StudyError
from search import trial as trials
from search.front import front_numbers
from search.measure import Latency, Quartiles
from search.outcome import Assignment, Outcome
from search.provenance import cpu_name
from search.reading import read_attempts, read_proposals, read_trials
from search.show import one_trial_data, study_data, trials_table
from search.study import run_study
from search.trial import evaluate_candidate
from spaces.training import Training

SPACE = """
backbone: resnet20
attention:
  type: [none, se]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
"""
TIMED = SPACE + "objectives: {accuracy: max, latency_ratio: min}\n"
HERE = {**PROVENANCE, "machine": {"cpu": cpu_name()}}
CPU = torch.device("cpu")
SE = Architecture("resnet20", (Placement("stage1", "se", {"reduction": 4}),), (14, 14))
NONE = Architecture("resnet20", (), (14, 14))


@pytest.fixture
def space(tmp_path):
    def write(text, name="space"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    return write


def speed(ratio, **more):
    numbers = {"latency_ratio": ratio, "latency_ms": 2 * ratio, "throughput": 100 / ratio} | more
    return tuple(("speed", name, float(value)) for name, value in numbers.items())


def ratio_of(trial):
    return 1.0 if trial.baseline else 1.0 + trial.number / 10


def drive(study, *, fail=(), provenance=HERE, stop_after=None):
    """Evaluate one trial after another; returns what each assignment asked for."""
    asked = []
    while stop_after is None or len(asked) < stop_after:
        assignment = study.next_assignment()
        if assignment is None:
            break
        trial = study.trials[assignment.trial]
        outcome = Outcome("complete") if assignment.trained else outcome_of(trial)
        if assignment.latency and trial.number in fail:
            outcome = replace(outcome, error="trained, but its latency could not be measured")
        elif assignment.latency:
            measured = (*outcome.measurements, *speed(ratio_of(trial)))
            outcome = replace(outcome, measurements=measured)
        study.on_finish(trial.number, outcome, provenance)
        asked.append((assignment.trial, assignment.latency, assignment.trained))
    return asked


def stored(study):
    return read_trials(study.store.engine, study.id)


def test_latency_is_timed_where_it_is_an_objective_or_asked_for(opened, space):
    assert drive(opened(space(TIMED), trials=2, study="objective")) == [
        (0, True, False),
        (1, True, False),
    ]
    other = SPACE.replace("epochs: 1", "epochs: 2")
    assert drive(opened(space(other), trials=2, study="without"))[0] == (0, False, False)
    third = SPACE.replace("epochs: 1", "epochs: 3")
    assert drive(opened(space(third), trials=2, study="flag", latency=True))[0] == (0, True, False)
    assert opened(space(third), study="flag").plan.latency, "a stored setting is kept"


def test_front_sampler_and_mirror_go_by_the_ratio(opened, space, mirrored, storage):
    study = opened(space(TIMED), trials=5)
    drive(study)
    expected = [[t.accuracy, ratio_of(t)] for t in stored(study)]
    assert [t.latency_ratio for t in stored(study)] == [1.0, 1.1, 1.2, 1.3, 1.4]
    told = [p.values for p in read_proposals(study.store.engine, study.id) if p.values]
    assert sorted(told) == sorted(expected)
    front = front_numbers(stored(study), study.objectives)
    best = max(stored(study), key=lambda t: t.accuracy)
    assert {0, best.number} <= set(front)
    mirrored(study)
    seen = optuna.load_study(study_name=study.plan.study, storage=storage)
    assert [t.values for t in seen.trials] == expected
    assert sorted(t.number for t in seen.best_trials) == front


def test_a_trial_without_a_latency_is_complete_and_on_no_front(opened, space, mirrored, storage):
    study = opened(space(TIMED), trials=5)
    drive(study, fail={2})
    broken = stored(study)[2]
    assert (broken.state, broken.latency_ratio) == ("complete", None)
    assert broken.accuracy is not None
    assert "could not be measured" in broken.error
    assert 2 not in front_numbers(stored(study), study.objectives)
    rows = read_proposals(study.store.engine, study.id)
    (row,) = [p for p in rows if p.digest == broken.digest and p.verdict == "accepted"]
    assert (row.state, row.values) == ("failed", None)
    mirrored(study)
    seen = optuna.load_study(study_name=study.plan.study, storage=storage)
    assert seen.trials[2].state.name == "FAIL"
    again = opened(space(TIMED), trials=5)
    assert drive(again) == [(2, True, True)]
    assert stored(again)[2].latency_ratio == 1.2
    assert stored(again)[2].error == ""


def test_a_reused_trial_keeps_its_latency_on_the_same_machine(opened, space):
    drive(opened(space(SPACE), trials=5, study="first", latency=True))
    study = opened(space(TIMED), trials=5, study="second")
    assert drive(study) == []
    assert [t.state for t in stored(study)] == ["reused"] * 5
    assert {t.digest: t.latency_ratio for t in stored(study)} == {
        t.digest: t.latency_ratio for t in read_trials(study.store.engine, 1)
    }


@pytest.mark.parametrize(
    "place", [{"machine": {"cpu": "another"}}, {"device": "cuda"}], ids=["cpu", "device"]
)
def test_a_latency_of_another_machine_is_measured_anew(opened, space, place):
    drive(opened(space(SPACE), trials=5, study="first", latency=True), provenance=HERE | place)
    study = opened(space(TIMED), trials=5, study="second")
    assert drive(study) == [(n, True, True) for n in range(5)]


def test_a_reused_trial_without_latency_is_timed_and_not_trained(opened, space):
    first = opened(space(SPACE), trials=5, study="first")
    drive(first)
    study = opened(space(TIMED), trials=5, study="second")
    assert drive(study) == [(number, True, True) for number in range(5)]
    for trial in stored(study):
        assert trial.state == "reused"
        assert trial.origin.startswith("first ")
        assert trial.accuracy == accuracy_of(trial.digest, 0)
        assert trial.latency_ratio == ratio_of(trial)
        assert trial.epochs == 1
        held = study.trials[trial.number]
        for name in ("state", "measurements", "epochs", "error"):
            assert getattr(held, name) == getattr(trial, name), name
    assert {t.digest for t in stored(study)} == {t.digest for t in stored(first)}
    assert {t.state for t in stored(first)} == {"complete"}
    told = [p.state for p in read_proposals(study.store.engine, study.id) if p.state != "failed"]
    assert told == ["complete"] * 5


def test_cut_off_while_it_is_timed_it_is_timed_again_and_not_trained(opened, space):
    drive(opened(space(SPACE), trials=3, study="first"))
    study = opened(space(TIMED), trials=3, study="second")
    assert study.next_assignment().trained
    # The process is gone: nobody says how it went.
    again = opened(space(TIMED), trials=3, study="second")
    assert drive(again) == [(0, True, True), (1, True, True), (2, True, True)]
    assert [t.state for t in stored(again)] == ["reused"] * 3


@pytest.mark.parametrize("how", ["killed", "interrupted", "lost"])
def test_a_finished_trial_stays_finished_when_its_timing_is_cut_off(opened, space, how):
    drive(opened(space(SPACE), trials=3))
    study = opened(space(SPACE), trials=3, latency=True)
    number = study.next_assignment().trial
    if how == "interrupted":
        study.interrupt()
    elif how == "lost":
        study.on_lost(number, "signal 9")
    again = opened(space(SPACE), trials=3, latency=False)
    assert [t.state for t in stored(again)] == ["complete"] * 3
    assert drive(again) == []
    assert len(drive(opened(space(SPACE), trials=3, latency=True))) == 3


def test_a_finished_study_is_timed_on_request_and_once(opened, space):
    drive(opened(space(SPACE), trials=4))
    study = opened(space(SPACE), trials=4, latency=True)
    assert drive(study) == [(number, True, True) for number in range(4)]
    assert [t.state for t in stored(study)] == ["complete"] * 4
    assert [t.accuracy for t in stored(study)] == [accuracy_of(t.digest, 0) for t in stored(study)]
    assert [t.latency_ratio for t in stored(study)] == [1.0, 1.1, 1.2, 1.3]
    assert [a.ending for a in read_attempts(study.store.engine, study.id)] == ["complete"] * 8
    assert drive(opened(space(SPACE), trials=4)) == []


def test_workers_that_die_while_timing_do_not_cost_the_training(opened, space):
    drive(opened(space(SPACE), trials=2))
    study = opened(space(SPACE), trials=2, latency=True)
    for _ in range(3):
        assignment = study.next_assignment()
        assert assignment.trial == 0
        study.on_lost(0, "its worker ended with signal 9")
    assert stored(study)[0].state == "complete"
    assert "signal 9" in stored(study)[0].error
    assert drive(study) == [(1, True, True)]


def test_an_objective_that_is_added_is_measured_for_what_is_there(opened, space):
    drive(opened(space(SPACE), trials=4, study="s"))
    with pytest.raises(StudyError, match="latency_ratio"):
        opened(space(TIMED), trials=6, study="s")
    study = opened(space(TIMED), trials=6, study="s", extend=True)
    asked = drive(study)
    assert [trained for _, _, trained in asked] == [True] * 4 + [False]
    assert all(t.latency_ratio for t in stored(study))


def test_an_objective_cannot_be_left_unmeasured(opened, space):
    with pytest.raises(StudyError, match="--no-latency: .*has the objective latency_ratio"):
        opened(space(TIMED), latency=False)


def test_assignments_say_it_over_a_pipe(opened, space):
    assignment = opened(space(TIMED), trials=2).next_assignment()
    assert Assignment(**json.loads(json.dumps(assignment.to_json()))) == assignment
    assert assignment.latency


# The worker. -------------------------------------------------------------------------------------


def assignment(architecture, **more):
    training = Training(epochs=1).to_json()
    return Assignment(0, 1, "x", architecture.to_json(), training, "digits", 0, True, **more)


def made_up(ratio=1.25):
    quartiles = Quartiles(ratio - 0.1, ratio, ratio + 0.1)
    return Latency(
        quartiles, quartiles, quartiles, 100.0, 125.0, 32, 1, "a CPU", "thread time", "float32",
        1, 41, 1, 0.0, 0.5, None, True, False,
    )  # fmt: skip


@pytest.mark.parametrize(("architecture", "ratio"), [(SE, 1.25), (NONE, 1.0)], ids=["se", "none"])
def test_a_network_is_timed_beside_its_backbone(monkeypatch, architecture, ratio):
    seen = []

    def measure(network, baseline, shape, *, device):
        seen.append([sum(p.numel() for p in n.parameters()) for n in (network, baseline)])
        assert shape == (1, 14, 14)
        return made_up()

    monkeypatch.setattr(trials, "measure_latency", measure)
    outcome = evaluate_candidate(
        assignment(architecture, trained=True), device=CPU, goes_on=lambda result: True
    )
    ((params, bare),) = seen
    assert bare == 269_434
    assert (params > bare) == (architecture is SE)
    measured = {(split, name): value for split, name, value in outcome.measurements}
    assert measured["speed", "latency_ratio"] == ratio, "the baseline's is 1 by definition"
    assert measured["speed", "busy"] == 1.0
    assert outcome.latency["device"] == "a CPU"
    assert (outcome.state, outcome.epochs) == ("complete", ())
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_training_is_kept_where_timing_fails(monkeypatch):
    def measure(*_, **__):
        raise RuntimeError("no such clock\nand more")

    monkeypatch.setattr(trials, "measure_latency", measure)
    outcome = evaluate_candidate(assignment(SE), device=CPU, goes_on=lambda result: True)
    assert outcome.state == "complete"
    assert outcome.error == (
        "trained, but its latency could not be measured: RuntimeError: no such clock"
    )
    assert ("test", "accuracy") in {(split, name) for split, name, _ in outcome.measurements}


def test_a_pruned_trial_is_not_timed(monkeypatch):
    monkeypatch.setattr(trials, "measure_latency", None)
    two = replace(assignment(NONE), training=Training(epochs=2).to_json())
    outcome = evaluate_candidate(two, device=CPU, goes_on=lambda result: False)
    assert (outcome.state, outcome.error) == ("pruned", "")


# What is shown. ----------------------------------------------------------------------------------


def test_show_has_numbers_quartiles_and_flags(opened, space):
    study = opened(space(TIMED), trials=2)
    numbers = speed(
        1.25, latency_ratio_first=1.2, latency_ratio_third=1.5, busy=1, wide=0, waited=0.3
    )
    for _ in range(2):
        given = study.next_assignment()
        outcome = outcome_of(study.trials[given.trial])
        outcome = replace(outcome, measurements=(*outcome.measurements, *numbers))
        provenance = HERE | {"latency": {"device": "a CPU", "threads": 1}}
        study.on_finish(given.trial, outcome, provenance)
    data = study_data(study.store.engine, study.plan.study)
    shown = data["trials"][1]
    assert (shown["latency_ratio"], shown["latency_ms"], shown["throughput"]) == (1.25, 2.5, 80.0)
    assert shown["latency"]["ratio_quartiles"] == [1.2, 1.25, 1.5]
    assert shown["latency"]["busy"] is True
    assert shown["latency"]["wide"] is False
    assert shown["latency"]["waited"] == 0.3
    one = one_trial_data(study.store.engine, study.plan.study, 1)["latency"]
    assert (one["device"], one["threads"], one["busy"]) == ("a CPU", 1, True)
    table = trials_table("", data["trials"], data["front"])
    (column,) = [c for c in table.columns if str(c.header) == "latency"]
    assert [str(cell) for cell in column.cells] == ["1.250x busy"] * 2


def test_without_a_latency_nothing_is_said_of_it(opened, space):
    study = opened(space(SPACE), trials=2)
    drive(study)
    data = study_data(study.store.engine, study.plan.study)
    assert not [key for key in data["trials"][1] if "latency" in key]
    table = trials_table("", data["trials"], data["front"])
    assert "latency" not in [str(column.header) for column in table.columns]


@pytest.mark.slow
def test_a_real_study_by_latency(tmp_path, space):
    storage = f"sqlite:///{tmp_path}/real.db"
    result = run_study(space(TIMED), storage=storage, trials=3, workers=2)
    assert [t.state for t in result.trials] == ["complete"] * 3
    assert result.trials[0].latency_ratio == 1.0
    for trial in result.trials:
        assert 0.7 < trial.latency_ratio < 3
        assert trial.latency_ms > 0
        assert trial.throughput > 0
        assert trial.number not in result.front or trial.error == ""
    assert 0 in result.front or min(t.latency_ratio for t in result.trials) < 1
