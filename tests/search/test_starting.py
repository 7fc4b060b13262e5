"""Studies that start from trained weights: identity, refusal before any trial, provenance."""

import pytest
import torch
from instant import drive
from safetensors.torch import load_file, save_file

from blocks.architecture import Architecture
from blocks.build import build_network
from blocks.errors import SpaceError, StudyError
from blocks.weight_source import file_identity
from search.batches import resident
from search.datasets import load_data
from search.live import settings_table
from search.outcome import Assignment
from search.plan import make_plan
from search.reading import read_attempts
from search.study import run_study
from search.training import train
from search.trial import _start, evaluate_candidate
from spaces.drawing import baseline_candidates, distinct_candidates
from spaces.training import Training

SPACE = """\
backbone: {backbone}
attention: {{type: [none, se], placement: stage, reduction: 4, identity_start: true}}
training:
  epochs: 1
  pretrained: {pretrained}
  freeze: backbone
objectives: {{accuracy: max}}
study: {{trials: 2, data: digits, sampler: grid}}
"""


def weights(path, *, seed=1, classes=10, channels=1):
    network = build_network(
        Architecture("resnet20"), num_classes=classes, in_channels=channels, seed=seed
    )
    save_file(network.state_dict(), path)
    return path


@pytest.fixture
def space(tmp_path, monkeypatch):
    """Write a space; the current folder is that of the test."""
    monkeypatch.chdir(tmp_path)

    def write(pretrained="w.safetensors", backbone="resnet20", name="tuned"):
        text = SPACE.format(backbone=backbone, pretrained=pretrained)
        (tmp_path / f"{name}.yaml").write_text(text)
        return f"{name}.yaml"

    return write


def digests(plan):
    return set(distinct_candidates(plan.space, plan.data))


def test_a_file_is_known_by_its_content_wherever_it_lies(space, tmp_path):
    weights(tmp_path / "w.safetensors")
    here = make_plan(space())
    identity = file_identity("w.safetensors")
    ((baseline, _),) = baseline_candidates(here.space, here.data)
    assert baseline.training.pretrained == identity
    assert len(digests(here)) == 2
    (tmp_path / "deep").mkdir()
    (tmp_path / "w.safetensors").rename(tmp_path / "deep" / "other.safetensors")
    there = make_plan(space("deep/other.safetensors"))
    assert digests(there) == digests(here)
    weights(tmp_path / "deep" / "other.safetensors", seed=2)
    assert not digests(make_plan(space("deep/other.safetensors"))) & digests(here)


def test_the_plan_says_which_file_and_what_is_left_out(space, tmp_path):
    weights(tmp_path / "w.safetensors", classes=100, channels=3)
    plan = make_plan(space())
    (start,) = plan.starts
    assert start.path == str(tmp_path / "w.safetensors")
    assert plan.weights_path(start.identity) == start.path
    assert plan.weights_path("timm:a1_in1k") == ""
    assert "left out: the classifier, fc.weight (100, 64), fc.bias (100,)" in str(start)
    assert "conv1.weight (16, 3, 3, 3)" in str(start)


def test_the_terminal_says_it_too(space, tmp_path, opened):
    weights(tmp_path / "w.safetensors", classes=100)
    table = settings_table(opened(space()))
    said = [str(cell) for column in table.columns for cell in column.cells]
    assert any("w.safetensors; left out: the classifier" in cell for cell in said)


def test_every_mistake_is_said_with_its_line_before_any_trial(space, tmp_path):
    state = build_network(Architecture("resnet20"), in_channels=1).state_dict()
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(SpaceError) as refusal:
        make_plan(space("[gone.pth, short.safetensors, true]", "[resnet20, resnet20-b]"))
    lines = str(refusal.value)
    assert "tuned.yaml:5: training.pretrained, resnet20: gone.pth: there is no such file" in lines
    assert "resnet20: the weights do not fit: 1 missing" in lines
    assert "missing: layer1.0.conv1.weight (16, 16, 3, 3)" in lines
    assert "resnet20-b: resnet20-b is none of timm's models; give a checkpoint file" in lines
    with pytest.raises(SpaceError, match=r"^tuned.yaml: training.pretrained, resnet20: .*no such"):
        make_plan(space(), overrides=["training.pretrained=gone.pth"])


def test_a_file_must_fit_every_backbone(space, tmp_path):
    weights(tmp_path / "w.safetensors")
    with pytest.raises(SpaceError, match=r"tuned.yaml:5: .*, resnet20-b: the weights do not fit"):
        make_plan(space(backbone="[resnet20, resnet20-b]"))


def test_a_study_goes_on_with_the_same_file_alone(space, tmp_path, opened):
    weights(tmp_path / "w.safetensors")
    name = space()
    drive(opened(name), stop_after=1)
    assert len(opened(name).trials) == 1
    weights(tmp_path / "w.safetensors", seed=2)
    with pytest.raises(StudyError, match=r"-weights.resnet20 w.safetensors: sha256:"):
        opened(name)


def test_identities_without_trained_weights_are_as_they_were():
    plan = make_plan("attention")
    assert set(plan.identity) == {"data", "epochs", "seed"}
    assert plan.starts == ()


def test_assignments_hold_the_path_and_attempts_keep_it(space, tmp_path, opened):
    weights(tmp_path / "w.safetensors")
    study = opened(space())
    assignment = study.next_assignment()
    assert assignment.weights == str(tmp_path / "w.safetensors")
    assert assignment.training["pretrained"] == file_identity("w.safetensors")
    study.interrupt()
    study = opened("tuned.yaml")
    assert drive(study) == 2
    attempts = read_attempts(study.store.engine, study.id)
    kept = [attempt.provenance.get("weights") for attempt in attempts if attempt.provenance]
    assert kept == [str(tmp_path / "w.safetensors")] * 2


def test_a_trial_refuses_a_file_that_has_changed(tmp_path):
    path = weights(tmp_path / "w.safetensors")
    training = Training(1, pretrained=file_identity(path), freeze="backbone").to_json()
    architecture = Architecture("resnet20", (), (14, 14)).to_json()
    weights(path, seed=2)
    task = Assignment(0, 1, "none", architecture, training, "digits", 0, weights=str(path))
    _start.cache_clear()
    outcome = evaluate_candidate(task, device=torch.device("cpu"), goes_on=lambda result: True)
    assert outcome.state == "failed"
    assert "w.safetensors has changed since the study was planned" in outcome.error


@pytest.mark.slow
def test_a_backbone_that_was_trained_here_is_tuned_with_attention(space, tmp_path, storage):
    facts = load_data("digits").facts
    data = resident(load_data("digits"), torch.device("cpu"))
    plain = build_network(Architecture("resnet20"), in_channels=1, input_size=14, seed=0)
    train(plain, data, Training(epochs=1), seed=0, goes_on=lambda result: True)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")

    # At the default rate of 0.1 the gates of blocks that start as the identity run away.
    slower = ["training.learning_rate=0.01"]
    result = run_study(space(), storage=storage, workers=1, overrides=slower)
    assert [trial.state for trial in result.trials] == ["complete"] * 2
    assert result.trials[0].label == "none"
    accuracy = {trial.label: trial.accuracy for trial in result.trials}
    # A network whose classifier alone is trained on, for one epoch, is no worse than by chance.
    assert min(accuracy.values()) > 0.5

    plain.eval()
    [(images, _)] = data.part("validation")
    for trial in result.trials:
        network = build_network(
            trial.architecture,
            num_classes=facts.classes,
            in_channels=1,
            seed=trial.seed,
            pretrained=load_file(tmp_path / "w.safetensors"),
        ).eval()
        with torch.no_grad():
            assert torch.equal(network(images), plain(images))
