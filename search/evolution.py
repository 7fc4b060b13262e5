"""Regularised evolution over a space's settings: mutation alone, and the oldest die.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search",
AAAI 2019, arXiv:1802.01548, algorithm 1: a child is the mutated winner of a tournament in the
population, joins it, and the oldest member leaves it, however good it is.

Departures: populations of tens instead of hundreds; for several objectives the tournament is won by
the lower non-dominated rank and then by the larger crowding distance (Deb et al., NSGA-II, 2002);
one setting more is changed after every ``PATIENCE`` proposals in a row that failed (they held
nothing new, or were over a cap), so that a neighbourhood that is used up is left.

All that is remembered lies in the study's trials: it is made anew from a seed before each proposal.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.chance import UniformSampler

POPULATION = 20  # the paper has 100
SAMPLE = 5  # of the population take part in a tournament; the paper has 25
STARTUP = 10  # complete trials before which proposals are of chance
PATIENCE = 10
STEP = 0.1  # deviation of a change within a range, as a share of it
PARENT = "evolution:parent"


class RegularisedEvolution(UniformSampler):
    """Proposes a member of the population with one setting changed.

    Args:
        seed: Of the one proposal that is made.
        population: How many of the latest complete trials are alive.
        sample: How many of them take part in a tournament.
    """

    def __init__(self, *, seed: int, population: int = POPULATION, sample: int = SAMPLE) -> None:
        self.population = population
        self.sample = sample
        super().__init__(seed=seed)
        self._generator = random.Random(seed)
        self._parent: FrozenTrial | None = None
        self._changed: set[str] = set()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the parent, and which of its settings change."""
        trials = study.get_trials(deepcopy=False)[: trial.number]
        alive = _latest(trials, self.population)
        if len(alive) < min(STARTUP, self.population):
            return
        parent = self._parent = self._winner(alive, study.directions)
        names = sorted(n for n, d in parent.distributions.items() if not d.single())
        count = min(len(names), 1 + _failures(trials) // PATIENCE)
        self._changed = set(self._generator.sample(names, count))
        study._storage.set_trial_system_attr(trial._trial_id, PARENT, parent.number)

    def _winner(
        self, alive: list[FrozenTrial], directions: Sequence[StudyDirection]
    ) -> FrozenTrial:
        order = tournament_order([trial.values for trial in alive], directions)
        drawn = self._generator.sample(range(len(alive)), min(self.sample, len(alive)))
        return alive[min(drawn, key=lambda index: order[index])]

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The parent's value or a neighbour of it; of chance where the parent has none."""
        inherited = self._parent.params if self._parent is not None else {}
        if param_name not in inherited or not _holds(param_distribution, inherited[param_name]):
            return super().sample_independent(study, trial, param_name, param_distribution)
        value = inherited[param_name]
        if param_name in self._changed:
            return neighbour(value, param_distribution, self._generator)
        return value


def _latest(trials: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The latest complete trials, the oldest last."""
    found: list[FrozenTrial] = []
    for trial in reversed(trials):
        if trial.state is TrialState.COMPLETE:
            found.append(trial)
            if len(found) == count:
                break
    return found


def _failures(trials: Sequence[FrozenTrial]) -> int:
    """How many of the last trials failed, in a row."""
    for count, trial in enumerate(reversed(trials)):
        if trial.state is not TrialState.FAIL:
            return count
    return len(trials)


def tournament_order(
    values: Sequence[Sequence[float]], directions: Sequence[StudyDirection]
) -> list[tuple[int, float]]:
    """A key for each point by which the best sort first: non-dominated rank, then crowding.

    Args:
        values: One row per point, one column per objective.
        directions: Of each objective.
    """
    import moocore
    import numpy as np

    signs = [-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    losses = np.asarray(values, dtype=float) * signs
    ranks = [int(rank) for rank in moocore.pareto_rank(losses)]
    crowding: dict[int, float] = {}
    for rank in set(ranks):
        members = [index for index, other in enumerate(ranks) if other == rank]
        distances = crowding_distances(losses[members].tolist())
        crowding |= dict(zip(members, distances, strict=True))
    return [(rank, -crowding[index]) for index, rank in enumerate(ranks)]


def crowding_distances(points: Sequence[Sequence[float]]) -> list[float]:
    """How far each point's neighbours are apart, summed over objectives; infinite at the ends."""
    distances = [0.0] * len(points)
    for column in zip(*points, strict=True):
        order = sorted(range(len(points)), key=column.__getitem__)
        width = column[order[-1]] - column[order[0]]
        if width == 0:
            continue
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            distances[here] += (column[after] - column[before]) / width
    return distances


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a changed space still has a value."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    return isinstance(value, (int, float)) and low <= value <= high


def neighbour(value: Any, distribution: BaseDistribution, chance: random.Random) -> Any:
    """Another value: the next in a list of numbers in order, else any; a step within a range."""
    if isinstance(distribution, CategoricalDistribution):
        return _other_choice(value, distribution.choices, chance)
    return _step(value, distribution, chance)


def _other_choice(value: Any, choices: Sequence[Any], chance: random.Random) -> Any:
    if not _ordered(choices):
        return chance.choice([choice for choice in choices if choice != value])
    index = choices.index(value)
    return chance.choice([choices[i] for i in (index - 1, index + 1) if 0 <= i < len(choices)])


def _ordered(choices: Sequence[Any]) -> bool:
    """Whether choices are numbers that rise or fall from first to last."""
    if any(isinstance(choice, bool) or not isinstance(choice, (int, float)) for choice in choices):
        return False
    return list(choices) in (sorted(choices), sorted(choices, reverse=True))


def _step(value: Any, distribution: Any, chance: random.Random) -> Any:
    """A step of chance within a range, in its logarithm where it has one; never none at all."""
    whole = isinstance(distribution, IntDistribution)
    into, back = (math.log, math.exp) if distribution.log else (float, float)
    low, high = into(distribution.low), into(distribution.high)
    change = chance.gauss(0.0, STEP * (high - low))
    place = into(value) + change
    if not low <= place <= high:  # reflected at the end that it went beyond
        place = 2 * (low if place < low else high) - place
    moved = min(max(back(min(max(place, low), high)), distribution.low), distribution.high)
    if not whole:
        return moved
    if round(moved) != value:
        return round(moved)
    up = value + 1 if change > 0 else value - 1
    return up if distribution.low <= up <= distribution.high else 2 * value - up
