"""Final weights: what is kept, what goes as the front moves, and what comes back from a file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from instant import PROVENANCE, outcome_of
from safetensors import safe_open

from blocks.errors import CheckpointError, StudyError
from blocks.weight_file import open_network
from search.batches import resident
from search.database import open_for_reading, storage_url
from search.datasets import load_data
from search.evaluation import evaluate
from search.kept import KeptFile, kept_data, kept_words, load_trained, read_kept
from search.provenance import checksum
from search.reading import read_study
from search.study import run_study

SPACE = """
backbone: resnet20
attention:
  type: [none, se, eca, simam]
  placement: [stem, stage, in-block]
  reduction: [4, 16]
training: {epochs: 1}
objectives: {accuracy: max}
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(SPACE)
    return path


def writes(assignment, accuracy):
    """An outcome as a worker gives it that has written weights."""
    path = Path(assignment.keep)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"weights of {assignment.trial}".encode())
    return {"sha256": checksum(path), "bytes": path.stat().st_size}, accuracy


def train(study, accuracy):
    """Finish the next trial with this validation accuracy; its number."""
    assignment = study.next_assignment()
    trial = study.trials[assignment.trial]
    outcome = outcome_of(trial)
    measured = (("validation", "accuracy", accuracy), ("test", "accuracy", 0.5))
    kept = writes(assignment, accuracy)[0] if assignment.keep else None
    study.on_finish(trial.number, replace(outcome, measurements=measured, kept=kept), PROVENANCE)
    return trial.number


def files(tmp_path):
    return sorted(p.name for p in (tmp_path / "studies.artefacts" / "weights").glob("*"))


def rows(study):
    return sorted(read_kept(study.store.engine, study.id))


def names(*numbers):
    return [f"one-{number}.safetensors" for number in numbers]


def test_files_go_as_the_front_moves_and_the_baselines_stays(opened, space, tmp_path):
    study = opened(space, trials=6)
    for accuracy, kept in ((0.5, [0]), (0.6, [0, 1]), (0.55, [0, 1]), (0.7, [0, 3])):
        train(study, accuracy)
        assert files(tmp_path) == names(*kept)
        assert rows(study) == kept


def test_ties_are_all_on_the_front(opened, space, tmp_path):
    study = opened(space, trials=6)
    for accuracy in (0.5, 0.6, 0.6):
        train(study, accuracy)
    assert files(tmp_path) == names(0, 1, 2)


def test_all_keeps_all_and_none_leaves_no_folder(opened, space, tmp_path):
    study = opened(space, trials=6, keep_weights="none")
    train(study, 0.5)
    assert not (tmp_path / "studies.artefacts" / "weights").exists()
    study = opened(space, trials=6, keep_weights="all")
    for accuracy in (0.6, 0.4, 0.3):
        train(study, accuracy)
    assert files(tmp_path) == names(1, 2, 3)


def test_none_leaves_what_is_kept_alone_and_front_does_not(opened, space, tmp_path):
    study = opened(space, trials=6, keep_weights="all")
    for accuracy in (0.6, 0.7, 0.5):
        train(study, accuracy)
    study = opened(space, trials=6, keep_weights="none")
    train(study, 0.9)
    assert files(tmp_path) == names(0, 1, 2)
    study = opened(space, trials=6, keep_weights="front")
    assert files(tmp_path) == names(0)  # trial 3 is the front, without weights
    assert rows(study) == [0]


def test_the_setting_is_remembered_until_it_changes(opened, space):
    assert opened(space, trials=6).plan.keep_weights == "front"
    assert opened(space, keep_weights="all").plan.keep_weights == "all"
    assert opened(space).plan.keep_weights == "all"
    with pytest.raises(StudyError, match="--keep-weights 'best' is unknown.*all, front, none"):
        opened(space, keep_weights="best")


def test_killed_between_file_and_row_the_next_start_makes_them_one(opened, space, tmp_path):
    study = opened(space, trials=6)
    train(study, 0.5)
    train(study, 0.6)
    assignment = study.next_assignment()
    writes(assignment, 0.7)  # and killed before the parent heard of it
    Path(f"{assignment.keep}.part").write_bytes(b"half")
    folder = tmp_path / "studies.artefacts" / "weights"
    (folder / "one-0.safetensors").unlink()  # taken away by hand
    others = ["one-x-1.safetensors", "one-1-2.safetensors", "other-1.safetensors"]
    for name in others:
        (folder / name).write_bytes(b"of another study")
    study = opened(space)
    assert files(tmp_path) == sorted([*others, *names(1)])
    assert rows(study) == [1]


def test_killed_between_row_and_file_the_next_start_takes_the_file_away(
    opened, space, tmp_path, monkeypatch
):
    study = opened(space, trials=6)
    train(study, 0.5)
    train(study, 0.6)

    def killed(self, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        train(study, 0.7)
    assert rows(study) == [0, 2]  # never a row without its file
    assert files(tmp_path) == names(0, 1, 2)
    opened(space)
    assert files(tmp_path) == names(0, 2)


def test_what_another_study_reuses_stays(opened, space, tmp_path):
    first = opened(space, trials=6)
    train(first, 0.5)
    train(first, 0.6)
    second = opened(space, study="two", trials=2)
    assert second.next_assignment() is None  # both are reused
    assert sorted(read_kept(second.store.engine, second.id)) == [0, 1]
    train(first, 0.9)
    assert files(tmp_path) == names(0, 1, 2)
    second.keeper.tidy()
    assert files(tmp_path) == names(0, 1, 2)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two trials of one epoch, trained by a worker."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "one.yaml").write_text(SPACE)
    url = f"sqlite:///{folder}/studies.db"
    result = run_study(
        folder / "one.yaml", storage=url, trials=2, workers=1, keep_weights="all", sampler="random"
    )
    return folder, url, result


def test_a_kept_network_gives_the_recorded_numbers_exactly(ran):
    _, url, result = ran
    data = resident(load_data("digits"), torch.device("cpu"))
    before = torch.get_rng_state()
    for trial in result.trials:
        network = load_trained("one", trial.number, storage=url)
        assert not network.training
        found = evaluate(network, data.part("test"), classes=10)
        assert found.accuracy == trial.test_accuracy
        assert found.loss == trial.measurements["test", "loss"]
        found = evaluate(network, data.part("validation"), classes=10)
        assert (found.accuracy, found.loss) == (
            trial.accuracy,
            trial.measurements["validation", "loss"],
        )
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_is_a_whole_network_and_says_what_it_is(ran):
    folder, url, result = ran
    path = folder / "studies.artefacts" / "weights" / "one-1.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    (folder / "plain").touch()
    assert path.stat().st_mode == (folder / "plain").stat().st_mode  # as any file of the user's
    assert about["digest"] == result.trials[1].digest
    assert about["seed"] == "0"
    assert about["input_shape"] == "[1, 14, 14]"
    assert 0 < float(about["mean"].strip("[]")) < 255
    images = torch.zeros(2, 1, 14, 14)
    ours, theirs = load_trained("one", 1, storage=url), open_network(path)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)
    assert result.weights.startswith("2 files, 2.2 MB in studies.artefacts/weights")


def test_the_database_may_be_elsewhere_with_its_folder(ran, tmp_path):
    folder = ran[0]
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "studies.db").write_bytes((folder / "studies.db").read_bytes())
    (folder / "studies.artefacts").rename(moved / "studies.artefacts")
    try:
        load_trained("one", 1, storage=f"sqlite:///{moved}/studies.db")
        with pytest.raises(CheckpointError, match="one-1.safetensors: the weights of trial 1 are"):
            load_trained("one", 1, storage=ran[1])
    finally:
        (moved / "studies.artefacts").rename(folder / "studies.artefacts")


def test_a_changed_file_is_refused(ran):
    path = ran[0] / "studies.artefacts" / "weights" / "one-1.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(CheckpointError, match="not what was kept for trial 1: its checksum is"):
            load_trained("one", 1, storage=ran[1])
    finally:
        path.write_bytes(whole)


def test_weights_that_are_not_kept_are_said_with_the_cure(opened, space, storage):
    study = opened(space, trials=6)
    for accuracy in (0.5, 0.6, 0.55):
        train(study, accuracy)
    study.next_assignment()
    with pytest.raises(CheckpointError, match="not kept .the study keeps: front.*--keep-weights a"):
        load_trained("one", 2, storage=storage)
    with pytest.raises(CheckpointError, match="trial 3 of study 'one' is running"):
        load_trained(None, 3, storage=storage)
    with pytest.raises(StudyError, match="no trial 9"):
        load_trained("one", 9, storage=storage)


def test_a_disk_that_takes_nothing_loses_no_training(opened, space, tmp_path):
    from search.recording import keep_weights

    (tmp_path / "taken").write_text("a file where a folder should be")
    said = keep_weights(torch.nn.Linear(2, 2), str(tmp_path / "taken" / "x.safetensors"), {})
    assert said["error"].startswith("trained, but its weights could not be kept: ")
    assert "kept" not in said


def test_sizes_for_people():
    assert kept_words(kept_data([])) == ""
    one = KeptFile(1, "s.artefacts/weights/one-0.safetensors", "", 999)
    assert kept_words(kept_data([one, one])) == "1 file, 999 bytes in s.artefacts/weights"
    two = replace(one, path="s.artefacts/weights/one-1.safetensors", bytes=1_500_000_000)
    assert kept_words(kept_data([one, two])).startswith("2 files, 1.5 GB in")


def test_reading_needs_no_file(ran):
    engine = open_for_reading(storage_url(ran[1]))
    study = read_study(engine, "one")
    sizes = [file.bytes for file in read_kept(engine, study.id).values()]
    engine.dispose()
    assert len(sizes) == 2
    assert all(1_000_000 < size < 1_300_000 for size in sizes)
