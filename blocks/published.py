"""How the authors of attention networks name their weights, and what those are called here.

A table of facts: for every published classification network with code, each pattern of names and
its name here, what is derived and not kept, and what no option here can build and is refused. Read
in the authors' code, at the repositories that each row names. ``blocks.checkpoint`` loads files by
it. No torch.

In patterns {S} is a stage, {U} a unit counted from 0, {N} a layer, {P} a tensor of a layer (weight,
bias, running_mean, running_var, num_batches_tracked).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from blocks import registry
from blocks.errors import CheckpointError, listing, suggestion
from blocks.options import OptionValue
from blocks.site import IN_BLOCK, STAGE

INNER = "inner"

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Fields = Mapping[str, str]

_FIELDS = {
    "{S}": r"(?P<S>[1-9])",
    "{U}": r"(?P<U>\d+)",
    "{N}": r"(?P<N>\d)",
    "{P}": r"(?P<P>weight|bias|running_mean|running_var|num_batches_tracked)",
}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\{", "{").replace(r"\}", "}")
    for field, expression in _FIELDS.items():
        first, *others = text.split(field)
        if others:
            text = first + expression + f"(?P={field[1]})".join(others)
    return re.compile(text)


@dataclass(frozen=True)
class Rename:
    """Names of one pattern.

    Args:
        theirs: The authors' pattern.
        ours: The pattern here: of the plain backbone, or with ``attention`` of the block alone.
        attention: Whether it belongs to the attention block of its unit or stage.
        derived: Why it is not kept; empty where it is.
        mark: Whether no other network has such names, although it belongs to the backbone.
    """

    theirs: str
    ours: str = ""
    attention: bool = False
    derived: str = ""
    mark: bool = False

    def fields(self, name: str) -> Fields | None:
        """What the fields of the pattern are in a name; None where it does not match."""
        match = _compiled(self.theirs).fullmatch(name)
        return None if match is None else match.groupdict()


Reader = Callable[[Shapes], dict[str, OptionValue]]


def _nothing(shapes: Shapes) -> dict[str, OptionValue]:
    return {}


@dataclass(frozen=True)
class Published:
    """A network that its authors published.

    Args:
        block: The attention block's name here.
        title: What the network is called.
        source: The repository with its code.
        place: Where its blocks are: "in-block", "stage", or "inner", between convolution and norm.
        renames: All of its names.
        options: Reads the block's options off the shapes of one block's tensors, named as here.
        note: What one should know, for the report.
        refused: Why its weights cannot be loaded; empty where they can.
    """

    block: str
    title: str
    source: str
    place: str
    renames: tuple[Rename, ...]
    options: Reader = _nothing
    note: str = ""
    refused: str = ""

    def marks(self, names: Iterable[str]) -> int:
        """How many names are of this network's attention, as no other network has them."""
        marking = [rename for rename in self.renames if rename.attention or rename.mark]
        return sum(any(r.fields(name) is not None for r in marking) for name in names)


def _reduction(shapes: Shapes) -> dict[str, OptionValue]:
    if "squeeze.weight" not in shapes:
        return {}
    hidden, channels = shapes["squeeze.weight"][:2]
    return {"reduction": max(1, channels // max(1, hidden))}


def _se_options(shapes: Shapes) -> dict[str, OptionValue]:
    return {**_reduction(shapes), "bias": "squeeze.bias" in shapes}


def _cbam_options(shapes: Shapes) -> dict[str, OptionValue]:
    return {
        **_reduction(shapes),
        **_side("kernel_size", shapes, "spatial.weight"),
        "norm": "norm.weight" in shapes,
    }


def _triplet_options(shapes: Shapes) -> dict[str, OptionValue]:
    return {**_side("kernel_size", shapes, "cw.conv.weight"), "spatial": "hw.conv.weight" in shapes}


def _eca_options(shapes: Shapes) -> dict[str, OptionValue]:
    return _side("kernel_size", shapes, "conv.weight")


def _side(option: str, shapes: Shapes, name: str) -> dict[str, OptionValue]:
    return {option: shapes[name][-1]} if name in shapes else {}


def _attention(prefix: str, names: Mapping[str, str]) -> tuple[Rename, ...]:
    """Renamings of a block: from its names here to the authors', which stand behind a prefix."""
    return tuple(
        Rename(f"{prefix}.{theirs}", ours, attention=True) for ours, theirs in names.items()
    )


UNIT = "layer{S}.{U}"

# Names of torchvision's ResNets, from which most authors started; timm's are the same.
_TORCHVISION = (
    Rename("conv1.weight", "conv1.weight"),
    Rename("bn1.{P}", "bn1.{P}"),
    Rename(f"{UNIT}.conv{{N}}.weight", f"{UNIT}.conv{{N}}.weight"),
    Rename(f"{UNIT}.bn{{N}}.{{P}}", f"{UNIT}.bn{{N}}.{{P}}"),
    Rename("fc.{P}", "fc.{P}"),
)
_SHORTCUT = (Rename(f"{UNIT}.downsample.{{N}}.{{P}}", f"{UNIT}.downsample.{{N}}.{{P}}"),)
_RESNET = (*_TORCHVISION, *_SHORTCUT)

_MEGVII_UNIT = "layer{S}.layer{S}_block_{U}"
_MEGVII = (
    Rename("conv1.weight", "conv1.weight"),
    Rename("bn1.{P}", "bn1.{P}"),
    Rename(f"{_MEGVII_UNIT}.conv_conv{{N}}.weight", f"{UNIT}.conv{{N}}.weight"),
    Rename(f"{_MEGVII_UNIT}.bn_bn{{N}}.{{P}}", f"{UNIT}.bn{{N}}.{{P}}"),
    Rename(f"{_MEGVII_UNIT}.shortcut.shortcut_conv.weight", f"{UNIT}.downsample.0.weight"),
    Rename(f"{_MEGVII_UNIT}.shortcut.shortcut_bn.{{P}}", f"{UNIT}.downsample.1.{{P}}"),
    Rename("fc.{P}", "fc.{P}"),
    *_attention(
        _MEGVII_UNIT, {"squeeze.{P}": "fc_reduction.{P}", "excite.{P}": "fc_extention.{P}"}
    ),
)

_LAYERS = {"squeeze.{P}": "fc.0.{P}", "excite.{P}": "fc.2.{P}"}
_PLANES = {"cw": "ChannelGateH", "hc": "ChannelGateW", "hw": "SpatialGate"}

PUBLISHED: tuple[Published, ...] = (
    Published(
        "se",
        "SE-ResNet",
        "moskomule/senet.pytorch",
        IN_BLOCK,
        (*_RESNET, *_attention(f"{UNIT}.se", _LAYERS)),
        _se_options,
    ),
    Published(
        "se",
        "SE-ResNet of the Caffe models",
        "Cadene/pretrained-models.pytorch",
        IN_BLOCK,
        (Rename(f"{UNIT}.se_module.fc{{N}}.{{P}}", attention=True),),
        refused="its stride is in the first 1x1 convolution of a unit and its max-pool has no"
        " padding, where the backbones here have the stride in the 3x3 and padding: the shapes"
        " would fit, but not the function",
    ),
    Published(
        "eca",
        "ECA-Net",
        "BangguWu/ECANet",
        IN_BLOCK,
        (*_RESNET, *_attention(f"{UNIT}.eca", {"conv.weight": "conv.weight"})),
        _eca_options,
        note="kernels are read off the weights, stage by stage; the released networks have other"
        " ones than the paper's formula",
    ),
    Published(
        "fca",
        "FcaNet",
        "cfzd/FcaNet",
        IN_BLOCK,
        (
            *_RESNET,
            *_attention(f"{UNIT}.att", _LAYERS),
            Rename(
                f"{UNIT}.att.dct_layer.weight",
                "basis",
                attention=True,
                derived="the DCT basis, compared with the one computed here and then left out",
            ),
        ),
        _reduction,
        note="frequencies are read off the stored basis, its first axis vertical; files without"
        " one are taken to be top16, as in the authors' code, unless frequency is given",
    ),
    Published(
        "simam",
        "SimAM ResNet",
        "ZjjConan/SimAM",
        INNER,
        (*_RESNET, Rename(f"{UNIT}.conv2.0.weight", f"{UNIT}.conv2.weight", mark=True)),
        note="the files do not say lambda: the authors' ImageNet runs had energy_lambda=0.1",
    ),
    Published(
        "cbam",
        "ResNet with CBAM",
        "Jongchan/attention-module",
        IN_BLOCK,
        (
            *_RESNET,
            *_attention(
                f"{UNIT}.cbam",
                {
                    "squeeze.{P}": "ChannelGate.mlp.1.{P}",
                    "excite.{P}": "ChannelGate.mlp.3.{P}",
                    "spatial.weight": "SpatialGate.spatial.conv.weight",
                    "norm.{P}": "SpatialGate.spatial.bn.{P}",
                },
            ),
        ),
        _cbam_options,
    ),
    Published(
        "cbam",
        "CNNtention's ResNet-20 with CBAM",
        "AttentionSeekers/CNNtention",
        STAGE,
        (
            Rename("att{S}.channel_attention.mlp.{N}.{P}", attention=True),
            Rename("att{S}.spatial_attention.conv.{P}", attention=True),
        ),
        refused="its two layers have no biases, and its spatial convolution has one and no norm,"
        " which no option of cbam builds",
    ),
    Published(
        "triplet",
        "ResNet with triplet attention",
        "landskape-ai/triplet-attention",
        IN_BLOCK,
        (
            *_RESNET,
            *(
                rename
                for ours, theirs in _PLANES.items()
                for rename in _attention(
                    f"{UNIT}.triplet_attention",
                    {
                        f"{ours}.conv.weight": f"{theirs}.spatial.conv.weight",
                        f"{ours}.norm.{{P}}": f"{theirs}.spatial.bn.{{P}}",
                    },
                )
            ),
            # The newer module of the same repository.
            *(
                rename
                for branch in _PLANES
                for rename in _attention(
                    f"{UNIT}.triplet_attention.{branch}.conv",
                    {
                        f"{branch}.conv.weight": "conv.weight",
                        f"{branch}.norm.{{P}}": "bn.{P}",
                    },
                )
            ),
        ),
        _triplet_options,
    ),
    Published(
        "spse",
        "SPSE-ResNet",
        "megvii-research/RG-SENet_SP-SENet",
        IN_BLOCK,
        (
            *_MEGVII,
            *_attention(
                _MEGVII_UNIT,
                {
                    "fuse.0.{P}": "fc_spatial1.{P}",
                    "fuse.1.{P}": "fc_spatial2.{P}",
                    "fuse.2.{P}": "fc_spatial4.{P}",
                    "norm.{P}": "fc_bn.{P}",
                },
            ),
        ),
        _reduction,
    ),
    Published(
        "rgse",
        "RGSE-ResNet",
        "megvii-research/RG-SENet_SP-SENet",
        IN_BLOCK,
        (
            *_MEGVII,
            *_attention(
                _MEGVII_UNIT,
                {
                    "fuse.weight": "fc_spatial.fc_spatial.weight",
                    "norm.{P}": "fc_spatial.bn_spatial.{P}",
                },
            ),
        ),
        _reduction,
    ),
    Published(
        "selfatt",
        "CNNtention's ResNet-20 with self-attention",
        "AttentionSeekers/CNNtention",
        STAGE,
        (
            *_TORCHVISION,
            *_attention(
                "att{S}",
                {
                    "query.{P}": "query.{P}",
                    "key.{P}": "key.{P}",
                    "value.{P}": "value.{P}",
                    "gamma": "weights",
                },
            ),
        ),
    ),
    Published(
        "mha",
        "CNNtention's ResNet-20 with multi-head attention",
        "AttentionSeekers/CNNtention",
        STAGE,
        (
            *_TORCHVISION,
            *_attention(
                "att{S}",
                {
                    "key.{P}": "query.{P}",
                    "query.{P}": "key.{P}",
                    "value.{P}": "val.{P}",
                    "output.{P}": "linear.{P}",
                    "gamma": "weights",
                },
            ),
        ),
        note="query and key are exchanged: in the authors' code every pixel is indexed by its key"
        " and attends over queries; the files do not say the number of heads, which was 8",
    ),
)

_NO_CODE = "its authors published no code"
_NOT_CLASSIFIED = "its authors' network segments images, and is no backbone here"
WITHOUT = {
    **dict.fromkeys(("tripse1", "tripse2", "tripse3", "tripse4"), _NO_CODE),
    **dict.fromkeys(("cse", "sse", "scse"), _NOT_CLASSIFIED),
    **dict.fromkeys(("parallel", "sequential"), "a composition has no weights of its own authors"),
    "coord": "its authors' network is a MobileNetV2, which is no backbone here",
}

# The plain name of a shortcut's layers where it is not that of torchvision.
SHORTCUTS = {"resnet20-b": "shortcut"}
_KINDS = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
    ("basic", (3, 3, 3)): "resnet20",
}


def published_as(block: str) -> tuple[Published, ...]:
    """The rows of a block.

    Raises:
        BlockError: There is no such block.
        CheckpointError: None of its networks was published with code that is known here.
    """
    if block != registry.NONE:
        registry.spec(block)
    rows = tuple(row for row in PUBLISHED if row.block == block)
    if not rows:
        known = listing(dict.fromkeys(row.block for row in PUBLISHED))
        why = WITHOUT.get(block, "no published network of it is known here")
        raise CheckpointError(f"--as {block}: {why}. Blocks with published weights: {known}")
    return rows


def recognise(names: Iterable[str], block: str) -> Published:
    """The published network of a block that has these names.

    Raises:
        BlockError: There is no such block.
        CheckpointError: The names are those of another network, or its weights cannot be loaded.
    """
    names = tuple(names)
    rows = published_as(block)
    found = max(rows, key=lambda row: row.marks(names))
    other = max(PUBLISHED, key=lambda row: row.marks(names))
    if other.marks(names) > found.marks(names):
        raise CheckpointError(
            f"the attention in the file is named as in {other.title} ({other.source}), not as in"
            f" {rows[0].title} ({rows[0].source}): --as {other.block}, not --as {block}"
        )
    if not found.marks(names):
        raise CheckpointError(_unrecognised(names, rows[0]))
    if found.refused:
        raise CheckpointError(f"{found.title} ({found.source}) cannot be loaded: {found.refused}")
    return found


def _unrecognised(names: tuple[str, ...], expected: Published) -> str:
    patterns = [r.theirs for r in expected.renames if r.attention or r.mark]
    return (
        f"the file holds no attention named as in {expected.title} ({expected.source}), such as"
        f" {patterns[0]}.{suggestion(patterns[0], names)} It has {len(names)} tensors:"
        f" {listing(names[:4])}, ..."
    )


def backbone_of(plain: Shapes) -> str:
    """The backbone with tensors of these names (those of the plain backbone) and shapes.

    Raises:
        CheckpointError: It is none of those that are known.
    """
    units: dict[int, set[int]] = {}
    for name in plain:
        match = re.match(r"layer(\d)\.(\d+)\.conv1\.", name)
        if match:
            units.setdefault(int(match[1]), set()).add(int(match[2]))
    depth = tuple(len(units[stage]) for stage in sorted(units))
    kind = "bottleneck" if any(re.search(r"\.conv3\.", name) for name in plain) else "basic"
    if (kind, depth) not in _KINDS:
        known = listing(f"{name} ({k}, {d})" for (k, d), name in _KINDS.items())
        raise CheckpointError(
            f"no backbone has {depth} units per stage of the kind {kind!r}; known: {known}"
        )
    found = _KINDS[kind, depth]
    projected = any(".downsample." in name for name in plain)
    return "resnet20-b" if found == "resnet20" and projected else found
