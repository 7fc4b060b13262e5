"""What ``search explain`` says in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search import output
from search.insight.pairs import by_pair
from search.insight.store import FREQUENCY, GATES, GRADCAM, MAPS

if TYPE_CHECKING:
    from rich.table import Table

    from search.explain import Explained, Explanation

GROUPS_SHOWN = 4


def stage_word(stage: int) -> str:
    """A stage's name: 0 is the stem."""
    return f"stage{stage}" if stage else "stem"


def plain(value: float | None, decimals: int = 3) -> str:
    """A number with so many decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.{decimals}f}"


def explained_parts(explanation: Explanation) -> Iterator[Table | str]:
    """Tables and remarks, one trial after another."""
    yield from _images(explanation)
    for each in explanation.trials:
        yield f"Trial {each.trial.number}: {each.trial.label}"
        yield from (f"  {note}" for note in each.notes)
        yield from _tables(each)


def _images(explanation: Explanation) -> Iterator[Table]:
    """The chosen images with what every trial takes them for."""
    seen = [each for each in explanation.trials if each.is_seen]
    if not seen:
        return
    columns = ["image", "class", *(f"trial {each.trial.number}" for each in seen)]
    rows = [
        [
            str(of_image[0]["image"]),
            str(of_image[0]["true"]),
            *(f"{row['predicted']} ({100 * row['probability']:.0f} %)" for row in of_image),
        ]
        for of_image in zip(
            *(each.insights[GRADCAM].content["images"] for each in seen), strict=True
        )
    ]
    title = f"{explanation.study}: images of the {explanation.split.name} split, and their classes"
    yield output.table(title, columns, rows)


def _tables(each: Explained) -> Iterator[Table]:
    contents = {kind: insight.content for kind, insight in each.insights.items()}
    if GATES in contents:
        yield _gates(contents[GATES])
    if FREQUENCY in contents:
        yield _frequencies(contents[FREQUENCY])
    if MAPS in contents:
        yield _maps(contents[MAPS])


def _gates(content: Mapping[str, Any]) -> Table:
    title = (
        f"Gains over {content['images']} images; class specificity by chance:"
        f" {plain(content['by_chance'])}"
    )
    columns = ("stage", "blocks", "mean gain", "between channels", "across images", "specificity")
    rows = [
        (
            stage_word(stage["stage"]),
            stage["sites"],
            plain(stage["gain"]),
            plain(stage["between_channels"]),
            plain(stage["across_images"]),
            plain(stage["specificity"]),
        )
        for stage in content["stages"]
    ]
    return output.table(title, columns, rows)


def _frequencies(content: Mapping[str, Any]) -> Table:
    rows = [
        (
            site["site"],
            f"{site['size'][0]} x {site['size'][1]}",
            site["distinct"],
            top_groups(site["groups"]),
        )
        for site in content["sites"]
    ]
    columns = ("site", "map", "frequencies", "largest shares: (u,v) of its channels' energy")
    return output.table("Frequency energy", columns, rows)


def top_groups(groups: Sequence[Mapping[str, Any]], count: int = GROUPS_SHOWN) -> str:
    """The frequencies with the largest shares: ``0,0 61.2 %; 0,1 8.0 %``."""
    return "; ".join(
        f"{share.pair} {output.percent(share.share)}" for share in by_pair(groups)[:count]
    )


def _maps(content: Mapping[str, Any]) -> Table:
    rows = [
        (
            site["site"],
            len(site["heads"]),
            plain(site["gamma"]),
            span([head["relative_entropy"] for head in site["heads"]], 3),
            span([head["distance"] for head in site["heads"]], 2),
            span([head["relative_distance"] for head in site["heads"]], 3),
            plain(site["uniform_distance"], 2),
        )
        for site in content["sites"]
    ]
    columns = ("site", "heads", "gamma", "entropy", "distance, pixels", "of diagonal", "uniform")
    return output.table(f"Attention over {content['images']} images", columns, rows)


def span(values: Sequence[float | None], decimals: int) -> str:
    """One number, or the least and the largest."""
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    texts = [plain(value, decimals) for value in (min(there), max(there))]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)
