"""What looks like a mistake in the caps of a space, said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from search.output import count
from spaces.candidate import DataFacts
from spaces.caps import cap_of
from spaces.drawing import sites_of
from spaces.metrics import COSTS
from spaces.parameters import Choice
from spaces.space import Constraint, Space


def cap_remarks(space: Space, data: DataFacts) -> tuple[str, ...]:
    """The caps that nothing but the baseline is within, by backbone; no torch.

    A block adds to what its backbone costs, so that a cap under that rejects every block. Papers
    print multiply-accumulates as "FLOPs": a cap between the two is probably meant for ``macs``.

    Args:
        space: Has the caps.
        data: The data set; sizes of image that the space searches are looked at too.
    """
    exact = [constraint for constraint in space.constraints if constraint.metric in COSTS]
    names = [str(name) for name in space.backbones.values]
    return tuple(
        words for cap in exact for name in names for words in _words(cap, name, space, data)
    )


def _words(cap: Constraint, name: str, space: Space, data: DataFacts) -> Iterator[str]:
    sizes = space.training["input_size"]
    sides = sizes.values if isinstance(sizes, Choice) else (sizes.default,)
    tables = [data.at(int(side)) for side in sides]
    if any(cap_of(cap, name, at) >= getattr(sites_of(name, at).cost, cap.metric) for at in tables):
        return
    cost = sites_of(name, tables[0]).cost
    words = f"the cap {cap} is under what {name} itself has, {count(getattr(cost, cap.metric))}"
    if cap.metric == "flops" and cap_of(cap, name, tables[0]) >= cost.macs:
        yield (
            f"{words}, but over its {count(cost.macs)} macs, which papers print as FLOPs: no block"
            " is within it; to cap those, write macs"
        )
    else:
        yield f"{words}: no block is within it"
