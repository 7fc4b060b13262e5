"""What passes between the engine and whoever trains: assignments, epochs, outcomes.

Plain data that survives a pipe as JSON.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

COMPLETE, PRUNED, FAILED, DIVERGED = "complete", "pruned", "failed", "diverged"
WAITING, RUNNING, REUSED, REJECTED = "waiting", "running", "reused", "rejected"
LOST, INTERRUPTED = "lost", "interrupted"  # endings of attempts that were cut off
SUCCEEDED = (COMPLETE, REUSED)
FINISHED = (COMPLETE, REUSED, PRUNED, FAILED, DIVERGED)
STATES = (WAITING, RUNNING, *FINISHED, REJECTED)

MOST_ERROR, MOST_TRACEBACK = 1_000, 100_000  # characters that are kept of what others' code says


@dataclass(frozen=True)
class Assignment:
    """One trial to evaluate.

    Args:
        trial: Its number in the study.
        attempt: How often it has been started, this time included.
        label: Its candidate's short name.
        architecture: Canonical architecture, as data.
        training: Training settings, as data.
        data: Name of the data set.
        seed: Of everything left to chance.
        latency: Whether its network is timed beside the baseline.
        trained: Whether that is all, because its training is kept already.
        weights: The file of the backbone's trained weights, where ``training`` wants one's.
        checkpoint: Where its training keeps a checkpoint, and goes on from one; empty: nowhere.
        data_folder: Where the data's files are; empty for embedded data.
        data_size: Pixels of the side to which images of a folder are brought; 0: as they are.
        data_split: The stored split, where another one would be cut today; empty: none.
        keep: The file that its final weights go to; empty where they are not kept.
    """

    trial: int
    attempt: int
    label: str
    architecture: Mapping[str, Any]
    training: Mapping[str, Any]
    data: str
    seed: int
    latency: bool = False
    trained: bool = False
    weights: str = ""
    checkpoint: str = ""
    data_folder: str = ""
    data_size: int = 0
    data_split: str = ""
    keep: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    Args:
        epoch: Its number, from 1.
        train_loss: Mean cross-entropy over the epoch's batches.
        train_accuracy: Share of the epoch's training images classified right, while training.
        loss: Mean cross-entropy on validation.
        accuracy: Share of validation images classified right.
        learning_rate: At the end of the epoch.
        seconds: Wall time of training and validation.
        images_per_second: Training images over the wall time of training alone.
        peak_memory_bytes: The most memory in use at one moment of it, as ``PeakMemory`` has it.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True)
class Answers:
    """Which images of a split a network classified right, and how each class went.

    Args:
        split: "validation" or "test".
        images: How many images it has.
        right: One bit per image in the stored order of the split, as ``numpy.packbits`` packs them.
        classes: (images, right, predicted) of every class: its images, those of them that were
            right, and the images that were taken for it.
    """

    split: str
    images: int
    right: bytes
    classes: tuple[tuple[int, int, int], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data, the bits as base64."""
        return {**asdict(self), "right": b64encode(self.right).decode("ascii")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Answers:
        """Read what ``to_json`` wrote."""
        classes = tuple((images, right, taken) for images, right, taken in data["classes"])
        return cls(data["split"], data["images"], b64decode(data["right"]), classes)


def storable(text: str, most: int) -> str:
    """Words of anybody's code as every database takes them: valid UTF-8, no NUL, not endless."""
    words = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return words if len(words) <= most else f"{words[: most // 2]} [...] {words[-most // 2 :]}"


@dataclass(frozen=True)
class Outcome:
    """How one attempt at a trial ended.

    Args:
        state: complete, pruned, failed or diverged.
        epochs: Learning curve, one entry per epoch done.
        measurements: (split, metric) pairs with values, as triples.
        seconds: Wall time.
        error: One line, for failed and diverged, and where a latency could not be measured.
        traceback: The whole, for failed.
        found: The architecture, as data, that learnt choices have come to, where there are any.
        latency: How and on what its latency was measured, where it was.
        made: What else belongs to its provenance, such as the epoch it went on from.
        kept: ``sha256`` and ``bytes`` of the file of its final weights, where they were kept.
        answers: By split, which images were right.
        cause: Why it did not succeed, by a name of ``search.failures``; empty: as the state says.
    """

    state: str
    epochs: tuple[EpochResult, ...] = ()
    measurements: tuple[tuple[str, str, float], ...] = ()
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""
    found: Mapping[str, Any] | None = None
    latency: Mapping[str, Any] | None = None
    made: Mapping[str, Any] | None = None
    kept: Mapping[str, Any] | None = None
    answers: tuple[Answers, ...] = ()
    cause: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "answers": [answers.to_json() for answers in self.answers]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Read what ``to_json`` wrote."""
        return cls(
            data["state"],
            tuple(EpochResult(**epoch) for epoch in data["epochs"]),
            tuple((split, metric, value) for split, metric, value in data["measurements"]),
            data["seconds"],
            storable(data["error"], MOST_ERROR),
            storable(data["traceback"], MOST_TRACEBACK),
            data.get("found"),
            data.get("latency"),
            data.get("made"),
            data.get("kept"),
            tuple(Answers.from_json(answers) for answers in data.get("answers", ())),
            data.get("cause", ""),
        )
