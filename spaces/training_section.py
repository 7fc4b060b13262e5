"""The section ``training`` of a space file: every setting with its bounds, fixed or searched."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, StrictStr, WithJsonSchema

from blocks.weight_source import TAG, is_file
from spaces.recipes import RECIPES
from spaces.training import (
    CONSTANT,
    DECAYED,
    FLIPS,
    FREEZES,
    NOTHING,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    STEP,
    milestones,
    operations,
)
from spaces.values import (
    Names,
    NotNegative,
    Positive,
    PositiveInt,
    RangeSection,
    Section,
    Seed,
    Share,
    choices,
    needed,
    number,
    one_of,
    settings,
    short,
)

MILESTONES = re.compile(r"[0-9.]+( *[+] *[0-9.]+)*")
OPERATIONS = re.compile(r"[0-9]+x[0-9]+")


def _pretrained(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value.strip():
        raise needed("true, false, a tag of timm's or the path of a checkpoint file is needed")
    if not is_file(value) and not TAG.fullmatch(value):
        raise ValueError(
            f"{value!r} is neither a tag of timm's, such as a1_in1k, nor a file; a file's name ends"
            " in .safetensors, .pth or the like"
        )
    return value


def _milestones(value: Any) -> str:
    """Shares of the training, joined by plus signs or a single number, in their order."""
    text = str(value) if isinstance(value, (int, float, str)) else ""
    try:
        if isinstance(value, bool) or not MILESTONES.fullmatch(text):
            raise ValueError("a share is a number between 0 and 1")
        shares = milestones(text)
    except ValueError as error:
        raise ValueError(
            f"{short(value)} is no choice of milestones: 0.5, or '0.5 + 0.75' ({error})"
        ) from None
    return " + ".join(f"{share:g}" for share in shares)


def _operations(value: Any) -> str:
    """``none``, or operations and magnitude."""
    if value == NOTHING:
        return NOTHING
    try:
        if not isinstance(value, str) or not OPERATIONS.fullmatch(value):
            raise ValueError("1 to 8 operations, and a magnitude from 0 to 30")
        return "{}x{}".format(*operations(value))
    except ValueError as error:
        raise ValueError(
            f"{short(value)} is no RandAugment: none, or '2x9' (operations x magnitude; {error})"
        ) from None


def _word(kind: str, allowed: tuple[str, ...]) -> Any:
    """The annotation of a word of a table."""
    return Annotated[StrictStr, AfterValidator(one_of(kind, allowed)), Names(lambda: allowed)]


FreezeName = _word("freeze", FREEZES)
OptimizerName = _word("optimizer", tuple(OPTIMIZERS))
ScheduleName = _word("schedule", SCHEDULES)
FlipName = _word("flip", FLIPS)
DecayedName = _word("choice of what decays", DECAYED)
PrecisionName = _word("precision", PRECISIONS)
RecipeName = Annotated[
    StrictStr, AfterValidator(one_of("recipe", tuple(RECIPES))), Names(lambda: tuple(RECIPES))
]
Pretrained: Any = Annotated[
    Any, PlainValidator(_pretrained), WithJsonSchema({"type": ["boolean", "string"]})
]
Milestones: Any = Annotated[
    str, PlainValidator(_milestones), WithJsonSchema({"type": ["number", "string"]})
]
Operations: Any = Annotated[
    str,
    PlainValidator(_operations),
    WithJsonSchema({"type": "string", "pattern": f"^(none|{OPERATIONS.pattern})$"}),
]
UpToOne: Any = number("a number from 0 to 1", minimum=0, maximum=1)


class TrainingSection(Section):
    """How candidates are trained; lists and ranges are searched."""

    recipe: RecipeName | None = Field(
        default=None, description="A published recipe; the keys beside it win over its settings."
    )
    epochs: PositiveInt = Field(default=12, description="Passes over the training images.")
    batch_size: settings(PositiveInt) = Field(  # type: ignore[valid-type]
        default=64, description="Images per step."
    )
    learning_rate: settings(Positive) = Field(  # type: ignore[valid-type]
        default=0.1, description="The largest of the schedule."
    )
    momentum: settings(Share) = Field(  # type: ignore[valid-type]
        default=0.9, description="Of optimisers that have one."
    )
    weight_decay: settings(NotNegative) = Field(  # type: ignore[valid-type]
        default=5e-4, description="As the optimiser defines it."
    )
    label_smoothing: settings(Share) = Field(  # type: ignore[valid-type]
        default=0.0, description="Share of the target spread over all classes."
    )
    pretrained: choices(Pretrained) = Field(  # type: ignore[valid-type]
        default=False, description="The backbone's weights: timm's (true, or a tag), or a file's."
    )
    freeze: choices(FreezeName) = Field(  # type: ignore[valid-type]
        default="none", description="What is not trained."
    )
    attention_learning_rate: settings(Positive) = Field(  # type: ignore[valid-type]
        default=1.0, description="Of attention blocks, as a multiple of learning_rate."
    )
    optimizer: choices(OptimizerName) = Field(  # type: ignore[valid-type]
        default="sgd", description="timm's name of it; sgd has Nesterov momentum."
    )
    schedule: choices(ScheduleName) = Field(  # type: ignore[valid-type]
        default="cosine", description="How the learning rate falls, step by step."
    )
    warmup: settings(Share) = Field(  # type: ignore[valid-type]
        default=0.0, description="Share of the training in which the learning rate rises."
    )
    final_learning_rate: settings(Share) = Field(  # type: ignore[valid-type]
        default=0.0, description="Where a smooth schedule ends, as a multiple of learning_rate."
    )
    milestones: choices(Milestones) = Field(  # type: ignore[valid-type]
        default="0.5 + 0.75", description="Shares of the training after which step lowers the rate."
    )
    milestone_decay: settings(UpToOne) = Field(  # type: ignore[valid-type]
        default=0.1, description="What the rate is multiplied by at each milestone."
    )
    reference_batch: Seed = Field(
        default=0, description="Batch that learning_rate is meant for, scaled to batch_size; 0: no."
    )
    decayed: choices(DecayedName) = Field(  # type: ignore[valid-type]
        default="all", description="What weight_decay acts on: all, or weights (no biases, norms)."
    )
    clip_gradient: settings(NotNegative) = Field(  # type: ignore[valid-type]
        default=0.0, description="Largest norm of the gradient; 0: not clipped."
    )
    weight_average: settings(Share) = Field(  # type: ignore[valid-type]
        default=0.0, description="Decay per step of the weights' moving average; 0: none."
    )
    mixup: settings(NotNegative) = Field(  # type: ignore[valid-type]
        default=0.0, description="alpha of mixup; 0: off."
    )
    cutmix: settings(NotNegative) = Field(  # type: ignore[valid-type]
        default=0.0, description="alpha of CutMix; 0: off."
    )
    crop: settings(Seed) = Field(  # type: ignore[valid-type]
        default=0, description="Black pixels around an image, of which a part is cut out."
    )
    resized_crop: settings(UpToOne) = Field(  # type: ignore[valid-type]
        default=0.0, description="Smallest share of the area cut out and resized; 0: off."
    )
    flip: choices(FlipName) = Field(  # type: ignore[valid-type]
        default="none", description="Whether images are mirrored left to right."
    )
    cutout: settings(Seed) = Field(  # type: ignore[valid-type]
        default=0, description="Side of a square set to the mean, in pixels; 0: off."
    )
    rand_augment: choices(Operations) = Field(  # type: ignore[valid-type]
        default="none", description="RandAugment: operations x magnitude (of 30), such as 2x9."
    )
    precision: choices(PrecisionName) = Field(  # type: ignore[valid-type]
        default="auto", description="Of the arithmetic; auto: bfloat16 on GPUs that have it."
    )
    input_size: choices(Seed) = Field(  # type: ignore[valid-type]
        default=0, description="Side that images are resized to; 0: their own."
    )

    def followed(self) -> TrainingSection:
        """The same with what its recipe says of every key that the file does not give."""
        if self.recipe is None:
            return self
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "learning_rate" in given:
            given.setdefault("reference_batch", 0)  # a rate that the file gives is meant as it is
        return type(self).model_construct(**{**RECIPES[self.recipe].settings, **given})


WHOLE_SETTINGS = ("batch_size", "crop", "cutout")
UP_TO_ONE = ("milestone_decay", "resized_crop")
SHARES = (
    *("momentum", "label_smoothing", "warmup", "final_learning_rate", "weight_average"),
    *UP_TO_ONE,
)
SETTINGS = tuple(name for name in TrainingSection.model_fields if name != "recipe")

# Setting -> (the setting that decides whether it has a say, its values with which it has).
_NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "momentum": ("optimizer", lambda name: OPTIMIZERS[name]),
    "milestones": ("schedule", lambda name: name == STEP),
    "milestone_decay": ("schedule", lambda name: name == STEP),
    "final_learning_rate": ("schedule", lambda name: name not in (STEP, CONSTANT)),
}


def idle_settings(
    section: TrainingSection, changed: Collection[tuple[str, ...]]
) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong) of every setting that the file gives and that changes nothing.

    Args:
        section: As the file gives it.
        changed: Paths that ``--set`` has changed: it may leave settings of the file idle.
    """
    whole = section.followed()
    for name, (decider, has_a_say) in _NEEDS.items():
        chosen = getattr(whole, decider)
        values = chosen if isinstance(chosen, list) else [chosen]
        idle = name in section.model_fields_set and not any(has_a_say(value) for value in values)
        if idle and ("training", decider) not in changed:
            given = ", ".join(map(str, values))
            yield name, f"{name} changes nothing with {decider} {given}; take it out"


def range_problems(name: str, section: RangeSection) -> Iterator[str]:
    """What is wrong with a setting's range, beyond what holds for every range."""
    low, high = section.low, section.high
    whole = isinstance(low, int) and isinstance(high, int)
    least = 1 if name == "batch_size" else 0
    if name in WHOLE_SETTINGS and not (whole and low >= least):
        yield f"low and high must be whole numbers from {least}"
    elif name in UP_TO_ONE and not (low >= 0 and high <= 1):
        yield f"{low} to {high} must lie in 0 to 1"
    elif name in SHARES and name not in UP_TO_ONE and not (low >= 0 and high < 1):
        yield f"{low} to {high} must lie in 0 to below 1"
    elif name in ("learning_rate", "attention_learning_rate") and low <= 0:
        yield f"low is {low}; it must be above 0"
    elif low < 0:
        yield f"low is {low}; it must be 0 or above"
