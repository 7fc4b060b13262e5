"""Records of trials that are made or changed while a study runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.formulas import Cost
from search.outcome import COMPLETE, REUSED, WAITING
from search.records import NewTrial, TrialRecord, now
from spaces.candidate import Candidate
from spaces.metrics import COST


def is_trained(trial: TrialRecord) -> bool:
    """Whether a trial that waits or runs has its accuracy already, and is but to be timed."""
    return trial.accuracy is not None


def known_costs(like: TrialRecord | None) -> dict[tuple[str, str], float]:
    """What is known of a candidate from its first trial."""
    kept = like.measurements if like else {}
    return {key: value for key, value in kept.items() if key[0] == COST}


def state_at_rest(trial: TrialRecord) -> str:
    """What a trial is while nobody evaluates it and nothing more is known of it."""
    if not is_trained(trial):
        return WAITING
    return REUSED if trial.origin else COMPLETE


def same_values(values: Mapping[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Values as data of their own, or as what is kept of them already."""
    return known if list(known.items()) == list(values.items()) else dict(values)


def among(texts: dict[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """Those of these parameters alone."""
    if len(texts) == len(values) and all(name in texts for name in values):
        return texts
    return {name: text for name, text in texts.items() if name in values}


def record_of(
    trial: NewTrial, like: TrialRecord | None, new: tuple[Candidate, Cost] | None
) -> TrialRecord:
    """A decided trial as reading it back would give it."""
    if new is not None:
        candidate, cost = new
        architecture: dict[str, Any] = candidate.architecture.content
        training: dict[str, Any] = candidate.training.content
        architecture_digest = candidate.architecture_digest
    else:
        assert like is not None  # a replicate is like its candidate's first trial
        architecture, training = like.architecture, like.training
        architecture_digest = like.architecture_digest
        cost = Cost(like.params, like.trainable_params, like.macs, like.flops)
    return TrialRecord(
        id=0,
        number=trial.number,
        state=WAITING,
        seed=trial.seed,
        label=trial.label,
        baseline=trial.baseline,
        digest=trial.digest,
        architecture_digest=architecture_digest,
        architecture=architecture,
        training=training,
        parameters=trial.parameters,
        distributions=trial.distributions,
        proposal=trial.proposal,
        epochs=0,
        error="",
        seconds=0.0,
        created=now(),
        finished=None,
        params=cost.params,
        trainable_params=cost.trainable_params,
        macs=cost.macs,
        flops=cost.flops,
    )
