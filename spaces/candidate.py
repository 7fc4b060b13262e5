"""A candidate: everything that decides what a training will give, except chance.

Its digest is the identity under which results are kept: the canonical architecture, the resolved
training settings, and the data with its split. Seed, study, sampler, storage and device never
enter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from blocks.architecture import Architecture
from blocks.plain import Settled, canonical_text, text_digest
from spaces.training import Training

DIGEST_VERSION = 1


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

    def at(self, side: int) -> DataFacts:
        """The same with square images of this side; 0: as they are."""
        return self.of_size((side, side)) if side else self

    def of_size(self, size: tuple[int, int] | None) -> DataFacts:
        """The same with images of this height and width; None: as they are."""
        return replace(self, input_shape=(self.input_shape[0], *size)) if size else self

    @cached_property
    def content(self) -> Settled:
        """The same as ``identity``, as data that is not to be changed."""
        return Settled(self.identity())

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
        # The canonical text of the three by their names, put together from what is known of it.
        text = (
            f'{{"architecture":{self.architecture.content.canonical},'
            f'"data":{self.data.content.canonical},'
            f'"training":{canonical_text(self.training.identity())}}}'
        )
        return text_digest(f"c{DIGEST_VERSION}", text)

    @property
    def is_baseline(self) -> bool:
        """Whether it has no attention."""
        return not self.architecture.placements
