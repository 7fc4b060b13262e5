"""A study's candidates beside what authors published of the same attention.

A published figure is one number of another training, so its difference to no attention is what is
compared, with the 95 % t interval of our differences: trials of the candidate and of no attention
are paired by their seeds. Ours are of the validation split, which alone is selected on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.table import Table
from rich.text import Text

from blocks.architecture import Architecture
from blocks.site import IN_BLOCK, STEM
from search import output
from search.datasets import FOLDER
from search.outcome import SUCCEEDED
from search.records import StudyRecord, TrialRecord
from spaces.candidate import DataFacts
from spaces.drawing import OF_ATTENTION, sites_of
from spaces.published_figures import FIGURES, IMAGENET, UNREAD, PublishedFigure, UnreadTable

CONSISTENT, NOT_CONSISTENT = "consistent", "not consistent"
CANNOT = "cannot be compared here"
OTHER_DATA = "another data set"
CONFIDENCE = 0.95
IMAGENET_CLASSES, IMAGENET_IMAGES = 1000, 1_200_000


@dataclass(frozen=True)
class Beside:
    """One published figure beside one candidate of a study.

    Args:
        figure: What was published.
        trials: The candidate's trials with a result, by seed.
        differences: Accuracy with attention less that without, at each seed that has both.
        why: Why the two cannot be compared; empty where they can.
    """

    figure: PublishedFigure
    trials: tuple[TrialRecord, ...]
    differences: tuple[float, ...]
    why: tuple[str, ...]

    @property
    def elsewhere(self) -> bool:
        """Whether neither backbone nor data are the figure's."""
        data = any(words.startswith(OTHER_DATA) for words in self.why)
        return data and self.figure.backbone != self.trials[0].architecture["backbone"]

    @property
    def label(self) -> str:
        """The candidate's."""
        return self.trials[0].label

    @property
    def accuracy(self) -> float:
        """Of the candidate, averaged over its seeds."""
        return fmean(trial.accuracy or 0.0 for trial in self.trials)

    @property
    def difference(self) -> float | None:
        """The mean of the paired differences."""
        return fmean(self.differences) if self.differences else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean difference; None for fewer than two pairs."""
        return t_interval(self.differences)

    @property
    def verdict(self) -> str:
        """Whether the published difference lies in our interval, or why that is not asked."""
        interval, published = self.interval, self.figure.difference
        if self.why or interval is None or published is None:
            return CANNOT
        return CONSISTENT if interval[0] <= published <= interval[1] else NOT_CONSISTENT

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        figure = self.figure
        return {
            "paper": figure.paper,
            "source": figure.source,
            "note": figure.note,
            "network": str(figure),
            "data": figure.data,
            "measure": figure.measure,
            "published": figure.value,
            "published_baseline": figure.baseline,
            "published_difference": figure.difference,
            "label": self.label,
            "digest": self.trials[0].digest,
            "trials": [trial.number for trial in self.trials],
            "accuracy": self.accuracy,
            "difference": self.difference,
            "interval": list(self.interval) if self.interval else None,
            "seeds": len(self.differences),
            "verdict": self.verdict,
            "why": list(self.why),
            "elsewhere": self.elsewhere,
        }


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of some values; None for fewer than two."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    reach *= stdev(values) / math.sqrt(len(values))
    mean = fmean(values)
    return mean - reach, mean + reach


def beside_published(study: StudyRecord, trials: Sequence[TrialRecord]) -> list[Beside]:
    """The published figures of what a study has trained, each beside the study's own.

    A figure is set beside a candidate with the same attention on the same backbone, or on the same
    data; where no figure is, those of the same attention elsewhere. It is said why they cannot be
    compared. Of a network at several settings of training, the candidate with the most seeds is
    taken, and of these the most accurate.
    """
    if not isinstance(study.identity.get("data"), dict):
        return []
    facts = _facts(study)
    done = [t for t in trials if t.state in SUCCEEDED and t.accuracy is not None]
    plain = [trial for trial in done if not trial.architecture["placements"]]
    networks: dict[str, dict[str, list[TrialRecord]]] = {}
    for trial in done:
        if trial.architecture["placements"]:
            groups = networks.setdefault(trial.architecture_digest, {})
            groups.setdefault(trial.digest, []).append(trial)
    return [
        _beside(figure, sorted(group, key=lambda trial: trial.seed), plain, facts)
        for group in (max(groups.values(), key=_weight) for groups in networks.values())
        for figure in _figures_of(group[0], facts)
    ]


def _weight(group: Sequence[TrialRecord]) -> tuple[int, float]:
    """By what one candidate of a network stands for it: its seeds, then its accuracy."""
    return len(group), fmean(trial.accuracy or 0.0 for trial in group)


def _facts(study: StudyRecord) -> DataFacts:
    data = study.identity["data"]
    channels, height, width = data["input_shape"]
    train, validation, test = data.get("sizes", (0, 0, 0))
    return DataFacts(
        data["name"],
        (channels, height, width),
        data["classes"],
        data["split_digest"],
        (train, validation, test),
    )


def _figures_of(trial: TrialRecord, facts: DataFacts) -> Iterator[PublishedFigure]:
    """The figures of a trial's attention: on its backbone or its data, else wherever there are."""
    architecture = Architecture.from_json(trial.architecture)
    blocks = frozenset(placement.block for placement in architecture.placements)
    alike = [figure for figure in FIGURES if figure.blocks == blocks]
    if not alike:  # most blocks: no table of sites is asked for
        return
    sites = sites_of(architecture.backbone, facts.of_size(architecture.input_size))
    same = [figure for figure in alike if figure.is_of(architecture, sites)]
    near = [
        figure
        for figure in same
        if figure.backbone == architecture.backbone or _is_data(facts, figure.data)
    ]
    yield from near or same


def unread_tables(trials: Sequence[TrialRecord]) -> list[UnreadTable]:
    """The published tables of what a study has trained that are known of, and not known here."""
    trained = [t.architecture["placements"] for t in trials if t.state in SUCCEEDED]
    return [table for table in UNREAD if any(_is_of(table, placed) for placed in trained)]


def _is_of(table: UnreadTable, placements: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all attention of a trial is such a table's, at any strength and side of the unit."""
    in_unit = table.placement == IN_BLOCK
    return bool(placements) and all(
        p["block"] in table.blocks and (".unit" in p["site"]) == in_unit and p["site"] != STEM
        for p in placements
    )


def _is_data(facts: DataFacts, name: str) -> bool:
    """Whether these are the data of a figure; a folder is ImageNet by its classes and images."""
    if name != IMAGENET:
        return facts.name == name
    many = sum(facts.sizes[:2]) >= IMAGENET_IMAGES
    return facts.name == FOLDER and facts.classes == IMAGENET_CLASSES and many


def _beside(
    figure: PublishedFigure,
    group: Sequence[TrialRecord],
    plain: Sequence[TrialRecord],
    facts: DataFacts,
) -> Beside:
    partners = {trial.seed: _partner(trial, plain) for trial in group}
    differences = tuple(
        trial.accuracy - partner.accuracy
        for trial in group
        if (partner := partners[trial.seed]) is not None
        and trial.accuracy is not None
        and partner.accuracy is not None
    )
    why = tuple(_obstacles(figure, group[0], facts, len(differences)))
    return Beside(figure, tuple(group), differences, why)


def _partner(trial: TrialRecord, plain: Sequence[TrialRecord]) -> TrialRecord | None:
    """No attention in the same backbone at the same seed and settings."""
    return next(
        (
            other
            for other in plain
            if other.seed == trial.seed
            and other.architecture["backbone"] == trial.architecture["backbone"]
            and other.architecture["input_size"] == trial.architecture["input_size"]
            and _settings(other) == _settings(trial)
        ),
        None,
    )


def _settings(trial: TrialRecord) -> Mapping[str, Any]:
    return {name: value for name, value in trial.training.items() if name not in OF_ATTENTION}


def _obstacles(
    figure: PublishedFigure, trial: TrialRecord, facts: DataFacts, pairs: int
) -> Iterator[str]:
    """Why a figure and a candidate cannot be compared."""
    backbone, epochs = trial.architecture["backbone"], trial.training["epochs"]
    if figure.differs:
        yield figure.differs
    if not _is_data(facts, figure.data):
        yield f"{OTHER_DATA}: {figure.data}, here {facts.name}"
    if figure.backbone != backbone:
        yield f"another backbone: {figure.backbone}, here {backbone}"
    if figure.epochs and figure.epochs != epochs:
        yield f"other epochs: {figure.epochs}, here {epochs}"
    if figure.baseline is None:
        yield "the source has no figure without attention"
    if pairs < 2:
        yield "one seed only" if pairs else "no attention has no result at the same seeds"


# For the terminal. -------------------------------------------------------------------------------


def beside_parts(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table | Text]:
    """Published figures beside a study's: a table, and a line for those from elsewhere alone.

    Args:
        rows: As ``Beside.to_json`` gives them.
    """
    near = [row for row in rows if not row["elsewhere"]]
    if near:
        yield beside_table(near)
    far: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["elsewhere"]:
            key = row["label"], row["paper"], row["data"]
            backbone = row["network"].partition(" ")[0]
            words = f"{row['published']:g} % {row['measure']} in {backbone}"
            far.setdefault(key, []).append(words)
    for (label, paper, data), figures in far.items():
        yield Text(
            f"{label}: {paper} has {', '.join(figures)} on {data}: another backbone and other data,"
            f" {CANNOT}"
        )


def beside_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Published figures beside a study's, as ``Beside.to_json`` gives them."""
    shown = [
        (
            row["label"],
            f"{row['published']:g} % {row['measure']}",
            _points(row["published_difference"]),
            output.percent(row["accuracy"]),
            _points(row["difference"]),
            " to ".join(_points(end) for end in row["interval"] or ()),
            row["seeds"],
            "; ".join([row["verdict"], *row["why"]]),
            f"{row['network']}, {row['data']} ({row['paper']})",
        )
        for row in rows
    ]
    columns = ["block", "published", "vs none", "ours", "vs none", "95 % interval"]
    columns += ["seeds", "verdict", "published network"]
    return output.table("Published figures", columns, shown, droppable=("published network",))


def _points(difference: float | None) -> str:
    return "" if difference is None else f"{100 * difference:+.2f}"
