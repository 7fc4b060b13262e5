"""Who wants to know how a study goes; all are called in the parent's one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from search.outcome import EpochResult
from search.records import TrialRecord

if TYPE_CHECKING:
    from search.engine import Study


class Watch(Protocol):
    """What is told of a study."""

    def preparing(self, words: str) -> None:
        """Something takes a moment before the study is run."""

    def began(self, study: Study) -> None:
        """The study is about to be run."""

    def epoch(self, trial: TrialRecord, result: EpochResult) -> None:
        """A trial has trained one more epoch."""

    def finished(self, trial: TrialRecord) -> None:
        """A trial has ended."""

    def lost(self, trial: TrialRecord, cause: str) -> None:
        """A trial's worker has died."""

    def said(self, words: str) -> None:
        """Something that a user should know, at any time."""

    def tick(self) -> None:
        """Some time has passed."""

    def ended(self) -> None:
        """The study is no longer run."""


class Silent:
    """A watch that says nothing."""

    def preparing(self, words: str) -> None:
        """Say nothing."""

    def began(self, study: Study) -> None:
        """Say nothing."""

    def epoch(self, trial: TrialRecord, result: EpochResult) -> None:
        """Say nothing."""

    def finished(self, trial: TrialRecord) -> None:
        """Say nothing."""

    def lost(self, trial: TrialRecord, cause: str) -> None:
        """Say nothing."""

    def said(self, words: str) -> None:
        """Say nothing."""

    def tick(self) -> None:
        """Say nothing."""

    def ended(self) -> None:
        """Say nothing."""
