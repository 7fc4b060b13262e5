"""A study without workers: trials end at once, with accuracies made from their digests."""

import hashlib

from search.outcome import EpochResult, Outcome

PROVENANCE = {"versions": {"torch": "0"}, "device": "cpu", "threads": 1}


def accuracy_of(digest, seed):
    """Repeatable and spread over 0.9 to 1."""
    number = int(hashlib.sha256(f"{digest} {seed}".encode()).hexdigest()[:8], 16)
    return 0.9 + number / 16**8 / 10


def outcome_of(trial, state="complete"):
    accuracy = accuracy_of(trial.digest, trial.seed)
    epoch = EpochResult(1, 0.5, 0.8, 0.4, accuracy, 0.1, 0.01)
    measured = (
        ("validation", "accuracy", accuracy),
        ("test", "accuracy", accuracy - 0.01),
        ("validation", "curve_area", accuracy),
    )
    if state != "complete":
        return Outcome(state, (epoch,), (), 0.01, "planted", "Traceback of the planted error")
    return Outcome(state, (epoch,), measured, 0.01)


def drive(study, *, stop_after=None, state_of=lambda trial: "complete"):
    """Evaluate one trial after another; returns how many."""
    done = 0
    while stop_after is None or done < stop_after:
        assignment = study.next_assignment()
        if assignment is None:
            break
        trial = study.trials[assignment.trial]
        study.on_finish(trial.number, outcome_of(trial, state_of(trial)), PROVENANCE)
        done += 1
    return done
