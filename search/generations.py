"""NSGA-II and III whose cost does not grow with the study.

Optuna's walk over all trials for each proposal: for the parameters that all share, the number of
the generation, its members, its parents. ``TrialMemory``, the storage in memory, follows these as
trials end; the samplers ask it and propose what Optuna's would, trial for trial. On any other
storage they are Optuna's.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

GENERATION = ":generation"
PARENT = ":parent:"
KEPT_GENERATIONS = 2


class TrialMemory(InMemoryStorage):
    """Optuna's storage in memory for one study, which knows what samplers ask again and again."""

    def __init__(self) -> None:
        super().__init__()
        self._shared: dict[str, BaseDistribution] | None = None
        self._members: dict[tuple[str, int], list[int]] = {}
        self._latest: dict[str, int] = {}
        self._kinds: dict[tuple[str, ...], FrozenTrial] = {}
        self._numbers: dict[str, tuple[BaseDistribution, dict[int, float]]] = {}

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial; its key is its number, as the storage holds one study."""
        number = super().create_new_trial(study_id, template_trial)
        if template_trial is not None:
            self._follow(self.get_trial(number))
        return number

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials; none waits, which Optuna asks before each of its own."""
        if states == (TrialState.WAITING,):
            return []
        return super().get_all_trials(study_id, deepcopy, states)

    # A trial is changed where it stands: one thread has it, and none keeps what it was before.

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something on a trial."""
        self._get_trial(trial_id).system_attrs[key] = value

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state."""
        if state is TrialState.RUNNING:
            return super().set_trial_state_values(trial_id, state, values)
        trial = self._get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        trial.state, trial.datetime_complete = state, datetime.now()
        if values is not None:
            trial.values = values
        self._follow(trial)
        return True

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something on the study; parents of generations long gone are forgotten."""
        super().set_study_system_attr(study_id, key, value)
        if PARENT in key:
            study = self._studies[study_id]
            noted = {k: int(k.rpartition(PARENT)[2]) for k in study.system_attrs if PARENT in k}
            oldest = max(noted.values()) - KEPT_GENERATIONS + 1
            study.system_attrs = {
                k: v for k, v in study.system_attrs.items() if noted.get(k, oldest) >= oldest
            }

    def _follow(self, trial: FrozenTrial) -> None:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            kind = tuple(sorted(trial.distributions))
            first = self._kinds.setdefault(kind, trial)
            if trial.number < first.number:
                self._kinds[kind] = trial
        if trial.state is not TrialState.COMPLETE:
            return
        if self._shared is None:
            self._shared = dict(sorted(trial.distributions.items()))
        else:
            mine = trial.distributions
            self._shared = {
                n: m for n, d in self._shared.items() if (m := mine.get(n)) is d or (m and m == d)
            }
        for key, value in trial.system_attrs.items():
            if key.endswith(GENERATION):
                insort(self._members.setdefault((key, value), []), trial.number)
                self._latest[key] = max(self._latest.get(key, 0), value)

    def kinds(self) -> list[dict[str, BaseDistribution]]:
        """The parameters of complete and pruned trials: of the first one of each kind, in order."""
        firsts = sorted(self._kinds.values(), key=lambda trial: trial.number)
        return [trial.distributions for trial in firsts]

    def numbers(self, name: str, distribution: BaseDistribution) -> dict[int, float]:
        """Trial -> what a parameter's value is as a number; for its reader to fill."""
        known = self._numbers.get(name)
        if known is None or (known[0] is not distribution and known[0] != distribution):
            known = self._numbers[name] = (distribution, {})
        return known[1]

    @property
    def shared(self) -> dict[str, BaseDistribution]:
        """The parameters that all complete trials have, by name."""
        return self._shared or {}

    def latest(self, key: str) -> int:
        """The latest generation that has a complete trial."""
        return self._latest.get(key, 0)

    def members(self, key: str, generation: int) -> list[FrozenTrial]:
        """The complete trials of a generation by number."""
        return [self.get_trial(number) for number in self._members.get((key, generation), ())]


class _Steady(optuna.samplers.BaseGASampler):
    """What a genetic sampler asks of the study, asked of its memory."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all complete trials have, but for those of one value."""
        memory = study._storage
        if not isinstance(memory, TrialMemory):
            return super().infer_relative_search_space(study, trial)  # type: ignore[safe-super]
        return {name: d for name, d in memory.shared.items() if not d.single()}

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """The trial's generation: the latest one until that is full."""
        memory, key = study._storage, self._get_generation_key()
        if not isinstance(memory, TrialMemory):
            return super().get_trial_generation(study, trial)
        if key in trial.system_attrs:
            return int(trial.system_attrs[key])
        generation = memory.latest(key)
        if len(memory.members(key, generation)) >= (self.population_size or 0):
            generation += 1
        memory.set_trial_system_attr(trial._trial_id, key, generation)
        return generation

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The complete trials of a generation."""
        memory = study._storage
        if not isinstance(memory, TrialMemory):
            return super().get_population(study, generation)
        return memory.members(self._get_generation_key(), generation)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The trials that were selected as parents of a generation, once and for all."""
        memory = study._storage
        key = f"{self._get_parent_cache_key_prefix()}{generation}"
        if isinstance(memory, TrialMemory):
            chosen = memory.get_study_system_attrs(study._study_id).get(key)
            if chosen is not None:
                return [memory.get_trial(number) for number in sorted(chosen)]
        return super().get_parent_population(study, generation)


# Generations are stored under the name of the class: these are Optuna's, so that studies go on.


class NSGAIISampler(_Steady, optuna.samplers.NSGAIISampler):
    """Optuna's NSGA-II."""


class NSGAIIISampler(_Steady, optuna.samplers.NSGAIIISampler):
    """Optuna's NSGA-III."""
