"""What can be chosen: blocks with their options and costs, sites of a backbone, shipped spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import backbone as backbones
from blocks import registry
from blocks.architecture import (
    Architecture,
    Placement,
    architecture_cost,
    has_closed_cost,
    resolve,
)
from blocks.errors import BackboneError, SiteError, StudyError
from blocks.site import IN_BLOCK, SiteTable
from blocks.spec import BlockSpec
from search.measured import kept_for_training
from search.output import count
from spaces.recipes import RECIPES
from spaces.space import load_space, shipped_spaces


def blocks_data() -> list[dict[str, Any]]:
    """All blocks with their options, and then timm's own modules, which are marked as adapted."""
    none = {"name": registry.NONE, "title": "No attention: the baseline", "paper": ""}
    return [
        {**none, "adapted": False, "options": []},
        *(_block_data(spec, adapted=False) for spec in registry.specs()),
        *(_block_data(spec, adapted=True) for spec in registry.adapted_specs()),
    ]


def _block_data(spec: BlockSpec, *, adapted: bool) -> dict[str, Any]:
    options = [
        {
            "name": option.name,
            "default": option.default,
            "allowed": option.allowed,
            "meaning": option.meaning,
        }
        for option in spec.options
    ]
    row = {"name": spec.name, "title": spec.title, "paper": spec.paper}
    return {**row, "adapted": adapted, "options": options}


Row = tuple[str, ...]
EVERY_BLOCK = (
    " Every block has residual = false: whether its input is added to its output. gate is the"
    " function of the gates: sigmoid, hardsigmoid, tanh, relu."
)


def blocks_tables(rows: list[dict[str, Any]]) -> tuple[list[Row], list[Row]]:
    """Rows for a terminal: our blocks with what their options mean, and timm's with their names.

    What ``EVERY_BLOCK`` says is left out of them.
    """

    def words(option: dict[str, Any]) -> str:
        said = f"{option['name']} = {_spelt(option['default'])}"
        return said if option["name"] == "gate" else f"{said}: {option['meaning']}"

    own: list[Row] = []
    adapted: list[Row] = []
    for row in rows:
        options = [o for o in row["options"] if (o["name"], o["default"]) != ("residual", False)]
        if row["adapted"]:
            named = (f"{o['name']} = {_spelt(o['default'])}" for o in options)
            adapted.append((row["name"], row["title"], ", ".join(named)))
        else:
            meant = "\n".join(map(words, options))
            own.append((row["name"], row["title"], row["paper"], meant))
    return own, adapted


def _spelt(value: object) -> str:
    """A value as a space file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_input(text: str) -> tuple[int, int, int]:
    """Read an input shape, "3x224x224".

    Raises:
        StudyError: It is not three whole numbers.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise StudyError(f"--input {text!r}: write channels x height x width, such as 3x224x224")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def usual_input(backbone: str) -> tuple[tuple[int, int, int], int]:
    """The input shape and classes with which a backbone's published figures were made."""
    row = backbones.backbone(backbone)
    if row.small:
        return (3, 32, 32), 10
    return (3, row.image, row.image), 1000


def sites_data(table: SiteTable) -> list[dict[str, Any]]:
    """The sites of a backbone with their maps."""
    return [
        {
            "site": site.name,
            "placement": site.placement,
            "position": " ".join(site.positions),
            "channels": site.shape.channels,
            "height": site.shape.height,
            "width": site.shape.width,
            "side": site.side,
            "module": site.path,
        }
        for site in table.sites
    ]


FIGURES = ("params", "trainable_params", "macs", "flops", "kept_bytes")


def costs_data(table: SiteTable) -> list[dict[str, Any]]:
    """What every block, with its default options, adds in every residual unit of a backbone.

    The first row is the backbone alone. ``kept_bytes`` is what training keeps for an image.
    """
    blocks: dict[str, Architecture] = {}
    notes: dict[str, str] = {}
    for name in (registry.NONE, *(spec.name for spec in registry.specs())):
        try:
            placement = Placement(IN_BLOCK, name)
            blocks[name] = resolve(Architecture(table.backbone, (placement,)), table)
        except (SiteError, BackboneError) as error:
            notes[name] = str(error)
    kept = kept_for_training(table, blocks.values())
    figures = {
        name: {**_counted(architecture, table), "kept_bytes": kept[architecture.digest]}
        for name, architecture in blocks.items()
    }
    baseline = figures[registry.NONE]
    return [
        {"name": name, **_beside(figures.get(name, {}), baseline), "note": notes.get(name, "")}
        for name in (registry.NONE, *(spec.name for spec in registry.specs()))
    ]


def _counted(architecture: Architecture, table: SiteTable) -> dict[str, int | None]:
    if has_closed_cost(architecture):
        return {**architecture_cost(architecture, table).to_json()}
    from blocks.build import build_network
    from blocks.cost import measure_cost

    channels, *_ = table.input_shape
    network = build_network(architecture, num_classes=table.classes, in_channels=channels)
    return {**measure_cost(network, table.input_shape).to_json()}


def _beside(
    figures: Mapping[str, int | None], baseline: Mapping[str, int | None]
) -> dict[str, Any]:
    """The figures, what they have more than the baseline's, and that in per cent of it."""
    found = {name: figures.get(name) for name in FIGURES}
    pairs = {name: (value, baseline[name]) for name, value in found.items()}
    adds = {n: None if v is None or b is None else v - b for n, (v, b) in pairs.items()}
    percent = {
        n: 100 * a / b if a is not None and (b := baseline[n]) else None for n, a in adds.items()
    }
    return {**found, "adds": adds, "adds_percent": percent}


def costs_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[Row]]:
    """Columns and rows for a terminal: the backbone's figures, and what each block adds to them."""
    shown = ("params", "macs", "flops", "kept_bytes")
    baseline, *others = rows
    cells: list[Row] = [(baseline["name"], *(_amount(name, baseline[name]) for name in shown))]
    for row in others:
        if row["note"]:
            cells.append((row["name"], *("" for _ in shown)))
            continue
        added = (_added(name, row["adds"][name], row["adds_percent"][name]) for name in shown)
        cells.append((row["name"], *added))
    return ["block", "parameters", "MACs", "FLOPs", "kept to train"], cells


def _amount(name: str, value: int | None) -> str:
    if value is None:
        return "not known"
    if name == "kept_bytes":
        return f"{count(value)}B"
    return f"{value:,}" if name == "params" else count(value)


def _added(name: str, value: int | None, percent: float | None) -> str:
    if value is None or percent is None:
        return _amount(name, value)
    share = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    return f"+{_amount(name, value)} ({share} %)"


def parts_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[Row]]:
    """Columns and rows for a terminal: a backbone's parts, and what they are together."""
    figures = ("params", "macs", "flops", "kept_bytes", "inference_peak_bytes")
    whole = {name: sum(row[name] for row in rows) for name in figures}
    whole["inference_peak_bytes"] = max(row["inference_peak_bytes"] for row in rows)
    cells = [
        (
            row["part"],
            *(_amount(name.replace("inference_peak", "kept"), row[name]) for name in figures),
        )
        for row in [*rows, {"part": "together", **whole}]
    ]
    return ["part", "parameters", "MACs", "FLOPs", "kept to train", "peak in inference"], cells


def recipes_data() -> list[dict[str, Any]]:
    """The published recipes of training."""
    return [
        {
            "recipe": recipe.name,
            "settings": [f"{name}: {value}" for name, value in recipe.settings.items()],
            "source": recipe.source,
        }
        for recipe in RECIPES.values()
    ]


def spaces_data() -> list[dict[str, Any]]:
    """The shipped spaces with the question that each answers."""
    rows = []
    for name, path in shipped_spaces().items():
        space = load_space(path)
        rows.append(
            {
                "name": name,
                "question": space.question,
                "backbones": list(space.backbones.values),
                "blocks": list(space.attention.blocks.values),
                "trials": space.study.get("trials"),
                "epochs": space.epochs,
            }
        )
    return rows
