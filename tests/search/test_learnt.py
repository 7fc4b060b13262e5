"""What a training has learnt is shown site by site, with the trial that trained it anew."""

import json
from dataclasses import replace

import pytest
from instant import drive, outcome_of
from typer.testing import CliRunner

from reports.page import write_report
from search import show
from search.cli import app
from search.database import open_for_reading, storage_url
from search.learnt import frequency_words, learnt_by_trials, sites_words
from search.reading import read_findings
from spaces.space import make_space

CONTENT = {
    "question": "Which frequencies?",
    "backbone": "resnet20",
    "attention": {
        "type": {"none": {}, "fca": {"frequency": ["top1", "nas2"], "reduction": 8}},
        "placement": "stage",
    },
    "training": {"epochs": 1},
}
CHOSEN = {"stage1": "0,1+6,0", "stage2": "2,2", "stage3": "0,0+0,1"}


def finding(trial):
    """The trial's architecture with the frequencies that it is to have chosen."""
    found = json.loads(json.dumps(trial.architecture))
    for placement in found["placements"]:
        placement["options"]["frequency"] = CHOSEN[placement["site"]]
    return found


@pytest.fixture
def study(opened):
    study = opened(make_space(CONTENT, name="learnt"), trials=9, sampler="grid")
    while (assignment := study.next_assignment()) is not None:
        trial = study.trials[assignment.trial]
        learnt = trial.label.endswith("nas2 r=8")
        outcome = replace(outcome_of(trial), found=finding(trial) if learnt else None)
        study.on_finish(trial.number, outcome, {})
    return study


def test_the_trial_that_learnt_and_the_one_that_was_trained_anew(study):
    findings = read_findings(study.store.engine, study.id)
    (one,) = learnt_by_trials(findings, study.trials.values())
    assert one.trial.label == "fca stage nas2 r=8"
    assert dict(one.sites) == {"stage1": "0,1 + 6,0", "stage2": "2,2", "stage3": "top2"}
    (anew,) = one.anew
    assert anew.label == "fca stage nas2 r=8 (found)"
    assert anew.architecture == finding(one.trial)


def test_other_settings_of_training_are_another_trial(study):
    findings = read_findings(study.store.engine, study.id)
    trials = list(study.trials.values())
    other = replace(trials[-1], number=99, training={**trials[-1].training, "epochs": 7})
    (one,) = learnt_by_trials(findings, [*trials, other])
    assert one.numbers == [trials[-1].number]


def test_show_has_both_ways_and_the_sites(study, storage):
    drive(study)
    learnt, anew = (next(iter(one)).number for one in _pair(study))
    engine = open_for_reading(storage_url(storage))
    data = show.one_trial_data(engine, "learnt", learnt)
    assert data["found_trials"] == [anew]
    assert list(data["found_sites"]) == ["stage1", "stage2", "stage3"]
    assert show.one_trial_data(engine, "learnt", anew)["found_by"] == [learnt]
    assert "found_by" not in show.one_trial_data(engine, "learnt", 0)
    engine.dispose()
    done = CliRunner().invoke(app, ["show", "learnt", str(learnt), "--storage", storage])
    assert done.exit_code == 0
    assert f"trained anew as trial {anew}" in done.output
    assert "0,1 + 6,0" in done.output
    done = CliRunner().invoke(app, ["show", "learnt", str(anew), "--storage", storage])
    assert f"trial {learnt}" in done.output
    assert "reduction 8" in done.output


def _pair(study):
    trials = study.trials.values()
    return [t for t in trials if t.label.endswith("nas2 r=8")], [
        t for t in trials if "found" in t.label
    ]


def test_the_report_lists_the_sites(study, storage, tmp_path):
    page = write_report("learnt", storage=storage, output=tmp_path / "r.html").read_text("utf-8")
    assert '<p class="question">Which frequencies?</p>' in page  # the space's own
    assert "What trainings chose" in page
    (_, anew) = _pair(study)
    assert f"trial {anew[0].number}: <b>" in page
    section = page[page.index('id="learnt"') :]
    section = section[: section.index("</section>")]
    for words in ("stage1", "0,1 + 6,0", "stage2", "2,2", "stage3", "top2"):
        assert words in section


def test_a_report_without_such_a_training_has_no_such_section(opened, storage, tmp_path):
    types = {"none": {}, "fca": {"frequency": "top1"}}
    content = {**CONTENT, "attention": {"type": types, "placement": "stage"}}
    drive(opened(make_space(content, name="learnt"), trials=9))
    page = write_report("learnt", storage=storage, output=tmp_path / "r.html").read_text("utf-8")
    assert "What trainings chose" not in page


def test_equal_neighbours_stand_together():
    rows = [
        {"site": "stage1", "block": "se", "options": {"reduction": 4, "bias": False}},
        {"site": "stage2", "block": "se", "options": {"bias": False, "reduction": 4}},
        {"site": "stage3", "block": "fca", "options": {"frequency": "0,0+0,1"}},
        {"site": "stem", "block": "simam", "options": {}, "identity_start": True},
    ]
    assert sites_words(rows) == [
        ("stage1, stage2", "se", "bias False, reduction 4"),
        ("stage3", "fca", "frequency top2"),
        ("stem", "simam", "starts as the identity"),
    ]
    assert frequency_words("of a later version") == "of a later version"
