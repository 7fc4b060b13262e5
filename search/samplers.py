"""The samplers: who proposes the next candidate, and how a study's proposals repeat exactly.

Optuna's samplers run on a study in memory. Before every proposal the sampler is made anew with a
seed from (study's seed, number of the proposal), and all it remembers lies in the attributes of
trials and study, which are kept in our tables: so a study that was killed and goes on proposes
what an uninterrupted one would have (on one worker, where results come in one order).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from blocks.errors import StudyError, ToolError
from blocks.options import OptionValue
from blocks.plain import Settled
from search.chance import Recycled, UniformSampler
from search.enqueued import MARK
from search.generations import TrialMemory
from search.records import ProposalRow
from search.sampler_table import SAMPLERS, by_chance, sampler_row
from spaces.candidate import DataFacts
from spaces.drawing import Proposal, propose
from spaces.flat import flat_domains
from spaces.parameters import Choice, Domain, Range
from spaces.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

TRIED_OUT = 3

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


def _fits(domain: Domain | None, value: Any) -> bool:
    """Whether a value is one of a domain."""
    if isinstance(domain, Range):
        return isinstance(value, (int, float)) and domain.low <= value <= domain.high
    return domain is not None and value in domain.values


def _still_fits(values: Mapping[str, Any], domains: Mapping[str, Domain]) -> bool:
    return all(_fits(domains.get(name), value) for name, value in values.items())


def directions(objectives: Mapping[str, str]) -> list[StudyDirection]:
    """Optuna's words for the directions of objectives."""
    words = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [words[direction] for direction in objectives.values()]


@dataclass(frozen=True)
class Notes:
    """What is kept of a proposal.

    Args:
        parameters: All that the sampler knows, also what does not matter beside the rest.
        distributions: Of each of them, as JSON.
        system_attributes: The sampler's own notes on it.
    """

    parameters: Settled
    distributions: Settled
    system_attributes: Settled


class Proposer:
    """An Optuna study in memory that proposes, is told, and can be replayed.

    Args:
        sampler: A name of ``SAMPLERS``, or a dotted name.
        objectives: Metric -> "max" or "min".
        seed: The study's seed.
        space: What may vary.
        data: The data set.

    Raises:
        StudyError: There is no such sampler, or it cannot be made.
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
        self.name = sampler
        self.row = sampler_row(sampler)
        self.seed = seed
        self.space = space
        self.data = data
        self.flat = flat_domains(space, data) if self.row.flat else {}
        self.storage = TrialMemory()
        self._states = Recycled()
        self.study = optuna.create_study(
            storage=self.storage,
            sampler=self._made(self.row.make, 0),
            directions=directions(objectives),
        )
        self.study_id = self.storage.get_study_id_from_name(self.study.study_name)
        self.count = 0
        self._distributions: dict[str, tuple[Domain, BaseDistribution]] = {}
        self._texts: dict[str, tuple[BaseDistribution, str]] = {}
        self._together: dict[tuple[str, ...], Settled] = {}

    def _made(self, make: Callable[[int], BaseSampler], number: int) -> BaseSampler:
        """A sampler for the n-th proposal alone."""
        seed = proposal_seed(self.seed, number)
        if self.row.named:
            return make(seed)  # the user's own may keep what it made before
        return self._states.made(make, seed)

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

    def ask(
        self, given: Mapping[str, OptionValue] | None = None, *, draw: int = 0
    ) -> tuple[int, Proposal]:
        """The sampler's next proposal, with its number.

        Args:
            given: Settings that it is to have; the sampler chooses the others.
            draw: How many proposals before it in a row held no new candidate.

        Raises:
            StudyError: A sampler that is given by its dotted name failed.
        """
        make = self.row.make if draw < self.row.draws else by_chance
        with self._explained():
            self.study.sampler = self._made(make, self.count)
            trial, settled = self._begun()
            if given:
                self.storage.set_trial_system_attr(trial.number, MARK, dict(given))
                settled = {**settled, **given}
            known = trial.params

            def choose(name: str, domain: Domain) -> OptionValue:
                if name not in known:
                    self._set(trial, name, domain, settled)
                return known[name]  # type: ignore[no-any-return]

            for name, domain in self.flat.items():
                choose(name, domain)
            proposal = propose(self.space, choose, self.data)
        self.count += 1
        return trial.number, proposal

    def _begun(self) -> tuple[FrozenTrial, dict[str, Any]]:
        """A new trial, and the values that the sampler gives several settings of it at once."""
        if self.row.named:  # all that an Optuna of any version does for it
            asked = self.study.ask()
            return self.storage.get_trial(asked.number), asked.relative_params
        study, sampler = self.study, self.study.sampler
        study._thread_local.cached_all_trials = None
        trial = self.storage.get_trial(self.storage.create_new_trial(self.study_id))
        sampler.before_trial(study, trial)
        together = sampler.infer_relative_search_space(study, trial)
        return trial, sampler.sample_relative(study, trial, together)

    def _set(
        self, trial: FrozenTrial, name: str, domain: Domain, settled: Mapping[str, Any]
    ) -> None:
        """Give a proposal one setting, as Optuna's ``Trial.suggest_...`` would."""
        meant, sampler = self._meant(name, domain), self.study.sampler
        trial.distributions[name] = meant
        if name in settled and _fits(domain, settled[name]):
            value = settled[name]
        elif type(sampler) is UniformSampler:
            trial.params[name] = sampler.value(meant)  # the very value that would come back
            return
        else:
            value = sampler.sample_independent(self.study, trial, name, meant)
        trial.params[name] = meant.to_external_repr(meant.to_internal_repr(value))

    def _meant(self, name: str, domain: Domain) -> BaseDistribution:
        """The distribution of a setting, made once."""
        known = self._distributions.get(name)
        if known is None or known[0] is not domain:
            known = self._distributions[name] = (domain, distribution(domain))
        return known[1]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a sampler of the user's own raises into a message."""
        try:
            yield
        except ToolError:
            raise
        except Exception as error:
            if not self.row.named:
                raise
            raise StudyError(
                f"--sampler {self.name} failed ({type(error).__name__}: {error}); see what it"
                " needs, or choose another one"
            ) from error

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
        filled = self._filled(parameters)
        template = optuna.trial.create_trial(
            state=state,
            params={**filled, **parameters},
            distributions={n: distribution(self.flat[n]) for n in filled} | dict(distributions),
            system_attrs=dict(system_attributes),
            values=values if state is TrialState.COMPLETE else None,
        )
        self.storage.create_new_trial(self.study_id, template)
        self.count += 1
        return self.count - 1

    def _filled(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that do not matter beside those given, for a sampler that must have them all."""
        chance = random.Random(proposal_seed(self.seed, self.count))
        values = {name: _drawn(domain, chance) for name, domain in self.flat.items()}
        return {name: value for name, value in values.items() if name not in parameters}

    def tell(self, number: int, state: str, values: list[float] | None) -> None:
        """Tell how a proposal ended: complete with its values, pruned or failed."""
        told = TOLD[state]
        given = values if told is TrialState.COMPLETE else None
        if self.row.named:  # it may note something; what it is made from must not hang on the past
            self.study.sampler = self._made(self.row.make, number)
        with self._explained():
            trial = self.storage.get_trial(number)
            self.study.sampler.after_trial(self.study, trial, told, given)
        self.storage.set_trial_state_values(number, told, given)

    def notes(self, number: int) -> Notes:
        """What is to be kept of a proposal."""
        trial = self.storage.get_trial(number)
        texts = self._settled({n: self._text(n, d) for n, d in trial.distributions.items()})
        return Notes(Settled(trial.params), texts, Settled(trial.system_attrs))

    def _text(self, name: str, given: BaseDistribution) -> str:
        """A distribution as JSON; those of one parameter are equal but for a changed space."""
        known = self._texts.get(name)
        if known is None or known[0] is not given:
            same = known is not None and known[0] == given
            text = known[1] if known and same else distribution_to_json(given)
            known = self._texts[name] = (given, text)
        return known[1]

    def _settled(self, texts: dict[str, str]) -> Settled:
        """The same distributions as an earlier proposal's are the same data."""
        names = tuple(texts)
        if self._together.get(names) != texts:
            self._together[names] = Settled(texts)
        return self._together[names]

    def sampler_state(self) -> dict[str, Any]:
        """What the sampler noted on the study as a whole."""
        return dict(self.storage.get_study_system_attrs(self.study_id))


def _drawn(domain: Domain, chance: random.Random) -> OptionValue:
    if isinstance(domain, Choice):
        return chance.choice(domain.values)
    if domain.is_integer:
        return chance.randint(int(domain.low), int(domain.high))
    return chance.uniform(domain.low, domain.high)


def try_out(sampler: str, objectives: Mapping[str, str], space: Space, data: DataFacts) -> None:
    """Let a sampler that is given by a dotted name propose a few times, before any study is made.

    Raises:
        StudyError: It cannot.
    """
    proposer = Proposer(sampler, objectives, seed=0, space=space, data=data)
    for count in range(TRIED_OUT):
        number, _ = proposer.ask()
        values = [float(count + column) for column in range(len(objectives))]
        proposer.tell(number, "complete", values)


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


__all__ = [
    "SAMPLERS",
    "Notes",
    "Proposer",
    "directions",
    "distribution",
    "mirrored_distributions",
    "proposal_seed",
    "try_out",
]
