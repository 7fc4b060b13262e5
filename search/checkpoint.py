"""Checkpoints: a training that was cut off goes on after the last epoch it had kept.

A checkpoint belongs to one training on one kind of machine: what it is of is written into it, and
one of another training, version, device or number of threads is passed over. It is written beside
its place and moved there, so that it is whole or not there at all.
"""

from __future__ import annotations

import os
import pickle
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from blocks.plain import content_digest
from search.outcome import Assignment
from search.training import Progress

SECONDS_BETWEEN = 30.0
FULL = ("PytorchStreamWriter", "inline_container", "iostream")  # torch's words for a full disk


def training_identity(assignment: Assignment, provenance: dict[str, Any]) -> str:
    """What a checkpoint must be of, to go on from it bit for bit.

    Args:
        assignment: The trial.
        provenance: Versions, device and threads of the worker.
    """
    content = {
        "architecture": assignment.architecture,
        "training": assignment.training,
        "data": assignment.data,
        "seed": assignment.seed,
        "versions": provenance.get("versions"),
        "code": provenance.get("code"),
        "cpu": provenance.get("machine", {}).get("cpu"),
        "gpu": provenance.get("gpu"),
        "device": provenance.get("device"),
        "threads": provenance.get("threads"),
        "processes": provenance.get("processes"),
        "deterministic": provenance.get("deterministic"),
    }
    return content_digest("k1", content)


class Checkpoint:
    """The file of one trial's checkpoint.

    Args:
        path: Where it is; empty: none is kept.
        identity: Of the training.
        seconds: The least time between two of them, the first after the beginning included.
    """

    def __init__(self, path: str, identity: str, *, seconds: float = SECONDS_BETWEEN) -> None:
        self.path = Path(path) if path else None
        self.identity = identity
        self.seconds = seconds
        self.problem = ""
        self._last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """The state to go on from; None where there is none of this training."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            content = torch.load(self.path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            return None  # damaged: the training begins anew
        if not isinstance(content, dict) or content.get("identity") != self.identity:
            return None
        state: dict[str, Any] = content["state"]
        return state

    def keep(self, progress: Progress) -> None:
        """Write the state, if the last one is old enough; ``problem`` says why that failed."""
        if self.path is None or time.monotonic() - self._last < self.seconds:
            return
        beside = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"identity": self.identity, "state": progress.state()}, beside)
            os.replace(beside, self.path)
            self.problem = ""
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and not any(word in str(error) for word in FULL):
                raise
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            self.problem = f"could not be written: {error}".splitlines()[0]
        self._last = time.monotonic()
