"""What is recorded of a trial, where it is kept, and how old databases without it are read."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from instant import PROVENANCE, drive, outcome_of
from sqlalchemy import create_engine

from blocks.errors import SpaceError, StudyError
from reports.frame import curves_frame, trials_frame
from reports.page import write_report
from search import tables
from search.answers import read_answers, read_classes
from search.batches import ResidentBatches
from search.convergence import Reached, curve_area, reached
from search.database import open_for_reading, storage_url
from search.outcome import Answers, Assignment, EpochResult, Outcome
from search.peak import PROCESS, RESIDENT, PeakMemory
from search.reading import read_curves, read_trials
from search.recording import from_curve
from search.show import one_trial_data, study_data, trials_table
from search.trial import evaluate_candidate
from search.trial_view import trial_tables
from spaces.space import parse_space
from spaces.training import Training

CPU = torch.device("cpu")
NONE = {"backbone": "resnet20", "placements": [], "input_size": [14, 14]}


def curve(*accuracies, seconds=2.0):
    return [
        EpochResult(e, 1.0, 0.5, 0.8, accuracy, 0.1, seconds, 100.0 * e, 1e6 / e)
        for e, accuracy in enumerate(accuracies, 1)
    ]


def test_area_by_hand():
    # Trapezoids of width 1: (0.2 + 0.6) / 2 and (0.6 + 0.8) / 2, over 2 epochs.
    assert curve_area([0.2, 0.6, 0.8]) == pytest.approx(0.55)
    assert curve_area([0.7]) == 0.7


def test_the_first_epoch_that_reaches_the_target():
    assert reached(curve(0.2, 0.9, 0.8, 0.95), 0.9) == Reached(2, 4.0)
    assert reached(curve(0.2, 0.9), 0.91) is None


def test_accuracy_is_the_last_epochs_though_an_earlier_one_was_better():
    measured = {(s, m): value for s, m, value in from_curve(curve(0.5, 0.9, 0.7))}
    assert measured["validation", "accuracy"] == 0.7
    assert measured["validation", "best_accuracy"] == 0.9
    assert measured["validation", "best_epoch"] == 2
    assert measured["train", "images_per_second"] == 200
    assert measured["train", "peak_memory_bytes"] == 1e6


def assignment(epochs=2, **more):
    training = Training(epochs=epochs).to_json()
    return Assignment(0, 1, "none", NONE, training, "digits", 0, **more)


@pytest.fixture
def seen(monkeypatch):
    """The splits that were evaluated, in order."""
    found = []
    part = ResidentBatches.part

    def counted(self, split):
        found.append(split)
        return part(self, split)

    monkeypatch.setattr(ResidentBatches, "part", counted)
    return found


def test_test_is_measured_once_and_at_the_end(seen):
    outcome = evaluate_candidate(assignment(), device=CPU, goes_on=lambda result: True)
    assert seen == ["validation", "validation", "validation", "test"]
    measured = {(s, m): value for s, m, value in outcome.measurements}
    validation, test = outcome.answers
    assert (validation.split, test.split) == ("validation", "test")
    for answers in outcome.answers:
        bits = np.unpackbits(np.frombuffer(answers.right, dtype=np.uint8), count=answers.images)
        assert bits.sum() == sum(right for _, right, _ in answers.classes)
        assert bits.mean() == pytest.approx(measured[answers.split, "accuracy"])
        assert sum(images for images, _, _ in answers.classes) == answers.images == 360
        assert sum(predicted for _, _, predicted in answers.classes) == 360
        assert 0 <= measured[answers.split, "calibration_error"] < 1
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_pruned_trial_never_sees_test(seen):
    outcome = evaluate_candidate(assignment(), device=CPU, goes_on=lambda result: False)
    assert outcome.state == "pruned"
    assert "test" not in seen
    assert [answers.split for answers in outcome.answers] == ["validation"]
    assert "test" not in {split for split, _, _ in outcome.measurements}


def test_speed_and_memory_of_every_epoch():
    outcome = evaluate_candidate(assignment(), device=CPU, goes_on=lambda result: True)
    for epoch in outcome.epochs:
        seconds = 1024 / epoch.images_per_second  # 1,077 images in 16 whole batches of 64
        assert 0 < seconds < epoch.seconds
        assert 1e7 < epoch.peak_memory_bytes < 1e11


def test_the_peak_starts_anew():
    memory = PeakMemory(CPU)
    if memory.kind != RESIDENT:
        pytest.skip("this system cannot start the peak anew")
    before = memory.bytes()
    large = torch.ones(50_000_000)  # 200 MB
    during = memory.bytes()
    assert during > before + 150e6
    del large
    memory.restart()
    assert memory.bytes() < during - 100e6


def test_where_the_peak_cannot_start_anew_it_is_the_processs(monkeypatch, tmp_path):
    monkeypatch.setattr("search.peak.CLEAR", tmp_path / "no" / "such file")
    memory = PeakMemory(CPU)
    assert memory.kind == PROCESS
    assert memory.bytes() > 1e7


# Stored and shown. --------------------------------------------------------------------------------

ANSWERS = (
    Answers("validation", 10, bytes([0b11110000, 0b01000000]), ((6, 3, 4), (4, 2, 6))),
    Answers("test", 3, bytes([0b10100000]), ((3, 2, 2), (0, 0, 1))),
)


def finish(study, epochs=(0.2, 0.6, 0.8)):
    given = study.next_assignment()
    trial = study.trials[given.trial]
    results = tuple(curve(*epochs))
    outcome = replace(
        outcome_of(trial),
        epochs=results,
        measurements=(*from_curve(results), ("test", "accuracy", 0.4)),
        answers=ANSWERS,
    )
    study.on_finish(trial.number, outcome, PROVENANCE)
    return trial


@pytest.fixture
def stored(opened, storage):
    study = opened("smoke", trials=3, target_accuracy=0.6)
    finish(study)
    finish(study, (0.1, 0.3, 0.5))
    return study


def test_bits_come_back_as_they_were(stored):
    found = read_answers(stored.store.engine, stored.id)
    assert found[0]["validation"].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert found[0]["test"].tolist() == [True, False, True]
    assert found[1].keys() == {"validation", "test"}


def test_classes_come_back_with_recall_and_precision(stored):
    first, second = read_classes(stored.store.engine, stored.id)[0]["test"]
    assert first == {
        "class": 0, "images": 3, "right": 2, "predicted": 2, "recall": 2 / 3, "precision": 1.0,
    }  # fmt: skip
    assert (second["recall"], second["precision"]) == (None, 0.0)


def test_a_curve_comes_back_with_speed_and_memory(stored):
    assert read_curves(stored.store.engine, stored.id)[0] == curve(0.2, 0.6, 0.8)


def test_a_reused_trial_has_its_origins_answers(stored, opened):
    other = opened("smoke", study="two", trials=2)
    other.next_assignment()
    engine = other.store.engine
    origin = read_answers(engine, stored.id)
    for number, answers in read_answers(engine, other.id).items():
        for split, bits in answers.items():
            assert bits.tolist() == origin[number][split].tolist()
    assert sorted(read_classes(engine, other.id)) == [0, 1]
    assert len(read_curves(engine, other.id)[1]) == 3


def test_show_has_it_all(stored):
    engine = stored.store.engine
    data = one_trial_data(engine, "smoke", 0)
    assert data["curve_area"] == pytest.approx(0.55)
    assert (data["epochs_to_target"], data["seconds_to_target"]) == (2, 4.0)
    assert data["images_per_second"] == 200
    assert [row["images"] for row in data["classes"]["validation"]] == [6, 4]
    assert data["curve"][2]["images_per_second"] == 300
    titles = [table.title for table in trial_tables(data)]
    assert titles == [
        "smoke, trial 0: complete", "Measured", "Classes, validation", "Classes, test", "Epochs",
    ]  # fmt: skip


def test_the_target_may_be_asked_for_later(stored):
    engine = stored.store.engine
    by_number = {t["number"]: t for t in study_data(engine, "smoke")["trials"]}
    assert by_number[1]["epochs_to_target"] is None
    assert study_data(engine, "smoke")["target_accuracy"] == 0.6
    data = study_data(engine, "smoke", target=0.3)
    assert [t.get("epochs_to_target") for t in data["trials"][:2]] == [2, 2]
    table = trials_table("", data["trials"], [])
    assert "to target" in [column.header for column in table.columns]
    with pytest.raises(StudyError, match=r"--target-accuracy is 90; .*write 0.9 for 90 %"):
        study_data(engine, "smoke", target=90)


def test_the_target_is_a_setting_of_the_study(opened, stored):
    assert opened("smoke", trials=3).plan.target_accuracy == 0.6
    with pytest.raises(StudyError, match="--target-accuracy is 0;"):
        opened("smoke", target_accuracy=0.0)


SPACE = """
backbone: resnet20
attention: {{type: [none, se], placement: stem}}
objectives: {objectives}
study: {study}
"""


def test_a_space_may_state_target_and_weights():
    text = SPACE.format(
        objectives="{accuracy: max}", study="{target_accuracy: 0.9, keep_weights: none}"
    )
    assert parse_space(text).study == {"target_accuracy": 0.9, "keep_weights": "none"}
    wrong = SPACE.format(
        objectives="{accuracy: max}", study="{target_accuracy: 1.5, keep_weights: best}"
    )
    with pytest.raises(SpaceError, match="above 0 and up to 1 is needed") as caught:
        parse_space(wrong)
    assert "unknown keep_weights 'best'" in str(caught.value)


def test_the_area_is_an_objective_and_time_to_target_none(opened, tmp_path):
    path = tmp_path / "area.yaml"
    path.write_text(SPACE.format(objectives="{accuracy: max, curve_area: max}", study="{}"))
    study = opened(path, trials=2)
    slow, fast = finish(study, (0.1, 0.2, 0.8)), finish(study, (0.1, 0.7, 0.7))
    assert study.result().front == [slow.number, fast.number]
    write_report("area", storage=study.plan.storage.render_as_string(), output=tmp_path / "r.html")
    text = SPACE.format(objectives="{accuracy: max, epochs_to_target: min}", study="{}")
    with pytest.raises(SpaceError, match="never reaches the target has none. Optimise curve_area"):
        parse_space(text)


def test_a_database_of_an_earlier_version_is_read(stored, storage, tmp_path):
    stored.store.engine.dispose()
    engine = create_engine(storage)
    for table in (tables.epochs, tables.answers, tables.classes):
        table.drop(engine)
    with engine.begin() as connection:
        connection.execute(
            tables.measurements.delete().where(tables.measurements.c.metric == "curve_area")
        )
    engine.dispose()
    engine = open_for_reading(storage_url(storage))
    assert read_answers(engine, stored.id) == {}
    data = one_trial_data(engine, "smoke", 0)
    assert data["classes"] == {}
    assert data["curve_area"] == pytest.approx(0.55)  # of the curve, which was there before
    assert data["curve"][0]["images_per_second"] is None
    assert data["epochs_to_target"] == 2
    assert [table.title for table in trial_tables(data)][-1] == "Epochs"
    assert len(study_data(engine, "smoke")["trials"]) == 2
    assert [t.curve_area is not None for t in read_trials(engine, stored.id)] == [True, True]
    engine.dispose()
    write_report("smoke", storage=storage, output=tmp_path / "r.html")


def test_an_earlier_versions_study_goes_on(stored, storage, opened):
    stored.store.engine.dispose()
    engine = create_engine(storage)
    tables.epochs.drop(engine)
    engine.dispose()
    study = opened("smoke", trials=4)
    finish(study)
    found = read_curves(study.store.engine, study.id)
    assert found[0][0].images_per_second is None
    assert found[2][0].images_per_second == 100


def test_frames_have_the_recorded_numbers(stored, storage):
    frame = trials_frame(storage, "smoke").set_index("number")
    assert frame.loc[0, "curve_area"] == pytest.approx(0.55)
    assert frame.loc[0, "images_per_second"] == 200
    assert frame.loc[0, "peak_memory_bytes"] == 1e6
    assert math.isnan(frame.loc[0, "calibration_error"])
    assert curves_frame(storage, "smoke")["images_per_second"].tolist()[:3] == [100, 200, 300]


def test_recording_needs_no_new_columns(opened):
    study = opened("smoke", trials=2)
    drive(study)
    assert {c.name for c in tables.curves.c} == {
        "trial_id", "epoch", "train_loss", "train_accuracy", "loss", "accuracy", "learning_rate",
        "seconds",
    }  # fmt: skip
