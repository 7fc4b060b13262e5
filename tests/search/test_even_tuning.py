"""No attention gets as many settings as the block with the most."""

from collections import Counter
from dataclasses import replace

import pytest
from instant import PROVENANCE, drive, outcome_of

from reports.findings import Findings
from reports.records import read_records
from reports.sections import cards, front_rows
from search.even_tuning import EvenTuning, tunes_baseline, was_tuned
from search.plan import stored_study
from search.show import front_table
from spaces.space import load_space, make_space

CONTENT = {
    "backbone": "resnet20",
    "attention": {"type": ["none", "se", "eca"], "placement": ["stem", "stage"], "reduction": [4]},
    "training": {
        "epochs": 1,
        "learning_rate": {"low": 0.01, "high": 0.4, "log": True, "default": 0.1},
        "attention_learning_rate": [1, 10],
    },
}
WITHOUT = {**CONTENT, "study": {"tune_baseline": False}}


def tried(study):
    """Block -> how many candidates have it."""
    first = {trial.digest: trial for trial in study.trials.values()}
    blocks = [{p["block"] for p in trial.architecture["placements"]} for trial in first.values()]
    return Counter(" + ".join(sorted(names)) or "none" for names in blocks)


@pytest.mark.parametrize("sampler", ["nsga2", "random"])
def test_no_attention_never_falls_behind(opened, sampler):
    study = opened(make_space(CONTENT, name="tuned"), trials=30, sampler=sampler)
    for _ in range(30):
        drive(study, stop_after=1)
        counts = tried(study)
        plain = counts.pop("none")
        # A block that has just gone ahead is caught up with by the next trial.
        assert max(counts.values(), default=0) - plain <= 1
    assert [trial.baseline for trial in study.trials.values()].count(True) == 1


@pytest.mark.parametrize("types", [["se", "eca"], ["none", "se", "eca"]])
def test_it_has_the_settings_of_a_block_that_is_ahead(opened, types):
    attention = {**CONTENT["attention"], "type": types}
    study = opened(make_space({**CONTENT, "attention": attention}, name="tuned"), trials=24)
    drive(study)
    trials = list(study.trials.values())
    rates = {t.training["learning_rate"] for t in trials if t.architecture["placements"]}
    plain = [t for t in trials if not t.architecture["placements"]]
    copied = [t for t in plain if t.training["learning_rate"] in rates and not t.baseline]
    assert copied
    assert all("attention_learning_rate" not in t.training for t in copied)
    if "none" not in types:  # then the sampler itself proposes none
        assert copied == plain[1:]
        assert len(plain) >= 24 // 3


def test_left_out_or_without_searched_settings_nothing_is_added(opened):
    study = opened(make_space(WITHOUT, name="plain"), trials=12, sampler="random")
    drive(study)
    assert tried(study)["none"] < max(tried(study).values())
    fixed = make_space({**CONTENT, "training": {"epochs": 1}}, name="fixed")
    study = opened(fixed, trials=12, sampler="random")
    drive(study)
    assert len(study.trials) == 5  # none; se and eca at two placements
    assert not study.plan.tune_baseline
    assert "tune_baseline" not in study.plan.settings


def test_a_study_that_was_made_without_goes_on_without(opened, storage):
    """As earlier versions stored it: neither its file nor its settings say anything."""
    made = make_space(CONTENT, name="old")
    off = opened(make_space(WITHOUT, name="old"), trials=20, sampler="random")
    drive(off, stop_after=6)
    settings = {n: v for n, v in off.plan.settings.items() if n != "tune_baseline"}
    off.store.update_study(off.id, settings={**settings, "file": {}})
    on = opened(made, trials=20, sampler="random")
    assert not on.plan.tune_baseline
    drive(on)
    whole = opened(make_space(WITHOUT, name="whole"), trials=20, sampler="random")
    drive(whole)
    assert [t.digest for t in on.trials.values()] == [t.digest for t in whole.trials.values()]
    assert not read_records(storage, "old").tuned


def test_the_file_says_more_than_what_is_stored(opened, storage):
    study = opened(make_space(WITHOUT, name="said"), trials=4, sampler="random")
    stored = stored_study(study.plan.storage, "said")
    assert not was_tuned(stored.settings)
    assert not tunes_baseline(make_space(CONTENT, name="said"), stored)
    asked = {**CONTENT, "study": {"tune_baseline": True}}
    assert tunes_baseline(make_space(asked, name="said"), stored)
    wider = {**CONTENT, "attention": {**CONTENT["attention"], "reduction": [4, 8]}}
    assert tunes_baseline(make_space(wider, name="said"), stored)  # decided anew


def test_what_the_space_forbids_is_not_tried_without_attention_either(opened):
    rule = {"type": "none", "training.learning_rate": {"above": 0.15}}
    study = opened(make_space({**CONTENT, "forbid": [rule]}, name="ruled"), trials=24)
    drive(study)
    plain = [t for t in study.trials.values() if not t.architecture["placements"]]
    blocks = [t for t in study.trials.values() if t.architecture["placements"]]
    assert any(t.training["learning_rate"] > 0.15 for t in blocks)
    assert len(plain) > 2
    assert all(t.training["learning_rate"] <= 0.15 for t in plain)


def test_every_trial_is_looked_at_once(opened):
    """What is asked of the trials does not grow with the study."""
    study = opened(make_space(CONTENT, name="tuned"), trials=20, sampler="random")
    drive(study)
    tuning = EvenTuning(study.plan.space, study.plan.data, wanted=True)
    tuning.next(study.trials, study.by_candidate)
    tuning.next(dict.fromkeys(study.trials), study.by_candidate)  # None has no architecture


def test_cut_off_and_continued_it_is_the_same_study(opened, tmp_path):
    made = make_space(CONTENT, name="tuned")
    whole = opened(made, trials=14, url=f"sqlite:///{tmp_path}/whole.db")
    drive(whole)
    url = f"sqlite:///{tmp_path}/parts.db"
    for stop_after in (3, 4, 99):
        parts = opened(made, trials=14, url=url)
        drive(parts, stop_after=stop_after)
    assert [t.digest for t in parts.trials.values()] == [t.digest for t in whole.trials.values()]


def test_the_report_compares_with_the_best_of_its_settings(opened, storage):
    study = opened(make_space(CONTENT, name="tuned"), trials=16, sampler="random")
    drive(study)
    records = read_records(storage, "tuned")
    plain = [t for t in records.successes if not t.architecture["placements"]]
    assert records.tuned
    assert len(plain) > 2
    best = max(plain, key=lambda trial: trial.accuracy)
    assert not best.baseline or len({t.accuracy for t in plain}) > 1
    assert records.baselines["resnet20"].accuracy == best.accuracy
    assert records.baselines["resnet20"].number == best.number
    assert records.references == {best.digest}
    findings = Findings(records)
    shown = {card["trial"]: card for card in cards(findings)}
    assert shown[best.number]["gain"] == "the reference"
    assert shown[best.number]["label"] == best.label
    assert 0 not in shown or shown[0]["gain"] != "the reference"
    rows = {row["number"]: row for row in front_rows(findings)}
    assert best.number in rows
    assert 0 not in rows or 0 in records.front


def test_where_no_attention_at_other_settings_is_best_no_block_beat_it(opened, storage):
    study = opened(make_space(CONTENT, name="tuned"), trials=16, sampler="random")
    while (assignment := study.next_assignment()) is not None:
        trial = study.trials[assignment.trial]
        outcome = outcome_of(trial)
        if not trial.architecture["placements"] and not trial.baseline:
            measured = (("validation", "accuracy", 0.999), ("test", "accuracy", 0.9))
            outcome = replace(outcome, measurements=measured)
        study.on_finish(trial.number, outcome, PROVENANCE)
    findings = Findings(read_records(storage, "tuned"))
    best = findings.best.first
    assert not best.baseline
    assert not best.architecture["placements"]
    words = " ".join(part.text for sentence in findings.verdict() for part in sentence)
    assert "No block beat no attention" in words
    assert f"the most accurate candidate is {best.label} (trial {best.number})" in words


def test_the_front_at_the_end_is_compared_with_the_best_too(opened):
    study = opened(make_space(CONTENT, name="tuned"), trials=16, sampler="random")
    drive(study)
    result = study.result()
    plain = [t for t in result.trials if not t.architecture["placements"]]
    best = max(plain, key=lambda trial: trial.accuracy)
    numbers = [trial.number for trial in result.trials]
    vs = {
        tuned: dict(zip(*(_column(result, numbers, name, tuned) for name in COLUMNS), strict=True))
        for tuned in (False, result.tuned)
    }
    assert result.tuned
    assert not best.baseline
    assert (vs[False]["0"], vs[True][str(best.number)]) == ("baseline", "baseline")
    gain = 100 * (result.trials[0].accuracy - best.accuracy)
    assert vs[True]["0"] == f"{gain:+.1f}"
    assert list(vs[True].values()).count("baseline") == 1


COLUMNS = ("trial", "vs none")


def _column(result, numbers, name, tuned):
    table = front_table(result.trials, numbers, title="", tuned=tuned)
    (column,) = [column for column in table.columns if column.header == name]
    return [str(cell) for cell in column.cells]


def test_the_shipped_space_has_it():
    space = load_space("attention-tuned")
    assert space.study["tune_baseline"] is True
    assert tunes_baseline(space)
    assert not space.training["learning_rate"].is_fixed
