"""The words of a space file for where blocks go: placements, several at once, positions, stages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, PlainValidator, StrictStr, WithJsonSchema

from blocks.site import PLACEMENTS, POSITIONS
from spaces.values import Names, needed, one_of

JOIN = " + "
ALL_STAGES = "all"
STAGE_NUMBER = re.compile(r"[1-9][0-9]?")


def _several(kind: str, allowed: tuple[str, ...]) -> Callable[[str], str]:
    """Words joined by plus signs, in the order of those allowed."""
    known = one_of(kind, allowed)

    def check(text: str) -> str:
        words = [known(word.strip()) for word in text.split("+")]
        if len(set(words)) < len(words):
            raise ValueError(f"{text!r} names one twice; name each once")
        return JOIN.join(sorted(words, key=allowed.index))

    return check


def stage_mask(value: Any) -> str:
    """Stages that get blocks: ``all``, a number, numbers joined by plus signs or in a list."""
    given = value if isinstance(value, list) else str(value).split("+")
    texts = [str(number).strip() for number in given]
    if texts == [ALL_STAGES]:
        return ALL_STAGES
    if isinstance(value, bool) or not all(STAGE_NUMBER.fullmatch(text) for text in texts):
        raise ValueError(f"{value!r} is no choice of stages: all, 4, '3 + 4', or [3, 4] in a list")
    if len(set(texts)) < len(texts):
        raise ValueError(f"{value!r} names a stage twice; name each once")
    return JOIN.join(sorted(texts, key=int))


def placement_words(value: Any) -> str:
    """One placement, or several joined by plus signs or in a list."""
    if isinstance(value, list):
        value = JOIN.join(str(word) for word in value)
    if not isinstance(value, str):
        raise needed("text is needed")
    return _several("placement", PLACEMENTS)(value)


_WORD = f"({'|'.join(PLACEMENTS)})"
_PLACES = {"type": "string", "pattern": f"^{_WORD}( *[+] *{_WORD})*$"}
_PLACE_LIST = {"type": "array", "items": {"type": "string", "enum": list(PLACEMENTS)}}
_MASK = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^(all|[0-9 +]+)$"}]
}
_STAGE_LIST = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
PlacementName: Any = Annotated[str, PlainValidator(placement_words), WithJsonSchema(_PLACES)]
PlacementItem: Any = Annotated[
    str, PlainValidator(placement_words), WithJsonSchema({"anyOf": [_PLACES, _PLACE_LIST]})
]
Mask: Any = Annotated[str, PlainValidator(stage_mask), WithJsonSchema(_MASK)]
MaskItem: Any = Annotated[
    str, PlainValidator(stage_mask), WithJsonSchema({"anyOf": [*_MASK["anyOf"], _STAGE_LIST]})
]
PositionName = Annotated[
    StrictStr, AfterValidator(one_of("position", POSITIONS)), Names(lambda: POSITIONS)
]
