import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from instant import drive
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from blocks.build import build_network
from blocks.errors import CheckpointError, StudyError
from search import data_place
from search import explain as module
from search.cli import app
from search.database import open_for_reading, storage_url
from search.datasets import load_data
from search.engine import StudyResult
from search.explain import explain
from search.explained import explained_parts, top_groups
from search.insight.panel import check_output, write_panel
from search.insight.placed import placed_blocks
from search.insight.store import read_insights
from search.output import results
from search.reading import read_study, read_trials

SPACE = """\
backbone: resnet20
attention: {type: [none, fca, mha], placement: [stage], frequency: [top4]}
training: {epochs: 1}
objectives: {accuracy: max}
"""


@pytest.fixture
def study(opened, storage, tmp_path):
    """A baseline, fca and mha, none of them trained; the weights are made when they are asked."""
    (tmp_path / "tiny.yaml").write_text(SPACE)
    drive(opened(str(tmp_path / "tiny.yaml"), study="tiny", trials=3, sampler="grid"))
    engine = open_for_reading(storage_url(storage))
    trials = {t.number: t for t in read_trials(engine, read_study(engine, "tiny").id)}
    engine.dispose()
    return trials


@pytest.fixture
def load(study):
    def load_(number):
        network = build_network(study[number].architecture, in_channels=1, seed=number)
        torch.manual_seed(number)
        for placed in placed_blocks(network):
            for parameter in placed.module.parameters():
                nn.init.normal_(parameter, std=0.3)
        return network

    return load_


def test_all_that_is_seen_is_kept(study, load, storage):
    found = explain("tiny", [0, 1, 2], storage=storage, images="4", load=load)
    assert len(found.numbers) == 4
    assert found.surveyed == 360
    engine = open_for_reading(storage_url(storage))
    kept = read_insights(engine, read_study(engine, "tiny").id)
    engine.dispose()
    assert sorted(kept) == [0, 1, 2]
    for each in found.trials:
        assert each.bytes < 200_000
        numbers = {kind: insight.content for kind, insight in each.insights.items()}
        assert {k: i.content for k, i in kept[each.trial.number].items()} == numbers
    kinds = {number: set(kinds) for number, kinds in kept.items()}
    labels = {number: study[number].label.split()[0] for number in study}
    assert [labels[n] for n in kinds if "frequency" in kinds[n]] == ["fca"]
    assert [labels[n] for n in kinds if "maps" in kinds[n]] == ["mha"]
    assert kinds[0] == {"gradcam"}


def test_images_are_the_same_for_all_and_disputed_ones_first(study, load, storage):
    found = explain("tiny", [0, 1], storage=storage, load=load)
    chosen = [
        [(row["image"], row["true"]) for row in each.insights["gradcam"].content["images"]]
        for each in found.trials
    ]
    assert chosen[0] == chosen[1]
    first = [each.insights["gradcam"].content["images"][0] for each in found.trials]
    assert len({row["predicted"] == row["true"] for row in first}) == 2
    again = explain("tiny", [0, 1], storage=storage, load=load)
    assert again.to_json() == found.to_json()


def test_usually_the_baseline_and_the_front_and_says_what_is_not_kept(study, load, storage):
    best = max(study.values(), key=lambda trial: trial.accuracy).number

    def kept(number):
        if number:
            raise CheckpointError("weights are not kept")
        return load(number)

    found = explain("tiny", storage=storage, load=load)
    assert [each.trial.number for each in found.trials] == sorted({0, best})
    if best:
        found = explain("tiny", storage=storage, load=kept)
        assert found.trials[1].notes == ["not looked at: weights are not kept"]
    with pytest.raises(CheckpointError, match="not kept"):
        explain("tiny", [0, 1], storage=storage, load=kept)


def test_without_any_weights_it_says_so(study, storage):
    def none(number):
        raise CheckpointError("weights are not kept")

    with pytest.raises(CheckpointError, match="not kept"):
        explain("tiny", storage=storage, load=none)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"numbers": [9]}, "study 'tiny' has no trial 9; its trials: 0 to 2"),
        ({"split": "vali"}, "--split 'vali' is unknown. Did you mean 'validation'"),
        ({"images": "x"}, "--images 'x': write how many"),
        ({"images": "0,360"}, "--images 360: the validation split has images 0 to 359"),
    ],
)
def test_mistakes_are_named_with_their_cure(given, words, study, load, storage):
    with pytest.raises(StudyError, match=words):
        explain("tiny", given.pop("numbers", ()), storage=storage, load=load, **given)


def test_changed_data_are_refused(study, load, storage, monkeypatch):
    other = load_data("digits")
    changed = replace(other, facts=replace(other.facts, split_digest="f" * 32))
    monkeypatch.setattr(data_place, "load_data", lambda *_, **__: changed)
    with pytest.raises(
        StudyError, match=r"has changed since study 'tiny' was run \(split ffffffff"
    ):
        explain("tiny", storage=storage, load=load)


def test_a_split_that_is_too_large_is_surveyed_evenly(study, load, storage, monkeypatch):
    monkeypatch.setattr(module, "SURVEYED_AT_MOST", 40)
    found = explain("tiny", [0, 1], storage=storage, images="3", split="train", load=load)
    assert found.surveyed == 40
    rows = found.split.surveyed()
    assert (rows[0], rows[-1], len(set(rows))) == (0, 1076, 40)
    assert set(found.numbers) <= set(rows)


def test_the_terminal_shows_every_trial(study, load, storage):
    found = explain("tiny", [0, 1, 2], storage=storage, images="2", load=load)
    with results.capture() as capture:
        for part in explained_parts(found):
            results.print(part)
    text = capture.get()
    for words in ("no attention is inserted", "specificity", "0,0", "of diagonal", "stage3"):
        assert words in text
    groups = [
        {"u": 0, "v": 0, "share": 0.25, "energy": 0.5},
        {"u": 6, "v": 0, "share": 0.5, "energy": 0.5},
    ]
    assert top_groups(groups, 1) == "6,0 50.0 %"


def test_the_panel_has_a_row_per_image_and_a_column_per_trial(study, load, storage, tmp_path):
    found = explain("tiny", [0, 1, 2], storage=storage, images="2", load=load)
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    write_panel(found, check_output(str(small)))
    write_panel(
        explain("tiny", [0, 1, 2], storage=storage, images="4", load=load), check_output(str(large))
    )
    with Image.open(small) as first, Image.open(large) as second:
        assert first.width == second.width
        assert first.height < second.height
        assert len(first.convert("RGB").getcolors(1 << 20)) > 100


def test_a_place_that_is_none_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(StudyError, match=r"ends in '?\.png.*such as cams\.png"):
        check_output(str(tmp_path / "cams.html"))
    with pytest.raises(StudyError, match="there is no folder"):
        check_output(str(tmp_path / "nowhere" / "cams.png"))


def test_the_command_prints_json_alone(study, load, storage, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_kept", lambda study, storage: load)
    place = tmp_path / "cams.svg"
    command = ["explain", "tiny", "0", "1", "--storage", storage, "--images", "2"]
    done = CliRunner().invoke(app, [*command, "--format", "json", "--output", str(place)])
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    assert [trial["number"] for trial in data["trials"]] == [0, 1]
    assert len(data["trials"][1]["gradcam"]["images"]) == 2
    assert place.read_text().startswith("<?xml")
    shown = CliRunner().invoke(app, command)
    assert "Trial 1" in shown.stdout


def ran(monkeypatch, storage, *flags, load=None):
    """``search run`` on the study that has ended, which trains nothing."""
    monkeypatch.setattr(module, "_kept", lambda study, storage: load)
    trial = SimpleNamespace(state="complete", origin=None)
    result = StudyResult("tiny", storage, {"accuracy": "max"}, [trial], [0])
    monkeypatch.setattr("search.study.execute", lambda plan, watch: result)
    monkeypatch.setattr("search.show.front_table", lambda *a, **k: "")
    command = ["run", "--space", "tiny.yaml", "--study", "tiny", "--storage", storage]
    return CliRunner().invoke(app, [*command, "--trials", "3", "--sampler", "grid", *flags])


def test_a_run_can_look_at_its_end(study, load, storage, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    engine = open_for_reading(storage_url(storage))
    key = read_study(engine, "tiny").id
    assert ran(monkeypatch, storage, load=load).exit_code == 0
    assert read_insights(engine, key) == {}
    assert ran(monkeypatch, storage, "--explain", load=load).exit_code == 0
    assert 0 in read_insights(engine, key)
    engine.dispose()
    assert "What attention does" in (tmp_path / "tiny-report.html").read_text(encoding="utf-8")


def test_a_run_is_not_lost_where_nothing_can_be_looked_at(study, storage, monkeypatch, tmp_path):
    def none(number):
        raise CheckpointError("weights are not kept")

    monkeypatch.chdir(tmp_path)
    assert ran(monkeypatch, storage, "--explain", load=none).exit_code == 0
    assert (tmp_path / "tiny-report.html").exists()


def test_to_look_at_networks_that_are_not_kept_is_refused_before_training(
    study, storage, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    done = ran(monkeypatch, storage, "--explain", "--keep-weights", "none")
    assert isinstance(done.exception, StudyError)
    assert "needs --keep-weights front, or all" in str(done.exception)
