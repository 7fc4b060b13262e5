"""Why an attempt at a trial has not succeeded, and what is done about each cause.

``POLICIES`` is the whole of it, one row a cause. A cause is kept with its attempt as text that
begins with the row's name: ``killed: its worker ended with SIGKILL``. ``docs/failures.md`` says the
same to users.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from search.outcome import DIVERGED, FAILED, INTERRUPTED, LOST, WAITING

MAX_DEATHS = 3  # of workers over one trial that came no further
MAX_HALVINGS = 2  # of a batch that does not fit the device's memory
MAX_EQUAL = 3  # trials that the same mistake may end before the study stops
LAST_LINES = 8  # of a traceback, that a stopped study shows

KILLED, KILLED_FOR_MEMORY, CRASHED = "killed", "killed for memory", "crashed"
PARENT_ENDED, STOPPED = "parent ended", "stopped"
OUT_OF_MEMORY, NOT_A_NUMBER, MISTAKE = "out of memory", "not a number", "error"


@dataclass(frozen=True)
class Policy:
    """What is done about one cause.

    Args:
        cause: Its name, with which the stored text begins.
        means: How it comes about.
        ending: Of the attempt.
        state: Of the trial then; waiting: it is evaluated again.
        deaths: So many over one trial, which came no further between them, make it failed; 0: it
            waits however often it happens.
        halvings: So often is the batch computed in twice as many parts before the trial fails.
        equal: So many trials with equal tracebacks stop the study; 0: none do.
    """

    cause: str
    means: str
    ending: str
    state: str
    deaths: int = 0
    halvings: int = 0
    equal: int = 0


POLICIES = {
    policy.cause: policy
    for policy in (
        Policy(KILLED, "a signal of a user's or the system's", LOST, WAITING, MAX_DEATHS),
        Policy(KILLED_FOR_MEMORY, "by the out-of-memory killer", LOST, WAITING, MAX_DEATHS),
        Policy(CRASHED, "a fault in native code, or an exit", LOST, WAITING, MAX_DEATHS),
        Policy(PARENT_ENDED, "the process that ran the study was killed", LOST, WAITING),
        Policy(STOPPED, "the study was stopped", INTERRUPTED, WAITING),
        Policy(OUT_OF_MEMORY, "of the device", FAILED, FAILED, halvings=MAX_HALVINGS),
        Policy(NOT_A_NUMBER, "a loss that is infinite or none", DIVERGED, DIVERGED),
        Policy(MISTAKE, "an exception of any other kind", FAILED, FAILED, equal=MAX_EQUAL),
    )
}
BY_ENDING = {FAILED: MISTAKE, DIVERGED: NOT_A_NUMBER, INTERRUPTED: STOPPED, LOST: CRASHED}


def said(cause: str, words: str) -> str:
    """A cause as it is kept with an attempt."""
    return f"{cause}: {words}" if words else cause


def cause_of(text: str, ending: str | None) -> str:
    """The name of a stored cause; empty for an attempt that has succeeded or not ended.

    Args:
        text: As it is stored; earlier versions' do not begin with a name.
        ending: Of the attempt.
    """
    name = text.partition(":")[0]
    return name if name in POLICIES else BY_ENDING.get(ending or "", "")


def totals(causes: Iterable[str]) -> dict[str, int]:
    """How often each cause has ended an attempt, in the order of the table."""
    counts = Counter(causes)
    return {cause: counts[cause] for cause in POLICIES if counts[cause]}


# Deaths of workers. ------------------------------------------------------------------------------


@dataclass
class Deaths:
    """The deaths of workers over each trial since it last came further, in this process."""

    counts: dict[int, int] = field(default_factory=dict)
    furthest: dict[int, int] = field(default_factory=dict)

    def is_too_many(self, trial: int, epochs: int, cause: str) -> bool:
        """Note a death; whether the trial is to be given up.

        Args:
            trial: Its number.
            epochs: How many it had done.
            cause: As it will be stored.
        """
        if epochs > self.furthest.get(trial, 0):
            self.counts.pop(trial, None)
        self.furthest[trial] = max(epochs, self.furthest.get(trial, 0))
        self.counts[trial] = self.counts.get(trial, 0) + 1
        most = POLICIES[cause_of(cause, LOST)].deaths
        return bool(most) and self.counts[trial] >= most


# Equal mistakes. ---------------------------------------------------------------------------------

Frame = tuple[str, str, str]  # file, line, function
FRAME = re.compile(r'^\s*File "(?P<file>.*)", line (?P<line>\d+), in (?P<function>.*)$')
RAISED = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(:|$)")
INSTALLED = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python3[^/\\]*)(?=[/\\])")
OURS = re.compile(r"[/\\](blocks|spaces|search|reports)[/\\]")


def signature(traceback: str) -> tuple[str, Frame, Frame] | None:
    """What makes two mistakes the same one, whatever their messages say; None without a traceback.

    Returns:
        The exception's type, the innermost frame, and the innermost one that is not of an
        installed package: of the user's block or of this tool.
    """
    last = traceback.rpartition("Traceback (most recent call last):")[2]
    frames: list[Frame] = []
    raised = ""
    for line in last.splitlines():
        if found := FRAME.match(line):
            frames.append((found["file"], found["line"], found["function"]))
        elif frames and not raised and (found := RAISED.match(line)):
            raised = found["type"]
    if not frames:
        return None
    own = [frame for frame in frames if _is_own(frame[0])]
    return raised, frames[-1], (own or frames)[-1]


def _is_own(file: str) -> bool:
    installed = list(INSTALLED.finditer(file))
    return not installed or bool(OURS.match(file[installed[-1].end() :]))


@dataclass
class Mistakes:
    """The mistakes that have ended trials in this process, equal ones together."""

    trials: dict[object, list[int]] = field(default_factory=dict)

    def note(self, trial: int, cause: str, traceback: str) -> list[int]:
        """Note a failed trial; those that the same mistake has ended, where they are too many."""
        most = POLICIES[cause].equal
        key = signature(traceback)
        if not most or key is None:
            return []
        same = self.trials.setdefault(key, [])
        same.append(trial)
        return list(same) if len(same) >= most else []


def last_lines(traceback: str) -> list[str]:
    """The end of a traceback, without what is above the innermost frames."""
    return traceback.rstrip().splitlines()[-LAST_LINES:]


def failures_words(causes: Mapping[str, int]) -> str:
    """Causes with their counts, for people; empty for none."""
    return ", ".join(f"{count} {cause}" for cause, count in causes.items())
