import math
import random
from collections import Counter

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search.evolution import (
    PARENT,
    PATIENCE,
    STARTUP,
    RegularisedEvolution,
    crowding_distances,
    neighbour,
    tournament_order,
)

MAX, MIN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
SPACE = {
    "block": CategoricalDistribution(("se", "eca", "fca")),
    "reduction": CategoricalDistribution((4, 8, 16, 32)),
    "rate": FloatDistribution(0.001, 1.0, log=True),
}


def neighbours(value, distribution, times=200):
    chance = random.Random(0)
    return Counter(neighbour(value, distribution, chance) for _ in range(times))


@pytest.mark.parametrize(
    ("choices", "value", "near"),
    [
        ((4, 8, 16, 32), 8, {4, 16}),
        ((4, 8, 16, 32), 4, {8}),
        ((32, 16, 8), 8, {16}),
        ((16, 4, 8), 4, {16, 8}),  # in no order: any other
        (("se", "eca", "fca"), "se", {"eca", "fca"}),
        ((False, True), False, {True}),
        ((1, "auto", 3), "auto", {1, 3}),
    ],
)
def test_the_next_of_numbers_in_order_and_any_other_of_the_rest(choices, value, near):
    assert set(neighbours(value, CategoricalDistribution(choices))) == near


def test_steps_within_a_range_are_small_and_stay_inside():
    # A tenth of the range is the deviation: two thirds of the steps are shorter, all are inside.
    found = neighbours(0.5, FloatDistribution(0.0, 1.0))
    assert len(found) == 200
    assert 0.6 < sum(abs(value - 0.5) < 0.1 for value in found) / 200 < 0.76
    assert all(0.0 <= value <= 1.0 for value in neighbours(0.0, FloatDistribution(0.0, 1.0)))


def test_a_logarithmic_range_is_stepped_in_its_logarithm():
    # Over six decades a deviation is 0.6 of a decade, up and down alike.
    found = neighbours(1e-3, FloatDistribution(1e-6, 1.0, log=True))
    decades = [math.log10(value) + 3 for value in found]
    assert abs(sum(decades) / len(decades)) < 0.15
    assert 0.6 < sum(abs(decade) < 0.6 for decade in decades) / 200 < 0.76


def test_whole_numbers_always_change_by_one_or_more():
    assert set(neighbours(2, IntDistribution(1, 3))) == {1, 3}
    assert set(neighbours(1, IntDistribution(1, 3))) == {2}
    assert all(isinstance(value, int) for value in neighbours(5, IntDistribution(1, 64, log=True)))


def test_crowding_is_the_gap_between_neighbours_over_the_width():
    # x: 0, 1, 4 and y: 4, 3, 0. The middle one: (4 - 0) / 4 + (4 - 0) / 4.
    assert crowding_distances([[0, 4], [1, 3], [4, 0]]) == [math.inf, 2.0, math.inf]
    assert crowding_distances([[1, 1], [1, 1]]) == [0.0, 0.0]


def test_rank_comes_before_crowding():
    # Maximise the first, minimise the second. (5, 1) and (9, 5) and (7, 2) are not dominated;
    # (4, 2) is by the first, (3, 3) by (4, 2) too.
    points = [[5, 1], [9, 5], [7, 2], [4, 2], [3, 3]]
    order = tournament_order(points, [MAX, MIN])
    assert [rank for rank, _ in order] == [0, 0, 0, 1, 2]
    assert order[2][1] == -2.0
    assert sorted(range(5), key=order.__getitem__)[2:] == [2, 3, 4]


def test_one_objective_is_ranked_by_its_value():
    order = tournament_order([[0.9], [0.8], [0.95]], [MAX])
    assert sorted(range(3), key=order.__getitem__) == [2, 0, 1]


def study_of(trials, directions=("maximize",)):
    """A study with trials of (parameters, values), or None for one that failed."""
    study = optuna.create_study(directions=list(directions))
    for parameters, values in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if values else TrialState.FAIL,
                params=parameters,
                distributions={name: SPACE[name] for name in parameters},
                values=values,
            )
        )
    return study


def child(study, seed=0, **settings):
    study.sampler = RegularisedEvolution(seed=seed, **settings)
    trial = study.ask()
    block = trial.suggest_categorical("block", SPACE["block"].choices)
    if block != "eca":
        trial.suggest_categorical("reduction", SPACE["reduction"].choices)
    trial.suggest_float("rate", 0.001, 1.0, log=True)
    return trial


def parents(count, best=None):
    """Trials that differ in their rate alone; the best of them has accuracy 1."""
    return [
        ({"block": "se", "reduction": 8, "rate": 0.01 + number / 100}, [float(number == best)])
        for number in range(count)
    ]


def test_a_child_has_one_setting_of_its_parent_changed():
    study = study_of(parents(STARTUP, best=3))
    changed = Counter()
    for seed in range(60):
        trial = child(study, seed, sample=STARTUP)  # all take part: the best wins
        assert study.get_trials()[trial.number].system_attrs[PARENT] == 3
        mother = parents(STARTUP)[3][0]
        differs = [name for name in trial.params if trial.params[name] != mother.get(name)]
        assert len(differs) == 1
        changed[differs[0]] += 1
        study.tell(trial, state=TrialState.PRUNED)
    assert set(changed) == {"block", "reduction", "rate"}


def test_what_a_new_block_needs_and_its_parent_had_not_is_drawn():
    without = [({"block": "eca", "rate": 0.01}, [0.9])] * STARTUP
    study = study_of(without)
    found = Counter()
    for seed in range(40):
        trial = child(study, seed)
        if "reduction" in trial.params:
            found[trial.params["reduction"]] += 1
        study.tell(trial, state=TrialState.PRUNED)
    assert len(found) > 2


def test_before_there_is_a_population_proposals_are_of_chance():
    study = study_of(parents(STARTUP - 1))
    trial = child(study)
    assert PARENT not in study.get_trials()[trial.number].system_attrs


def test_the_oldest_die_however_good_they_are():
    study = study_of([*parents(1, best=0), *parents(12)])  # the best is the oldest of 13
    for seed in range(20):
        trial = child(study, seed, population=12, sample=12)
        assert study.get_trials()[trial.number].system_attrs[PARENT] != 0
        study.tell(trial, state=TrialState.PRUNED)


def test_a_neighbourhood_that_is_used_up_is_left():
    failed = [({"block": "se", "reduction": 4, "rate": 0.5}, None)]
    calm = study_of(parents(STARTUP))
    stuck = study_of(parents(STARTUP) + failed * PATIENCE)
    mothers = {number: values for number, (values, _) in enumerate(parents(STARTUP))}

    def changes(study):
        found = []
        for seed in range(20):
            copy = study_of([])
            copy.add_trials(study.get_trials())
            trial = child(copy, seed)
            mother = mothers[copy.get_trials()[trial.number].system_attrs[PARENT]]
            found.append(sum(trial.params.get(name) != mother[name] for name in mother))
        return found

    assert set(changes(calm)) <= {1, 2}  # without the reduction that eca has not, two differ
    assert sum(changes(stuck)) > sum(changes(calm)) + 10


def test_a_value_that_a_changed_space_lacks_is_drawn_anew():
    study = study_of([({"reduction": 32}, [0.9])] * STARTUP)
    found = set()
    for seed in range(20):
        study.sampler = RegularisedEvolution(seed=seed)
        number = study.ask().number
        trial = study.get_trials()[number]
        narrower = CategoricalDistribution((4, 8))
        found.add(study.sampler.sample_independent(study, trial, "reduction", narrower))
    assert found == {4, 8}
