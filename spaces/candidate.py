"""A candidate: everything that decides what a training will give, except chance.

Its digest is the identity under which results are kept: the canonical architecture, the resolved
training settings, and the data with its split. Seed, study, sampler, storage and device never
enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from blocks.architecture import Architecture, content_digest

DIGEST_VERSION = 1
NOTHING, NORMS, BACKBONE = "none", "norms", "backbone"
FREEZES = (NOTHING, NORMS, BACKBONE)


@dataclass(frozen=True)
class Training:
    """How a candidate is trained: SGD with Nesterov momentum, cosine schedule to zero.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step; an incomplete last batch of an epoch is left out.
        learning_rate: Of the first step.
        momentum: Of SGD.
        weight_decay: L2 penalty on all parameters.
        label_smoothing: Share of the target spread over all classes.
        pretrained: Where the backbone's weights start: "timm:TAG", or "sha256:" and the hash of a
            checkpoint file (``blocks.weight_source``); empty: drawn.
        freeze: What is not trained: "none"; "norms": the backbone's batch norms; "backbone": all
            but the attention blocks, their identity gates and the classifier. Frozen batch norms
            stay in evaluation mode, so that their running statistics stay too.
        attention_learning_rate: Of the parameters of attention blocks, as a multiple of
            ``learning_rate``.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    pretrained: str = ""
    freeze: str = NOTHING
    attention_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        # One number has one spelling, 1 and 1.0 alike, or equal trainings had two digests.
        for field in fields(self):
            kind: Any = type(field.default)
            object.__setattr__(self, field.name, kind(getattr(self, field.name)))

    def of(self, architecture: Architecture) -> Training:
        """The same without what has no say in the training of this network."""
        if architecture.placements:
            return self
        return replace(self, attention_learning_rate=1.0)

    def to_json(self) -> dict[str, Any]:
        """As plain data; settings of later versions are left out while they are off.

        What an earlier version stored is then equal to what this one gives.
        """
        content = asdict(self)
        off = [f.name for f in fields(self) if f.name in LATER and content[f.name] == f.default]
        return {name: value for name, value in content.items() if name not in off}

    def identity(self) -> dict[str, Any]:
        """What of it enters the digest.

        Settings that are off are left out: one that a later version adds, off by default, then
        leaves the digests of stored results as they were.
        """
        content = self.to_json() | {"optimizer": "sgd-nesterov", "schedule": "cosine"}
        if not self.label_smoothing:
            del content["label_smoothing"]
        return content

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Training:
        """Read what ``to_json`` wrote."""
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})


LATER = ("pretrained", "freeze", "attention_learning_rate")


@dataclass(frozen=True)
class DataFacts:
    """What a study must know of a data set, without its images.

    Args:
        name: The data set's short name.
        input_shape: (channels, height, width) of one image as the network sees it.
        classes: Number of classes.
        split_digest: Identity of the images' content and of the split into three parts.
        sizes: Images in train, validation and test.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    split_digest: str
    sizes: tuple[int, int, int]

    def identity(self) -> dict[str, Any]:
        """What of it enters a candidate's digest."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "split_digest": self.split_digest,
        }


@dataclass(frozen=True)
class Candidate:
    """A canonical architecture with resolved training settings on a data set."""

    architecture: Architecture
    training: Training
    data: DataFacts
    label: str

    @cached_property
    def architecture_digest(self) -> str:
        """Identity of the network."""
        return self.architecture.digest

    @cached_property
    def digest(self) -> str:
        """Identity of network, training and data."""
        content = {
            "architecture": self.architecture.to_json(),
            "training": self.training.identity(),
            "data": self.data.identity(),
        }
        return content_digest(f"c{DIGEST_VERSION}", content)

    @property
    def is_baseline(self) -> bool:
        """Whether it has no attention."""
        return not self.architecture.placements
