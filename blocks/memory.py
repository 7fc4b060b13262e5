"""What a network keeps in memory for each image, measured without running a number.

Three figures, in bytes of float32 maps for one image:

``kept``
    What the forward pass of training keeps for the backward pass: the storages of all tensors that
    autograd saves, each once, however many operators and views share it.
``training_peak``
    The most that is alive at one moment of a forward and backward pass: what is kept, the maps in
    between and the gradients of maps.
``inference_peak``
    The most that is alive at one moment of a forward pass in evaluation without gradients.

The image itself counts where it is alive or kept. A moment is the end of an operator: what it
returned is there and what it was given is still there; memory that a kernel takes and gives back
meanwhile is not seen. What does not depend on the number of images is left out: parameters with
their gradients and the optimiser's state, buffers, statistics of norms, bases of the DCT. So is the
loss. A batch of B images therefore takes exactly B times ``kept`` and, beside these, at most B
times the peaks.

Operators run on tensors that claim to be on the CPU but have no numbers, so that every block takes
the way that it takes in training, with its own gradients, and fused attention stays fused. Each
measurement runs batches of 2 and 3 images: one image's bytes are the difference, moment by moment
(a norm cannot train on one number). An architecture is measured faster: its backbone once per
input size and each block once per map (``kept_bytes``), equal to building and measuring it.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blocks import registry
from blocks.architecture import Architecture, Options, Placement
from blocks.attach import attach
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.errors import BlockError
from blocks.identity import IdentityStart
from blocks.options import MapShape
from blocks.parts import Clock, End
from blocks.site import Site, SiteTable

BATCHES = (2, 3)


@dataclass(frozen=True)
class Memory:
    """Bytes that one image takes, in float32.

    Args:
        kept: Kept by a training's forward pass for the backward pass.
        training_peak: At most alive at once in a forward and backward pass.
        inference_peak: At most alive at once in a forward pass without gradients.
    """

    kept: int
    training_peak: int
    inference_peak: int


@dataclass(frozen=True)
class PartMemory:
    """Bytes that one image takes in one part of a network, in float32.

    Args:
        kept: Kept for the backward pass by what runs in the part.
        inference_peak: At most alive at once while the part runs without gradients.
    """

    kept: int = 0
    inference_peak: int = 0


def measure_memory(network: nn.Module, input_shape: tuple[int, int, int]) -> Memory:
    """Measure what a network keeps in memory for each image.

    Args:
        network: Any network of images; it is copied, not changed.
        input_shape: (channels, height, width) of one image.

    Raises:
        BlockError: The network runs other operators for 3 images than for 2.
    """
    train = [_train_step(network, input_shape, batch) for batch in BATCHES]
    evaluate = [_evaluation(network, input_shape, batch) for batch in BATCHES]
    return Memory(
        kept=sum(size for _, size in _kept_per_image(*train)),
        training_peak=max(size for _, size in _alive_per_image(*train)),
        inference_peak=max(size for _, size in _alive_per_image(*evaluate)),
    )


def measure_kept(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """``Memory.kept`` alone, in a third of the time; arguments as in ``measure_memory``.

    Raises:
        BlockError: The network runs other operators for 3 images than for 2.
    """
    passes = [_train_step(network, input_shape, b, backward=False) for b in BATCHES]
    return sum(size for _, size in _kept_per_image(*passes))


def memory_by_part(
    network: nn.Module, input_shape: tuple[int, int, int], ends: Sequence[End] = ()
) -> dict[str, PartMemory]:
    """Measure each stage and each block by itself.

    ``kept`` adds up to that of ``measure_memory``, of which the largest ``inference_peak`` is that.
    A map that several parts keep counts in the first of them.

    Args:
        network: Any network of images; it is copied, not changed.
        input_shape: (channels, height, width) of one image.
        ends: Where its stages end (``blocks.parts``); left out, the backbone is one part, "head".

    Returns:
        By the part's name, a block's being "block at SITE", in the order in which they run.

    Raises:
        BlockError: The network runs other operators for 3 images than for 2.
    """
    train = [_train_step(network, input_shape, b, ends, backward=False) for b in BATCHES]
    evaluate = [_evaluation(network, input_shape, batch, ends) for batch in BATCHES]
    parts = dict.fromkeys(train[0].clock.parts, PartMemory())
    for part, size in _kept_per_image(*train):
        parts[part] = PartMemory(parts[part].kept + size)
    for part, size in _alive_per_image(*evaluate):
        parts[part] = PartMemory(parts[part].kept, max(parts[part].inference_peak, size))
    return parts


# Measuring one pass. -----------------------------------------------------------------------------


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps account of storages: which are alive after each operator, which autograd keeps.

    Args:
        clock: Says to which part of the network a moment belongs.
        own: Storages of the network itself, which do not count.
    """

    def __init__(self, clock: Clock, own: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.clock = clock
        self.own = own
        self.alive = 0
        self.moments: list[tuple[str, int]] = []
        self.kept: dict[int, tuple[str, int]] = {}
        self._saved: dict[int, tuple[str, int]] = {}
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._born(leaf.untyped_storage())
        self.moments.append((self.clock.part, self.alive))
        return result

    def _born(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self.own:
            return

        def died(_: Any) -> None:
            self.alive -= size
            del self._known[key]
            self._saved.pop(key, None)

        self.alive += size
        self._known[key] = weakref.ref(storage, died)

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Note what autograd keeps of the operators in this context."""

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.own:
                self._saved.setdefault(storage._cdata, (self.clock.part, storage.nbytes()))
            return tensor

        with saved_tensors_hooks(note, lambda kept: kept):
            yield
        self.kept = dict(self._saved)


def _without_numbers(network: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy whose parameters and buffers claim to be on the CPU and have no storage."""
    copied = copy.deepcopy(network).to("meta")
    made: dict[int, Tensor] = {}

    def claimed(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            plain = FakeTensor(mode, tensor.detach(), torch.device("cpu"))
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = (
                nn.Parameter(plain, requires_grad=tensor.requires_grad) if is_parameter else plain
            )
        return made[id(tensor)]

    for module in copied.modules():
        for group in (module._parameters, module._buffers):
            for name, tensor in group.items():
                if tensor is not None:
                    group[name] = claimed(tensor)  # type: ignore[assignment]
    return copied


@contextmanager
def _ledger(network: nn.Module, ends: Sequence[End] = ()) -> Iterator[tuple[nn.Module, _Ledger]]:
    """A copy of a network without numbers, and the account of what is done in this context.

    Python's collector of cycles rests meanwhile: it would free maps at moments of its own.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    copied = _without_numbers(network, mode)
    clock = Clock(ends)
    clock.watch(copied)
    tensors = (*copied.parameters(), *copied.buffers())
    ledger = _Ledger(clock, {t.untyped_storage()._cdata for t in tensors})
    collecting = gc.isenabled()
    gc.disable()
    try:
        with ExitStack() as stack:
            stack.enter_context(mode)
            stack.enter_context(ledger)
            yield copied, ledger
    finally:
        if collecting:
            gc.enable()


def _train_step(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    batch: int,
    ends: Sequence[End] = (),
    *,
    backward: bool = True,
) -> _Ledger:
    with _ledger(network, ends) as (copied, ledger):
        copied.train()
        images = torch.empty(batch, *input_shape)
        with ledger.forward_pass():
            output = copied(images)
        if backward:
            output.backward(torch.empty_like(output))
    return ledger


def _evaluation(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    batch: int,
    ends: Sequence[End] = (),
) -> _Ledger:
    with _ledger(network, ends) as (copied, ledger), torch.no_grad():
        copied.eval()
        images = torch.empty(batch, *input_shape)
        copied(images)
    return ledger


def _kept_per_image(two: _Ledger, three: _Ledger) -> list[tuple[str, int]]:
    return _difference(list(two.kept.values()), list(three.kept.values()))


def _alive_per_image(two: _Ledger, three: _Ledger) -> list[tuple[str, int]]:
    return _difference(two.moments, three.moments)


def _difference(
    two: Sequence[tuple[str, int]], three: Sequence[tuple[str, int]]
) -> list[tuple[str, int]]:
    if [part for part, _ in two] != [part for part, _ in three]:
        raise BlockError(
            f"a batch of 3 images runs {len(three)} operators and one of 2 images {len(two)}, so"
            " that no number of bytes is that of one image; make the network run alike for all"
            " sizes of a batch"
        )
    return [(part, b - a) for (part, a), (_, b) in zip(two, three, strict=True)]


# Architectures: the backbone once, each block once. ----------------------------------------------


class _Probe(nn.Module):
    """A block that only makes its output a map of its own; it keeps nothing.

    Args:
        site: Where it stands.
    """

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site
        self.seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Copy a map (B, C, H, W)."""
        copied_BCHW = x_BCHW.clone()
        self.seen = (x_BCHW.detach(), copied_BCHW.detach())
        return copied_BCHW


@dataclass(frozen=True)
class _Maps:
    """The maps of a backbone that blocks at its sites share with it.

    Args:
        kept: Bytes of all other maps that it keeps.
        sizes: Bytes of each map at a site.
        kept_maps: Those of them that the backbone keeps by itself.
        around: For each site, the map that a block takes and the one that it returns.
        channels_last: The sites whose map lies in memory with its channels last.
        exact: Whether the sum without blocks is what the backbone keeps.
    """

    kept: int
    sizes: tuple[int, ...]
    kept_maps: frozenset[int]
    around: Mapping[str, tuple[int, int]]
    channels_last: frozenset[str]
    exact: bool


@dataclass(frozen=True)
class _Kept:
    """What one block keeps at a map.

    Args:
        inside: Bytes of its own maps.
        takes: Whether it keeps the map that it takes.
        returns: Whether it keeps the map that it returns.
        same: Whether that is the same map.
    """

    inside: int
    takes: bool
    returns: bool
    same: bool


def kept_bytes(architecture: Architecture, sites: SiteTable) -> int:
    """What a training of a resolved architecture keeps for each image, ``Memory.kept``.

    A block keeps maps of its own, and mostly the one that it takes; what it returns may be kept by
    the layer after it. Without a block the two are one map. So the maps at the sites are counted
    as sets: one for each place without a block, two around each block.

    Args:
        architecture: Resolved against ``sites``.
        sites: Of its backbone at its input.

    Returns:
        Bytes for one image in float32, equal to building the network and measuring it.
    """
    maps = _backbone_maps(sites.backbone, sites.input_shape, sites.classes)
    if not maps.exact:
        return _built_kept(architecture, sites)
    return _sum_of_maps(architecture, sites, maps)


def _sum_of_maps(architecture: Architecture, sites: SiteTable, maps: _Maps) -> int:
    placed = {placement.site: placement for placement in architecture.placements}
    joined = _Joined(len(maps.sizes))
    kept_maps, inside = set(maps.kept_maps), 0
    for site in sites.sites:
        before, after = maps.around[site.name]
        if site.name not in placed:
            joined.join(before, after)
            continue
        block = _placed_kept(placed[site.name], site, channels_last=site.name in maps.channels_last)
        inside += block.inside
        kept_maps.update([before] * block.takes, [after] * block.returns)
        if block.same:
            joined.join(before, after)
    shared = {joined.root(each) for each in kept_maps}
    return maps.kept + inside + sum(maps.sizes[each] for each in shared)


class _Joined:
    """Maps that are one map; the first of them stands for all."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def root(self, one: int) -> int:
        while self.parent[one] != one:
            one = self.parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self.parent[second] = first


def _grown(two: Iterable[int], three: Iterable[int]) -> list[int]:
    return [b - a for a, b in zip(two, three, strict=True)]


@dataclass(frozen=True)
class _Probed:
    """A backbone's forward pass with a probe at every site.

    Args:
        ledger: Its account.
        around: The storages of each probe's input and output.
        sizes: The bytes of these.
        channels_last: The sites whose map lies in memory with its channels last.
    """

    ledger: _Ledger
    around: dict[str, tuple[int, int]]
    sizes: dict[int, int]
    channels_last: frozenset[str]


def _probed(sites: SiteTable, batch: int) -> _Probed:
    network = _built(Architecture(sites.backbone, (), sites.input_shape[1:]), sites)
    for site in sorted(sites.sites, key=lambda site: site.path.count("."), reverse=True):
        attach(network, site, _Probe(site.name))
    around: dict[str, tuple[int, int]] = {}
    sizes: dict[int, int] = {}
    last: set[str] = set()
    with _ledger(network) as (copied, ledger):
        images = torch.empty(batch, *sites.input_shape)
        with ledger.forward_pass():
            output = copied.train()(images)
        for probe in copied.modules():
            if isinstance(probe, _Probe) and probe.seen is not None:
                storages = [x.untyped_storage() for x in probe.seen]
                sizes.update((storage._cdata, storage.nbytes()) for storage in storages)
                around[probe.site] = (storages[0]._cdata, storages[1]._cdata)
                if _lies_channels_last(probe.seen[0]):
                    last.add(probe.site)
        del output  # it has held what is kept until here
    return _Probed(ledger, around, sizes, frozenset(last))


def _lies_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _placed_kept(placement: Placement, site: Site, *, channels_last: bool) -> _Kept:
    return _block_kept(
        placement.block, placement.options, placement.identity_start, site.shape, channels_last
    )


@lru_cache(maxsize=4096)
def _block_kept(
    name: str, options: Options, identity_start: bool, shape: MapShape, channels_last: bool
) -> _Kept:
    settings = Placement("", name, options).settings
    with torch.device("meta"):
        block = registry.create(name, shape.channels, **settings)
        block = IdentityStart(block) if identity_start else block
    try:
        two, three = (_block_pass(block, shape, batch, channels_last) for batch in BATCHES)
    except RuntimeError as error:
        raise BlockError(f"{name} cannot be measured at a map of {shape}: {error}") from error
    return replace(two, inside=three.inside - two.inside)


def _block_pass(block: nn.Module, shape: MapShape, batch: int, channels_last: bool) -> _Kept:
    """What a block keeps for a batch, ``inside`` with what does not depend on the batch."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    with _ledger(block) as (copied, ledger):
        size = (batch, shape.channels, shape.height, shape.width)
        given = torch.empty(size, memory_format=order, requires_grad=True).clone()
        with ledger.forward_pass():
            returned = copied.train()(given)
        x, y = given.untyped_storage()._cdata, returned.untyped_storage()._cdata
    inside = sum(bytes_ for key, (_, bytes_) in ledger.kept.items() if key not in (x, y))
    return _Kept(inside, x in ledger.kept, y in ledger.kept, same=x == y)


def _built(architecture: Architecture, sites: SiteTable) -> nn.Module:
    with torch.device("meta"):
        return build_network(
            architecture,
            num_classes=sites.classes,
            in_channels=sites.input_shape[0],
            input_size=sites.input_shape[1:],
        )


def _built_kept(architecture: Architecture, sites: SiteTable) -> int:
    return measure_kept(_built(architecture, sites), sites.input_shape)


@cache
def _backbone_maps(name: str, input_shape: tuple[int, int, int], classes: int) -> _Maps:
    """Run a backbone with a probe at every site, and once as it is, to be sure of the sum."""
    sites = site_table(name, input_shape, classes)
    two, three = (_probed(sites, batch) for batch in BATCHES)
    keys = list(dict.fromkeys(key for pair in two.around.values() for key in pair))
    numbers = {key: number for number, key in enumerate(keys)}
    size = dict(zip(two.sizes, _grown(two.sizes.values(), three.sizes.values()), strict=True))
    kept = _kept_per_image(two.ledger, three.ledger)
    per_image = {key: bytes_ for key, (_, bytes_) in zip(two.ledger.kept, kept, strict=True)}
    maps = _Maps(
        kept=sum(bytes_ for key, bytes_ in per_image.items() if key not in numbers),
        sizes=tuple(size[key] for key in keys),
        kept_maps=frozenset(numbers[key] for key in per_image if key in numbers),
        around={site: (numbers[x], numbers[y]) for site, (x, y) in two.around.items()},
        channels_last=two.channels_last,
        exact=True,
    )
    plain = Architecture(name, (), (input_shape[1], input_shape[2]))
    return replace(maps, exact=_sum_of_maps(plain, sites, maps) == _built_kept(plain, sites))
