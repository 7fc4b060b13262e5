"""What a study has come to."""

from __future__ import annotations

from dataclasses import dataclass

from search.outcome import SUCCEEDED
from search.records import TrialRecord


@dataclass(frozen=True)
class StudyResult:
    """What a study has come to.

    Args:
        study: Its name.
        storage: Its database, for people.
        objectives: Metric -> "max" or "min".
        trials: All trials by number.
        front: Numbers of the non-dominated complete trials.
        note: Why it ended before its total, where it did.
        warning: What went wrong beside the study, if anything.
        weights: How many files of final weights are kept, their size and folder; may be empty.
        rejected: How many candidates the caps have rejected before training, and which caps; may
            be empty.
        stopped: The end of the traceback of the mistake that stopped it, and how to see the whole.
        proposals: How many were new, repeated or over a cap, in words; may be empty.
        remarks: What became of proposals that the user gave, where they are no trials.
        tuned: Whether no attention is tuned as the blocks are, and compared with at its best.
    """

    study: str
    storage: str
    objectives: dict[str, str]
    trials: list[TrialRecord]
    front: list[int]
    note: str = ""
    warning: str = ""
    weights: str = ""
    rejected: str = ""
    stopped: str = ""
    proposals: str = ""
    remarks: tuple[str, ...] = ()
    tuned: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether any trial has a result."""
        return any(trial.state in SUCCEEDED for trial in self.trials)
