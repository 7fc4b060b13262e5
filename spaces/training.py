"""How a candidate is trained: the settings, and what of them is identity.

Every setting is a field of ``Training`` with the value that leaves it off. What has no say beside
the others (the milestones of another schedule, the momentum of an optimiser without one) goes back
to that value, so that equal trainings are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from blocks.architecture import Architecture
from blocks.plain import Settled

NOTHING, NORMS, BACKBONE = "none", "norms", "backbone"
FREEZES = (NOTHING, NORMS, BACKBONE)
SGD = "sgd"
COSINE, LINEAR, POLYNOMIAL, TANH, STEP, CONSTANT = (
    *("cosine", "linear", "polynomial", "tanh"),
    *("step", "constant"),
)
SCHEDULES = (COSINE, LINEAR, POLYNOMIAL, TANH, STEP, CONSTANT)
FLIPS = (NOTHING, "random", "alternating")
ALL, WEIGHTS = "all", "weights"
DECAYED = (ALL, WEIGHTS)
AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
PRECISIONS = (AUTO, FLOAT32, BFLOAT16)
JOIN = " + "

# timm's names (timm.optim.list_optimizers). Left out: those that need a package or an NVIDIA
# library of their own (bnb*, fused*), second-order ones (adahessian, kron*), twins of others
# (nesterov is sgd; *legacy), and the variants with corrected decay (*c). The value says whether
# ``momentum`` has a say: the others have moments of their own.
OPTIMIZERS = {
    **dict.fromkeys(("sgd", "momentum", "sgdw", "sgdp"), True),
    **dict.fromkeys(("adam", "adamw", "nadam", "nadamw", "radam", "radamw", "adamax"), False),
    **dict.fromkeys(("adamp", "adabelief", "radabelief", "adan", "adanw", "adopt"), False),
    **dict.fromkeys(("adoptw", "adafactor", "adagrad", "adadelta"), False),
    **dict.fromkeys(("lamb", "lambw", "lion", "laprop", "mars", "novograd"), False),
    **dict.fromkeys(("cadamw", "clion", "clamb", "claprop", "cmars", "cnadamw"), False),
    **dict.fromkeys(("adafactorbv", "lars", "larc", "madgrad", "madgradw"), True),
    **dict.fromkeys(("muon", "nmuon", "adamuon", "rmsprop", "rmsproptf"), True),
}


@dataclass(frozen=True)
class Training:
    """How a candidate is trained.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step; an incomplete last batch of an epoch is left out.
        learning_rate: The largest of the schedule.
        momentum: Of optimisers that have one.
        weight_decay: Strength of the decay, as the optimiser defines it.
        label_smoothing: Share of the target spread over all classes.
        pretrained: Where the backbone's weights start: "timm:TAG", or "sha256:" and the hash of a
            checkpoint file (``blocks.weight_source``); empty: drawn.
        freeze: What is not trained: "none"; "norms": the backbone's batch norms; "backbone": all
            but the attention blocks, their identity gates and the classifier. Frozen batch norms
            stay in evaluation mode, so that their running statistics stay too.
        attention_learning_rate: Of the parameters of attention blocks, as a multiple of
            ``learning_rate``.
        optimizer: timm's name of it; "sgd" has Nesterov momentum, "momentum" the classical one.
        schedule: How the learning rate falls, step by step: "cosine", "linear", "polynomial"
            (power 0.5), "tanh", "step" (at ``milestones``), or "constant".
        warmup: Share of the training in which the learning rate rises from 0 to the whole,
            before the schedule begins.
        final_learning_rate: Where a schedule that falls smoothly ends, as a multiple of
            ``learning_rate``.
        milestones: Shares of the training after which "step" lowers the rate: "0.5 + 0.75".
        milestone_decay: What the rate is multiplied by at each milestone.
        reference_batch: ``learning_rate`` is meant for batches of this size, and is scaled in
            proportion to ``batch_size`` (Goyal et al. 2017, arXiv:1706.02677, section 2.1);
            0: it is meant as it is.
        decayed: What ``weight_decay`` acts on: "all" parameters, or "weights" (not biases, norms
            and other parameters of one dimension).
        clip_gradient: Largest norm of the whole gradient; 0: not clipped.
        weight_average: Decay, per step, of an exponential moving average of the weights, which is
            evaluated in their place; it begins fast (decay 1 - (1 + step)^(-2/3) where that is
            less). 0: none.
        mixup: alpha of Beta(alpha, alpha), from which the share of a second image is drawn for
            every batch (Zhang et al. 2018, arXiv:1710.09412); 0: off.
        cutmix: The same for the area of a patch of a second image (Yun et al. 2019,
            arXiv:1905.04899); with both, each batch takes one of them, evenly.
        crop: Black pixels put around an image before a part of its own size is cut out at random.
        resized_crop: Smallest share of the area that is cut out and resized to the whole, at an
            aspect ratio from 3/4 to 4/3 (Szegedy et al. 2015, arXiv:1409.4842); 0: off.
        flip: Whether images are mirrored left to right: "none", "random" (half of them), or
            "alternating" (each in every second epoch, beginning at random).
        cutout: Side of a square, in pixels, that is set to the mean (DeVries and Taylor 2017,
            arXiv:1708.04552); 0: off.
        rand_augment: "OPERATIONSxMAGNITUDE", such as "2x9" of 30 (Cubuk et al. 2020,
            arXiv:1909.13719), drawn for every image; "none": off.
        precision: Of the network's arithmetic: "float32", "bfloat16" (autocast), or "auto":
            bfloat16 on GPUs that have it, float32 elsewhere. Weights stay in float32.
        input_size: Side that images are resized to; 0: their own. It is part of the architecture
            and of the data once a candidate is made, and 0 here.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    pretrained: str = ""
    freeze: str = NOTHING
    attention_learning_rate: float = 1.0
    optimizer: str = SGD
    schedule: str = COSINE
    warmup: float = 0.0
    final_learning_rate: float = 0.0
    milestones: str = "0.5 + 0.75"
    milestone_decay: float = 0.1
    reference_batch: int = 0
    decayed: str = ALL
    clip_gradient: float = 0.0
    weight_average: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop: int = 0
    resized_crop: float = 0.0
    flip: str = NOTHING
    cutout: int = 0
    rand_augment: str = NOTHING
    precision: str = AUTO
    input_size: int = 0

    def __post_init__(self) -> None:
        # One number has one spelling, 1 and 1.0 alike, or equal trainings had two digests.
        given = vars(self)
        for name, kind in KINDS:
            if type(given[name]) is not kind:
                object.__setattr__(self, name, kind(given[name]))

    def of(self, architecture: Architecture) -> Training:
        """The same without what has no say in the training of this network."""
        off: dict[str, Any] = {"input_size": 0, "reference_batch": 0}
        if self.reference_batch:
            scale = self.batch_size / self.reference_batch
            off["learning_rate"] = self.learning_rate * scale
        if not architecture.placements:
            off["attention_learning_rate"] = 1.0
        if not OPTIMIZERS[self.optimizer]:
            off["momentum"] = DEFAULTS["momentum"]
        if self.schedule != STEP:
            off |= {name: DEFAULTS[name] for name in ("milestones", "milestone_decay")}
        if self.schedule in (STEP, CONSTANT):
            off["final_learning_rate"] = 0.0
        if not self.weight_decay:
            off["decayed"] = ALL
        given = vars(self)
        if all(given[name] == value for name, value in off.items()):
            return self
        return replace(self, **off)

    def to_json(self) -> dict[str, Any]:
        """As plain data; settings of later versions are left out while they are off.

        What an earlier version stored is then equal to what this one gives.
        """
        return dict(self.content)

    @cached_property
    def content(self) -> Settled:
        """The same, as data that is not to be changed."""
        given = vars(self)
        return Settled(
            (name, given[name])
            for name, default in DEFAULTS.items()
            if name not in LATER or given[name] != default
        )

    def identity(self) -> dict[str, Any]:
        """What of it enters the digest.

        Settings that are off are left out: one that a later version adds, off by default, then
        leaves the digests of stored results as they were.
        """
        content = {"optimizer": "sgd-nesterov", "schedule": "cosine"} | self.content
        if not self.label_smoothing:
            del content["label_smoothing"]
        return content

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Training:
        """Read what ``to_json`` wrote."""
        return cls(**{name: data[name] for name in DEFAULTS if name in data})


FIRST = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "label_smoothing")
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Training)}
KINDS: list[tuple[str, Any]] = [(name, type(default)) for name, default in DEFAULTS.items()]
LATER = frozenset(DEFAULTS) - set(FIRST)


def milestones(text: str) -> tuple[float, ...]:
    """The shares that a text such as "0.5 + 0.75" names, in their order.

    Raises:
        ValueError: It is no such text, or a share is not between 0 and 1.
    """
    shares = tuple(sorted(float(part) for part in text.split("+")))
    if not all(0 < share < 1 for share in shares):
        raise ValueError("a milestone lies between 0 and 1, the beginning and end of the training")
    return shares


def operations(text: str) -> tuple[int, int]:
    """(operations, magnitude) of a text such as "2x9".

    Raises:
        ValueError: It is no such text, or out of the ranges 1 to 8 and 0 to 30.
    """
    count, _, magnitude = text.partition("x")
    if not (1 <= int(count) <= 8 and 0 <= int(magnitude) <= 30):
        raise ValueError("1 to 8 operations, and a magnitude from 0 to 30")
    return int(count), int(magnitude)
