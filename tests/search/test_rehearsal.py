from types import SimpleNamespace

import pytest
from instant import drive

from search import rehearsal
from search.plan import make_plan
from search.reading import read_studies, read_trials
from search.rehearsal import copied, first_trials

SMALL = """
backbone: resnet20
attention: {type: [none, se], placement: [stem, stage], reduction: [4, 16]}
training: {epochs: 1}
"""


def begun(study, count, done=0):
    """The first candidates of a study after so many trials, in the order of their trials."""
    digests = [study.trials[number].digest for number in sorted(study.trials) if number >= done]
    return list(dict.fromkeys(digests))[:count]


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random", "grid"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_first_proposals_are_those_of_a_run(opened, storage, sampler, seeds):
    first = first_trials(
        make_plan("attention", storage=storage, trials=14, sampler=sampler, seeds=seeds), 5
    )
    assert first.settled
    study = opened(trials=14, sampler=sampler, seeds=seeds)
    drive(study)
    assert [trial.digest for trial in first.trials] == begun(study, 5)
    assert first.trials[0].baseline


@pytest.mark.parametrize("sampler", ["nsga2", "random", "grid"])
@pytest.mark.parametrize("done", [4, 13])
def test_what_a_stored_study_proposes_next_is_what_it_does(opened, sampler, done):
    study = opened(trials=30, sampler=sampler)
    drive(study, stop_after=done)
    left = {number for number, trial in study.trials.items() if trial.state == "complete"}
    first = first_trials(study.plan, 4)
    drive(study)
    after = [study.trials[n].digest for n in sorted(study.trials) if n not in left]
    assert [trial.digest for trial in first.trials] == after[: len(first.trials)]
    assert len(first.trials) == 4 or not first.settled
    assert len(first.trials) >= 1


@pytest.mark.slow
def test_proposals_that_depend_on_results_are_not_shown(opened):
    study = opened(trials=60, sampler="tpe")
    drive(study, stop_after=9)  # ten are its start-up
    first = first_trials(study.plan, 8)
    assert not first.settled
    assert len(first.trials) < 8


@pytest.mark.parametrize(
    ("runs", "shown", "settled"),
    [
        (("abcd", "abcd", "abcd", "abcd"), "abcd", True),
        (("abcd", "abxy", "abcd", "abcd"), "ab", False),
        (("abcd", "xbcd", "abcd", "abcd"), "", False),
        (("ab", "ab", "ab", "ab"), "ab", True),  # the study ends before
        (("abc", "abc", "ab", "abc"), "ab", False),
    ],
)
def test_what_all_rehearsals_share_is_shown(monkeypatch, storage, runs, shown, settled):
    rows = iter(runs)

    def rehearsed(plan, count, made_up):
        return [SimpleNamespace(digest=d, number=n) for n, d in enumerate(next(rows))], "the end"

    monkeypatch.setattr(rehearsal, "_rehearsed", rehearsed)
    first = first_trials(make_plan("smoke", storage=storage), 4)
    assert "".join(trial.digest for trial in first.trials) == shown
    assert first.settled == settled
    assert first.ended == ("the end" if shown == "ab" and settled else "")


def test_a_small_space_ends_and_says_why(opened, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    first = first_trials(opened(str(path), trials=50, sampler="random").plan, 20)
    assert len(first.trials) == 5
    assert first.settled
    assert "every distinct candidate" in first.ended


def test_a_rehearsal_leaves_the_study_alone(opened):
    study = opened(trials=9)
    drive(study, stop_after=3)
    before = read_trials(study.store.engine, study.id), read_studies(study.store.engine)
    first_trials(study.plan, 3)
    assert (read_trials(study.store.engine, study.id), read_studies(study.store.engine)) == before


def test_a_copy_holds_what_a_study_goes_on_with(opened):
    study = opened(trials=5, seeds=2)
    drive(study)
    engine = copied(study.plan.storage)
    assert read_studies(engine) == read_studies(study.store.engine)
    assert read_trials(engine, study.id) == read_trials(study.store.engine, study.id)
    engine.dispose()
