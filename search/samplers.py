"""The samplers: who proposes the next candidate, and how a study's proposals repeat exactly.

Optuna's samplers run on a study in memory. Before every proposal the sampler is made anew with a
seed from (study's seed, number of the proposal), and all it remembers lies in the attributes of
trials and study, which are kept in our tables: so a study that was killed and goes on proposes
what an uninterrupted one would have (on one worker, where results come in one order).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

from blocks.options import OptionValue
from search.store import ProposalRow
from spaces.candidate import DataFacts
from spaces.drawing import Proposal, propose
from spaces.parameters import Choice, Domain, Range
from spaces.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

NSGA2_POPULATION = 10
TPE_STARTUP_TRIALS = 10


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        n_startup_trials=TPE_STARTUP_TRIALS,
        multivariate=True,
        group=True,
        constant_liar=True,
        seed=seed,
    )


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


# Name -> (one line for help, how it is made from a seed); grid walks the candidates itself.
SAMPLERS: dict[str, tuple[str, Callable[[int], optuna.samplers.BaseSampler]]] = {
    "nsga2": (f"NSGA-II, population {NSGA2_POPULATION}", _nsga2),
    "tpe": ("multivariate tree-structured Parzen estimator, for several objectives", _tpe),
    "random": ("uniform over the space's parameters", _random),
    "grid": ("every distinct candidate once, in the space's order", _random),
}

TOLD = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def proposal_seed(seed: int, number: int) -> int:
    """The seed of the n-th proposal of a study, 32 bits."""
    digest = hashlib.sha256(f"proposal {seed} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's word for a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.is_integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _still_fits(values: Mapping[str, Any], domains: Mapping[str, Domain]) -> bool:
    def fits(name: str, value: Any) -> bool:
        domain = domains.get(name)
        if isinstance(domain, Range):
            return isinstance(value, (int, float)) and domain.low <= value <= domain.high
        return domain is not None and value in domain.values

    return all(fits(name, value) for name, value in values.items())


def directions(objectives: Mapping[str, str]) -> list[StudyDirection]:
    """Optuna's words for the directions of objectives."""
    words = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [words[direction] for direction in objectives.values()]


class Proposer:
    """An Optuna study in memory that proposes, is told, and can be replayed.

    Args:
        sampler: A name of ``SAMPLERS``.
        objectives: Metric -> "max" or "min".
        seed: The study's seed.
        space: What may vary.
        data: The data set.
    """

    def __init__(
        self,
        sampler: str,
        objectives: Mapping[str, str],
        *,
        seed: int,
        space: Space,
        data: DataFacts,
    ) -> None:
        self.make = SAMPLERS[sampler][1]
        self.seed = seed
        self.space = space
        self.data = data
        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=self.storage, directions=directions(objectives))
        self.study_id = self.storage.get_study_id_from_name(self.study.study_name)
        self.count = 0

    def replay(
        self,
        rows: Sequence[ProposalRow],
        sampler_state: Mapping[str, Any],
        domains: Mapping[str, Domain],
    ) -> None:
        """Bring the study in memory to where the stored one stands.

        Args:
            rows: The stored proposals.
            sampler_state: What the sampler noted on the study.
            domains: The space's parameters as they are now; a proposal that a changed space no
                longer holds, or that has not as many values as there are objectives now, is left
                to the sampler as a failed one.
        """
        for row in rows:
            distributions = {k: json_to_distribution(v) for k, v in row.distributions.items()}
            state = TOLD.get(row.state, TrialState.RUNNING)
            if _still_fits(row.parameters, domains):
                distributions = {name: distribution(domains[name]) for name in row.parameters}
            elif state is TrialState.COMPLETE:
                state = TrialState.FAIL
            if state is TrialState.COMPLETE and len(row.values or ()) != len(self.study.directions):
                state = TrialState.FAIL
            self._append(state, row.parameters, distributions, row.system_attributes, row.values)
        for key, value in sampler_state.items():
            self.storage.set_study_system_attr(self.study_id, key, value)

    def ask(self) -> tuple[int, Proposal]:
        """The sampler's next proposal, with its number."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = self.make(proposal_seed(self.seed, self.count))
        trial = self.study.ask()
        self.count += 1

        def choose(name: str, domain: Domain) -> OptionValue:
            value: Any
            if isinstance(domain, Choice):
                value = trial.suggest_categorical(name, domain.values)
            elif domain.is_integer:
                value = trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
            else:
                value = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
            return value  # type: ignore[no-any-return]

        return trial.number, propose(self.space, choose, self.data)

    def add(self, values: Mapping[str, OptionValue], domains: Mapping[str, Domain]) -> int:
        """Enter a proposal that the sampler did not make; it is told of its result like others."""
        distributions = {name: distribution(domains[name]) for name in values}
        return self._append(TrialState.RUNNING, values, distributions, {}, None)

    def _append(
        self,
        state: TrialState,
        parameters: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        system_attributes: Mapping[str, Any],
        values: Sequence[float] | None,
    ) -> int:
        template = optuna.trial.create_trial(
            state=state,
            params=dict(parameters),
            distributions=dict(distributions),
            system_attrs=dict(system_attributes),
            values=values if state is TrialState.COMPLETE else None,
        )
        self.storage.create_new_trial(self.study_id, template)
        self.count += 1
        return self.count - 1

    def tell(self, number: int, state: str, values: list[float] | None) -> None:
        """Tell how a proposal ended: complete with its values, pruned or failed."""
        complete = TOLD[state] is TrialState.COMPLETE
        self.study.tell(number, values if complete else None, state=TOLD[state])

    def notes(self, number: int) -> tuple[dict[str, str], dict[str, Any]]:
        """(distributions as JSON, the sampler's own attributes) of a proposal."""
        trial = self.storage.get_trial(number)
        distributions = {k: distribution_to_json(v) for k, v in trial.distributions.items()}
        return distributions, dict(trial.system_attrs)

    def sampler_state(self) -> dict[str, Any]:
        """What the sampler noted on the study as a whole."""
        return dict(self.storage.get_study_system_attrs(self.study_id))


def mirrored_distributions(
    domains: Mapping[str, Domain], stored: Iterable[Mapping[str, str]]
) -> dict[str, BaseDistribution]:
    """One distribution per parameter that holds the space's values and all stored ones.

    Optuna allows a parameter one set of choices for ever; a space that was changed may have others
    than the trials that were made before.

    Args:
        domains: The space's parameters as they are now.
        stored: The distributions, as JSON, of each stored trial.
    """
    merged = {name: distribution(domain) for name, domain in domains.items()}
    for one in dict.fromkeys(tuple(sorted(d.items())) for d in stored):
        for name, text in one:
            old = json_to_distribution(text)
            now = merged.setdefault(name, old)
            if isinstance(now, CategoricalDistribution) and isinstance(
                old, CategoricalDistribution
            ):
                merged[name] = CategoricalDistribution(
                    tuple(dict.fromkeys(now.choices + old.choices))
                )
            elif isinstance(now, FloatDistribution) and isinstance(old, FloatDistribution):
                low, high = min(now.low, old.low), max(now.high, old.high)
                merged[name] = FloatDistribution(low, high, log=now.log)
            elif isinstance(now, IntDistribution) and isinstance(old, IntDistribution):
                low, high = min(now.low, old.low), max(now.high, old.high)
                merged[name] = IntDistribution(low, high, log=now.log)
    return merged
