"""``search explain``: what attention does in a study's trained networks, seen, kept and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from blocks.architecture import Architecture
from blocks.errors import CheckpointError, StudyError, listing, suggestion
from search.batches import normalised
from search.data import Size
from search.data_place import data_of
from search.database import checkpoint, open_for_reading, open_for_writing, storage_url
from search.front import front_numbers
from search.insight.choosing import chosen_images, parse_images
from search.insight.examine import Gazed, gaze, survey
from search.insight.store import GRADCAM, Insight, write_insights
from search.reading import read_study, read_trials
from search.records import StudyRecord, TrialRecord, is_success
from search.splits import SPLITS

if TYPE_CHECKING:
    from torch import Tensor, nn

SURVEYED_AT_MOST = 4_096

Load = Callable[[int], "nn.Module"]


@dataclass(frozen=True)
class Split:
    """One part of a data set, as networks see it and as people do.

    Args:
        name: train, validation or test.
        images: Those of some rows, normalised as in training, (n, C, H, W).
        pictures: Those of some rows as they are, 8-bit, (n, C, H, W).
        labels: Class numbers (N,).
        classes: How many there are.
    """

    name: str
    images: Callable[[Sequence[int]], Tensor]
    pictures: Callable[[Sequence[int]], NDArray[np.uint8]]
    labels: Tensor
    classes: int

    def surveyed(self) -> list[int]:
        """The images of the statistics: all, or so many evenly spread."""
        count = min(len(self.labels), SURVEYED_AT_MOST)
        rows: list[int] = np.linspace(0, len(self.labels) - 1, count).round().astype(int).tolist()
        return rows

    def gazed(self, numbers: Sequence[int]) -> Gazed:
        """Some images to look at."""
        rows = list(numbers)
        return Gazed(rows, self.images(rows), self.pictures(rows), self.labels[rows])


@dataclass(frozen=True)
class Explained:
    """What was seen of one trial, or why nothing was.

    Args:
        trial: Which.
        insights: Kind -> what was seen.
        notes: What could not be seen.
        bytes: What it takes in the database.
    """

    trial: TrialRecord
    insights: dict[str, Insight]
    notes: list[str]
    bytes: int = 0

    @property
    def is_seen(self) -> bool:
        """Whether there was a network to look at."""
        return bool(self.insights)


@dataclass(frozen=True)
class Explanation:
    """What was seen of some trials on the same images.

    Args:
        study: The study's name.
        split: Where the images are from.
        numbers: The images that were looked at, by their place in the split.
        surveyed: Images of the statistics.
        trials: One after another.
    """

    study: str
    split: Split
    numbers: list[int]
    surveyed: int
    trials: list[Explained]

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain data, without the maps."""
        return {
            "study": self.study,
            "split": self.split.name,
            "images": self.numbers,
            "surveyed": self.surveyed,
            "trials": [
                {
                    "number": each.trial.number,
                    "label": each.trial.label,
                    "accuracy": each.trial.accuracy,
                    "notes": each.notes,
                    "bytes": each.bytes,
                    **{kind: insight.content for kind, insight in each.insights.items()},
                }
                for each in self.trials
            ],
        }


def explain(
    study: str | None,
    numbers: Sequence[int] = (),
    *,
    storage: str,
    images: str | None = None,
    split: str = "validation",
    load: Load | None = None,
) -> Explanation:
    """Look at trained networks of a study, and keep what was seen in the database.

    Args:
        study: The study's name; None: the one that was run last.
        numbers: The trials; empty: the baselines and the front.
        storage: The database's URL.
        images: How many images to look at or which, as ``--images``.
        split: Where they are from.
        load: Gives a trial's trained network; left out, from the weights that were kept.

    Raises:
        StudyError: There is no such study, trial, image or split, or the data have changed.
        CheckpointError: The weights of a trial that was named, or of all, are not kept.
    """
    wanted = parse_images(images)
    engine = open_for_reading(storage_url(storage))
    try:
        record = read_study(engine, study)
        trials = _asked(record, read_trials(engine, record.id), numbers)
    finally:
        engine.dispose()
    size = _input_size(trials[0])
    same = [trial for trial in trials if _input_size(trial) == size]
    part = read_split(record, split, storage_url(storage), size)
    loader = load or _kept(record.name, storage)
    found, refused = _loaded(same, loader, strict=bool(numbers))
    refused += [_of_another_size(trial) for trial in trials if trial not in same]
    explanation = _look(record.name, part, found, loader, wanted)
    explanation.trials.extend(refused)
    explanation.trials.sort(key=lambda each: each.trial.number)
    engine = open_for_writing(storage_url(storage))
    try:
        explanation.trials[:] = [_keep(engine, each) for each in explanation.trials]
        checkpoint(engine)
    finally:
        engine.dispose()
    return explanation


def _input_size(trial: TrialRecord) -> Size | None:
    return Architecture.from_json(trial.architecture).input_size


def _of_another_size(trial: TrialRecord) -> Explained:
    """What is said of a trial whose network takes images of another size than the first one's."""
    note = f"not looked at: its images are of another size; search explain STUDY {trial.number}"
    return Explained(trial, {}, [note])


def _kept(study: str, storage: str) -> Load:
    from search.kept import load_trained

    return lambda number: load_trained(study, number, storage=storage)


def _asked(
    study: StudyRecord, trials: Sequence[TrialRecord], numbers: Sequence[int]
) -> list[TrialRecord]:
    """The trials that are named, else the baselines and the front.

    Raises:
        StudyError: One is not there, or none has ended well.
    """
    by_number = {trial.number: trial for trial in trials}
    for number in numbers:
        if number not in by_number:
            have = f"0 to {max(by_number)}" if by_number else "none yet"
            raise StudyError(f"study {study.name!r} has no trial {number}; its trials: {have}")
    if numbers:
        return [by_number[number] for number in dict.fromkeys(numbers)]
    front = front_numbers(trials, study.objectives)
    asked = [t for t in trials if is_success(t) and (t.baseline or t.number in front)]
    if not asked:
        raise StudyError(
            f"study {study.name!r} has no complete trial yet, so there is nothing to look at; go on"
            " with it first (search run)"
        )
    return asked


def read_split(study: StudyRecord, name: str, url: URL, size: Size | None) -> Split:
    """The images of a study's data.

    Args:
        study: Whose data.
        name: Of the split.
        url: The database.
        size: Of the images, as the networks take them; None: as they are.

    Raises:
        StudyError: There is no such split, or the data are not those of the study any more.
    """
    if name not in SPLITS:
        raise StudyError(
            f"--split {name!r} is unknown.{suggestion(name, SPLITS)} Splits: {listing(SPLITS)}"
        )
    data = data_of(study, url)
    data = data.resized(size) if size else data
    mean, deviation = (
        255 * torch.tensor(values, dtype=torch.float32) for values in (data.mean, data.deviation)
    )

    def images(rows: Sequence[int]) -> Tensor:
        pixels = torch.from_numpy(data.rows(name, rows)).permute(0, 2, 3, 1)
        return normalised(pixels, mean, 1 / deviation)

    return Split(
        name,
        images,
        lambda rows: data.rows(name, rows),
        torch.from_numpy(data.labels[name]),
        data.facts.classes,
    )


def _loaded(
    trials: Sequence[TrialRecord], load: Load, *, strict: bool
) -> tuple[list[TrialRecord], list[Explained]]:
    """The trials whose weights are kept, and the others with the reason.

    Raises:
        CheckpointError: Those of one are not, where ``strict``; or of none are.
    """
    found: list[TrialRecord] = []
    refused: list[Explained] = []
    for trial in trials:
        try:
            load(trial.number)
        except CheckpointError as error:
            if strict or (not found and trial is trials[-1]):
                raise
            refused.append(Explained(trial, {}, [f"not looked at: {error}"]))
        else:
            found.append(trial)
    return found, refused


def _look(
    study: str,
    split: Split,
    trials: Sequence[TrialRecord],
    load: Load,
    wanted: int | tuple[int, ...],
) -> Explanation:
    """Survey every network, choose the images from what they say, and look at these."""
    rows = split.surveyed()
    images, labels = split.images(rows), split.labels[rows]
    overviews = {
        trial.number: survey(load(trial.number), images, labels, split.classes) for trial in trials
    }
    right = [overview.right for overview in overviews.values()]
    if isinstance(wanted, tuple):
        numbers = chosen_images(wanted, right, len(split.labels), split.name)
    else:
        picked = chosen_images(wanted, right, len(rows), split.name)
        numbers = [rows[row] for row in picked]
    gazed = split.gazed(numbers)
    explained = []
    for trial in trials:
        overview = overviews[trial.number]
        insights = gaze(load(trial.number), gazed) | overview.insights
        cams = insights[GRADCAM]
        notes = overview.notes + _without_evidence(cams)
        cams.content.update(split=split.name, notes=notes)
        explained.append(Explained(trial, insights, notes))
    return Explanation(study, split, numbers, len(rows), explained)


def _without_evidence(cams: Insight) -> list[str]:
    """Images in which nothing speaks for the class: their maps are empty by eq. 2."""
    notes = []
    for name in ("true", "predicted"):
        rows = [str(row["image"]) for row in cams.content["images"] if not row["evidence"][name]]
        if rows:
            notes.append(
                f"Grad-CAM: nothing speaks for the {name} class in image {', '.join(rows)}"
            )
    return notes


def _keep(engine: Engine, each: Explained) -> Explained:
    if not each.is_seen:
        return each
    size = write_insights(engine, each.trial.id, each.insights)
    return Explained(each.trial, each.insights, each.notes, size)
