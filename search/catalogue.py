"""What can be chosen: blocks with their options and costs, sites of a backbone, shipped spaces."""

from __future__ import annotations

from typing import Any

from blocks import backbone as backbones
from blocks import registry
from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.errors import BackboneError, SiteError, StudyError
from blocks.site import IN_BLOCK, SiteTable
from blocks.spec import BlockSpec
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


def costs_data(table: SiteTable) -> list[dict[str, Any]]:
    """What every block, with its default options, costs in every residual unit of a backbone."""
    rows = [{"name": registry.NONE, **table.cost.to_json(), "note": ""}]
    for spec in registry.specs():
        placement = Placement(IN_BLOCK, spec.name)
        try:
            architecture = resolve(Architecture(table.backbone, (placement,)), table)
            cost = architecture_cost(architecture, table).to_json()
            rows.append({"name": spec.name, **cost, "note": ""})
        except (SiteError, BackboneError) as error:
            empty = dict.fromkeys(table.cost.to_json())
            rows.append({"name": spec.name, **empty, "note": str(error)})
    return rows


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
