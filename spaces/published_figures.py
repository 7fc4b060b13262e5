"""Accuracies that authors published of networks that can be built here, with where each stands.

Every row is a figure read in the source that it names, never one from memory: the authors' own
repository, its README or its logs. A row says what the network is by its placements, so that a
candidate is matched by what it is and not by what its study is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blocks.architecture import Architecture, Placement, resolve
from blocks.errors import ToolError
from blocks.options import OptionValue
from blocks.site import SiteTable

ACCURACY, ERROR = "accuracy", "error"
IMAGENET = "imagenet"
STANDARD, EXPANDED, INNER, AFTER_STAGES = (
    *("in-block", "in-block.expanded"),
    *("in-block.inner", "stage"),
)


@dataclass(frozen=True)
class PublishedFigure:
    """One published accuracy or error of a network with attention.

    Args:
        paper: Short name, with its arXiv identifier where it has one.
        source: Where the figure was read.
        data: The data set, as ``--data`` names it, or "imagenet".
        backbone: The backbone, by its name here.
        placements: The blocks, as an architecture has them.
        value: The figure, in percent.
        baseline: The same of no attention in the same source; None: it gives none.
        measure: "accuracy" or "error", both top-1.
        epochs: Of the training; 0: not known here.
        differs: In what its network is not the one that is built here; empty: in nothing known.
        note: What should be known of its training.
    """

    paper: str
    source: str
    data: str
    backbone: str
    placements: tuple[Placement, ...]
    value: float
    baseline: float | None = None
    measure: str = ACCURACY
    epochs: int = 0
    differs: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """How much more of the images are right with attention, as a share of all."""
        if self.baseline is None:
            return None
        more = self.value - self.baseline
        return round(more if self.measure == ACCURACY else -more, 6) / 100

    @property
    def blocks(self) -> frozenset[str]:
        """The names of its blocks."""
        return frozenset(placement.block for placement in self.placements)

    def is_of(self, architecture: Architecture, sites: SiteTable) -> bool:
        """Whether a resolved architecture has just this attention, in whatever backbone it is.

        Args:
            architecture: Resolved.
            sites: Of its backbone at its input.
        """
        try:
            wanted = resolve(Architecture(architecture.backbone, self.placements), sites)
        except ToolError:  # this backbone has no such site, or the block cannot stand there
            return False
        return wanted.placements == architecture.placements

    def __str__(self) -> str:
        words = [self._words(placement) for placement in self.placements]
        return f"{self.backbone} + {' + '.join(words)}"

    @staticmethod
    def _words(placement: Placement) -> str:
        options = [f"{name}={value}" for name, value in placement.options]
        return " ".join([placement.block, placement.site, *options])


def _one(site: str, block: str, **options: OptionValue) -> tuple[Placement, ...]:
    return (Placement(site, block, tuple(options.items())),)


def _rows(
    common: Mapping[str, object], *rows: tuple[str, tuple[Placement, ...], float, float | None]
) -> tuple[PublishedFigure, ...]:
    """Rows of one source: (backbone, placements, figure, that of no attention)."""
    return tuple(
        PublishedFigure(backbone=name, placements=placed, value=value, baseline=base, **common)  # type: ignore[arg-type]
        for name, placed, value, base in rows
    )


_CNNTENTION = {
    "paper": "CNNtention",
    "source": "logs in github.com/AttentionSeekers/CNNtention (commit 8b9f7085)",
    "data": "cifar10",
    "note": "its runs stopped early by the test error, each network at a rate of its own, the"
    " baseline by another optimiser; one run each",
}
_CNNTENTION_UNTUNED = {
    **_CNNTENTION,
    "paper": "CNNtention, untuned runs",
    "epochs": 182,
    "note": "Adam at 0.005 for 182 epochs, no early stopping; the baseline by SGD at 0.1; one run"
    " each",
}
_COORDINATE = {
    "paper": "Coordinate attention, 2103.02907",
    "source": "README of github.com/houqb/CoordAttention (commit 7619bea9)",
    "data": IMAGENET,
}
_CBAM = {
    "paper": "CBAM, 1807.06521",
    "source": "README of github.com/Jongchan/attention-module (commit 459efad0)",
    "data": IMAGENET,
    "note": "of the weights that its authors published",
}
_POOLING = {
    "paper": "SPSE and RGSE, Pattern Recognition 121 (2022) 108159",
    "source": "README of github.com/megvii-research/RG-SENet_SP-SENet (commit 49b6ed20)",
    "data": IMAGENET,
    "measure": ERROR,
    "epochs": 100,
}
_FCANET = {
    "paper": "FcaNet, 2012.11879",
    "source": "README of github.com/cfzd/FcaNet (commit aa5fb635)",
    "data": IMAGENET,
    "epochs": 100,
}
_SIMAM = {
    "paper": "SimAM, ICML 2021",
    "source": "README of github.com/ZjjConan/SimAM (commit ae98f43a)",
    "data": IMAGENET,
}
_TRIPLET = {
    "paper": "Triplet attention, 2010.03045",
    "source": "README of github.com/landskape-ai/triplet-attention (commit 2cf02fb9)",
    "data": IMAGENET,
    "measure": ERROR,
}
_ECA = {
    "paper": "ECA-Net, 1910.03151",
    "source": "README of github.com/BangguWu/ECANet (commit 01195a71)",
    "data": IMAGENET,
}
_SENET = {
    "paper": "SENet, 1709.01507",
    "source": "README of github.com/hujie-frank/SENet (commit 0262d43d)",
    "data": IMAGENET,
    "measure": ERROR,
    "differs": "its ResNet has the stride in the first convolution of a unit",
}
_SENET_PYTORCH = {
    "paper": "SENet, 1709.01507, in PyTorch",
    "source": "README of github.com/moskomule/senet.pytorch (commit 07bd9fdf)",
    "data": IMAGENET,
    "note": "its figure without attention is of another training, torchvision's",
}

_K3557 = tuple(
    Placement(f"stage{stage}.in-block", "eca", {"kernel_size": size})  # type: ignore[arg-type]
    for stage, size in enumerate((3, 5, 5, 7), start=1)
)

FIGURES: tuple[PublishedFigure, ...] = (
    *_rows(
        _CNNTENTION,
        ("resnet20", _one(AFTER_STAGES, "selfatt"), 91.44, 90.96),
        ("resnet20", _one(AFTER_STAGES, "mha", heads=8), 91.06, 90.96),
    ),
    *_rows(
        {**_CNNTENTION, "differs": "its CBAM has other biases"},
        (
            "resnet20",
            _one(AFTER_STAGES, "cbam", reduction=16, norm=False, residual=True),
            91.32,
            90.96,
        ),
        (
            "resnet20",
            _one(AFTER_STAGES, "cbam", reduction=8, norm=False, residual=True),
            88.51,
            90.96,
        ),
    ),
    *_rows(
        _CNNTENTION_UNTUNED,
        ("resnet20", _one(AFTER_STAGES, "selfatt"), 91.48, 90.96),
        ("resnet20", _one(AFTER_STAGES, "mha", heads=8), 91.29, 90.96),
    ),
    *_rows(
        _COORDINATE,
        ("mobilenetv2_100", _one(EXPANDED, "se", reduction=24, bias=True), 73.5, 72.3),
        ("mobilenetv2_100", _one(EXPANDED, "cbam", reduction=24), 73.6, 72.3),
        ("mobilenetv2_100", _one(EXPANDED, "coord", reduction=32), 74.3, 72.3),
    ),
    *_rows(
        _POOLING,
        ("resnet50", _one(STANDARD, "se", reduction=16, bias=True), 23.21, 24.48),
        ("resnet50", _one(STANDARD, "cbam", reduction=16), 22.65, 24.48),
        ("resnet50", _one(STANDARD, "spse", reduction=16), 22.40, 24.48),
        ("resnet50", _one(STANDARD, "rgse", reduction=16), 22.27, 24.48),
    ),
    *_rows(
        _FCANET,
        ("resnet34", _one(STANDARD, "fca", frequency="top16", reduction=16), 75.07, None),
        ("resnet50", _one(STANDARD, "fca", frequency="top16", reduction=16), 78.52, None),
        ("resnet101", _one(STANDARD, "fca", frequency="top16", reduction=16), 79.64, None),
        ("resnet152", _one(STANDARD, "fca", frequency="top16", reduction=16), 80.08, None),
    ),
    *_rows(
        _SIMAM,
        ("resnet18", _one(INNER, "simam", energy_lambda=0.1), 71.31, None),
        ("resnet34", _one(INNER, "simam", energy_lambda=0.1), 74.49, None),
        ("resnet50", _one(INNER, "simam", energy_lambda=0.1), 77.45, None),
        ("resnet101", _one(INNER, "simam", energy_lambda=0.1), 78.65, None),
        ("resnext50_32x4d", _one(INNER, "simam", energy_lambda=0.1), 78.00, None),
        ("mobilenetv2_100", _one(INNER, "simam", energy_lambda=0.1), 72.36, None),
    ),
    *_rows(
        _TRIPLET,
        ("resnet18", _one(STANDARD, "triplet", kernel_size=7), 28.91, None),
        ("resnet50", _one(STANDARD, "triplet", kernel_size=7), 22.52, None),
        ("resnet50", _one(STANDARD, "triplet", kernel_size=3), 23.88, None),
        ("mobilenetv2_100", _one(STANDARD, "triplet", kernel_size=3), 27.38, None),
        ("mobilenetv2_100", _one(STANDARD, "triplet", kernel_size=7), 28.01, None),
    ),
    *_rows(_CBAM, ("resnet50", _one(STANDARD, "cbam", reduction=16), 77.622, None)),
    *_rows(_ECA, ("resnet50", _K3557, 77.48, None)),
    *_rows(_SENET, ("resnet50", _one(STANDARD, "se", reduction=16, bias=True), 22.37, None)),
    *_rows(_SENET_PYTORCH, ("resnet50", _one(STANDARD, "se", reduction=16), 77.06, 76.15)),
)


@dataclass(frozen=True)
class UnreadTable:
    """Published figures that are not among ``FIGURES``: no source that could be checked has them.

    Args:
        paper: Short name, with its arXiv identifier.
        what: The tables.
        blocks: Its blocks.
        placement: Where they stand there, "stage" or "in-block".
        data: Its data set, as ``--data`` names it, or "imagenet".
    """

    paper: str
    what: str
    blocks: frozenset[str]
    placement: str
    data: str

    def __str__(self) -> str:
        return (
            f"{self.paper}: its {self.what} on {self.data} cannot be set beside ours, because no"
            " source of them that could be checked is known here"
        )


UNREAD: tuple[UnreadTable, ...] = (
    UnreadTable(
        "TripSE, 2505.05943",
        "accuracies of TripSE1 to TripSE4",
        frozenset({"tripse1", "tripse2", "tripse3", "tripse4"}),
        "stage",
        "cifar100",
    ),
    UnreadTable(
        "SENet, 1709.01507",
        "tables of reduction ratios, of positions in the unit and of stages",
        frozenset({"se"}),
        "in-block",
        IMAGENET,
    ),
    UnreadTable(
        "FcaNet, 2012.11879",
        "tables of single frequencies, of sets of other sizes and of its searched frequencies",
        frozenset({"fca"}),
        "in-block",
        IMAGENET,
    ),
)
