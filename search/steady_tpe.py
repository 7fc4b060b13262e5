"""TPE that works out once what Optuna's works out again for each group of settings.

Optuna's walks over all trials for every proposal and every group of settings that belong together:
which groups there are, which trials are the good ones, and each of their values as a number. Here
``TrialMemory`` keeps the kinds of trials, the good ones are chosen once a proposal, and a value
is turned into a number once. What is proposed is what Optuna's proposes, number for number. On
another storage, or another Optuna than those whose inside this is, it is Optuna's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers._tpe import sampler as _inside
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.generations import TrialMemory

NEEDED = ("_split_trials", "default_gamma_multiobjective", "default_gamma")
OWN = ("_build_parzen_estimator", "_compute_acquisition_func", "_compare", "_get_internal_repr")
IS_KNOWN = all(hasattr(_inside, name) for name in NEEDED) and all(
    hasattr(optuna.samplers.TPESampler, name) for name in (*OWN, "_sample", "_get_params")
)


class SteadyTPESampler(optuna.samplers.TPESampler):
    """Optuna's multivariate TPE with groups, for one proposal."""

    _parted: tuple[list[FrozenTrial], list[FrozenTrial]] | None = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All settings of some group; a group is what trials have together or not at all."""
        memory = study._storage
        if not (IS_KNOWN and isinstance(memory, TrialMemory)):
            return super().infer_relative_search_space(study, trial)
        groups = self._search_space_group = _SearchSpaceGroup()
        for distributions in memory.kinds():
            groups.add_distributions(distributions)
        return {
            name: distribution
            for group in groups.search_spaces
            for name, distribution in sorted(group.items())
            if not distribution.single()
        }

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not (IS_KNOWN and isinstance(study._storage, TrialMemory)):
            return super()._sample(study, trial, search_space)
        if self._parted is None:  # a sampler lives for one proposal
            self._parted = self._part(study, trial)
        good, others = self._parted
        below = self._build_parzen_estimator(study, search_space, good, handle_below=True)
        above = self._build_parzen_estimator(study, search_space, others, handle_below=False)
        drawn = below.sample(self._rng.rng, self._n_ei_candidates)
        gains = self._compute_acquisition_func(drawn, below, above)
        best = self._compare(drawn, gains)
        return {name: d.to_external_repr(best[name]) for name, d in search_space.items()}

    def _part(
        self, study: Study, trial: FrozenTrial
    ) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """The good trials, and the others with those that still run."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False, states=states)
        trials = [other for other in trials if other.number != trial.number]
        ended = sum(other.state is not TrialState.RUNNING for other in trials)
        many = len(study.directions) > 1
        gamma = _inside.default_gamma_multiobjective if many else _inside.default_gamma
        return _inside._split_trials(study, trials, gamma(ended))

    def _get_internal_repr(
        self,
        trials: Sequence[FrozenTrial],
        search_space: Mapping[str, BaseDistribution],
        study: Study,
    ) -> dict[str, Any]:
        memory = study._storage
        if not (IS_KNOWN and isinstance(memory, TrialMemory)):
            return super()._get_internal_repr(trials, search_space, study)  # type: ignore[arg-type]
        columns: dict[str, list[float]] = {name: [] for name in search_space}
        known = {name: memory.numbers(name, d) for name, d in search_space.items()}
        for trial in trials:
            params = self._get_params(trial, study)
            if not search_space.keys() <= params.keys():
                continue
            ended = trial.state.is_finished()
            for name, distribution in search_space.items():
                number = known[name].get(trial.number) if ended else None
                if number is None:
                    number = distribution.to_internal_repr(params[name])
                    if ended:
                        known[name][trial.number] = number
                columns[name].append(number)
        return {name: np.asarray(column) for name, column in columns.items()}
