import math
import random

from search.front import front_means, front_numbers, non_dominated
from search.records import TrialRecord

OBJECTIVES = {"accuracy": "max", "flops": "min"}


def trial(number, accuracy, flops, *, digest=None, state="complete", seed=0):
    measured = {} if accuracy is None else {("validation", "accuracy"): accuracy}
    return TrialRecord(
        number, number, state, seed, "x", False, digest or f"d{number}", "a", {}, {}, 1, 1, 1,
        flops, {}, {}, None, 1, "", 0.0, "", None, None, measured,
    )  # fmt: skip


def test_the_front_by_hand():
    trials = [
        trial(0, 0.90, 100),
        trial(1, 0.95, 120),
        trial(2, 0.94, 130),  # 1 is better and cheaper
        trial(3, 0.90, 100),  # equal to 0: both stay
        trial(4, 0.90, 110),  # 0 is as good and cheaper
        trial(5, 0.99, 90, state="failed"),
        trial(6, None, 1),
        trial(7, math.nan, 1),
    ]
    assert front_numbers(trials, OBJECTIVES) == [0, 1, 3]


def test_reused_trials_count_and_pruned_ones_do_not():
    trials = [trial(0, 0.9, 100, state="reused"), trial(1, 0.99, 1, state="pruned")]
    assert front_numbers(trials, OBJECTIVES) == [0]


def test_no_trials_no_front():
    assert front_numbers([], OBJECTIVES) == []
    assert front_means([], OBJECTIVES) == []


def test_it_agrees_with_comparing_every_pair():
    chance = random.Random(0)
    objectives = {"accuracy": "max", "flops": "min", "params": "min"}
    for _ in range(30):
        points = [[chance.randrange(5) for _ in range(3)] for _ in range(25)]
        signed = [(-a, f, p) for a, f, p in points]
        expected = [
            not any(all(x <= y for x, y in zip(w, v, strict=True)) and w != v for w in signed)
            for v in signed
        ]
        assert non_dominated(points, objectives) == expected


def test_the_front_of_means_by_hand():
    trials = [
        trial(0, 0.90, 100, digest="a"),
        trial(1, 0.92, 100, digest="a", seed=1),  # a: 0.91 at 100
        trial(2, 0.99, 110, digest="b"),
        trial(3, 0.79, 110, digest="b", seed=1),  # b: 0.89 at 110, dominated; b's trial 2 was lucky
    ]
    assert front_numbers(trials, OBJECTIVES) == [1, 2]
    (only,) = front_means(trials, OBJECTIVES)
    assert only["digest"] == "a"
    assert only["trials"] == [0, 1]
    assert abs(only["accuracy"] - 0.91) < 1e-12


def test_without_replicates_there_are_no_means():
    assert front_means([trial(0, 0.9, 1), trial(1, 0.8, 2)], OBJECTIVES) == []
