"""How a worker process has ended: what its exit code and the system's counters say of it."""

from __future__ import annotations

import signal
from pathlib import Path

from search.failures import CRASHED, KILLED, KILLED_FOR_MEMORY, said

VMSTAT = Path("/proc/vmstat")
# Sent to a process by someone; the others are of its own making, such as a segmentation fault.
FROM_OUTSIDE = (
    *(signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE),
)


def memory_kills() -> int:
    """How often this system has killed a process for want of memory; 0 where it does not say."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def death_cause(code: int, words: str = "", *, starved: bool = False) -> str:
    """The cause of a worker's end, as it is stored.

    Args:
        code: As ``subprocess`` gives it: below 0 a signal's number, else the exit code.
        words: The last that it said, if anything.
        starved: Whether the system has killed a process for want of memory meanwhile.
    """
    cause = CRASHED
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {-code}{_name(-code)}"
        if -code in FROM_OUTSIDE:
            cause = KILLED_FOR_MEMORY if starved and -code == signal.SIGKILL else KILLED
    if cause == KILLED_FOR_MEMORY:
        how += " while the system was short of memory; fewer --workers need less"
    return said(cause, f"its worker ended with {how}" + (f": {words}" if words else ""))


def _name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""


def telling_line(words: str) -> str:
    """The line of a process's last words that says most: Python's own of a fault, else the last."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    return (fatal or lines or [""])[-1]
