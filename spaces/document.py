"""Reading a space file: YAML 1.2 with line numbers, checked against the schema.

Two steps. ``read_yaml`` turns text into plain data and remembers the line of every key and item;
it refuses what has no place in a settings file (tags, anchors, duplicate keys, deep nesting,
several documents). ``Document`` is the schema. All problems of a file are collected as
``Problem`` values, with the path of the mistake in the data.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StrictStr,
    Tag,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from blocks import backbone, registry
from blocks.errors import BackboneError, BlockError, listing, suggestion
from spaces.duration import DurationText
from spaces.metrics import CAPPED, METRICS, OBJECTIVES
from spaces.places import Mask, MaskItem, PlacementItem, PlacementName, PositionName
from spaces.rules import Bounds, Conditions
from spaces.training_section import TrainingSection
from spaces.values import (
    LARGEST,
    Item,
    Names,
    PositiveInt,
    RangeSection,
    Scalar,
    Section,
    Seed,
    choices,
    distinct,
    is_number,
    needed,
    number,
    one_of,
    short,
)

MAX_DEPTH = 12
MAX_BYTES = 256 * 1024
MAX_PASSES = 4
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CAP = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[kMG]|x\s*baseline)?"
)
# For the JSON Schema: editors read patterns as ECMAScript's, which has no (?P<name>...).
CAP_PATTERN = f"^{re.sub(r'[?]P<[a-z]+>', '', CAP.pattern)}$"

Path = tuple[str | int, ...]
AUTO = "auto"
SAMPLERS = ("nsga2", "tpe", "random", "grid", "nsga3", "gp", "evolution", AUTO)
OPTUNA_SAMPLER = re.compile(r"optuna[.]samplers[.][A-Za-z]\w*")
KEEP_WEIGHTS = ALL, FRONT, NONE = ("all", "front", "none")


@dataclass(frozen=True)
class Problem:
    """One mistake: where in the data, and what to do about it."""

    path: Path
    text: str


@dataclass(frozen=True)
class YamlData:
    """Plain data of a YAML text, with the line (from 1) of every key and item.

    Args:
        data: The data; of a repeated key, one of its values.
        lines: Path of a key or item -> line.
        repeated: (line, key) of every key that stands a second time in its mapping.
    """

    data: Any
    lines: Mapping[Path, int]
    repeated: tuple[tuple[int, str], ...] = ()

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it that is in the text."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 1


class YamlRefusal(Exception):  # noqa: N818 - it becomes a SpaceError
    """A text that cannot be read as settings; has the line and what is wrong."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def read_yaml(text: str) -> YamlData:
    """Read YAML 1.2 text into plain data.

    Raises:
        YamlRefusal: It is not YAML, or uses what settings do not need.
    """
    try:
        repeated = tuple(_repeated_keys(_refuse_unneeded(text)))
        reader = YAML(typ="rt")
        reader.allow_duplicate_keys = True  # they are named with all other mistakes
        tree = reader.load(text)
    except MarkedYAMLError as error:
        raise _refusal(error) from None
    except (YAMLError, ValueError, AssertionError, RecursionError) as error:
        # ruamel's reader knows the position alone; a text of no lines is impossible.
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise YamlRefusal(line, f"not YAML: {_yaml_words(str(error).splitlines()[0])}") from None
    lines: dict[Path, int] = {}
    return YamlData(_plain(tree, (), lines), lines, repeated)


def _refusal(error: MarkedYAMLError) -> YamlRefusal:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    problem = str(error.problem or error.context or "not YAML").split("\n")[0]
    words = _yaml_words(problem)
    if error.context and error.context_mark and error.context_mark.line + 1 != line:
        words += f" ({error.context} that starts in line {error.context_mark.line + 1})"
    return YamlRefusal(line, f"not YAML: {words}")


def _yaml_words(problem: str) -> str:
    """The reader's words, with the cure where a mistake is common."""
    if "mapping values are not allowed" in problem:
        return (
            "a ':' cannot stand here; check the indentation and the line above, and put text that"
            " holds ': ' in quotes"
        )
    if r"character '\t'" in problem:
        return "a tab cannot stand here; indent with spaces"
    if problem.startswith("version "):
        return "another YAML version than 1.2 is refused; leave %YAML out"
    if "integer string conversion" in problem:
        return "it holds a number of thousands of digits"
    return problem


def _refuse_unneeded(text: str) -> Iterator[Any]:
    """The events of a YAML text, as far as they are of a kind that settings need."""
    depth = documents = 0
    for event in YAML(typ="safe", pure=True).parse(StringIO(text)):
        yield event
        kind = type(event).__name__
        line = event.start_mark.line + 1
        depth += kind.endswith(("SequenceStartEvent", "MappingStartEvent"))
        depth -= kind.endswith(("SequenceEndEvent", "MappingEndEvent"))
        documents += kind == "DocumentStartEvent"
        if getattr(event, "version", None) not in (None, (1, 2)):
            raise YamlRefusal(line, "another YAML version than 1.2 is refused; leave %YAML out")
        if depth > MAX_DEPTH:
            raise YamlRefusal(line, f"nested more than {MAX_DEPTH} deep; a space needs 4 levels")
        if documents > 1:
            raise YamlRefusal(line, "a second document starts here; a space is one document")
        if getattr(event, "anchor", None):
            raise YamlRefusal(line, "anchors and aliases are refused; write the value out")
        if getattr(event, "tag", None):
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            raise YamlRefusal(line, f"the tag {tag} is refused; write a plain value")
        if kind == "ScalarEvent" and event.value == "<<" and not event.style:
            raise YamlRefusal(line, "merge keys (<<) are refused; write the values out")


def _repeated_keys(events: Iterator[Any]) -> Iterator[tuple[int, str]]:
    """(line, key) of every key that its mapping has already."""
    open_nodes: list[tuple[set[str] | None, int]] = []  # (keys of a mapping, parts met so far)
    for event in events:
        kind = type(event).__name__
        if kind in ("MappingEndEvent", "SequenceEndEvent"):
            open_nodes.pop()
        elif kind in ("ScalarEvent", "MappingStartEvent", "SequenceStartEvent"):
            if open_nodes:
                keys, parts = open_nodes[-1]
                open_nodes[-1] = (keys, parts + 1)
                if keys is not None and parts % 2 == 0 and kind == "ScalarEvent":
                    if event.value in keys:
                        yield event.start_mark.line + 1, event.value
                    keys.add(event.value)
            if kind != "ScalarEvent":
                open_nodes.append((set() if kind == "MappingStartEvent" else None, 0))


def _plain(node: Any, path: Path, lines: dict[Path, int]) -> Any:
    """Copy into plain types; ruamel's keep comments and formatting, which pydantic must not see."""
    if isinstance(node, Mapping):
        result = {}
        for key, value in node.items():
            line = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
            if not isinstance(key, str):
                given = _described(key if isinstance(key, (int, float, type(None))) else [])
                raise YamlRefusal(line, f"{given} cannot be a key; a key is a word")
            name = _text(key, line)
            lines[*path, name] = line
            result[name] = _plain(value, (*path, name), lines)
        return result
    if isinstance(node, list):
        for index in range(len(node)):
            lines[*path, index] = node.lc.item(index)[0] + 1  # type: ignore[attr-defined]
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    for kind in (bool, int, float):
        if isinstance(node, kind):
            return kind(node)
    return None if node is None else _text(str(node), lines.get(path, 1))


def _text(value: str, line: int) -> str:
    """A text as it is, unless a terminal or a database could not take it."""
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n":
            code = f"U+{ord(character):04X}"
            raise YamlRefusal(line, f"a text holds the control character {code}; take it out")
    return str(value)


def yaml_text(data: Any) -> str:
    """Plain data as YAML text, which ``read_yaml`` reads as the same data."""
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 4096  # no line is folded
    stream = StringIO()
    writer.dump(data, stream)
    return stream.getvalue()


# The schema. -----------------------------------------------------------------------------------


def _block_names() -> tuple[str, ...]:
    return (*registry.names(), *registry.adapted_names())


def _known_block(name: str) -> str:
    try:
        if name != registry.NONE:
            registry.spec(name)
    except BlockError as error:
        raise ValueError(str(error)) from None
    return name


def _known_backbone(name: str) -> str:
    try:
        return backbone.backbone(name).name
    except BackboneError as error:
        raise ValueError(str(error)) from None


def _name(word: str) -> str:
    if not NAME.fullmatch(word):
        raise ValueError(f"{word!r} is no name: 1 to 64 letters, digits, '.', '_' and '-'")
    return word


def _cap(value: Any) -> float | str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise needed("a number (300000, 300k, 1.2M) or a share ('1.05x baseline') is needed")
    if not isinstance(value, str):
        if not (is_number(value) and value > 0):
            raise ValueError(f"{short(value)} is no cap: it must be above 0 and finite")
        return value
    match = CAP.fullmatch(value.strip())
    if match is None:
        raise ValueError(
            f"{value!r} is no cap: a number (300000, 300k, 1.2M) or a share ('1.05x baseline')"
        )
    if not 0 < float(match["number"]) <= LARGEST:
        raise ValueError(f"{value!r} is no cap: it must be above 0 and finite")
    return value


def _objective(name: str) -> str:
    if name in METRICS and name not in OBJECTIVES:
        raise ValueError(
            f"{name} is recorded and no objective: {METRICS[name].why_not}. Optimise"
            f" {METRICS[name].instead}"
        )
    return one_of("objective", OBJECTIVES)(name)


def _sampler(name: str) -> str:
    """A sampler by name; a file, which others may have written, names no further code."""
    if OPTUNA_SAMPLER.fullmatch(name):
        return name
    if "." in name or ":" in name:
        raise ValueError(
            f"{name!r} would run code by its name, which a space file cannot ask for: give it by"
            f" the flag, --sampler {name}. In a file: {listing(SAMPLERS)}, or optuna.samplers.NAME"
        )
    return one_of("sampler", SAMPLERS)(name)


def _no_mapping(value: Any) -> Any:
    if isinstance(value, dict):
        keys = ", ".join(f"{name}: {{...}}" for name in value)
        raise needed(
            "a block's name is needed. Blocks with options of their own make type a mapping of all"
            f" blocks, type: {{none: {{}}, {keys}}}"
        )
    return value


BlockName = Annotated[
    StrictStr, BeforeValidator(_no_mapping), AfterValidator(_known_block), Names(_block_names)
]
BackboneName = Annotated[
    StrictStr, AfterValidator(_known_backbone), Names(backbone.names, others=True)
]
ObjectiveName = Annotated[StrictStr, AfterValidator(_objective), Names(lambda: OBJECTIVES)]
CostName = Annotated[StrictStr, AfterValidator(one_of("cost", CAPPED)), Names(lambda: CAPPED)]
SamplerName: Any = Annotated[
    StrictStr,
    AfterValidator(_sampler),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(SAMPLERS)},
                {"type": "string", "pattern": f"^{OPTUNA_SAMPLER.pattern}$"},
            ]
        }
    ),
]
KeepName = Annotated[
    StrictStr,
    AfterValidator(one_of("keep_weights", KEEP_WEIGHTS)),
    Names(lambda: KEEP_WEIGHTS),
]
Target: Any = number("a share above 0 and up to 1", exclusiveMinimum=0, maximum=1)
Hours: Any = number("a number of hours above 0", exclusiveMinimum=0)
OptionChoices: Any = choices(Scalar, list[Item])
OptionTable: Any = dict[StrictStr, OptionChoices]


def _type_kind(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "blocks" if isinstance(value, dict) else "value"


TypeChoices = Annotated[
    Annotated[list[BlockName], Field(min_length=1), AfterValidator(distinct), Tag("list")]
    | Annotated[dict[BlockName, OptionTable], Field(min_length=1), Tag("blocks")]
    | Annotated[BlockName, Tag("value")],
    Discriminator(_type_kind),
]


class AttentionSection(Section):
    """Which attention, where, how strong; further keys are options of blocks."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, OptionChoices] = Field(init=False)

    type: TypeChoices = Field(description="Blocks, or blocks with options of their own.")
    placement: choices(PlacementName, list[PlacementItem]) = Field(  # type: ignore[valid-type]
        default="in-block", description="Where the block goes; several at once: stem + stage."
    )
    position: choices(PositionName) = Field(  # type: ignore[valid-type]
        default="standard", description="Side of the unit, for in-block."
    )
    stages: choices(Mask, list[MaskItem]) = Field(  # type: ignore[valid-type]
        default="all", description="Stages that get blocks: all, 4, or several at once: 3 + 4."
    )
    per_stage: bool = Field(default=False, description="Whether every stage decides for itself.")
    per_unit: bool = Field(default=False, description="Whether every unit decides for itself.")
    identity_start: choices(bool) = Field(  # type: ignore[valid-type]
        default=False, description="Whether blocks start as the identity, by a learnt number each."
    )


GivenProposals: Any = Annotated[list[dict[StrictStr, Scalar]], Field(min_length=1)]


class StudySection(Section):
    """Defaults of the command line; flags win over them."""

    trials: PositiveInt | None = None
    data: StrictStr | None = None
    sampler: SamplerName | None = None
    seed: Seed | None = None
    seeds: PositiveInt | None = None
    max_seeds: PositiveInt | None = None
    enqueue: GivenProposals | None = None
    keep_weights: KeepName | None = None
    target_accuracy: Target = None
    tune_baseline: bool | None = None
    time_limit: DurationText = None
    device_hours: Hours = None
    patience: PositiveInt | None = None


class Document(Section):
    """A search space for `search run --space FILE`."""

    name: Annotated[StrictStr, AfterValidator(_name)] | None = Field(
        default=None, description="Default name of the study; else the file's name."
    )
    question: StrictStr | None = Field(default=None, description="What the space is to answer.")
    backbone: choices(BackboneName)  # type: ignore[valid-type]
    attention: AttentionSection
    training: TrainingSection = TrainingSection()
    objectives: Annotated[dict[ObjectiveName, Literal["max", "min"]], Field(min_length=1)] = Field(
        default={"accuracy": "max", "flops": "min", "params": "min"}
    )
    constraints: dict[
        CostName,
        Annotated[
            Any,
            PlainValidator(_cap),
            WithJsonSchema(
                {
                    "anyOf": [
                        {"type": "number", "exclusiveMinimum": 0},
                        {"type": "string", "pattern": CAP_PATTERN},
                    ]
                }
            ),
        ],
    ] = Field(
        default={}, description="Caps that hold before training, such as {params: 1.05x baseline}."
    )
    when: dict[StrictStr, Conditions] = Field(
        default={},
        description="Settings that are asked about only where conditions hold, such as"
        " {reduction: {type: [se, cbam]}}; elsewhere their `else`, or their first value.",
    )
    forbid: Annotated[list[Conditions], Field(min_length=1)] = Field(
        default=[],
        description="Combinations that are no candidates, such as [{type: eca, placement: stem}].",
    )
    study: StudySection = StudySection()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of space files, for editors and for checks from outside."""
    schema = Document.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# From pydantic's errors to problems of the file. -------------------------------------------------

_SECTIONS: dict[Path, type[Section]] = {
    (): Document,
    ("attention",): AttentionSection,
    ("training",): TrainingSection,
    ("study",): StudySection,
}


class _Rest(list[Any]):
    """A list without its spoilt items, which knows where the others stood."""

    def __init__(self, items: list[Any], indexes: list[int]) -> None:
        super().__init__(items)
        self.indexes = indexes


def original_path(path: Path, data: Any) -> Path:
    """Where in the file stands what has this path in the data that is left of it."""
    found: list[str | int] = []
    for part in path:
        inside = data
        found.append(part)
        if isinstance(inside, list) and isinstance(part, int):
            data = inside[part]
            if isinstance(inside, _Rest):
                found[-1] = inside.indexes[part]
        else:
            data = inside.get(part) if isinstance(inside, dict) else None
    return tuple(found)


def check_document(data: Any) -> tuple[Document | None, list[Problem], Any]:
    """Check plain data against the schema.

    Returns:
        The document, and no problem; or problems, with what of the document holds without them
        (None where too little is left), so that further checks can find the rest. Last, the data
        that the document was made of, for ``original_path``.
    """
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"{_described(data)}, not a mapping of keys"
        text = f"the file is {kind}; start from `backbone:` and `attention:`"
        return None, [Problem((), text)], data
    problems: list[Problem] = []
    for _ in range(MAX_PASSES):
        try:
            return Document.model_validate(data), problems, data
        except ValidationError as error:
            details = error.errors(include_url=False)
        # What was taken out in an earlier pass is missed by a later one: no mistake of the user's.
        missed = ("missing", "too_short") if problems else ()
        problems += [_problem(detail, data) for detail in details if detail["type"] not in missed]
        data = _without(data, [_path_in(data, detail["loc"]) for detail in details])
    return None, list(dict.fromkeys(problems)), data


_NEEDED = {
    "string_type": "text is needed",
    "bool_type": "true or false is needed",
    "dict_type": "a mapping of keys to values is needed",
    "model_type": "a mapping of keys to values is needed",
    "literal_error": "{expected} is needed",
    "needed": "{what}",
}
_REQUIRED = {("backbone",), ("attention",), ("attention", "type")}


def _problem(detail: ErrorDetails, data: Any) -> Problem:
    inner = _path_in(data, detail["loc"])
    path = original_path(inner, data)
    kind, given = detail["type"], detail["input"]
    where = _shown(path)
    if path[:1] == ("attention",) and path[1:2] in (("when",), ("forbid",)):
        text = f"{path[1]!r} stands at the top of the file, beside `attention:`"
        return Problem(path[:2], text)
    if kind == "extra_forbidden":
        allowed = _allowed_keys(path[:-1])
        near = suggestion(path[-1], allowed)
        inside = _shown(path[:-1])
        text = f"{inside}: unknown key {path[-1]!r}.{near} Allowed: {listing(allowed)}"
    elif kind == "missing":
        text = f"{where}: key {detail['loc'][-1]!r} is missing"
    elif kind == "value_error":
        text = f"{where}: {detail['msg'].removeprefix('Value error, ')}"
    elif kind == "too_short" or given is None:
        text = f"{where} is empty; {_cure_of_empty(path)}"
    elif kind in _NEEDED:
        needed = _NEEDED[kind].format(**detail.get("ctx", {}))
        text = f"{where} is {_described(given)}; {needed}"
    else:
        words = detail["msg"][:1].lower() + detail["msg"][1:]
        text = f"{where} is {_described(given)}; {words}"
    if "frequency" in path and given is not None and kind in ("needed", "value_error"):
        text += "; pairs are written in quotes, '0,0+6,0'"
    return Problem(path, text)


def _cure_of_empty(path: Path) -> str:
    if path[:2] == ("attention", "type") and len(path) == 3 and isinstance(path[2], str):
        return "write {} where a block has no options of its own"
    required = path in _REQUIRED or path[-1] in ("low", "high")
    return "give a value" if required else "give a value, or leave it out"


def _shown(path: Path) -> str:
    """A path in words: ``attention.type, item 2``."""
    keys = ".".join(part for part in path if isinstance(part, str))
    items = "".join(f", item {part + 1}" for part in path if isinstance(part, int))
    return f"{keys}{items}" or "the file"


def _described(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    return f"the {'text' if isinstance(value, str) else 'number'} {short(value)}"


def _path_in(data: Any, location: tuple[int | str, ...]) -> Path:
    """Follow a location into the data, passing over the tags that pydantic puts between."""
    path: list[str | int] = []
    for part in location:
        here: Collection[str | int] = data.keys() if isinstance(data, dict) else ()
        if isinstance(data, list) and isinstance(part, int):
            here = range(len(data))
        if part in here:
            path.append(part)
            data = data[part]
    return tuple(path)


def _allowed_keys(path: Path) -> list[str]:
    usual = Bounds if path[:1] in (("when",), ("forbid",)) else RangeSection
    section = _SECTIONS.get(path, usual)
    return list(section.model_fields)


def _without(data: Any, paths: list[Path]) -> Any:
    """Copy data, leaving out what stands at these paths; stand-ins for keys that must be there.

    ``attention`` stays: where its type is missing, its other keys are still to be checked.
    """
    spoilt = set(paths) - {("attention",)}

    def copy(node: Any, path: Path) -> Any:
        if isinstance(node, dict):
            return {k: copy(v, (*path, k)) for k, v in node.items() if (*path, k) not in spoilt}
        if isinstance(node, list):
            kept = [i for i in range(len(node)) if (*path, i) not in spoilt]
            indexes = [node.indexes[i] for i in kept] if isinstance(node, _Rest) else kept
            return _Rest([copy(node[i], (*path, i)) for i in kept], indexes)
        return node

    rest: dict[str, Any] = {"backbone": backbone.names()[0], "attention": {}}
    rest |= copy(data, ())
    if not isinstance(rest["attention"], dict):
        rest["attention"] = {}
    # With every block there, no option looks unused only because a block's name was misspelt.
    rest["attention"].setdefault("type", list(_block_names()))
    return rest
