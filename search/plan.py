"""One frozen value from a space file and the flags: all that a run will do, before it does it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from blocks.errors import StudyError, listing, suggestion
from search.auto import choose_sampler
from search.budgets import Budgets, read_budgets, stored_budgets
from search.convergence import check_target
from search.data_place import DataPlace, settle_data
from search.database import DEFAULT_STORAGE, artefacts_of, open_if_there, storage_url
from search.datasets import names
from search.devices import CUDA, settle_gpus, usable_cores
from search.enqueued import Given, settle_given
from search.even_tuning import KEY, searched_settings, tunes_baseline
from search.include import include
from search.reading import read_studies
from search.records import StudyRecord
from search.starting import Start, read_starts
from spaces.candidate import DataFacts
from spaces.document import AUTO as AUTO_SAMPLER
from spaces.document import KEEP_WEIGHTS, NAME
from spaces.document import SAMPLERS as NAMES
from spaces.drawing import check_possible
from spaces.metrics import LATENCY_RATIO
from spaces.parameters import Range, fixed
from spaces.space import Space, load_space

PRUNERS = ("none",)
EXECUTORS = ("local",)
DEVICES = ("cpu", "cuda")
AUTO = "auto"
DEFAULTS: dict[str, Any] = {
    "trials": 24,
    "seeds": 1,
    "seed": 0,
    "sampler": "nsga2",
    "pruner": "none",
    "max_seeds": None,
    "enqueue": (),
    "data": "digits",
    "latency": False,
    "keep_weights": "front",
    "target_accuracy": None,
    "deterministic": False,
    "time_limit": None,
    "device_hours": None,
    "patience": None,
}


@dataclass(frozen=True)
class StudyPlan:
    """What a run will do.

    Args:
        space: What may vary, with the epochs that will be trained.
        study: The study's name.
        storage: The database.
        data: The data set's facts.
        trials: The study's total of finished trials, the baseline's included.
        seeds: Trials per candidate.
        seed: The first seed; replicate r has seed + r.
        sampler: Who proposes.
        pruner: Who stops trials early.
        workers: Processes that train at the same time.
        threads: Threads of each of them.
        device: "cpu" or "cuda".
        gpus: Devices over which workers are spread; empty on a processor.
        includes: Files with a user's own blocks.
        extend: Whether a stored study may go on with another space.
        latency: Whether complete trials are timed beside the baseline.
        starts: The trained weights that backbones start from.
        place: Where the data's files are, and the split as it is stored.
        keep_weights: Whose final weights are kept: "all", "front" (and the baseline's) or "none".
        target_accuracy: The validation accuracy to which epochs and seconds are counted, if any.
        deterministic: Whether trainings on a GPU are to repeat bit for bit.
        processes: Processes that train one trial together.
        auto: Whether ``workers`` is only a bound, and the run chooses (``search.concurrency``).
        because: Why there are so many workers, in words; empty where they were given.
        budgets: What the whole study may spend.
        limits: The same as they were given, for the study's settings.
        retry_failed: Whether failed trials are tried again.
        max_seeds: Trials of a candidate that is proposed again and again, at most.
        enqueue: Proposals that are taken right after the baselines.
        remarks: What of the given proposals is left out, and why.
        auto_because: Why the sampler is this one, in words, where ``auto`` chose it.
        tune_baseline: Whether no attention gets as many settings of training as the blocks.
    """

    space: Space
    study: str
    storage: URL
    data: DataFacts
    trials: int
    seeds: int
    seed: int
    sampler: str
    pruner: str
    workers: int
    threads: int
    device: str
    gpus: tuple[str, ...]
    includes: tuple[str, ...]
    extend: bool
    latency: bool
    starts: tuple[Start, ...] = ()
    place: DataPlace = field(default_factory=DataPlace)
    keep_weights: str = "front"
    target_accuracy: float | None = None
    deterministic: bool = False
    processes: int = 1
    auto: bool = False
    because: str = ""
    budgets: Budgets = field(default_factory=Budgets)
    limits: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    max_seeds: int = 1
    enqueue: tuple[Given, ...] = ()
    remarks: tuple[str, ...] = ()
    auto_because: str = ""
    tune_baseline: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What may not change while the study goes on, beside the space."""
        content = {
            "data": {**self.data.identity(), "sizes": list(self.data.sizes)},
            "epochs": self.space.epochs,
            "seed": self.seed,
        }
        if self.starts:
            content["weights"] = {f"{s.backbone} {s.given}": s.identity for s in self.starts}
        return content

    def weights_path(self, identity: str) -> str:
        """The file of trained weights with this identity; empty where they are of none."""
        return next((s.path for s in self.starts if s.identity == identity), "")

    @property
    def settings(self) -> dict[str, Any]:
        """What may."""
        return {
            "trials": self.trials,
            "seeds": self.seeds,
            **self._sampler_settings,
            "pruner": self.pruner,
            "latency": self.latency,
            **self.place.settings,
            "keep_weights": self.keep_weights,
            **({"target_accuracy": self.target_accuracy} if self.target_accuracy else {}),
            **({"deterministic": True} if self.deterministic else {}),
            **self.limits,
            **self._seeds_settings,
            **({"enqueue": [dict(given) for given in self.enqueue]} if self.enqueue else {}),
            **({KEY: self.tune_baseline} if searched_settings(self.space) else {}),
            **({"question": self.space.question} if self.space.question else {}),
            "file": dict(self.space.study),
        }

    @property
    def devices_of_attempt(self) -> float:
        """Devices that one attempt takes: its processes, or its share of shared GPUs."""
        shared = self.workers * self.processes / len(self.gpus) if self.gpus else 1.0
        return self.processes / max(1.0, shared)

    @property
    def _seeds_settings(self) -> dict[str, Any]:
        """The most seeds of a candidate, where they are more than all candidates have."""
        told = self.max_seeds > self.seeds or "max_seeds" in self.space.study
        return {"max_seeds": self.max_seeds} if told else {}

    @property
    def _sampler_settings(self) -> dict[str, Any]:
        """The sampler as it was asked for, and what ``auto`` made of it, which is kept."""
        if not self.auto_because:
            return {"sampler": self.sampler}
        made = {"sampler": self.sampler, "because": self.auto_because}
        return {"sampler": AUTO_SAMPLER, AUTO_SAMPLER: made}

    @property
    def artefacts(self) -> Path:
        """The folder beside the database for what is too big for it."""
        return artefacts_of(self.storage)


def make_plan(
    space: str | os.PathLike[str] | Space,
    *,
    study: str | None = None,
    storage: str = DEFAULT_STORAGE,
    trials: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    download: bool = False,
    sampler: str | None = None,
    pruner: str | None = None,
    workers: int | str | None = None,
    device: str = "cpu",
    gpus: Sequence[str] = (),
    seed: int | None = None,
    overrides: Sequence[str] = (),
    includes: Sequence[str] = (),
    extend: bool = False,
    latency: bool | None = None,
    keep_weights: str | None = None,
    target_accuracy: float | None = None,
    deterministic: bool | None = None,
    processes: int = 1,
    time_limit: str | float | None = None,
    device_hours: str | float | None = None,
    patience: str | int | None = None,
    retry_failed: bool = False,
    max_seeds: int | None = None,
    enqueue: Sequence[str | Mapping[str, Any]] = (),
) -> StudyPlan:
    """Put a space (a file, a shipped one by its name, or a made one) and flags together.

    A setting that no flag gives is the stored study's, unless the file's ``study:`` section has
    changed since; then the file's; then the default.

    Raises:
        ToolError: A file or flag is wrong; which, and what is allowed.
    """
    for path in includes:
        include(path)
    loaded = load_space(space, overrides=overrides)
    name = _study_name(study, loaded)
    url = storage_url(storage)
    stored = stored_study(url, name)
    given = {
        "trials": trials,
        "seeds": seeds,
        "seed": seed,
        "sampler": sampler,
        "pruner": pruner,
        "max_seeds": max_seeds,
        "data": data,
        "epochs": epochs,
        "latency": latency,
        "keep_weights": keep_weights,
        "target_accuracy": target_accuracy,
        "deterministic": deterministic,
        "time_limit": time_limit,
        "device_hours": device_hours,
        "patience": patience,
    }
    chosen = _settled(given, loaded, stored)
    _check_sampler(chosen["sampler"], sampler)
    most_seeds = _most_seeds(chosen, max_seeds)
    _one_of("--pruner", chosen["pruner"], PRUNERS)
    _one_of("--keep-weights", chosen["keep_weights"], KEEP_WEIGHTS)
    if chosen["target_accuracy"] is not None:
        check_target(chosen["target_accuracy"])
    budgets = read_budgets(chosen)
    _one_of("--device", device, DEVICES)
    _one_of("--data", chosen["data"], names())
    for flag in ("trials", "seeds"):
        _at_least(flag, chosen[flag], 1)
    _at_least("seed", chosen["seed"], 0)
    if epochs is not None:
        _at_least("epochs", epochs, 1)
    loaded = replace(loaded, training={**loaded.training, "epochs": fixed(chosen["epochs"])})
    if device == CUDA:
        _check_cuda()
    gpus = settle_gpus(gpus, device)
    _check_processes(processes, loaded, device, gpus)
    count = _workers(workers, device, gpus, chosen["trials"], processes)
    facts, place = settle_data(
        chosen["data"], data_dir, fetch=download, space=loaded, url=url, stored=stored
    )
    check_possible(loaded, facts)
    _check_together(loaded, chosen, facts)
    _check_latency(latency, loaded)
    starts = read_starts(loaded, facts)
    loaded = replace(loaded, weights={(s.backbone, s.given): s.identity for s in starts})
    proposed, remarks = settle_given(
        chosen["enqueue"], enqueue, loaded, facts, stored=_is_kept(stored, loaded)
    )
    tuned = tunes_baseline(loaded, stored)
    chosen["sampler"], because = choose_sampler(chosen, loaded, facts, stored, tuned=tuned)
    return StudyPlan(
        space=loaded,
        study=name,
        storage=url,
        data=facts,
        trials=chosen["trials"],
        seeds=chosen["seeds"],
        seed=chosen["seed"],
        sampler=chosen["sampler"],
        pruner=chosen["pruner"],
        workers=count,
        threads=threads_of(count * processes),
        device=device,
        gpus=tuple(gpus),
        includes=tuple(includes),
        extend=extend,
        latency=chosen["latency"] or bool(_needs_latency(loaded)),
        starts=starts,
        place=place,
        keep_weights=chosen["keep_weights"],
        target_accuracy=chosen["target_accuracy"],
        deterministic=chosen["deterministic"],
        processes=processes,
        auto=workers in (None, AUTO),
        budgets=budgets,
        limits=stored_budgets(chosen, budgets),
        retry_failed=retry_failed,
        max_seeds=most_seeds,
        enqueue=proposed,
        remarks=remarks,
        auto_because=because,
        tune_baseline=tuned,
    )


def stored_study(url: URL, name: str) -> StudyRecord | None:
    """The stored study of this name, if there is one."""
    engine = open_if_there(url)
    if engine is None:
        return None
    try:
        return next((study for study in read_studies(engine) if study.name == name), None)
    finally:
        engine.dispose()


def _settled(given: Mapping[str, Any], space: Space, stored: StudyRecord | None) -> dict[str, Any]:
    """Flag, else stored study, else file, else default."""
    kept: dict[str, Any] = {}
    if stored is not None and _is_kept(stored, space):
        kept = {
            **stored.settings,
            "seed": stored.identity["seed"],
            "data": stored.identity["data"]["name"],
        }
    if stored is not None and stored.space_content == dict(space.content):
        kept["epochs"] = stored.identity["epochs"]
    flags = {name: value for name, value in given.items() if value is not None}
    settled = {"epochs": space.epochs, **DEFAULTS, **space.study, **kept, **flags}
    return {name: settled[name] for name in ("epochs", *DEFAULTS)}


def _is_kept(stored: StudyRecord | None, space: Space) -> bool:
    """Whether the settings of a stored study stand before those of the file."""
    return stored is not None and stored.settings.get("file") == dict(space.study)


def _check_sampler(name: str, flag: str | None) -> None:
    """Refuse a sampler that is not there, and code that no flag of this run asks for.

    Raises:
        StudyError: It is one of these; with the cure.
    """
    if name in NAMES:
        return
    from search.sampler_table import is_code, sampler_row

    if flag is None and is_code(name):
        raise StudyError(
            f"the stored study was run with --sampler {name}, which is code by its name: give the"
            " flag again to run it, or another sampler"
        )
    sampler_row(name)


def _most_seeds(chosen: Mapping[str, Any], flag: int | None) -> int:
    """Trials of a candidate that is proposed again, at most.

    Raises:
        StudyError: The flag gives fewer than every candidate has.
    """
    if flag is not None and flag < chosen["seeds"]:
        raise StudyError(
            f"--max-seeds is {flag}, fewer than the {chosen['seeds']} of every candidate (--seeds);"
            f" give {chosen['seeds']} or more"
        )
    return max(int(chosen["seeds"]), int(chosen["max_seeds"] or 0))


def _study_name(given: str | None, space: Space) -> str:
    if given is not None:
        return _named("study", given)
    if not NAME.fullmatch(space.name):
        raise StudyError(
            f"{space.source}: its name {space.name!r} cannot name a study; give a name (--study"
            " NAME, or the file's key `name:`) of letters, digits, '.', '_' and '-'"
        )
    return space.name


def _check_together(space: Space, chosen: Mapping[str, Any], facts: DataFacts) -> None:
    """Refuse settings that are right alone and cannot work together.

    Raises:
        StudyError: They cannot; which, and the cure.
    """
    ranges = [name for name, domain in space.training.items() if isinstance(domain, Range)]
    if chosen["sampler"] == "grid" and ranges:
        raise StudyError(
            f"--sampler grid needs lists, and {space.source} gives training.{ranges[0]} a range;"
            " write a list of values, or choose another sampler"
        )
    backbones = len(space.backbones.values)
    if chosen["trials"] < backbones:
        raise StudyError(
            f"--trials is {chosen['trials']}, and {space.source} has {backbones} backbones, each"
            f" with its baseline; give {backbones} or more"
        )
    domain = space.training["batch_size"]
    largest = domain.high if isinstance(domain, Range) else max(map(int, domain.values))
    if largest > facts.sizes[0]:
        raise StudyError(
            f"{space.source}: training.batch_size {largest} is more than the {facts.sizes[0]}"
            f" training images of {facts.name}; lower it"
        )


def _needs_latency(space: Space) -> str:
    """What of a space cannot do without a latency; empty where nothing is."""
    if LATENCY_RATIO in space.objectives:
        return "objective"
    return "cap" if any(c.metric == LATENCY_RATIO for c in space.constraints) else ""


def _check_latency(wanted: bool | None, space: Space) -> None:
    needed = _needs_latency(space)
    if wanted is False and needed:
        raise StudyError(
            f"--no-latency: {space.source} has the {needed} {LATENCY_RATIO}, which is measured;"
            f" leave the flag or the {needed} out"
        )


def _check_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise StudyError("--device cuda: torch finds no GPU that it can use; give --device cpu")


def _named(what: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise StudyError(
            f"--{what} {name!r} is no name; allowed: 1 to 64 letters, digits, '.', '_' and '-'"
        )
    return name


def _one_of(flag: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise StudyError(
            f"{flag} {value!r} is unknown.{suggestion(value, allowed)} Allowed: {listing(allowed)}"
        )


def _at_least(flag: str, value: int, low: int) -> None:
    if value < low:
        raise StudyError(f"--{flag} is {value}; it must be {low} or more")


def threads_of(processes: int) -> int:
    """Threads of each of so many processes that train at once."""
    return max(1, usable_cores() // processes)


def _workers(
    given: int | str | None, device: str, gpus: Sequence[str], trials: int, processes: int
) -> int:
    """The workers that were asked for; else the most that the run may choose."""
    if given is None or given == AUTO:
        return max(1, min(usable_cores() // processes, trials))
    try:
        count = int(given)
    except ValueError:
        raise StudyError(f"--workers {given!r} is neither a number nor {AUTO}") from None
    _at_least("workers", count, 1)
    return min(count, trials)


def _check_processes(processes: int, space: Space, device: str, gpus: Sequence[str]) -> None:
    """Refuse trials over several processes that cannot be.

    Raises:
        StudyError: There are too few GPUs, or a batch cannot be shared evenly.
    """
    _at_least("processes-per-trial", processes, 1)
    if processes == 1:
        return
    if device == CUDA and processes > len(gpus):
        raise StudyError(
            f"--processes-per-trial {processes} needs as many GPUs, and there are {len(gpus)};"
            " give more GPUs (--gpus) or fewer processes"
        )
    domain = space.training["batch_size"]
    if isinstance(domain, Range):
        raise StudyError(
            f"--processes-per-trial {processes} shares every batch evenly, and {space.source} gives"
            f" training.batch_size a range; list multiples of {processes}"
        )
    uneven = [int(size) for size in domain.values if int(size) % processes]
    if uneven:
        raise StudyError(
            f"--processes-per-trial {processes} shares every batch evenly, and {space.source} has"
            f" training.batch_size {uneven[0]}; give a multiple of {processes}, such as"
            f" {processes * -(-uneven[0] // processes)}"
        )
