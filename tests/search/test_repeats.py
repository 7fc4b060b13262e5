import math
from collections import Counter
from types import SimpleNamespace

import pytest
from instant import accuracy_of, drive

from blocks.errors import StudyError
from search.front import front_means
from search.proposed import proposal_counts, proposal_words
from search.reading import read_proposals, read_trials
from search.repeats import is_worth_repeating

OBJECTIVES = {"accuracy": "max", "flops": "min"}


def trial(digest, accuracy, flops, state="complete"):
    values = {"accuracy": accuracy, "flops": flops}
    return SimpleNamespace(digest=digest, state=state, metric=values.get)


def worth(digest, trials, images=400, objectives=OBJECTIVES):
    return is_worth_repeating(digest, trials, objectives, images)


def test_a_member_of_the_front_is_worth_another_seed():
    trials = [trial("a", 0.9, 1), trial("b", 0.95, 2)]
    assert worth("a", trials)
    assert worth("b", trials)


def test_with_one_seed_each_the_noise_is_that_of_so_many_images():
    # At 0.90 and 400 images one standard error is sqrt(0.9 x 0.1 / 400) = 0.015, half an interval
    # 0.0294: b could still be as good as 0.9294.
    assert math.isclose(1.96 * math.sqrt(0.9 * 0.1 / 400), 0.0294)
    assert worth("b", [trial("a", 0.929, 1), trial("b", 0.90, 2)])
    assert not worth("b", [trial("a", 0.930, 1), trial("b", 0.90, 2)])
    assert not worth("b", [trial("a", 0.929, 1), trial("b", 0.90, 2)], images=4000)


def test_with_several_seeds_the_noise_is_pooled_over_candidates():
    # a: 0.94 and 0.96, b: 0.91 and 0.93: squares 4 x 0.0001 over 2 degrees of freedom, deviation
    # 0.014142; t(0.975, 2) = 4.3027; over two seeds half an interval is 0.04303. b: 0.92 + 0.043.
    seeds = [trial("a", 0.94, 1), trial("a", 0.96, 1), trial("b", 0.91, 2), trial("b", 0.93, 2)]
    assert worth("b", seeds)
    far = [trial("a", 0.956, 1), trial("a", 0.976, 1), *seeds[2:]]  # the mean is 0.966
    assert not worth("b", far)
    nearer = [trial("a", 0.952, 1), trial("a", 0.972, 1), *seeds[2:]]  # 0.962
    assert worth("b", nearer)


def test_costs_are_exact():
    assert not worth("b", [trial("a", 0.9, 1), trial("b", 0.5, 2)])
    assert worth("b", [trial("a", 0.9, 2), trial("b", 0.5, 1)])


def test_a_candidate_without_a_result_is_not():
    trials = [trial("a", 0.9, 1), trial("b", 0.9, 2, state="failed")]
    assert not worth("b", trials)


# In a study. -------------------------------------------------------------------------------------

SMALL = """
backbone: resnet20
attention:
  type: [none, se]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
objectives: {accuracy: max, params: min}
"""
DISTINCT = 5


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def made(study):
    return [(t.digest, t.seed, t.proposal) for t in study.trials.values()]


def test_repeated_candidates_of_the_front_get_their_next_seed(opened, small):
    study = opened(small, trials=14, sampler="random", max_seeds=3)
    drive(study)
    seeds = Counter(t.digest for t in study.trials.values())
    assert 1 < max(seeds.values()) <= 3
    for digest in seeds:
        mine = sorted(t.seed for t in study.trials.values() if t.digest == digest)
        assert mine == list(range(len(mine)))
    counts = proposal_counts(study.store.engine, study.id)
    repeated = sum(count - 1 for count in seeds.values())
    baseline = seeds[study.trials[0].digest] - 1
    assert repeated - baseline <= counts["replicated"] <= repeated
    assert "as further seeds" in proposal_words(counts)


def test_the_baseline_always_has_as_many_seeds(opened, small):
    study = opened(small, trials=14, sampler="random", max_seeds=3)
    while drive(study, stop_after=1):
        seeds = Counter(t.digest for t in study.trials.values())
        assert seeds[study.trials[0].digest] == max(seeds.values())


def test_by_default_a_repeated_candidate_is_replaced(opened, small):
    study = opened(small, trials=14, sampler="random")
    assert drive(study) == DISTINCT
    counts = proposal_counts(study.store.engine, study.id)
    assert counts["replicated"] == 0
    assert counts["replaced"] > 0
    assert counts["new"] == DISTINCT


def test_the_sampler_is_told_what_the_further_seed_gave(opened, small):
    study = opened(small, trials=14, sampler="random", max_seeds=3)
    drive(study)
    rows = read_proposals(study.store.engine, study.id)
    replicated = [row for row in rows if row.verdict == "replicated"]
    assert replicated
    for row in replicated:
        (mine,) = [t for t in study.trials.values() if t.proposal == row.number]
        assert row.state == "complete"
        assert row.values[0] == pytest.approx(accuracy_of(row.digest, mine.seed))
        assert mine.seed > 0
    told = {row.number: row.values for row in rows if row.verdict == "accepted"}
    assert told[0][0] == pytest.approx(accuracy_of(study.trials[0].digest, 0))


@pytest.mark.parametrize("sampler", ["random", "evolution", "nsga2"])
def test_stopped_anywhere_it_repeats_what_it_would_have(opened, small, tmp_path, sampler):
    flags = {"trials": 13, "sampler": sampler, "max_seeds": 3}
    whole = opened(small, url=f"sqlite:///{tmp_path}/whole.db", **flags)
    drive(whole)
    parts = f"sqlite:///{tmp_path}/parts.db"
    for _ in range(13):  # a new process after every trial, and each leaves one begun
        study = opened(small, url=parts, **flags)
        drive(study, stop_after=1)
        study.next_assignment()
    last = opened(small, url=parts, **flags)
    drive(last)
    assert made(last) == made(whole)


def test_a_useless_repetition_is_replaced(opened, small, tmp_path):
    # Of accuracies of 0.9 to 1 at 718 images few are out of reach; of costs alone all are exact.
    path = tmp_path / "costs.yaml"
    path.write_text(SMALL.replace("params: min", "params: min, flops: min"))
    study = opened(str(path), trials=20, sampler="random", max_seeds=2)
    drive(study)
    means = {
        entry["digest"] for entry in front_means(list(study.trials.values()), study.objectives)
    }
    seeds = Counter(t.digest for t in study.trials.values())
    assert all(seeds[digest] == 2 for digest in means)


def test_fewer_seeds_than_all_candidates_have_are_refused(opened, small):
    with pytest.raises(StudyError, match="--max-seeds is 1, fewer than the 2 .*give 2 or more"):
        opened(small, seeds=2, max_seeds=1)


def test_the_most_seeds_are_remembered(opened, small):
    drive(opened(small, trials=2, max_seeds=4))
    assert opened(small).plan.max_seeds == 4
    assert opened(small, seeds=5).plan.max_seeds == 5


def test_two_planned_seeds_are_told_as_one_and_a_third_by_itself(opened, small):
    study = opened(small, trials=18, seeds=2, sampler="random", max_seeds=3)
    drive(study)
    rows = {row.number: row for row in read_proposals(study.store.engine, study.id)}
    for number, row in rows.items():
        mine = [t for t in study.trials.values() if t.proposal == number and t.state == "complete"]
        if row.state == "complete" and mine and row.verdict == "accepted":
            planned = [accuracy_of(row.digest, seed) for seed in (0, 1)]
            assert row.values[0] == pytest.approx(sum(planned) / 2)
        elif row.verdict == "replicated" and row.state == "complete":
            assert [t.seed for t in mine] == [2]
    stored = read_trials(study.store.engine, study.id)
    assert [t.state for t in stored] == ["complete"] * len(stored)
