"""The same tuning budget for no attention, where training settings are searched.

A block for which twenty settings are tried looks better than no attention at one setting, whatever
it does. So a backbone without attention has as many candidates as the block with the most in it:
whenever a block is ahead, the next trial is no attention at the settings of one of that block's
candidates. What the sampler itself proposes without attention counts too. The choice follows from
the trials alone, so a study that was cut off goes on as it was.

``study: {tune_baseline: false}`` leaves it out. A study of an earlier version, which left it out
unless it was asked for, goes on without while its space is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from search.records import StudyRecord, TrialRecord
from spaces.candidate import Candidate, DataFacts
from spaces.drawing import OF_ATTENTION, is_plain_allowed, plain_candidate
from spaces.space import Space

KEY = "tune_baseline"
WORDS = "as many settings of training are tried as for the block with the most"


def tunes_baseline(space: Space, stored: StudyRecord | None = None) -> bool:
    """Whether no attention is to be tuned as the blocks are: what the file says, else as before.

    Args:
        space: What may vary.
        stored: The study as it is stored, if it is.
    """
    given = space.study.get(KEY)
    if given is None and stored is not None and stored.space_content == dict(space.content):
        return was_tuned(stored.settings)
    return given is not False and bool(searched_settings(space))


def was_tuned(settings: Mapping[str, Any]) -> bool:
    """The same of a study's settings as they are stored."""
    return bool(settings.get(KEY, settings.get("file", {}).get(KEY)))


def searched_settings(space: Space) -> set[str]:
    """The training settings that are a choice and matter without attention."""
    return {n for n, d in space.training.items() if not d.is_fixed and n not in OF_ATTENTION}


@dataclass
class _Group:
    """The candidates of one block in one backbone, and how many no attention has followed."""

    parameters: list[Mapping[str, Any]] = field(default_factory=list)
    followed: int = 0


class EvenTuning:
    """Says when no attention is next, and at which settings.

    Trials are looked at once each, so a study that grows does not make it slower.

    Args:
        space: What may vary.
        data: The data set.
        wanted: Whether there is anything to say.
    """

    def __init__(self, space: Space, data: DataFacts, *, wanted: bool) -> None:
        self.space = space
        self.data = data
        self.settings = searched_settings(space) if wanted else set()
        self._seen: set[str] = set()
        self._looked_at = 0  # trials
        self._groups: dict[str, dict[str, _Group]] = {}  # backbone -> blocks, joined -> candidates

    def next(
        self, trials: Mapping[int, TrialRecord], known: Collection[str]
    ) -> tuple[Candidate, Mapping[str, Any]] | None:
        """No attention at settings that a block has been tried with, where a block is ahead.

        Args:
            trials: The study's, by number, in their order.
            known: Digests of its candidates.

        Returns:
            A new candidate with its parameters; None where no block is ahead, or nothing is left.
        """
        if not self.settings:
            return None
        self._look_at(trials)
        for backbone, groups in self._groups.items():
            plain = groups.get("", _Group())
            most = max(groups.values(), key=lambda group: len(group.parameters))
            if len(most.parameters) > len(plain.parameters):
                for candidate, values in self._following(backbone, most):
                    if candidate.digest not in known:
                        return candidate, values
        return None

    def _following(
        self, backbone: str, group: _Group
    ) -> Iterator[tuple[Candidate, Mapping[str, Any]]]:
        """No attention at the settings of a block's candidates that it has not followed yet."""
        while group.followed < len(group.parameters):
            parameters = group.parameters[group.followed]
            group.followed += 1
            settings = {n: v for n, v in parameters.items() if n in self.settings}
            if is_plain_allowed(self.space, backbone, settings):
                yield plain_candidate(self.space, self.data, backbone, settings)

    def _look_at(self, trials: Mapping[int, TrialRecord]) -> None:
        """Sort the candidates of trials that are new by backbone and blocks."""
        for trial in islice(trials.values(), self._looked_at, None):
            self._looked_at += 1
            if trial.digest in self._seen:
                continue
            self._seen.add(trial.digest)
            blocks = sorted({str(p["block"]) for p in trial.architecture["placements"]})
            groups = self._groups.setdefault(str(trial.architecture["backbone"]), {})
            groups.setdefault(" + ".join(blocks), _Group()).parameters.append(trial.parameters)
