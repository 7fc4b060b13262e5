"""Published weights, for the command line: load, describe, and write as a file of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blocks.errors import StudyError
from blocks.options import OptionValue


def parse_options(settings: Sequence[str]) -> dict[str, OptionValue]:
    """Read options of a block as ``--set`` writes them: "heads=4".

    Raises:
        StudyError: A setting has no name or no value.
    """
    options: dict[str, OptionValue] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise StudyError(f"--set {setting!r}: write OPTION=VALUE, such as heads=4")
        options[name.strip()] = _value(value.strip())
    return options


def _value(text: str) -> OptionValue:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def load_data(
    path: str,
    block: str,
    *,
    settings: Sequence[str] = (),
    shape: tuple[int, int, int] | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """Load a file of published weights, write it where it is asked to, and describe it.

    Args:
        path: The file.
        block: The attention block, by its name here.
        settings: Options of the block that the file does not say, as "heads=4".
        shape: (channels, height, width) of the images; left out, what the network was published
            with.
        output: A file of safetensors to write, with the architecture in it.

    Raises:
        ToolError: The file cannot be read, does not fit, or cannot be written.
    """
    from blocks.architecture import architecture_cost, label
    from blocks.backbone import site_table
    from blocks.checkpoint import load_published
    from blocks.weight_file import read_state, write_network

    options = parse_options(settings)
    size = None if shape is None else (shape[1], shape[2])
    loaded = load_published(read_state(path), block, options=options, input_size=size)
    if shape is not None and shape[0] != loaded.in_channels:
        raise StudyError(
            f"--input has {shape[0]} channels, and the network in {path} takes images of"
            f" {loaded.in_channels}"
        )
    if output is not None:
        write_network(loaded, output)
    height, width = loaded.architecture.input_size or (0, 0)
    table = site_table(
        loaded.architecture.backbone, (loaded.in_channels, height, width), loaded.num_classes
    )
    cost = architecture_cost(loaded.architecture, table)
    return {
        "file": path,
        "network": loaded.published.title,
        "source": loaded.published.source,
        "architecture": label(loaded.architecture),
        "digest": loaded.architecture.digest,
        "input": [loaded.in_channels, height, width],
        "classes": loaded.num_classes,
        "params": cost.params,
        "macs": cost.macs,
        "note": loaded.published.note,
        "counters_added": loaded.counters_added,
        "renamed": [
            {"theirs": row.theirs, "ours": row.ours, "tensors": row.tensors}
            for row in loaded.names
            if row.ours
        ],
        "dropped": [
            {"theirs": row.theirs, "tensors": row.tensors, "reason": row.reason}
            for row in loaded.names
            if not row.ours
        ],
        "written": output,
        "placements": loaded.architecture.to_json()["placements"],
    }


def facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    """What is said of loaded weights above the table of names, line by line."""
    rows = [
        ("network", f"{data['network']} ({data['source']})"),
        ("architecture", data["architecture"]),
        ("digest", data["digest"]),
        ("images", f"{'x'.join(map(str, data['input']))}, {data['classes']} classes"),
        ("params", f"{data['params']:,}"),
        ("macs", f"{data['macs']:,}"),
        ("note", data["note"]),
    ]
    rows += [
        ("left out", f"{row['tensors']} x {row['theirs']}: {row['reason']}")
        for row in data["dropped"]
    ]
    if data["counters_added"]:
        added = f"{data['counters_added']} counters of batches, which the file does not have: 0"
        rows.append(("added", added))
    if data["written"]:
        rows.append(("written", data["written"]))
    return [(name, value) for name, value in rows if value]
