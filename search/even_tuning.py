"""The same tuning budget for no attention, where training settings are searched.

A block for which twenty settings are tried looks better than no attention at one setting, whatever
it does. With ``study: {tune_baseline: true}`` a backbone without attention has as many candidates
as the block with the most in it: whenever a block is ahead, the next trial is no attention at the
settings of one of that block's candidates. What the sampler itself proposes without attention
counts too. The choice follows from the trials alone, so a study that was cut off goes on as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from search.store import TrialRecord
from spaces.candidate import Candidate, DataFacts
from spaces.drawing import OF_ATTENTION, plain_candidate
from spaces.space import Space

KEY = "tune_baseline"


def next_plain(
    space: Space, data: DataFacts, trials: Mapping[int, TrialRecord], known: Collection[str]
) -> tuple[Candidate, Mapping[str, Any]] | None:
    """No attention at settings that a block has been tried with, where a block is ahead.

    Args:
        space: What may vary.
        data: The data set.
        trials: The study's, by number.
        known: Digests of its candidates.

    Returns:
        A new candidate with its parameters; None where no block is ahead, or nothing is left.
    """
    searched = _searched(space)
    if not space.study.get(KEY) or not searched:
        return None
    in_order = (trials[number] for number in sorted(trials))
    for backbone, groups in _candidates(in_order).items():
        plain = groups.pop("", [])
        most = max(groups.values(), key=len, default=[])
        for trial in most if len(most) > len(plain) else ():
            settings = {n: v for n, v in trial.parameters.items() if n in searched}
            candidate, values = plain_candidate(space, data, backbone, settings)
            if candidate.digest not in known:
                return candidate, values
    return None


def _searched(space: Space) -> set[str]:
    """The training settings that are a choice and matter without attention."""
    return {n for n, d in space.training.items() if not d.is_fixed and n not in OF_ATTENTION}


def _candidates(trials: Iterable[TrialRecord]) -> dict[str, dict[str, list[TrialRecord]]]:
    """Backbone -> blocks of a candidate, joined -> the first trial of each candidate with these."""
    found: dict[str, dict[str, list[TrialRecord]]] = {}
    seen: set[str] = set()
    for trial in trials:
        if trial.digest in seen:
            continue
        seen.add(trial.digest)
        blocks = sorted({str(p["block"]) for p in trial.architecture["placements"]})
        groups = found.setdefault(str(trial.architecture["backbone"]), {})
        groups.setdefault(" + ".join(blocks), []).append(trial)
    return found
