"""Trained weights of a backbone: of timm, by tag, or of a checkpoint file.

Names are the backbone's own and loading is strict. Three things alone may differ from the file: the
classifier, which is left out where it has another size; the attention that was taken out of a
"-plain" backbone; and the channels of the images, to which the first convolution is adapted by
timm's rule (one channel: the sum over the file's; more: the file's again and again, scaled by their
number over the new one). Everything else is kept bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from blocks.backbone import backbone
from blocks.build import MadeFor
from blocks.checkpoint import BATCH_COUNTER, check_names
from blocks.errors import CheckpointError, listing, suggestion
from blocks.own_attention import Removed
from blocks.weight_file import read_state
from blocks.weight_source import FILE, TIMM, file_identity, is_file

State = Mapping[str, Tensor]
FIRST_CONVOLUTION = 4  # dimensions of its weights
CURE = "give a checkpoint file (pretrained: FILE)"


@dataclass(frozen=True)
class Fitted:
    """Tensors as a network needs them.

    Args:
        tensors: By the network's names.
        left_out: Those of a classifier of another size, with their shapes.
        adapted: Those that were made for other channels of the images, with their shapes.
        counters: Norms' counters of batches that there were not, at 0.
        taken_out: The tensors of attention that the backbone has without "-plain".
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_out: dict[str, tuple[int, ...]] = field(default_factory=dict)
    adapted: dict[str, tuple[int, ...]] = field(default_factory=dict)
    counters: int = 0
    taken_out: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not as it was, in words."""
        notes = []
        if self.left_out:
            notes.append(f"left out: the classifier, {_shown(self.left_out)}; a new one is drawn")
        if self.adapted:
            notes.append(f"adapted to the images' channels: {_shown(self.adapted)}")
        if self.counters:
            notes.append(f"{self.counters} counters of batches, which the file does not have: 0")
        if self.taken_out:
            notes.append(
                f"left out: the attention that was taken out, {len(self.taken_out)} tensors"
            )
        return tuple(notes)


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return listing(f"{name} {shape}" for name, shape in shapes.items())


@lru_cache(maxsize=64)
def classifier_tensors(made_for: MadeFor) -> frozenset[str]:
    """The names of a backbone's tensors whose shapes depend on the number of classes."""
    return _differing(made_for, classes=made_for.classes + 1)


@lru_cache(maxsize=64)
def _image_tensors(made_for: MadeFor) -> frozenset[str]:
    """The names of a backbone's tensors whose shapes depend on the channels of the images."""
    channels, *size = made_for.shape
    return _differing(made_for, shape=(channels + 1, size[0], size[1]))


def _differing(
    made_for: MadeFor, *, classes: int | None = None, shape: tuple[int, int, int] | None = None
) -> frozenset[str]:
    as_is = _shapes(made_for)
    other = _shapes(
        MadeFor(made_for.backbone, classes or made_for.classes, shape or made_for.shape)
    )
    return frozenset(name for name, dimensions in as_is.items() if other.get(name) != dimensions)


def meta_network(made_for: MadeFor) -> nn.Module:
    """A backbone without numbers."""
    channels, height, width = made_for.shape
    with torch.device("meta"):
        return backbone(made_for.backbone).build(made_for.classes, channels, (height, width))


def _shapes(made_for: MadeFor) -> dict[str, tuple[int, ...]]:
    return {n: tuple(t.shape) for n, t in meta_network(made_for).state_dict().items()}


# Reading. ---------------------------------------------------------------------------------------


def read_weights(source: bool | str, made_for: MadeFor) -> State:
    """A backbone's weights, as spaces name them.

    Args:
        source: True (timm's default ones), a tag of timm's or the path of a file.
        made_for: What the backbone is built for.

    Raises:
        CheckpointError: There are no such weights, or they cannot be read.
    """
    if isinstance(source, str) and is_file(source):
        return read_state(Path(source).expanduser())
    return _timm_weights(timm_tag(source, made_for), made_for)


def read_identified(identity: str, path: str, made_for: MadeFor) -> State:
    """A backbone's weights by their identity.

    Args:
        identity: As ``Training.pretrained`` has it.
        path: Of the file, where they are of one.
        made_for: What the backbone is built for.

    Raises:
        CheckpointError: The file is not what it was, or the weights cannot be read.
    """
    if identity.startswith(TIMM):
        return _timm_weights(identity.removeprefix(TIMM), made_for)
    if not path:
        raise CheckpointError(
            f"weights with the checksum {identity} are wanted, of which the space names no file;"
            " name it in training.pretrained"
        )
    found = file_identity(path)
    if found != identity:
        raise CheckpointError(
            f"{path} has changed since the study was planned: its checksum is"
            f" {found.removeprefix(FILE)[:12]}..., and was {identity.removeprefix(FILE)[:12]}...;"
            " put the former file back, or start a new study with this one"
        )
    return read_state(path)


def timm_tag(given: bool | str, made_for: MadeFor) -> str:
    """The tag of timm's weights that is meant: the default one, or the one that is given.

    Raises:
        CheckpointError: The backbone is none of timm's, or has no such weights there.
    """
    from timm.models import list_pretrained

    model = _timm_model(made_for)
    tags = [name.partition(".")[2] for name in list_pretrained(f"{model}.*")]
    if not tags:
        raise CheckpointError(f"timm has no weights for {model}; {CURE}")
    if isinstance(given, str):
        if given not in tags:
            raise CheckpointError(
                f"timm has no weights {given!r} for {model}.{suggestion(given, tags)} Tags:"
                f" {listing(tags)}"
            )
        return given
    from timm.models import get_pretrained_cfg

    default = get_pretrained_cfg(model)
    return str(default.tag) if default is not None and default.tag in tags else tags[0]


def _timm_model(made_for: MadeFor) -> str:
    """The name of a backbone in timm."""
    settings = getattr(meta_network(made_for), "pretrained_cfg", None) or {}
    model = settings.get("architecture")
    if not model:
        raise CheckpointError(f"{made_for.backbone} is none of timm's models; {CURE}")
    return str(model)


def _timm_weights(tag: str, made_for: MadeFor) -> State:
    """The weights of a tag, adapted by timm to channels and, where it must be, to size.

    Raises:
        CheckpointError: They cannot be had.
    """
    import timm

    model = _timm_model(made_for)
    channels, *size = made_for.shape
    patches = getattr(meta_network(made_for), "patch_embed", None)
    sized = {"img_size": tuple(size)} if getattr(patches, "img_size", None) else {}
    try:
        with torch.random.fork_rng(devices=[]):  # what timm draws at first is nobody's chance
            network: nn.Module = timm.create_model(
                f"{model}.{tag}", pretrained=True, in_chans=channels, **sized
            )
    except Exception as error:  # timm's, the hub's, the network's and the disk's kinds are many
        line = str(error).splitlines()[0] if str(error) else ""
        raise CheckpointError(
            f"timm's weights {model}.{tag} cannot be had ({type(error).__name__}: {line}). They are"
            " downloaded on first use and kept in the hub's cache: run once where there is a"
            f" network and copy the cache (HF_HOME), or {CURE}"
        ) from error
    return network.state_dict()


# Fitting and loading. ----------------------------------------------------------------------------


def load_backbone(network: nn.Module, state: State, made_for: MadeFor) -> Fitted:
    """Give a backbone, without blocks in it, its weights.

    Raises:
        CheckpointError: They are not this backbone's: every tensor's name, as far as they fit on
            a screen.
    """
    fitted = fit(network, state, made_for)
    kept = {n: t for n, t in network.state_dict().items() if n not in fitted.tensors}
    network.load_state_dict({**kept, **fitted.tensors}, strict=True)
    return fitted


def fit(network: nn.Module, state: State, made_for: MadeFor) -> Fitted:
    """Bring weights into a backbone's shapes, where that is allowed.

    Raises:
        CheckpointError: A tensor is missing, left over or of another shape.
    """
    removed = tuple(f"{path}." for path, m in network.named_modules() if isinstance(m, Removed))
    taken_out = tuple(name for name in state if name.startswith(removed))
    state = {name: tensor for name, tensor in state.items() if name not in taken_out}
    wanted = network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    fitted = Fitted(dict(state))
    other = [n for n in shapes if n in state and tuple(state[n].shape) != shapes[n]]
    left_out = classifier_tensors(made_for) if other else frozenset()
    if any(name in left_out for name in other):
        for name in [n for n in shapes if n in left_out]:
            del shapes[name]
            if name in state:
                fitted.left_out[name] = tuple(fitted.tensors.pop(name).shape)
    for name in other:
        if name in shapes and name in _image_tensors(made_for):
            fitted.tensors[name] = _adapted(name, state[name], shapes[name], made_for.shape[0])
            fitted.adapted[name] = tuple(state[name].shape)
    counters = [n for n in shapes if n.endswith(BATCH_COUNTER) and n not in state]
    fitted.tensors.update({name: torch.zeros((), dtype=torch.int64) for name in counters})
    check_names(shapes, fitted.tensors, {})
    for name, tensor in fitted.tensors.items():
        _check_kept(name, tensor, wanted[name].dtype)
    return Fitted(fitted.tensors, fitted.left_out, fitted.adapted, len(counters), taken_out)


def _adapted(name: str, weight: Tensor, shape: tuple[int, ...], channels: int) -> Tensor:
    """The first convolution's weights for images of another number of channels, by timm's rule.

    Raises:
        CheckpointError: The rule does not give the shape that is needed.
    """
    from timm.models import adapt_input_conv

    folded = max(1, shape[1] // channels) if len(shape) == FIRST_CONVOLUTION else 1
    try:
        adapted: Tensor = adapt_input_conv(channels, weight, base_chans=weight.shape[1] // folded)
    except (NotImplementedError, AssertionError, ValueError, IndexError):
        return weight  # of another shape, which is said with all others
    return adapted if tuple(adapted.shape) == shape else weight


def _check_kept(name: str, tensor: Tensor, kind: torch.dtype) -> None:
    """Refuse a tensor whose numbers the network cannot hold as they are."""
    if tensor.dtype == kind:
        return
    there_and_back = tensor.to(kind).to(tensor.dtype)
    if not torch.equal(there_and_back.nan_to_num(), tensor.nan_to_num()):
        raise CheckpointError(
            f"{name} is {tensor.dtype} and would be rounded in the network's {kind}; save it as"
            f" {kind}"
        )
