"""Optuna's random sampler without its detours: the same numbers from the same seed.

Optuna's makes a transformation of the whole search space for each value. Here a choice is the
largest of as many uniform numbers, and a number of a range one uniform number scaled to it, which
is what that comes to; a test holds the two against each other.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import Study
from optuna.trial import FrozenTrial


class Recycled:
    """Makes samplers from seeds, whose random states are used again.

    A seed sets such a state whole, in a fiftieth of the time that a new one takes to be made. A
    sampler's are the next one's: it is not to be asked any more once there is another. With an
    Optuna that makes its states in another way, each sampler has new ones.
    """

    def __init__(self) -> None:
        self._states: list[np.random.RandomState] = []

    def made(self, make: Callable[[int], BaseSampler], seed: int) -> BaseSampler:
        """What ``make`` makes from a seed."""
        if not hasattr(LazyRandomState, "_set_rng"):
            return make(seed)
        with self._handed_out():
            return make(seed)

    @contextmanager
    def _handed_out(self) -> Iterator[None]:
        states = iter(self._states)
        thread = threading.get_ident()
        usual = LazyRandomState._set_rng

        def give(lazy: LazyRandomState) -> None:
            if threading.get_ident() != thread:  # the mirror's samplers are their own
                usual(lazy)
                return
            state = next(states, None)
            if state is None:
                state = np.random.RandomState()
                self._states.append(state)
            lazy._rng = state

        LazyRandomState._set_rng = give  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            LazyRandomState._set_rng = usual  # type: ignore[method-assign]


class UniformSampler(BaseSampler):
    """Every setting by itself, uniform over its values.

    Args:
        seed: Of its numbers.
    """

    def __init__(self, *, seed: int) -> None:
        self._chance = LazyRandomState(seed).rng

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """No parameters at once."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """No parameters at once."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of chance."""
        return self.value(param_distribution)

    def value(self, distribution: BaseDistribution) -> Any:
        """A value of chance."""
        if isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices
            return choices[int(self._chance.random_sample(len(choices)).argmax())]
        if isinstance(distribution, IntDistribution):
            return self._whole(distribution)
        assert isinstance(distribution, FloatDistribution)  # there is no further kind
        return self._number(distribution)

    def _whole(self, range_: IntDistribution) -> int:
        low, high = range_.low - 0.5, range_.high + 0.5
        if range_.log:
            drawn = round(math.exp(self._between(math.log(low), math.log(high))))
        else:
            drawn = math.floor(self._between(low, high) - range_.low + 0.5) + range_.low
        return min(max(drawn, range_.low), range_.high)

    def _number(self, range_: FloatDistribution) -> float:
        below = math.nextafter(range_.high, range_.high - 1)
        if not range_.log:
            return min(self._between(range_.low, range_.high), below)
        drawn = math.exp(self._between(math.log(range_.low), math.log(range_.high)))
        return min(max(drawn, range_.low), below)

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * self._chance.random_sample()
