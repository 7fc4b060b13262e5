"""Caps that need a measurement: on the clock, and on memory where trials have none yet."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from instant import PROVENANCE, outcome_of

from blocks.errors import StudyError
from search.live import settings_table
from search.outcome import Outcome
from search.plan import make_plan
from search.reading import read_attempts, read_proposals, read_rejected, read_trials
from search.screen import rejected_words
from search.show import front_table, study_data, trials_table
from search.study import run_study
from spaces.space import parse_space

SPACE = """
backbone: resnet20
attention: {type: [none, se, simam], placement: [stem, stage, in-block], reduction: [4, 16]}
training: {epochs: 1}
"""
TIMED = SPACE + "constraints: {latency_ratio: 1.3}\n"


@pytest.fixture
def space(tmp_path):
    def write(text, name="space"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    return write


def drive(study, stop_after=None):
    """Evaluate one trial after another as workers would; returns how many."""
    done = 0
    while done != stop_after and (assignment := study.next_assignment()) is not None:
        trial = study.trials[assignment.trial]
        outcome = Outcome("complete") if assignment.trained else outcome_of(trial)
        if assignment.latency:
            measured = (*outcome.measurements, ("speed", "latency_ratio", 1.0))
            outcome = replace(outcome, measurements=measured)
        study.on_finish(trial.number, outcome, PROVENANCE)
        done += 1
    return done


class Stopwatch:
    """Says that in-block takes half as long again, and notes what it was asked."""

    def __init__(self, broken=False):
        self.asked = []
        self.broken = broken

    def __call__(self, candidate):
        assert not candidate.is_baseline
        self.asked.append(candidate.label)
        if self.broken:
            return Outcome("failed", error="trained, but its latency could not be measured: no")
        ratio = 1.5 if "in-block" in candidate.label else 1.2
        measured = (("speed", "latency_ratio", ratio), ("speed", "latency_ms", 2.0))
        return Outcome("complete", measurements=measured, latency={"clock": "thread time"})


def timed(study, **how):
    study.screen.time = Stopwatch(**how)
    return study


def test_what_is_too_slow_costs_no_trial_and_is_timed_once(opened, space):
    study = timed(opened(space(TIMED), trials=30, sampler="random"))
    assert study.plan.latency
    drive(study)
    labels = [trial.label for trial in study.trials.values()]
    # stem: se at r = 4 and r = 16, simam; stage alike; and no attention.
    assert len(labels) == 7
    assert not any("in-block" in label for label in labels)
    assert len(study.screen.time.asked) == len(set(study.screen.time.asked)) == 9
    rejected = read_rejected(study.store.engine, study.id)
    assert {r.reason for r in rejected} == {"latency_ratio 1.500 is over 1.300 (1.3)"}
    assert len(rejected) == 3
    assert "3 over a cap" in study.note
    words = "3 rejected before training: 3 by latency_ratio <= 1.3"
    assert study.result().rejected == words


def test_what_was_measured_is_the_trials_latency(opened, space):
    study = timed(opened(space(TIMED), trials=4, sampler="random"))
    while (assignment := study.next_assignment()) is not None:
        # The baseline alone is still to be timed.
        assert assignment.latency == (assignment.trial == 0)
        study.on_finish(assignment.trial, outcome_of(study.trials[assignment.trial]), PROVENANCE)
    kept = read_trials(study.store.engine, study.id)
    assert [trial.latency_ratio for trial in kept[1:]] == [1.2] * 3
    attempts = read_attempts(study.store.engine, study.id)
    assert [a.provenance.get("latency") for a in attempts[1:]] == [{"clock": "thread time"}] * 3


def test_after_a_restart_a_trial_is_timed_at_its_end_and_rejections_are_remembered(opened, space):
    first = timed(opened(space(TIMED), trials=30, sampler="random"))
    drive(first, stop_after=5)
    first.next_assignment()
    again = timed(opened(space(TIMED), trials=30, sampler="random"))
    assert again.next_assignment().latency, "what was measured was in the memory of the first"
    drive(again)
    known = {r.label for r in read_rejected(first.store.engine, first.id)}
    assert len(known) == 3
    assert len(again.screen.time.asked) == len(set(again.screen.time.asked))
    before = set(first.screen.time.asked)
    assert not before & set(again.screen.time.asked)


def test_a_relaxed_cap_lets_in_what_the_old_one_kept_out(opened, space):
    drive(timed(opened(space(TIMED), trials=30, sampler="grid", study="s")))
    wider = space(TIMED.replace("1.3", "1.6"), "wider")
    study = timed(opened(wider, trials=30, sampler="grid", study="s", extend=True))
    drive(study)
    assert len(study.trials) == 10


def test_a_network_that_cannot_be_timed_is_turned_away(opened, space):
    study = timed(opened(space(TIMED), trials=30, sampler="random"), broken=True)
    assert drive(study) == 1
    rows = read_proposals(study.store.engine, study.id)
    reasons = {p.reason for p in rows if p.verdict == "rejected"}
    assert reasons == {"latency_ratio could not be measured (1.3): no"}


def test_a_run_begins_with_caps_that_no_block_is_within(opened, space):
    def caps(text):
        study = opened(space(f"{SPACE}constraints: {{{text}}}\n"), study=f"s{len(text)}")
        names, values = settings_table(study).columns
        rows = dict(zip(map(str, values.cells), map(str, names.cells), strict=True))
        return [words for words, name in rows.items() if words.startswith("the cap") and not name]

    assert caps("flops: 18M") == []
    (remark,) = caps("flops: 9M")
    assert "over its 8.466 M macs, which papers print as FLOPs" in remark


def test_a_cap_on_latency_needs_the_clock(space, storage):
    with pytest.raises(StudyError, match="has the cap latency_ratio, which is measured"):
        make_plan(space(TIMED), storage=storage, latency=False)


def test_memory_is_an_objective_and_old_trials_get_theirs(opened, space):
    drive(opened(space(SPACE), trials=3, study="s"))
    with_memory = space(SPACE + "objectives: {accuracy: max, memory: min}\n", "more")
    study = opened(with_memory, trials=5, study="s", extend=True)
    drive(study)
    for trial in read_trials(study.store.engine, study.id):
        assert trial.metric("memory") == study.trials[trial.number].metric("memory") > 100_000
    told = [p.values[1] for p in read_proposals(study.store.engine, study.id)[-2:] if p.values]
    assert told == [study.trials[number].metric("memory") for number in (3, 4)]


def test_memory_of_a_reused_trial_and_of_replicates(opened, space):
    drive(opened(space(SPACE), trials=4, study="plain"))
    capped = space(SPACE + "constraints: {memory: 1.3x baseline}\n", "capped")
    study = opened(capped, trials=8, seeds=2, study="s")
    drive(study)
    kept = read_trials(study.store.engine, study.id)
    assert any(trial.origin for trial in kept)
    by_candidate = {}
    for trial in kept:
        by_candidate.setdefault(trial.digest, set()).add(trial.metric("memory"))
    assert all(len(values) == 1 and None not in values for values in by_candidate.values())


def test_a_candidate_over_two_caps_counts_once_and_for_both():
    space = parse_space(SPACE + "constraints: {params: 10, flops: 20, macs: 30}\n")
    over = ["params 11 is over 10 (10)", "params 12 is over 10 (10); flops 30 is over 20 (20)"]
    words = "2 rejected before training: 2 by params <= 10, 1 by flops <= 20"
    assert rejected_words(space, over) == words
    assert rejected_words(space, []) == ""


def test_tables_have_memory_where_it_was_asked_for(opened, space):
    drive(opened(space(SPACE), trials=3, study="plain"))
    study = opened(space(SPACE + "objectives: {accuracy: max, memory: min}\n", "m"), trials=3)
    drive(study)
    trials = list(study.trials.values())
    heads = [c.header for c in front_table(trials, [0, 1], title="").columns]
    assert heads[-1] == "memory"  # what a narrow terminal leaves out is another matter
    bare, more = (trials[number].memory for number in (0, 1))
    cells = list(front_table(trials, [0, 1], title="").columns[-1].cells)
    assert any(str(cell).endswith(f"({100 * (more / bare - 1):+.2f} %)") for cell in cells)
    rows = study_data(study.store.engine, "m")["trials"]
    assert [row["memory"] for row in rows[:2]] == [bare, more]
    shown = {c.header: list(c.cells) for c in trials_table("", rows, []).columns}
    assert shown["memory"][0].plain == f"{bare / 1000:.1f} kB"
    assert str(cells[0]) == f"{bare / 1000:.1f} kB"
    plain = study_data(study.store.engine, "plain")["trials"]
    assert "memory" not in [c.header for c in trials_table("", plain, []).columns]


def test_others_train_on_while_a_network_is_timed(space, storage, tmp_path, monkeypatch):
    """What is timed while the baseline's training stands still comes out as far too slow."""
    script = Path(__file__).parent.parent / "support" / "timing_worker.py"

    def command(plan, index):
        return [sys.executable, str(script), "--parent", str(os.getpid()), str(tmp_path)]

    monkeypatch.setattr("search.workers._command", command)
    result = run_study(space(TIMED), storage=storage, trials=2, workers=2, sampler="random")
    assert [trial.state for trial in result.trials] == ["complete", "complete"]
    assert not result.rejected


@pytest.mark.slow
def test_workers_time_networks_before_they_train_them(space, storage, tmp_path):
    """A cap that nothing is under and one that all are under, by real measurements."""
    fast = space(SPACE + "constraints: {latency_ratio: 0.01}\n", "fast")
    result = run_study(fast, storage=storage, trials=3, workers=2)
    assert [trial.baseline for trial in result.trials] == [True]
    assert "over a cap" in result.note
    slow = space(SPACE + "constraints: {latency_ratio: 100}\n", "slow")
    result = run_study(slow, storage=storage, trials=3, workers=2)
    assert [trial.state for trial in result.trials] == ["reused", "complete", "complete"]
    assert all(trial.latency_ratio for trial in result.trials)
