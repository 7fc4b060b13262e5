"""The most memory in use at one moment, over a stretch of work.

On a GPU: bytes of tensors that torch's allocator had given out. On Linux: the process's resident
set, whose peak the kernel starts anew on request; it holds Python, torch and the data set, some
hundred megabytes, beside what the training needs. Elsewhere: the process's peak since it started,
which never falls, so that a later trial of the same worker shows an earlier one's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
GPU, RESIDENT, PROCESS = "gpu", "resident", "process"


class PeakMemory:
    """Reads the peak since the last restart.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kind = GPU if device.type == "cuda" else RESIDENT
        self.restart()

    def restart(self) -> None:
        """Begin a new stretch."""
        if self.kind == GPU:
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.kind == RESIDENT:
            try:
                CLEAR.write_text(RESET_PEAK, encoding="ascii")
            except OSError:
                self.kind = PROCESS

    def bytes(self) -> float | None:
        """The peak in bytes; None where the system does not say."""
        if self.kind == GPU:
            return float(torch.cuda.max_memory_allocated(self.device))
        return _resident_peak() if self.kind == RESIDENT else _process_peak()


def _resident_peak() -> float | None:
    found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    return float(found[1]) * 1024 if found else None


def _process_peak() -> float | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
