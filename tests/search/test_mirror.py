import optuna
from instant import drive

from search.database import file_of
from search.front import front_numbers
from search.mirror import Mirror
from search.reading import read_proposals


def test_optuna_finds_our_trials_values_and_front(opened, mirrored, storage):
    study = opened(trials=20)
    drive(study, state_of=lambda t: {3: "failed", 5: "diverged"}.get(t.number, "complete"))
    mirrored(study)
    seen = optuna.load_study(study_name="attention", storage=storage)
    assert [t.number for t in seen.trials] == list(range(20))
    for ours in study.trials.values():
        theirs = seen.trials[ours.number]
        assert theirs.params == ours.parameters
        assert theirs.user_attrs["digest"] == ours.digest
        assert theirs.user_attrs["seed"] == ours.seed
        if ours.state == "complete":
            assert theirs.values == [ours.accuracy, ours.flops, ours.params]
            assert all(value <= 0 for value in theirs.constraints.values())
        else:
            assert theirs.state.name == "FAIL"
    front = front_numbers(list(study.trials.values()), study.objectives)
    assert sorted(t.number for t in seen.best_trials) == front
    assert seen.metric_names == ["accuracy", "flops", "params"]


def test_a_straggler_is_running_until_it_ends(opened, mirrored, storage):
    study = opened(trials=4)
    straggler = study.next_assignment().trial
    drive(study)
    mirrored(study)
    states = [
        t.state.name for t in optuna.load_study(study_name="attention", storage=storage).trials
    ]
    assert states == ["RUNNING", "COMPLETE", "COMPLETE", "COMPLETE"]
    study.running.discard(straggler)
    study.trials[straggler].state = "waiting"
    study.waiting.append(straggler)
    drive(study)
    mirrored(study)
    seen = optuna.load_study(study_name="attention", storage=storage)
    assert [t.state.name for t in seen.trials] == ["COMPLETE"] * 4
    assert seen.trials[0].values[0] == study.trials[0].accuracy


def test_rejected_and_repeated_proposals_are_never_in_it(opened, mirrored, storage, tmp_path):
    path = tmp_path / "capped.yaml"
    path.write_text(
        "backbone: resnet20\nattention: {type: [none, se, eca], placement: [stem, stage],"
        " reduction: [1, 4, 16]}\ntraining: {epochs: 1}\nconstraints: {params: 1.01x baseline}\n"
    )
    study = opened(str(path), trials=30, study="attention")
    drive(study)
    mirrored(study)
    verdicts = {p.verdict for p in read_proposals(study.store.engine, study.id)}
    assert {"repeated", "rejected"} <= verdicts
    seen = optuna.load_study(study_name="attention", storage=storage)
    assert len(seen.trials) == len(study.trials)


def test_mirroring_twice_adds_nothing(opened, mirrored, storage):
    study = opened(trials=5)
    drive(study)
    mirrored(study)
    mirrored(study)
    assert len(optuna.load_study(study_name="attention", storage=storage).trials) == 5


def test_the_log_is_brought_into_the_file_by_the_mirror(opened, mirrored):
    study = opened(trials=80)
    drive(study)
    file = file_of(study.plan.storage)
    before = file.stat().st_size
    assert before < 2**18  # as the first tables left it: no commit of a trial has done it
    mirrored(study)
    assert file.stat().st_size > 2**19


def test_a_strangers_study_of_the_same_name_is_left_alone(opened, storage):
    theirs = optuna.create_study(study_name="attention", storage=storage)
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    study = opened(trials=2)
    drive(study)
    mirror = Mirror(
        study.plan.storage,
        "attention",
        study.objectives,
        caps=study.above_caps,
        distributions=study.mirrored_distributions(),
        lock=study.store.lock,
        trials=lambda: list(study.trials.values()),
    )
    mirror.start()
    mirror.changed()
    mirror.close()
    assert mirror.problem
    assert len(optuna.load_study(study_name="attention", storage=storage).trials) == 1


def test_a_changed_space_rebuilds_it(opened, mirrored, storage, tmp_path):
    text = (
        "backbone: resnet20\nattention: {type: [none, se], placement: stage, reduction: [4, 8]}\n"
        "training: {epochs: 1}\n"
    )
    path = tmp_path / "growing.yaml"
    path.write_text(text)
    study = opened(str(path), trials=3, study="attention")
    drive(study)
    mirrored(study)
    path.write_text(text.replace("[4, 8]", "[2, 4, 8, 16]"))
    grown = opened(str(path), trials=5, study="attention", extend=True)
    drive(grown)
    mirrored(grown, rebuild=True)
    seen = optuna.load_study(study_name="attention", storage=storage)
    assert len(seen.trials) == 5
