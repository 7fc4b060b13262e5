"""The trained weights that a space starts from: read and checked before any trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blocks.errors import CheckpointError, SpaceError
from blocks.options import OptionValue
from blocks.weight_source import TIMM, file_identity, is_file
from spaces.candidate import DataFacts
from spaces.document import read_yaml
from spaces.space import Space


@dataclass(frozen=True)
class Start:
    """The weights that one backbone of a space may start from.

    Args:
        backbone: Its name.
        given: ``training.pretrained`` as the space gives it.
        identity: By which they enter digests.
        path: Of the file; empty where they are timm's.
        notes: What of them is not as it was, in words.
    """

    backbone: str
    given: OptionValue
    identity: str
    path: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        words = f"{self.backbone}: {self.path or self.identity}"
        return "; ".join([words, *self.notes])


def read_starts(space: Space, facts: DataFacts) -> tuple[Start, ...]:
    """Read all weights that a space names, and check them against each of its backbones.

    Raises:
        SpaceError: Some cannot be read or are not a backbone's: all of them, with their lines.
    """
    given = [value for value in space.training["pretrained"].values if value is not False]  # type: ignore[union-attr]
    sizes = [facts.at(int(side)) for side in space.training["input_size"].values]  # type: ignore[union-attr]
    starts, problems = [], []
    for value in given:
        for name in space.backbones.values:
            try:
                starts += [_start(str(name), value, sized) for sized in sizes][:1]
            except CheckpointError as error:
                problems.append(f"{_where(space, value)}: training.pretrained, {name}: {error}")
    if problems:
        raise SpaceError("\n".join(dict.fromkeys(problems)))
    return tuple(starts)


def _start(backbone: str, given: OptionValue, facts: DataFacts) -> Start:
    from blocks.build import MadeFor
    from blocks.pretrained import fit, meta_network, read_identified, timm_tag

    made_for = MadeFor(backbone, facts.classes, facts.input_shape)
    path, identity = "", ""
    if isinstance(given, str) and is_file(given):
        identity = file_identity(given)
        path = str(Path(given).expanduser().absolute())
    else:
        identity = TIMM + timm_tag(given if isinstance(given, str) else True, made_for)
    state = read_identified(identity, path, made_for)
    notes = fit(meta_network(made_for), state, made_for).notes
    return Start(backbone, given, identity, path, notes)


def _where(space: Space, given: OptionValue) -> str:
    """The line of the file that names these weights; the file alone where ``--set`` did."""
    if not space.in_file:
        return space.source
    yaml = read_yaml(space.text)
    key = ("training", "pretrained")
    if key not in yaml.lines:
        return space.source
    written = yaml.data["training"]["pretrained"]
    if isinstance(written, list) and given in written:
        return f"{space.source}:{yaml.line((*key, written.index(given)))}"
    return f"{space.source}:{yaml.line(key)}" if given == written else space.source
