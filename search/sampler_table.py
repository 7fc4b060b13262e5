"""Who can propose: the table of samplers, and any other one of Optuna by its dotted name.

A sampler is made anew before every proposal from a seed of its own, so that it must remember
through the attributes of trials and study alone. Code that is named by a dotted name is run by an
explicit option alone, never because a space file or a database names it (``optuna.samplers``
itself is no further code).
"""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from blocks.errors import StudyError, listing, suggestion
from search.chance import UniformSampler
from search.evolution import POPULATION, RegularisedEvolution
from search.generations import NSGAIIISampler, NSGAIISampler
from search.include import included
from search.steady_tpe import SteadyTPESampler
from spaces.document import AUTO, OPTUNA_SAMPLER
from spaces.document import SAMPLERS as NAMES

MAX_DRAWS = 100  # proposals in a row without a new candidate before an untried one is taken
GP_DRAWS = 5
NSGA2_POPULATION = 10
TPE_STARTUP_TRIALS = 10

# Samplers of Optuna's, and of users' own made from them, that model only what all trials share.
SHARED_ALONE = (
    optuna.samplers.GPSampler,
    optuna.samplers.CmaEsSampler,
    optuna.samplers.NSGAIISampler,
    optuna.samplers.NSGAIIISampler,
)

# Samplers of Optuna's that have no say here, and what does what they would.
REPLACED = {
    "GridSampler": "--sampler grid",
    "BruteForceSampler": "--sampler grid",
    "PartialFixedSampler": "a single value in the space, or --enqueue",
    "QMCSampler": "--sampler random (its sequence hangs on one sampler that lives on, and samplers"
    " are made anew for every proposal)",
}


@dataclass(frozen=True)
class SamplerRow:
    """One sampler.

    Args:
        title: One line for people.
        make: Makes it from the seed of one proposal.
        flat: Whether it models only parameters that all trials share: it is then asked for all of
            them always, and those that do not matter are dropped.
        draws: After how many proposals in a row without a new candidate chance proposes: a model
            that learns nothing from them would propose the same again.
        named: Whether it is code by its dotted name, whose mistakes are the user's.
    """

    title: str
    make: Callable[[int], BaseSampler]
    flat: bool = False
    draws: int = MAX_DRAWS
    named: bool = False


@contextmanager
def _unwarned() -> Iterator[None]:
    """Inside, Optuna's marks on what may still change do not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)


def _nsga3(seed: int) -> BaseSampler:
    with _unwarned():
        return NSGAIIISampler(population_size=NSGA2_POPULATION, seed=seed)


def _tpe(seed: int) -> BaseSampler:
    with _unwarned():
        return SteadyTPESampler(
            n_startup_trials=TPE_STARTUP_TRIALS,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)


def by_chance(seed: int) -> BaseSampler:
    """Uniform over the space's parameters."""
    return UniformSampler(seed=seed)


def _evolution(seed: int) -> BaseSampler:
    return RegularisedEvolution(seed=seed)


# ``grid`` walks the candidates itself; ``auto`` becomes one of these (``search.auto``).
SAMPLERS: dict[str, SamplerRow] = {
    "nsga2": SamplerRow(f"NSGA-II, population {NSGA2_POPULATION}", _nsga2, flat=True),
    "tpe": SamplerRow("multivariate tree-structured Parzen estimator", _tpe),
    "random": SamplerRow("uniform over the space's parameters", by_chance),
    "grid": SamplerRow("every distinct candidate once, in the space's order", by_chance),
    "nsga3": SamplerRow(f"NSGA-III, population {NSGA2_POPULATION}", _nsga3, flat=True),
    "gp": SamplerRow("Gaussian processes on all settings", _gp, flat=True, draws=GP_DRAWS),
    "evolution": SamplerRow(f"regularised evolution, population {POPULATION}", _evolution),
}


def is_code(name: str) -> bool:
    """Whether a name stands for code that only an explicit option may run."""
    return name not in NAMES and not OPTUNA_SAMPLER.fullmatch(name)


def sampler_row(name: str) -> SamplerRow:
    """A sampler by its name in the table, or by a dotted name.

    Raises:
        StudyError: There is none of that name, or it cannot be made from a seed.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    if name == AUTO or ("." not in name and ":" not in name):
        raise StudyError(
            f"--sampler {name!r} is unknown.{suggestion(name, NAMES)} Allowed: {listing(NAMES)}, or"
            " the dotted name of a sampler of Optuna's kind (optuna.samplers.CmaEsSampler)"
        )
    found = _found(name)
    last = name.replace(":", ".").rpartition(".")[2]
    if OPTUNA_SAMPLER.fullmatch(name) and last in REPLACED:
        raise StudyError(f"--sampler {name} has no use here; give {REPLACED[last]}")
    _check_seed(name, found)

    def make(seed: int) -> BaseSampler:
        try:
            with _unwarned():
                sampler = found(seed=seed)
        except Exception as error:
            raise _unmade(name, f"{type(error).__name__}: {error}") from error
        if not isinstance(sampler, BaseSampler):
            raise _unmade(name, f"it gives a {type(sampler).__name__}")
        return sampler

    first = make(0)
    flat = isinstance(first, SHARED_ALONE)
    return SamplerRow(f"{type(first).__name__} by its name", make, flat, MAX_DRAWS, named=True)


def _found(name: str) -> Any:
    """What a dotted name stands for, brought in from included files, else as Python imports."""
    path, _, last = name.rpartition(":") if ":" in name else name.rpartition(".")
    module = included(path)
    if module is None:
        if "" not in sys.path:
            sys.path.insert(0, "")  # the current folder first, as ``python -m`` has it
        try:
            module = importlib.import_module(path)
        except Exception as error:
            raise StudyError(
                f"--sampler {name}: {path} cannot be imported ({type(error).__name__}: {error});"
                " install its package into this environment, or give its file with --include"
                " FILE.py and name it FILE:NAME"
            ) from error
    if not callable(getattr(module, last, None)):
        near = suggestion(last, [word for word in vars(module) if not word.startswith("_")])
        raise StudyError(f"--sampler {name}: {path} has no sampler {last!r}.{near}")
    return getattr(module, last)


def _check_seed(name: str, found: Any) -> None:
    if "seed" not in inspect.signature(found).parameters:
        raise _unmade(name, "it takes no seed=")


def _unmade(name: str, reason: str) -> StudyError:
    return StudyError(
        f"--sampler {name} cannot be made from a seed, which lets a study repeat ({reason}); give a"
        " function of your own that takes seed= and returns the sampler, as MODULE:FUNCTION"
    )
