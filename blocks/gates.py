"""Gate functions: what turns a block's logits into the factors that scale the map.

The papers use the sigmoid; the others are what ablations try in its place. Their cost in
operations per number follows the table in ``blocks.formulas``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
