"""The kinds of values in a space file: numbers within bounds, names of a table, choices, ranges.

Annotations for pydantic that check a value, say what is needed where it is another, and give the
JSON Schema of what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    Tag,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from blocks.errors import listing, suggestion

LARGEST = 1e300


class Names:
    """JSON Schema of a text that is one of a table's names, read when the schema is made.

    Args:
        names: The names.
        others: Whether others are right too, so that an editor proposes these without refusing any.
    """

    def __init__(self, names: Callable[[], tuple[str, ...]], *, others: bool = False) -> None:
        self.names = names
        self.others = others

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        known: JsonSchemaValue = {"type": "string", "enum": list(self.names())}
        return {"anyOf": [known, {"type": "string"}]} if self.others else known


def one_of(kind: str, allowed: tuple[str, ...]) -> Callable[[str], str]:
    """A check that a word is one of a table's, which names the nearest where it is not."""

    def check(word: str) -> str:
        if word not in allowed:
            near = suggestion(word, allowed)
            raise ValueError(f"unknown {kind} {word!r}.{near} Allowed: {listing(allowed)}")
        return word

    return check


def needed(what: str) -> PydanticCustomError:
    """A value of another kind than ``what``, which ends in "is needed" or the like."""
    return PydanticCustomError("needed", "{what}", {"what": what})


def is_number(value: Any) -> bool:
    """Whether it is a number that fits a float: neither a flag, infinite nor none at all."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST


def distinct(values: list[Any]) -> list[Any]:
    """Refuse a list that holds a value twice."""
    seen = set()
    for value in values:
        if (type(value), value) in seen:
            raise ValueError(f"{value!r} is given twice; give every choice once")
        seen.add((type(value), value))
    return values


def short(value: Any) -> str:
    """A value in words of at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _end(value: Any) -> Any:
    if not is_number(value):
        raise needed("a finite number is needed")
    return value


End: Any = Annotated[Any, PlainValidator(_end), WithJsonSchema({"type": "number"})]


def number(what: str, *, whole: bool = False, **bounds: float) -> Any:
    """The annotation of a number within bounds, which are named as in JSON Schema."""
    low, above = bounds.get("minimum", -LARGEST), bounds.get("exclusiveMinimum", -math.inf)
    below, high = bounds.get("exclusiveMaximum", math.inf), bounds.get("maximum", LARGEST)

    def check(value: Any) -> float:
        if not (is_number(value) and low <= value <= high and above < value < below) or (
            whole and not isinstance(value, int)
        ):
            raise needed(f"{what} is needed")
        return int(value) if whole else float(value)

    schema: dict[str, Any] = {"type": "integer" if whole else "number", **bounds}
    return Annotated[int if whole else float, PlainValidator(check), WithJsonSchema(schema)]


class Section(BaseModel):
    """A mapping of a space file with known keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RangeSection(Section):
    """A range of numbers; only whole ones where the setting is a count."""

    low: End
    high: End
    log: bool = False
    default: End = None


def _setting_kind(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "range" if isinstance(value, (dict, RangeSection)) else "value"


_NOT_EMPTY = (Field(min_length=1), AfterValidator(distinct), Tag("list"))


def choices(value: Any, items: Any = None) -> Any:
    """The annotation of a setting that is a value or a list of values (or of ``items``)."""
    listed: Any = list[value] if items is None else items
    return Annotated[
        Annotated[listed, *_NOT_EMPTY] | Annotated[value, Tag("value")],
        Discriminator(lambda given: "list" if isinstance(given, list) else "value"),
    ]


def settings(item: Any) -> Any:
    """The annotation of a setting that is a value, a list of values or a range."""
    return Annotated[
        Annotated[list[item], *_NOT_EMPTY]
        | Annotated[RangeSection, Tag("range")]
        | Annotated[item, Tag("value")],
        Discriminator(_setting_kind),
    ]


PositiveInt: Any = number("a whole number from 1", whole=True, minimum=1)
Seed: Any = number("a whole number from 0", whole=True, minimum=0)
Positive: Any = number("a number above 0, such as 0.01,", exclusiveMinimum=0)
NotNegative: Any = number("a number from 0, such as 0.0005,", minimum=0)
Share: Any = number("a number from 0 to below 1", minimum=0, exclusiveMaximum=1)


def scalar(value: Any) -> Any:
    """One plain value."""
    if isinstance(value, list):
        raise needed("one value is needed")
    if not isinstance(value, (bool, int, float, str)):
        raise needed("a value or a list of values is needed")
    return value


def item(value: Any) -> Any:
    """A value in a list; the names of one composition's blocks may be a list themselves."""
    names = isinstance(value, list) and len(value) > 1 and all(isinstance(v, str) for v in value)
    return " + ".join(value) if names else scalar(value)


SCALARS = {"type": ["boolean", "number", "string"]}
_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 2}
Scalar: Any = Annotated[Any, PlainValidator(scalar), WithJsonSchema(SCALARS)]
Item: Any = Annotated[Any, PlainValidator(item), WithJsonSchema({"anyOf": [SCALARS, _NAMES]})]
