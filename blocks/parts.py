"""The parts of a network: its stem, its stages, its head, and every block that stands at a site.

What runs belongs to the part that is running: the stem until the map that the first stage takes is
there, a stage until its last unit has ended, the head after the last stage; inside of a block, the
block. A parameter belongs to the part in which its module first runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocks.site import STAGE, STEM, SiteTable

if TYPE_CHECKING:
    from torch import nn

HEAD = "head"


@dataclass(frozen=True)
class End:
    """Where a part of a network ends.

    Args:
        part: The part's name.
        path: The module with which it ends.
        before: Whether it ends before this module runs, instead of after.
    """

    part: str
    path: str
    before: bool = False


def block_part(site: str) -> str:
    """The name of the part that a block at a site is."""
    return f"block at {site}"


def ends_of(sites: SiteTable) -> tuple[End, ...]:
    """Where the stem and the stages of a backbone end."""
    found = [site for site in sites.sites if site.placement in (STEM, STAGE)]
    found.sort(key=lambda site: site.stage)
    return tuple(
        End(site.name, site.path, getattr(site, "side", "after") == "before") for site in found
    )


class Clock:
    """Says which part of a network is running.

    Args:
        ends: Where the parts end, in their order; what comes after them is the head.
    """

    def __init__(self, ends: Sequence[End] = ()) -> None:
        self.ends = tuple(ends)
        self.ended = 0
        self.blocks: list[str] = []
        self.parts: list[str] = []
        self._first: dict[nn.Module, str] = {}

    @property
    def part(self) -> str:
        """The part that is running."""
        if self.blocks:
            return self.blocks[-1]
        return self.ends[self.ended].part if self.ended < len(self.ends) else HEAD

    def watch(self, network: nn.Module) -> None:
        """Follow a network, which gets hooks.

        A block that counts itself by a hook of its own must have that hook before.
        """
        before = {network.get_submodule(end.path): end for end in self.ends if end.before}
        after = {network.get_submodule(end.path): end for end in self.ends if not end.before}

        def enter(module: nn.Module, inputs: Any) -> None:
            if module in before:
                self._end(before[module])
            if hasattr(module, "attention_site"):
                self.blocks.append(block_part(str(module.attention_site)))
            self._first.setdefault(module, self.part)
            if self.part not in self.parts:
                self.parts.append(self.part)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            if hasattr(module, "attention_site"):
                self.blocks.pop()
            if module in after:
                self._end(after[module])

        for module in network.modules():
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)

    def _end(self, end: End) -> None:
        self.ended = max(self.ended, self.ends.index(end) + 1)
        if self.part not in self.parts:
            self.parts.append(self.part)

    def parameters(
        self, network: nn.Module, watched: nn.Module
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter of a network once, with its part.

        That of a module which has not run by itself goes with the module around it.

        Args:
            network: The network.
            watched: The copy of it that was followed.
        """
        twins = dict(zip(network.modules(), watched.modules(), strict=True))
        seen: set[int] = set()

        def below(module: nn.Module, part: str) -> Iterator[tuple[str, nn.Parameter]]:
            part = self._first.get(twins[module], part)
            for parameter in module.parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield part, parameter
            for child in module.children():
                yield from below(child, part)

        yield from below(network, self.parts[0] if self.parts else HEAD)
