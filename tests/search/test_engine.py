import json
from collections import Counter
from dataclasses import replace

import pytest
from instant import accuracy_of, drive, outcome_of

from blocks.architecture import Architecture, Placement, resolve
from blocks.backbone import site_table
from blocks.errors import SpaceError, StudyError
from search.outcome import Outcome
from search.reading import read_attempts, read_curves, read_findings, read_proposals, read_trials
from search.samplers import SAMPLERS
from search.show import reused_words, study_data, trials_table

SMALL = """
backbone: resnet20
attention:
  type: [none, se]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
"""
# none; se at the stem: 16 channels, r = 4 and 16 are 4 and 1 wide; se at the stages: 4, 8, 16 and
# 1, 2, 4 wide. Five distinct candidates.
SMALL_DISTINCT = 5

# Those that model are slower, and model after 10 trials.
SLOWER = {"tpe": 15, "gp": 13}
EVERY_SAMPLER = pytest.mark.parametrize(
    "sampler", [pytest.param(n, marks=pytest.mark.slow) if n == "gp" else n for n in SAMPLERS]
)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def proposed(study):
    return [study.trials[number].digest for number in sorted(study.trials)]


def test_the_baseline_is_trial_0_and_is_there_once(opened):
    study = opened(trials=8)
    assert drive(study) == 8
    assert study.trials[0].baseline
    assert study.trials[0].label == "none"
    assert [t.baseline for t in study.trials.values()] == [True] + [False] * 7


@EVERY_SAMPLER
def test_the_total_is_exact_and_nothing_is_evaluated_twice(opened, sampler):
    total = SLOWER.get(sampler, 30)
    study = opened(trials=total, sampler=sampler)
    assert drive(study) == total
    assert study.is_finished
    assert len(set(proposed(study))) == total
    assert sorted(study.trials) == list(range(total))


@EVERY_SAMPLER
def test_a_space_with_fewer_candidates_than_trials_ends_by_itself(opened, small, sampler):
    study = opened(small, trials=50, sampler=sampler)
    assert drive(study) == SMALL_DISTINCT
    assert study.is_finished
    assert "every distinct candidate" in study.note
    assert "(5 in the study)" in study.note


RANGES = """
backbone: resnet20
attention:
  type: [none, se, eca]
  placement: [stem, stage]
  reduction: [4, 16]
training:
  epochs: 1
  learning_rate: {low: 0.01, high: 1, log: true}
  batch_size: {low: 16, high: 64}
"""
CAPPED = SMALL.replace("[4, 16]", "[1, 2, 4, 8, 16]").replace(
    "[stem, stage]", "[stem, stage, in-block]"
)
REPLAYED = {
    "lists": (None, {}),
    "ranges": (RANGES, {}),
    "caps": (CAPPED + "constraints: {params: 1.01x baseline}\n", {}),
    "two seeds": (RANGES, {"seeds": 2}),
}


@EVERY_SAMPLER
@pytest.mark.parametrize("kind", REPLAYED)
def test_stopped_and_continued_it_proposes_what_it_would_have(opened, tmp_path, sampler, kind):
    text, flags = REPLAYED[kind]
    if text is RANGES and sampler == "grid":
        pytest.skip("grid needs lists")
    path = tmp_path / "space.yaml"
    path.write_text(text or "")
    space = str(path) if text else "attention"
    total = SLOWER.get(sampler, 40) * flags.get("seeds", 1)
    flags = {"trials": total, "sampler": sampler, **flags}
    whole = opened(space, url=f"sqlite:///{tmp_path}/whole.db", **flags)
    drive(whole)
    parts_url = f"sqlite:///{tmp_path}/parts.db"
    for stop_after in (1, 7, 4, 3):
        cut = opened(space, url=parts_url, **flags)
        drive(cut, stop_after=stop_after)
        cut.next_assignment()  # begun, and never ended
    parts = opened(space, url=parts_url, **flags)
    drive(parts)
    assert proposed(parts) == proposed(whole)
    stored = [read_proposals(s.store.engine, s.id) for s in (parts, whole)]
    kept = [[row for row in rows if row.verdict == "accepted"] for rows in stored]
    assert kept[0] == kept[1]


def test_a_trial_cut_off_by_a_kill_runs_again_under_its_number_and_seed(opened):
    study = opened(trials=5)
    drive(study, stop_after=2)
    cut = study.next_assignment()
    # The process is gone: nobody says how it went.
    again = opened(trials=5)
    first = again.next_assignment()
    assert (first.trial, first.seed, first.architecture) == (cut.trial, cut.seed, cut.architecture)
    assert first.attempt == cut.attempt + 1
    again.on_finish(first.trial, outcome_of(again.trials[first.trial]), {})
    drive(again)
    assert len(again.trials) == 5
    endings = [
        a.ending for a in read_attempts(again.store.engine, again.id) if a.trial == cut.trial
    ]
    assert endings == ["lost", "complete"]


def test_a_finished_study_does_nothing_more(opened):
    drive(opened(trials=4))
    again = opened(trials=4)
    assert again.next_assignment() is None
    assert again.is_finished


def test_a_larger_total_goes_on(opened):
    drive(opened(trials=4))
    assert drive(opened(trials=9)) == 5


def test_further_seeds_come_before_new_candidates(opened):
    drive(opened(trials=3, seeds=1))
    study = opened(trials=8, seeds=2)
    drive(study)
    pairs = [(t.digest, t.seed) for t in study.trials.values()]
    assert len(set(pairs)) == 8
    counts = Counter(digest for digest, _ in pairs)
    assert list(counts.values()) == [2, 2, 2, 2]
    assert [seed for _, seed in pairs[:6]] == [0, 0, 0, 1, 1, 1]


def test_the_sampler_is_told_the_mean_of_replicates(opened):
    study = opened(trials=6, seeds=3, seed=5)
    drive(study)
    rows = [p for p in read_proposals(study.store.engine, study.id) if p.state == "complete"]
    assert len(rows) == 2
    for row in rows:
        accuracies = [accuracy_of(row.digest, seed) for seed in (5, 6, 7)]
        assert row.values[0] == pytest.approx(sum(accuracies) / 3)


def test_a_result_of_another_study_is_taken_over(opened):
    drive(opened(trials=6, study="first"))
    second = opened(trials=6, study="second")
    assert drive(second) == 0
    trials = read_trials(second.store.engine, second.id)
    assert [t.state for t in trials] == ["reused"] * 6
    assert [t.origin for t in trials] == [f"first {n}" for n in range(6)]
    assert trials[3].accuracy == accuracy_of(trials[3].digest, 0)
    told = "6 results were taken over from other studies; `search show` says from which"
    assert reused_words(trials) == told
    assert reused_words(trials[:1]).startswith("1 result was taken over")
    assert reused_words([]) == ""
    rows = study_data(second.store.engine, "second")["trials"]
    shown = {c.header: list(c.cells) for c in trials_table("", rows, []).columns}
    assert [cell.plain for cell in shown["reused from"]] == [f"first {n}" for n in range(6)]


def test_a_trial_that_was_cut_off_is_not_trained_where_another_study_has_its_result(opened):
    drive(opened(trials=6, study="first"), stop_after=2)
    cut_off = opened(trials=6, study="first")
    assert [cut_off.next_assignment().trial, cut_off.next_assignment().trial] == [2, 3]
    other = opened(trials=3, study="other")
    assert drive(other) == 1  # the first two are reused; trial 2 of the first is trained here
    again = opened(trials=6, study="first")
    stored = read_trials(again.store.engine, again.id)
    assert [t.state for t in stored] == ["complete", "complete", "reused", "waiting"]
    assert stored[2].origin == "other 2"
    assert stored[2].accuracy == accuracy_of(stored[2].digest, 0)
    assert stored[2].test_accuracy == stored[2].accuracy - 0.01
    assert read_curves(again.store.engine, again.id)[2]
    told = {p.number: p.state for p in read_proposals(again.store.engine, again.id)}
    assert told[stored[2].proposal] == "complete"
    assert drive(again) == 3


def test_failures_are_states_of_their_own_and_told_as_failures(opened):
    states = {1: "failed", 2: "diverged", 3: "complete"}
    study = opened(trials=4)
    drive(study, state_of=lambda trial: states.get(trial.number, "complete"))
    stored = read_trials(study.store.engine, study.id)
    assert [t.state for t in stored] == ["complete", "failed", "diverged", "complete"]
    assert stored[1].error == "planted"
    assert stored[1].accuracy is None
    told = {p.digest: p.state for p in read_proposals(study.store.engine, study.id)}
    assert told[stored[1].digest] == "failed"
    assert told[stored[3].digest] == "complete"
    attempts = read_attempts(study.store.engine, study.id)
    assert attempts[1].traceback == "Traceback of the planted error"


def test_a_trial_that_kills_its_workers_fails_after_three(opened):
    study = opened(trials=2)
    drive(study, stop_after=1)
    for attempt in (1, 2, 3):
        assignment = study.next_assignment()
        assert assignment.attempt == attempt
        study.on_lost(assignment.trial, "its worker ended with signal 9")
    assert study.trials[1].state == "failed"
    assert "signal 9" in study.trials[1].error
    assert study.is_finished


@EVERY_SAMPLER
def test_caps_reject_before_training_and_once_each(opened, tmp_path, sampler):
    path = tmp_path / "capped.yaml"
    path.write_text(SMALL.replace("[4, 16]", "[1, 4, 16]") + "constraints: {params: 270000}\n")
    # The baseline has 269,434 parameters. se at the stem adds 2 x 16 h = 32 h: 512, 128 or 32 for
    # h = 16, 4, 1. At the three stages 2 x (16 h1 + 32 h2 + 64 h3): 10,752 for r = 1, 2,688 for
    # r = 4 and 672 for r = 16. Over the cap of 566 more: the three of the stages.
    study = opened(str(path), trials=30, sampler=sampler)
    drive(study)
    assert sorted(t.params - 269434 for t in study.trials.values()) == [0, 32, 128, 512]
    rows = read_proposals(study.store.engine, study.id)
    assert len({p.digest for p in rows if p.verdict == "rejected"}) == 3
    reasons = {p.reason for p in rows if p.verdict == "rejected"}
    assert any("params 280,186 is over 270,000 (270000)" in reason for reason in reasons)
    assert "3 over a cap" in study.note


def test_the_baseline_is_trained_also_when_over_a_cap(opened, tmp_path):
    path = tmp_path / "impossible.yaml"
    path.write_text(SMALL + "constraints: {params: 100}\n")
    study = opened(str(path), trials=30)
    assert drive(study) == 1
    assert study.trials[0].baseline


def test_another_space_is_refused_with_the_difference(opened, small, tmp_path):
    drive(opened(small, trials=2, study="s"))
    changed = tmp_path / "changed.yaml"
    changed.write_text(SMALL.replace("[4, 16]", "[4, 8, 16]"))
    with pytest.raises(StudyError, match="another space") as error:
        opened(str(changed), trials=2, study="s")
    text = str(error.value)
    assert "- attention.reduction: [4, 16]" in text.replace("-attention", "- attention")
    assert "+attention.reduction: [4, 8, 16]" in text
    assert "--extend" in text
    study = opened(str(changed), trials=5, study="s", extend=True)
    drive(study)
    assert len(study.trials) == 5


@pytest.mark.parametrize("flags", [{"epochs": 3}, {"seed": 9}])
def test_another_setting_that_changes_results_is_refused(opened, small, flags):
    drive(opened(small, trials=2))
    with pytest.raises(StudyError, match=next(iter(flags))):
        opened(small, trials=2, **flags)


def test_settings_that_may_change_are_kept_until_they_do(opened, small):
    drive(opened(small, trials=3, sampler="random", seed=4))
    again = opened(small)
    assert (again.plan.trials, again.plan.sampler, again.plan.seed) == (3, "random", 4)
    assert opened(small, sampler="tpe", trials=4).plan.sampler == "tpe"


def test_a_value_that_fits_no_site_is_refused_at_the_start(opened, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "backbone: resnet20\nattention:\n  type: [none, fca]\n  placement: stem\n"
        "  frequency: [top16, top32]\ntraining: {epochs: 1}\n"
    )
    with pytest.raises(SpaceError, match="frequency 'top32'.*16 channels.*32 equal"):
        opened(str(path))


def test_a_proposal_that_fits_no_site_costs_no_trial(opened, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "backbone: resnet20\nattention:\n  type: [none, fca]\n  placement: [stem, stage]\n"
        "  per_stage: true\n  frequency: [top16, top32]\ntraining: {epochs: 1}\n"
    )
    study = opened(str(path), trials=12, sampler="random")
    drive(study)
    rows = read_proposals(study.store.engine, study.id)
    assert len(study.trials) == 12
    assert any(p.verdict == "impossible" and "32 equal" in p.reason for p in rows)


def test_several_backbones_have_a_baseline_each(opened, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(SMALL.replace("backbone: resnet20", "backbone: [resnet20, resnet20-b]"))
    study = opened(str(path), trials=4)
    drive(study)
    assert [t.baseline for t in study.trials.values()] == [True, True, False, False]
    assert [t.architecture["backbone"] for t in study.trials.values()][:2] == [
        "resnet20",
        "resnet20-b",
    ]


def test_what_is_in_memory_is_what_is_stored(opened):
    study = opened(trials=10, sampler="random")
    drive(study, state_of=lambda t: "failed" if t.number == 4 else "complete")
    for stored in read_trials(study.store.engine, study.id):
        held = study.trials[stored.number]
        for name in ("state", "digest", "architecture", "flops", "measurements", "epochs", "error"):
            assert getattr(held, name) == getattr(stored, name), name


def test_learning_rates_from_a_range_are_candidates_of_their_own(opened, tmp_path):
    path = tmp_path / "tuned.yaml"
    path.write_text(
        SMALL.replace("{epochs: 1}", "{epochs: 1, learning_rate: {low: 0.01, high: 1, log: true}}")
    )
    study = opened(str(path), trials=12, sampler="tpe")
    drive(study)
    trials = list(study.trials.values())
    assert trials[0].training["learning_rate"] == pytest.approx(0.1)  # the geometric middle
    assert len({trial.digest for trial in trials}) == 12
    # No attention is tuned at rates that blocks were tried with; every other rate is new.
    drawn = [t.training["learning_rate"] for t in trials if t.architecture["placements"]]
    assert len(set(drawn)) == len(drawn) >= 6
    assert all(0.01 <= rate <= 1 for rate in drawn)


def test_interrupting_puts_the_running_trials_back(opened):
    study = opened(trials=5)
    numbers = {study.next_assignment().trial, study.next_assignment().trial}
    study.interrupt()
    states = {t.number: t.state for t in read_trials(study.store.engine, study.id)}
    assert all(states[number] == "waiting" for number in numbers)


def test_assignments_survive_a_pipe(opened):
    assignment = opened(trials=2).next_assignment()
    assert json.loads(json.dumps(assignment.to_json())) == assignment.to_json()


def test_outcomes_survive_a_pipe(opened):
    study = opened(trials=2)
    outcome = outcome_of(study.trials[0])
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_grid_walks_a_space_too_large_to_be_listed(opened, tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(
        "backbone: resnet20\nattention: {type: [none, fca], per_stage: true,"
        " placement: [stem, stage, in-block], frequency: singles}\ntraining: {epochs: 1}\n"
    )
    study = opened(str(path), trials=6, sampler="grid")
    assert drive(study) == 6
    assert study.note == ""
    again = opened(str(path), trials=9, sampler="grid")
    assert drive(again) == 3
    assert len(set(proposed(again))) == 9


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        ("{epochs: 1, learning_rate: {low: 0.1, high: 1}}", {"sampler": "grid"}, "needs lists"),
        ("{epochs: 1, batch_size: [64, 5000]}", {}, "batch_size 5000 is more than the 1077"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(opened, tmp_path, text, flags, words):
    path = tmp_path / "space.yaml"
    path.write_text(SMALL.replace("{epochs: 1}", text))
    with pytest.raises(StudyError, match=words):
        opened(str(path), **flags)
    assert [file.name for file in tmp_path.iterdir()] == ["space.yaml"]


def test_every_backbone_must_have_room_for_its_baseline(opened, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(SMALL.replace("backbone: resnet20", "backbone: [resnet20, resnet20-b]"))
    with pytest.raises(StudyError, match="--trials is 1.*2 backbones.*give 2 or more"):
        opened(str(path), trials=1)


def test_a_changed_space_gets_the_baseline_that_it_lacks(opened, small, tmp_path):
    drive(opened(small, trials=3, study="s"))
    two = tmp_path / "two.yaml"
    two.write_text(SMALL.replace("backbone: resnet20", "backbone: [resnet20, resnet20-b]"))
    study = opened(str(two), trials=5, study="s", extend=True)
    drive(study)
    baselines = [t for t in study.trials.values() if t.baseline]
    assert [t.number for t in baselines] == [0, 3]
    assert baselines[1].architecture["backbone"] == "resnet20-b"


def test_a_tightened_cap_leaves_every_trial_on_the_mirrors_front(opened, small, tmp_path):
    drive(opened(small, trials=5, study="s"))
    capped = tmp_path / "capped.yaml"
    capped.write_text(SMALL + "constraints: {params: 1.0x baseline}\n")
    study = opened(str(capped), trials=5, study="s", extend=True)
    above = [study.above_caps(trial)["params"] for trial in study.trials.values()]
    assert all(value <= 0 for value in above)


def test_epochs_are_remembered_like_other_settings(opened, small):
    drive(opened(small, trials=2, epochs=3))
    assert opened(small).plan.space.epochs == 3


# What learnt choices come to. --------------------------------------------------------------------

LEARNT = """
backbone: resnet20
attention:
  type: {none: {}, fca: {frequency: [nas, nas4]}}
  placement: [stage, stem]
training: {epochs: 1}
constraints: {params: 1.1x baseline}
"""


def finding(trial):
    """The architecture of a trial with every learnt frequency settled, another at each seed."""
    text = json.dumps(trial.architecture)
    for groups in ("nas16", "nas4"):
        text = text.replace(groups, f"0,{trial.seed}")
    return None if text == json.dumps(trial.architecture) else json.loads(text)


def drive_found(study, stop_after=None):
    done = 0
    while done != stop_after and (assignment := study.next_assignment()) is not None:
        trial = study.trials[assignment.trial]
        outcome = replace(outcome_of(trial), found=finding(trial))
        study.on_finish(trial.number, Outcome.from_json(outcome.to_json()), {})
        done += 1
    return done


@pytest.fixture
def learnt(tmp_path):
    path = tmp_path / "learnt.yaml"
    path.write_text(LEARNT)
    return str(path)


def test_what_a_training_found_is_trained_anew_and_once(opened, learnt):
    study = opened(learnt, trials=50, sampler="random")
    drive_found(study)
    assert study.is_finished
    labels = [trial.label for trial in study.trials.values()]
    # Two groupings at stages and stem; at each place both come to the same ordinary network.
    assert len(labels) == 1 + 4 + 2
    found = [trial for trial in study.trials.values() if trial.label.endswith("(found)")]
    assert len({trial.digest for trial in found}) == 2
    assert all("nas" not in json.dumps(trial.architecture) for trial in found)
    assert all(trial.params == study.trials[0].params + extra(trial) for trial in found)
    engine, number = study.store.engine, found[0].number - 1
    assert "nas" in study.trials[number].label
    assert read_findings(engine, study.id)[number] == found[0].architecture


def extra(trial):
    """SE's two layers at resnet20's widths, r = 16: 2 * C * (C // 16)."""
    places = {"stem": 16, "stage1": 16, "stage2": 32, "stage3": 64}
    channels = [places[p["site"]] for p in trial.architecture["placements"]]
    return sum(2 * c * (c // 16) for c in channels)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_stopped_study_still_trains_what_was_found(opened, learnt, tmp_path, stop_after):
    whole = opened(learnt, trials=50, sampler="random", url=f"sqlite:///{tmp_path}/whole.db")
    drive_found(whole)
    study = opened(learnt, trials=50, sampler="random")
    drive_found(study, stop_after)
    again = opened(learnt, trials=50, sampler="random")
    drive_found(again)
    assert proposed(again) == proposed(whole)


def test_only_the_first_seeds_finding_is_trained(opened, learnt):
    study = opened(learnt, trials=100, seeds=2, sampler="random")
    drive_found(study)
    found = {t.digest for t in study.trials.values() if t.label.endswith("(found)")}
    assert len(found) == 2
    assert len(study.trials) == 2 * (1 + 4 + 2)


def test_a_result_taken_over_brings_its_finding(opened, learnt):
    drive_found(opened(learnt, trials=50, sampler="random"))
    other = opened(learnt, trials=50, sampler="random", study="other")
    assert drive_found(other) == 0
    assert len(other.trials) == 7
    assert {trial.state for trial in other.trials.values()} == {"reused"}


def test_a_finding_over_a_cap_is_not_trained(opened, tmp_path):
    path = tmp_path / "capped.yaml"
    path.write_text(LEARNT.replace("1.1x", "1.01x"))
    study = opened(str(path), trials=50, sampler="random")
    # Self-attention after every stage has 16,467 parameters, 6 % of the backbone's.
    architecture = Architecture("resnet20", (Placement("stage", "selfatt"),))
    large = resolve(architecture, site_table("resnet20", (1, 14, 14), 10)).to_json()
    while (assignment := study.next_assignment()) is not None:
        trial = study.trials[assignment.trial]
        learnt = "nas" in trial.label
        outcome = replace(outcome_of(trial), found=large if learnt else None)
        study.on_finish(trial.number, outcome, {})
    assert [t for t in study.trials.values() if "nas" in t.label]
    assert not [t for t in study.trials.values() if "(found)" in t.label]
    assert study.is_finished
