"""What a space is: frozen, checked, with an identity; and how its file becomes one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from blocks import registry
from blocks.errors import BlockError, SpaceError, listing, suggestion
from blocks.frequency import SINGLES, sorted_frequency
from blocks.options import OptionValue
from blocks.plain import content_digest
from blocks.site import IN_BLOCK, STAGE, STANDARD, STEM
from spaces.document import (
    CAP,
    MAX_BYTES,
    AttentionSection,
    Document,
    Problem,
    YamlData,
    YamlRefusal,
    check_document,
    original_path,
    read_yaml,
    yaml_text,
)
from spaces.metrics import METRICS
from spaces.parameters import Choice, Domain, Range, fixed
from spaces.places import ALL_STAGES, JOIN
from spaces.rules import Rules
from spaces.training import NOTHING, Training
from spaces.training_section import (
    SETTINGS,
    WHOLE_SETTINGS,
    TrainingSection,
    idle_settings,
    range_problems,
)
from spaces.values import RangeSection

SHIPPED = Path(__file__).parent
DIGEST_VERSION = 1
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, None: 1.0}


@dataclass(frozen=True)
class Constraint:
    """A cap on a cost, absolute or relative to the same backbone without attention.

    Args:
        metric: The cost that is capped, one of ``spaces.metrics.CAPPED``.
        text: The cap as written.
    """

    metric: str
    text: str

    def cap(self, baseline: float) -> float:
        """The largest allowed value, where the backbone without attention has this one."""
        match = CAP.fullmatch(self.text)
        if match is None:  # the reader has checked it
            raise SpaceError(f"{self.metric}: {self.text!r} is no cap")
        number = float(match["number"])
        unit = match["unit"]
        if unit and unit.startswith("x"):
            return number * baseline
        return number * UNITS[unit]

    def __str__(self) -> str:
        return f"{self.metric} <= {self.text}"


@dataclass(frozen=True)
class AttentionSpace:
    """Which attention, where and how strong.

    Args:
        blocks: The blocks to choose from.
        own: Options that a block has for itself: block -> option -> values.
        shared: Options for every block that has them: option -> values.
        placements: Where the block goes.
        positions: Sides of the unit, for in-block.
        stages: Stages that get blocks: "all", or numbers joined by plus signs.
        per_stage: Whether stem and stages decide for themselves.
        per_unit: Whether stem and units decide for themselves.
        identity_start: Whether blocks start as the identity.
    """

    blocks: Choice
    own: Mapping[str, Mapping[str, Choice]]
    shared: Mapping[str, Choice]
    placements: Choice
    positions: Choice
    stages: Choice
    per_stage: bool
    per_unit: bool
    identity_start: Choice

    def options(self, block: str) -> tuple[tuple[str, Choice], ...]:
        """The options of a block that the space sets: (parameter's name, values)."""
        if block not in self._options:
            self._options[block] = tuple(self._options_of(block))
        return self._options[block]

    @cached_property
    def _options(self) -> dict[str, tuple[tuple[str, Choice], ...]]:
        return {}

    def _options_of(self, block: str) -> Iterator[tuple[str, Choice]]:
        for name, choice in self.own.get(block, {}).items():
            yield f"{block}.{name}", choice
        if block != registry.NONE:
            has = {option.name for option in registry.spec(block).options}
            for name, choice in self.shared.items():
                if name in has:
                    yield name, choice


@dataclass(frozen=True)
class Space:
    """The allowed networks and settings.

    Args:
        name: Default name of a study of it.
        source: Where it was read from, for messages.
        text: The file as written.
        content: Its plain data after ``--set``, without what does not change results.
        backbones: The backbones to choose from.
        attention: Which attention, where and how strong.
        training: Values of every training setting.
        objectives: Metric -> "max" or "min".
        constraints: Caps on exact costs.
        study: Defaults of the command line that the file carries.
        question: What it is to answer, in the file's words.
        weights: (backbone, ``pretrained`` as the file gives it) -> its identity, once it is read.
        rules: What holds between its settings: ``when`` and ``forbid``.
        in_file: Whether messages can name lines of a file; else they name keys alone.
    """

    name: str
    source: str
    text: str
    content: Mapping[str, Any]
    backbones: Choice
    attention: AttentionSpace
    training: Mapping[str, Domain]
    objectives: Mapping[str, str]
    constraints: tuple[Constraint, ...]
    study: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""
    weights: Mapping[tuple[str, OptionValue], str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    in_file: bool = True

    @classmethod
    def of(cls, *, name: str = "space", **content: Any) -> Space:
        """A space from its sections: ``Space.of(backbone="resnet20", attention={...}, ...)``.

        Args:
            name: Default name of a study of it.
            **content: As a file has them: backbone, attention, training, objectives and so on.

        Raises:
            SpaceError: They hold mistakes: all of them, with their keys.
        """
        return make_space(content, name=name)

    def place(self, *keys: tuple[str | int, ...]) -> str:
        """Where messages say a key is: the first of these that the file has, or near the last."""
        if not self.in_file:
            return self.source
        yaml = read_yaml(self.text)
        there = [one for one in keys if one in yaml.lines]
        return f"{self.source}:{yaml.line((*there, keys[-1])[0])}"

    @cached_property
    def fixed_training(self) -> dict[str, OptionValue]:
        """The training settings with one value, and that."""
        return {name: d.default for name, d in self.training.items() if d.is_fixed}

    @property
    def digest(self) -> str:
        """Identity of the space."""
        return content_digest(f"s{DIGEST_VERSION}", self.content)

    @property
    def epochs(self) -> int:
        """Epochs of a full training."""
        return int(self.training["epochs"].default)

    def training_of(self, backbone: str, settings: Mapping[str, OptionValue]) -> Training:
        """A backbone's training at settings as the space gives them.

        Raises:
            SpaceError: The weights that the backbone is to start from have not been read.
        """
        given = settings["pretrained"]
        if given is False:
            return Training(**{**settings, "pretrained": ""})  # type: ignore[arg-type]
        if (backbone, given) not in self.weights:
            raise SpaceError(
                f"{self.source}: the weights {given!r} for {backbone} have not been read, so that"
                " candidates have no identity yet; make a plan (search.plan.make_plan)"
            )
        identity = self.weights[backbone, given]
        return Training(**{**settings, "pretrained": identity})  # type: ignore[arg-type]


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The lines in which two spaces' contents differ, with - for stored and + for given."""
    lines = difflib.unified_diff(_lines(stored), _lines(given), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _lines(content: Any, prefix: str = "") -> list[str]:
    if isinstance(content, Mapping):
        return [
            line
            for key in sorted(content)
            for line in _lines(content[key], f"{prefix}.{key}" if prefix else str(key))
        ]
    return [f"{prefix}: {content}"]


def shipped_spaces() -> dict[str, Path]:
    """The spaces that come with the tool, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find_space(given: str | os.PathLike[str]) -> Path:
    """The file that ``--space`` names: a path, or a shipped space's name with or without .yaml.

    Raises:
        SpaceError: There is neither.
    """
    path = Path(given)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            example = path / "attention.yaml"
            raise SpaceError(f"{path} is a folder; a space is a file, such as {example}")
    except OSError as error:
        raise SpaceError(f"{_shortened(given)} cannot be read: {error.strerror}") from None
    name = str(given).removesuffix(".yaml")
    shipped = shipped_spaces()
    if name in shipped:
        return shipped[name]
    raise SpaceError(
        f"there is no file {str(given)!r} and no shipped space of that name."
        f"{suggestion(name, shipped)} Shipped: {listing(shipped)}"
    )


def _shortened(given: str | os.PathLike[str]) -> str:
    text = str(given)
    return text if len(text) <= 100 else f"{text[:97]}..."


def load_space(given: str | os.PathLike[str] | Space, *, overrides: Sequence[str] = ()) -> Space:
    """Read a space from a file, or a shipped one by its name; a space that is one already is kept.

    Args:
        given: A file, the name of a shipped space, or a space.
        overrides: Changes as ``--set`` writes them, "attention.type=[se, eca]".

    Raises:
        SpaceError: The file cannot be read, or holds mistakes: all of them, with their lines.
    """
    if isinstance(given, Space):
        return _changed(given, overrides) if overrides else given
    found = find_space(given)
    text = _read_text(found)
    shown = str(given) if Path(given).is_file() else found.name
    return parse_space(text, source=shown, name=found.stem, overrides=overrides)


def make_space(content: Mapping[str, Any], *, name: str = "space") -> Space:
    """A space from plain data, as a file would give it: the same keys, the same identity.

    Args:
        content: What a file holds: ``{"backbone": ..., "attention": {...}, ...}``.
        name: Default name of a study of it, where the content has no ``name``.

    Raises:
        SpaceError: It holds mistakes: all of them, with their keys.
    """
    source = f"space {name!r}"
    text = yaml_text(_plain(content, source, ""))
    return _parsed(text, source, name, (), in_file=False)


def _plain(value: Any, source: str, where: str) -> Any:
    """Dictionaries, lists, numbers, text and flags alone; a tuple is a list."""
    if isinstance(value, Mapping):
        inside = f"{where}." if where else ""
        return {str(k): _plain(one, source, f"{inside}{k}") for k, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, source, where) for one in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    kind = type(value).__name__
    raise SpaceError(
        f"{source}: {where or 'the space'} holds a {kind}; only mappings, lists, numbers, text and"
        " true or false are a space"
    )


def _changed(space: Space, overrides: Sequence[str]) -> Space:
    """A space with changes, which are shown by the keys of ``--set``."""
    rest: dict[str, Any] = {"question": space.question, "study": dict(space.study)}
    text = yaml_text({**space.content, **{key: value for key, value in rest.items() if value}})
    return _parsed(text, space.source, space.name, overrides, in_file=False)


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise SpaceError(f"{path} cannot be read: {error.strerror}") from None
    if size > MAX_BYTES:
        raise SpaceError(f"{path} has {size:,} bytes; a space has at most {MAX_BYTES:,}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpaceError(
            f"{path} is no text: byte 0x{content[error.start]:02x} at {error.start}; a space is a"
            " YAML file in UTF-8"
        ) from None
    if "\0" in text:
        raise SpaceError(f"{path} is no text: it holds zero bytes; a space is a YAML file in UTF-8")
    return text


def parse_space(
    text: str, *, source: str = "space", name: str = "space", overrides: Sequence[str] = ()
) -> Space:
    """Read a space from YAML text.

    Raises:
        SpaceError: The text holds mistakes: all of them, with their lines.
    """
    return _parsed(text, source, name, overrides, in_file=True)


def _parsed(text: str, source: str, name: str, overrides: Sequence[str], *, in_file: bool) -> Space:
    try:
        yaml = read_yaml(text)
    except YamlRefusal as problem:
        place = f"{source}:{problem.line}" if in_file else source
        raise SpaceError(f"{place}: {problem.text}") from None
    space = _read(yaml.data, _Origin(source, name, text, yaml, {}, in_file))
    if not overrides:
        return space
    data, changed = yaml.data, {}
    for override in overrides:
        path, value = _parse_override(override)
        data = _with(data, path, value, override)
        changed[path] = override
    return _read(data, _Origin(source, name, text, yaml, changed, in_file))


def _parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpaceError(f"--set {override}: write key=value, such as --set training.epochs=5")
    try:
        value = read_yaml(text).data
    except YamlRefusal as problem:
        raise SpaceError(f"--set {override}: {problem.text}") from None
    return tuple(part.strip() for part in key.split(".")), value


def _with(data: Any, path: tuple[str, ...], value: Any, override: str) -> Any:
    if not path:
        return value
    if not isinstance(data, Mapping):
        if data is not None:
            raise SpaceError(f"--set {override}: {path[0]!r} is inside a value that has no keys")
        data = {}
    return {**data, path[0]: _with(data.get(path[0]), path[1:], value, override)}


@dataclass(frozen=True)
class _Origin:
    """Where a space's data come from, for messages and for the space.

    Args:
        source: The file's name, or the made space's.
        name: Default name of a study of it.
        text: As written.
        yaml: The data as written, with their lines.
        changed: The keys that ``--set`` wrote -> how.
        in_file: Whether lines say where something is.
    """

    source: str
    name: str
    text: str
    yaml: YamlData
    changed: Mapping[tuple[str, ...], str]
    in_file: bool

    @property
    def rules_changed(self) -> bool:
        """Whether ``--set`` wrote rules."""
        return any(path[0] in ("when", "forbid") for path in self.changed)

    def place(self, path: tuple[str | int, ...]) -> str:
        """Where a problem is."""
        for key, override in self.changed.items():
            if path[: len(key)] == key or key[: len(path)] == path:
                return f"--set {override}"
        return f"{self.source}:{self.yaml.line(path)}" if self.in_file else self.source

    def refusal(
        self, problems: Sequence[Problem], repeated: Sequence[tuple[int, str]] = ()
    ) -> SpaceError:
        """One message of all problems, in the order of their lines."""
        found = [(self.yaml.line(p.path), f"{self.place(p.path)}: {p.text}") for p in problems]
        found += [
            (line, f"{self.source}:{line}: key {key!r} is given twice; keep one of them")
            for line, key in repeated
        ]
        lines = list(dict.fromkeys(text for _, text in sorted(found, key=lambda pair: pair[0])))
        if len(lines) == 1:
            return SpaceError(lines[0])
        all_of_them = "\n".join(f"  {line}" for line in lines)
        return SpaceError(f"{self.source} has {len(lines)} problems\n{all_of_them}")


def _read(data: Any, origin: _Origin) -> Space:
    """Check data against schema, sense and rules, and make a space of them."""
    document = _checked(data, origin)
    space = _space(document, data, origin)
    if not document.when and not document.forbid:
        return space
    from spaces.rule_reading import read_rules  # it asks for candidates, as spaces.drawing does

    lenient = bool(origin.changed) and not origin.rules_changed
    rules, found = read_rules(space, document.when, document.forbid, lenient=lenient)
    if found:
        raise origin.refusal([Problem(path, text) for path, text in found])
    return replace(space, rules=rules)


def _checked(data: Any, origin: _Origin) -> Document:
    """Check data against schema and sense."""
    document, problems, rest = check_document(data)
    if document is not None:
        spoilt = {problem.path for problem in problems} - {(), ("attention",)}
        sound_type = not any(path[:2] == ("attention", "type") for path in spoilt)
        more = [
            Problem(original_path(problem.path, rest), problem.text)
            for problem in _contradictions(document, origin.changed, unused=sound_type)
        ]
        problems += [p for p in more if not any(_overlap(p.path, path) for path in spoilt)]
    repeated = [] if origin.changed else origin.yaml.repeated
    if document is None or problems or repeated:
        raise origin.refusal(problems, repeated)
    return document


def _overlap(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    """Whether one path is the other or lies around it."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


# What fits the schema and still does not hold together. ------------------------------------------


def _contradictions(
    document: Document, changed: Mapping[tuple[str, ...], str], *, unused: bool
) -> Iterator[Problem]:
    """Contradictions; ``unused``: also options that no chosen block has.

    Where ``--set`` narrows the blocks, only the options that it sets itself must be of use.
    """
    yield from _option_problems(document.attention, changed, unused=unused)
    yield from _place_problems(document.attention, changed)
    for name in SETTINGS:
        yield from _range_problems(("training", name), getattr(document.training, name))
    for name, text in idle_settings(document.training, changed):
        yield Problem(("training", name), f"training.{text}")
    yield from _frozen_chance(document.training)
    if "accuracy" not in document.objectives:
        yield Problem(("objectives",), "objectives: 'accuracy: max' must be one of them")
    for name, direction in document.objectives.items():
        wanted = METRICS[name].direction
        if direction != wanted:
            better = METRICS[name].better
            text = f"objectives.{name} is {direction!r}; {better} is better, so write {wanted!r}"
            yield Problem(("objectives", name), text)


def _frozen_chance(training: TrainingSection) -> Iterator[Problem]:
    """What is kept as it starts must not start from drawn weights."""
    frozen = training.freeze if isinstance(training.freeze, list) else [training.freeze]
    starts = training.pretrained if isinstance(training.pretrained, list) else [training.pretrained]
    held = [name for name in frozen if name != NOTHING]
    if held and False in starts:
        text = (
            f"training.freeze: {held[0]!r} would keep drawn weights, as they are before any"
            " training; give trained ones (training.pretrained: true, a tag of timm's or a file,"
            " without false), or take it out"
        )
        yield Problem(("training", "freeze"), text)


def _type_names(attention: AttentionSection) -> list[str]:
    kind: Any = attention.type
    return [kind] if isinstance(kind, str) else list(kind)


def _option_problems(
    attention: AttentionSection, changed: Mapping[tuple[str, ...], str], *, unused: bool
) -> Iterator[Problem]:
    shared = attention.__pydantic_extra__ or {}
    names = _type_names(attention)
    rows = (*registry.specs(), *registry.adapted_specs())
    known = {o.name for spec in rows for o in spec.options}
    for option, values in shared.items():
        path = ("attention", option)
        if option not in known:
            allowed = [*AttentionSection.model_fields, *_usual_options(names)]
            near = suggestion(option, allowed)
            text = f"attention: unknown key {option!r}.{near} Allowed: {listing(allowed)}"
            yield Problem(path, text)
            continue
        users = [spec.name for spec in rows if option in {o.name for o in spec.options}]
        chosen = [name for name in users if name in names]
        if not chosen and unused and (not changed or path in changed):
            text = (
                f"attention.{option} changes nothing: it is an option of {_own_first(users)}, and"
                f" attention.type has {listing(names)}; take it out or add such a block"
            )
            yield Problem(path, text)
        for name in chosen or users[:1]:
            problems = list(_value_problems(name, option, values, path))
            yield from problems
            if problems:
                break
    if isinstance(attention.type, dict):
        for block, options in attention.type.items():
            for option, values in options.items():
                where = ("attention", "type", block, option)
                if option in shared:
                    text = f"{block}.{option} and attention.{option} are both given; keep one"
                    yield Problem(where, text)
                else:
                    yield from _value_problems(block, option, values, where)


def _usual_options(chosen: list[str]) -> list[str]:
    """The options of the table's blocks and of the modules of timm that are chosen."""
    chosen_of_timm = [spec for spec in registry.adapted_specs() if spec.name in chosen]
    rows = (*registry.specs(), *chosen_of_timm)
    return sorted({option.name for spec in rows for option in spec.options})


def _own_first(users: list[str]) -> str:
    """The table's blocks that have an option, without timm's where there are such."""
    adapted = registry.adapted_names()
    return listing([name for name in users if name not in adapted] or users)


def _place_problems(
    attention: AttentionSection, changed: Mapping[tuple[str, ...], str]
) -> Iterator[Problem]:
    """Settings of where blocks go that contradict each other or have nothing to act on."""
    listed: Any = attention.placement
    places = {word for one in _listed(listed) for word in str(one).split(JOIN)}

    def problem(key: str, words: str) -> Problem:
        return Problem(("attention", key), f"attention.{key} {words}")

    if attention.per_unit and attention.per_stage:
        yield problem("per_unit", "and attention.per_stage are both true; keep one of them")
    if attention.per_unit and STAGE in places:
        yield problem(
            "per_unit", "lets units decide, but attention.placement has stage; leave in-block, stem"
        )
    each = "per_stage" if attention.per_stage else "per_unit"
    alone = attention.per_stage or attention.per_unit
    mixed = [one for one in map(str, _listed(listed)) if STEM in one.split(JOIN) and one != STEM]
    if alone and mixed:
        yield problem(
            "placement",
            f"has {mixed[0]!r}, but with {each} the stem decides for itself; list stem alone, and"
            " the others apart",
        )
    narrowed = ("attention", "placement") in changed
    if IN_BLOCK not in places and _listed(attention.position) != [STANDARD] and not narrowed:
        yield problem(
            "position",
            "changes nothing: it is a side of units, and attention.placement has no"
            " in-block; take it out or add in-block",
        )
    if _listed(attention.stages) != [ALL_STAGES]:
        if alone:
            yield problem(
                "stages",
                f"chooses stages for all blocks at once, but attention.{each} lets each"
                " decide (none leaves one out); keep one of them",
            )
        elif places == {STEM} and not narrowed:
            yield problem(
                "stages",
                "changes nothing: attention.placement has the stem alone; take it out or"
                " add stage or in-block",
            )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _value_problems(
    block: str, option: str, values: Any, path: tuple[str | int, ...]
) -> Iterator[Problem]:
    if block == registry.NONE:
        yield Problem(path, f"none has no option {option!r}: it has no options")
        return
    try:
        row = registry.spec(block).option(option)
    except BlockError as error:
        yield Problem(path, str(error))
        return
    seen: dict[OptionValue, OptionValue] = {}
    for index, value in enumerate(values if isinstance(values, list) else [values]):
        here = (*path, index) if isinstance(values, list) else path
        try:
            for one in _spelt_out(option, value):
                row.checked(one, block=block)
                normal = sorted_frequency(str(one)) if option == "frequency" else one
                if normal in seen and isinstance(normal, str):
                    text = (
                        f"{block}.{option}: {value!r} repeats {seen[normal]!r}; give every choice"
                        " once"
                    )
                    yield Problem(here, text)
                    break
                seen[normal] = value
        except BlockError as error:
            yield Problem(here, str(error))


def _spelt_out(option: str, value: OptionValue) -> tuple[OptionValue, ...]:
    return SINGLES if option == "frequency" and value == "singles" else (value,)


def _range_problems(path: tuple[str, ...], section: Any) -> Iterator[Problem]:
    if not isinstance(section, RangeSection):
        return
    where = ".".join(path)
    low, high = section.low, section.high
    if low >= high:
        yield Problem(path, f"{where}: low is {low} and high {high}; low must be below high")
    if section.log and low <= 0:
        yield Problem(path, f"{where}: low is {low}; with log: true it must be above 0")
    whole = isinstance(low, int) and isinstance(high, int)
    if whole and isinstance(section.default, float):
        text = f"{where}: default is {section.default}, but {low} to {high} are whole numbers"
        yield Problem((*path, "default"), text)
    if section.default is not None and not low <= section.default <= high:
        text = f"{where}: default is {section.default}, outside {low} to {high}"
        yield Problem((*path, "default"), text)
    for text in range_problems(path[-1], section):
        yield Problem(path, f"{where}: {text}")


# From the checked document to the space. ---------------------------------------------------------


def _space(document: Document, data: Any, origin: _Origin) -> Space:
    attention, training = document.attention, document.training.followed()
    own = attention.type if isinstance(attention.type, dict) else {}
    content = {k: v for k, v in data.items() if k not in ("name", "question", "study")}
    return Space(
        name=document.name or origin.name,
        source=origin.source,
        text=origin.text,
        content=content,
        backbones=_choice(document.backbone),
        attention=AttentionSpace(
            blocks=Choice(tuple(_type_names(attention))),
            own={b: {o: _option_choice(o, v) for o, v in opts.items()} for b, opts in own.items()},
            shared={
                o: _option_choice(o, v) for o, v in (attention.__pydantic_extra__ or {}).items()
            },
            placements=_choice(attention.placement),
            positions=_choice(attention.position),
            stages=_choice(attention.stages),
            per_stage=attention.per_stage,
            per_unit=attention.per_unit,
            identity_start=_choice(attention.identity_start),
        ),
        training={
            name: _domain(getattr(training, name), whole=name in WHOLE_SETTINGS)
            for name in SETTINGS
        },
        objectives=dict(document.objectives),
        constraints=tuple(
            Constraint(metric, str(cap).strip()) for metric, cap in document.constraints.items()
        ),
        study=document.study.model_dump(exclude_none=True),
        question=document.question or "",
        in_file=origin.in_file,
    )


def _choice(value: Any) -> Choice:
    return Choice(tuple(value)) if isinstance(value, list) else fixed(value)


def _option_choice(option: str, values: Any) -> Choice:
    """Values of an option; ``singles`` is spelt out and explicit frequency lists are sorted."""
    listed = values if isinstance(values, list) else [values]
    spelt = [one for value in listed for one in _spelt_out(option, value)]
    if option == "frequency":
        spelt = [sorted_frequency(str(value)) for value in spelt]
    return Choice(tuple(spelt))


def _domain(value: Any, *, whole: bool) -> Domain:
    if not isinstance(value, RangeSection):
        return _choice(value)
    kind = int if whole else float
    default = None if value.default is None else kind(value.default)
    return Range(kind(value.low), kind(value.high), value.log, default)
