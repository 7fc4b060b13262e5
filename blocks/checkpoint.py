"""Weights that the authors of attention networks published, loaded by the renaming they need.

``blocks.published`` is the table of names. Everything else is found in the file: the backbone by
its units, classes and image channels by the shapes of its ends, the block's options by its own
shapes, FcaNet's frequencies by its stored basis. Loading is strict: a tensor that is missing, left
over or of another shape is an error.
"""

# Shape letters: C channels, H height, W width, U and V frequencies.
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from blocks import registry
from blocks.architecture import Architecture, Placement, resolve
from blocks.backbone import backbone, site_table
from blocks.build import build_network
from blocks.errors import BackboneError, CheckpointError, listing, suggestion
from blocks.fca import dct_basis
from blocks.frequency import GRID, frequency_text, scaled_index, shortest_equal
from blocks.options import OptionValue
from blocks.published import INNER, SHORTCUTS, Published, Rename, backbone_of, recognise
from blocks.residual import Residual
from blocks.site import IN_BLOCK, STAGE, Site, SiteTable

State = Mapping[str, Tensor]

BATCH_COUNTER = "num_batches_tracked"
SHOWN_NAMES = 6
ORTHONORMAL_WITHIN = 1e-3
BASIS_WITHIN = 1e-5


@dataclass(frozen=True)
class Renamed:
    """How many tensors of a pattern there were, and what became of them.

    Args:
        theirs: The pattern in the file.
        ours: The pattern here; of a block alone it begins with the placement. Empty: not kept.
        tensors: How many.
        reason: Why they were not kept.
    """

    theirs: str
    ours: str
    tensors: int
    reason: str = ""


@dataclass(frozen=True)
class Loaded:
    """A published network with its weights, and how it came about.

    Args:
        network: Ready for images of the architecture's size; in evaluation mode.
        architecture: What it is.
        published: The row of the table by which it was loaded.
        num_classes: Outputs.
        in_channels: Channels of the images.
        names: What became of the file's tensors.
        counters_added: Norms' counters of batches that the file did not have, set to 0.
    """

    network: nn.Module
    architecture: Architecture
    published: Published
    num_classes: int
    in_channels: int
    names: tuple[Renamed, ...]
    counters_added: int


Where = tuple[int, int]  # stage from 1, unit from 1 (0: behind the stage)


@dataclass
class _Sorted:
    """The tensors of a file: of the plain backbone, and of each block under its names here."""

    plain: dict[str, Tensor] = field(default_factory=dict)
    blocks: dict[Where, dict[str, Tensor]] = field(default_factory=dict)
    derived: dict[Where, Tensor] = field(default_factory=dict)
    counts: Counter[Rename] = field(default_factory=Counter)
    unknown: dict[str, Tensor] = field(default_factory=dict)


def load_published(
    state: State,
    block: str,
    *,
    options: Mapping[str, OptionValue] | None = None,
    input_size: tuple[int, int] | None = None,
) -> Loaded:
    """Build the network that a file of published weights is of, and load it.

    Args:
        state: Tensors by the authors' names, as ``blocks.weight_file.read_state`` gives them.
        block: The attention block, by its name here.
        options: Options of the block that the file does not say, or that should be other ones.
        input_size: (height, width) of the images; left out, what the network was published with.

    Raises:
        CheckpointError: The file is of another network, or tensors are missing, left over or of
            another shape.
        BlockError: The block or an option is unknown or has a value that it cannot take.
        SiteError: The block cannot stand at one of the maps at this input size.
    """
    given = dict(options or {})
    published = recognise(state, block)
    registry.spec(block).complete(given)
    found = _sorted(state, published)
    name = backbone_of({key: tuple(tensor.shape) for key, tensor in found.plain.items()})
    found.plain = {_plain_name(key, name): tensor for key, tensor in found.plain.items()}
    classes, channels = _ends(found.plain)
    height, width = input_size or ((32, 32) if backbone(name).small else (224, 224))
    sites = site_table(name, (channels, height, width), classes)
    places = _places(sites, published)
    placements = tuple(
        Placement(site.name, block, tuple(_options_at(found, where, published, given).items()))
        for where, site in places.items()
    )
    architecture = resolve(Architecture(name, placements), sites)
    with torch.device("meta"):
        network = build_network(architecture, num_classes=classes, in_channels=channels)
    added = _load(network, found, places)
    for where, basis_CHW in found.derived.items():
        _check_basis(network.get_submodule(f"{places[where].path}.attention"), basis_CHW, where)
    names = tuple(_renamed(rename, published, count) for rename, count in found.counts.items())
    return Loaded(network.eval(), architecture, published, classes, channels, names, added)


def _sorted(state: State, published: Published) -> _Sorted:
    found = _Sorted()
    for name, tensor in state.items():
        for rename in published.renames:
            fields = rename.fields(name)
            if fields is not None:
                _put(found, rename, dict(fields), tensor)
                break
        else:
            found.unknown[name] = tensor
    return found


def _put(found: _Sorted, rename: Rename, fields: dict[str, str], tensor: Tensor) -> None:
    found.counts[rename] += 1
    ours = rename.ours.format(**fields)
    if not rename.attention:
        found.plain[ours] = tensor
        return
    where = (int(fields["S"]), int(fields["U"]) + 1 if "U" in fields else 0)
    if rename.derived:
        found.derived[where] = tensor
    else:
        found.blocks.setdefault(where, {})[ours] = tensor


def _plain_name(name: str, backbone_name: str) -> str:
    shortcut = SHORTCUTS.get(backbone_name, "downsample")
    return name.replace(".downsample.", f".{shortcut}.")


def _ends(plain: State) -> tuple[int, int]:
    """Classes and image channels."""
    for name, dimensions in (("fc.weight", 2), ("conv1.weight", 4)):
        if name not in plain or plain[name].dim() != dimensions:
            raise CheckpointError(
                f"{name} with {dimensions} dimensions is missing, so that classes and channels of"
                " the images are not known"
            )
    return plain["fc.weight"].shape[0], plain["conv1.weight"].shape[1]


def _places(sites: SiteTable, published: Published) -> dict[Where, Site]:
    """Every site at which this network has a block.

    Raises:
        BackboneError: The backbone has no such sites.
    """
    group = f"{IN_BLOCK}.{INNER}" if published.place == INNER else published.place
    places = {
        (site.stage, 0 if site.placement == STAGE else site.unit): site
        for site in sites.sites
        if site.answers_to(group)
    }
    if not places:
        positions = sites.positions
        raise BackboneError(
            f"{published.title} ({published.source}) has its blocks between a unit's 3x3"
            f" convolution and its norm, where {sites.backbone} has no sites (positions in units:"
            f" {listing(positions)}); at another place the weights would be of another function"
        )
    return places


def _options_at(
    found: _Sorted, where: Where, published: Published, given: Mapping[str, OptionValue]
) -> dict[str, OptionValue]:
    """The options of the block at a place: as its tensors say, else as they are given."""
    shapes = {name: tuple(t.shape) for name, t in found.blocks.get(where, {}).items()}
    options = published.options(shapes)
    if where in found.derived:
        options |= stored_frequency(found.derived[where])
    return options | dict(given)


def stored_frequency(basis_CHW: Tensor) -> dict[str, OptionValue]:
    """FcaNet's options ``frequency`` and ``dct_size``, read off the basis that a file holds.

    Raises:
        CheckpointError: It is no DCT basis, or not one of a square map.
    """
    height, width = basis_CHW.shape[1:]
    if height != width:
        raise CheckpointError(f"the stored basis is of {height} x {width}; a square one is needed")
    rows_UH = torch.stack([dct_basis(scaled_index(u, height), height) for u in range(GRID)])
    products_CUV = torch.einsum("chw,uh,vw->cuv", basis_CHW.double(), rows_UH, rows_UH)
    largest_C, index_C = products_CUV.flatten(1).max(dim=1)
    if (largest_C - 1).abs().max() > ORTHONORMAL_WITHIN:
        raise CheckpointError(
            "the stored basis is not one of the DCT (the authors' learned and random ones are not"
            " either); no frequency builds it"
        )
    pairs = tuple(divmod(int(index), GRID) for index in index_C)
    return {"frequency": frequency_text(shortest_equal(pairs)), "dct_size": height}


def _check_basis(block: nn.Module, basis_CHW: Tensor, where: Where) -> None:
    """Compare the basis that the file holds with the one that the block computes.

    Raises:
        CheckpointError: They differ.
    """
    block = block.block if isinstance(block, Residual) else block
    computed_CHW = block.bases(basis_CHW[None].float())  # type: ignore[operator]
    difference = float((computed_CHW - basis_CHW).abs().max())
    if difference > BASIS_WITHIN:
        kept = stored_frequency(basis_CHW)["frequency"]
        raise CheckpointError(
            f"stage {where[0]}, unit {where[1]}: the file's DCT basis is of frequency {kept} and"
            f" differs by {difference:.3g} from the block's; give no frequency, or this one"
        )


def _load(network: nn.Module, found: _Sorted, places: Mapping[Where, Site]) -> int:
    """Give the network its weights; how many counters of batches were added.

    Raises:
        CheckpointError: Tensors are missing, left over or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    renamed = {_attached(name, places.values()): t for name, t in found.plain.items()}
    for where, tensors in found.blocks.items():
        if where not in places:
            found.unknown |= {
                f"stage {where[0]}, unit {where[1]}: {n}": t for n, t in tensors.items()
            }
            continue
        prefix = _block_prefix(network, places[where])
        renamed |= {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
    counters = [n for n in wanted if n.endswith(BATCH_COUNTER) and n not in renamed]
    renamed |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
    fitted = {name: _fitted(tensor, wanted.get(name)) for name, tensor in renamed.items()}
    check_names(wanted, fitted, found.unknown)
    network.load_state_dict(fitted, strict=True, assign=True)
    return len(counters)


def _attached(name: str, sites: Iterable[Site]) -> str:
    """The name of a plain backbone's tensor where blocks are attached: hosts are a level deeper."""
    for site in sites:
        if name.startswith(f"{site.path}."):
            return f"{site.path}.host{name[len(site.path) :]}"
    return name


def _block_prefix(network: nn.Module, site: Site) -> str:
    path = f"{site.path}.attention"
    return f"{path}.block" if isinstance(network.get_submodule(path), Residual) else path


def _fitted(tensor: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """A copy in float32; a 1x1 convolution's weights as a linear layer's, and the other way."""
    kept = tensor.detach().clone()
    if kept.is_floating_point():
        kept = kept.float()
    if shape is not None and _without_ones(tuple(kept.shape)) == _without_ones(shape):
        return kept.reshape(shape)
    return kept


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def check_names(wanted: Mapping[str, tuple[int, ...]], given: State, unknown: State) -> None:
    """Compare a network's tensors with those that are there for it.

    Args:
        wanted: The network's shapes by name.
        given: Tensors by names as the network has them.
        unknown: Tensors of other names.

    Raises:
        CheckpointError: Some are missing, left over or of another shape; with the first of each.
    """
    left_over = {name: given[name] for name in given.keys() - wanted.keys()} | dict(unknown)
    missing = [name for name in wanted if name not in given]
    misshapen = [n for n in wanted if n in given and tuple(given[n].shape) != wanted[n]]
    if not (missing or left_over or misshapen):
        return
    lines = [f"missing: {n} {wanted[n]}{suggestion(n, left_over)}" for n in missing[:SHOWN_NAMES]]
    lines += [f"left over: {n} {_shape(left_over[n])}" for n in sorted(left_over)[:SHOWN_NAMES]]
    lines += [
        f"of another shape: {n} is {_shape(given[n])}, and {wanted[n]} is needed"
        for n in misshapen[:SHOWN_NAMES]
    ]
    counts = (
        f"{len(missing)} missing, {len(left_over)} left over, {len(misshapen)} of another shape"
    )
    raise CheckpointError("\n  ".join([f"the weights do not fit: {counts}", *lines]))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _renamed(rename: Rename, published: Published, count: int) -> Renamed:
    if rename.derived:
        return Renamed(rename.theirs, "", count, rename.derived)
    ours = f"{published.place}: {rename.ours}" if rename.attention else rename.ours
    return Renamed(rename.theirs, ours, count)
