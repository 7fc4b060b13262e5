"""Types of numbers, half precision, and counts without numbers."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import warnings

import torch
from torch import nn

from blocks.checks.judging import require_close
from blocks.cost import measure_cost
from blocks.options import MapShape
from blocks.subject import ConformanceError, Size, Subject

# Half precision: eight bits of mantissa are a few hundredths of a gate between 0 and 1, eleven a
# few thousandths.
HALF_TOLERANCE = {torch.bfloat16: 0.03, torch.float16: 0.004}


def autocast_is_close(subject: Subject) -> str:
    """Under autocast, given float32 or half precision, the numbers are close."""
    size = subject.map_size((7, 7))
    x, block = subject.maps(2, size), subject.built(size)
    for dtype, tolerance in HALF_TOLERANCE.items():
        for given in (x, x.to(dtype)):
            where = f"{subject.at(2, size)}, autocast to {_type(dtype)}, given {_type(given.dtype)}"
            with torch.no_grad():
                expected = block(given.float().clone())
                with torch.autocast("cpu", dtype=dtype):
                    out = block(given.clone())
            scale = max(1.0, float(x.abs().max()) / max(1.0, float(expected.abs().max())))
            require_close(where, out.float(), expected, tolerance * scale)
    return ""


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def runs_in_other_types(subject: Subject) -> str:
    """The block moved to float64 or bfloat16 keeps that type."""
    size = subject.map_size((7, 7))
    x = subject.maps(2, size)
    with torch.no_grad():
        expected = subject.built(size)(x.clone())
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.05)):
        where = f"{subject.at(2, size)} as {_type(dtype)}"
        out = subject.built(size).to(dtype)(x.to(dtype))
        if out.dtype != dtype:
            raise ConformanceError(f"{where}: {_type(out.dtype)} came out; needed: {_type(dtype)}")
        scale = max(1.0, float(x.abs().max()) / max(1.0, float(expected.abs().max())))
        require_close(where, out.float(), expected, tolerance * scale)
    return ""


def runs_on_meta(subject: Subject) -> str:
    """It runs without numbers."""
    size = subject.map_size((9, 5))
    block = subject.fresh(size).to("meta").eval()
    out = block(torch.empty(1, subject.channels, *size, device="meta"))
    if not out.is_meta or tuple(out.shape) != (1, subject.channels, *size):
        raise ConformanceError(
            f"{subject.at(1, size)} on the meta device: {out.device} {tuple(out.shape)} came out;"
            " needed: an empty map of the same shape, or its cost cannot be counted"
        )
    return ""


def declared_cost_is_counted(subject: Subject) -> str:
    """The closed formula gives what the count of the operators gives."""
    formula = subject.row.cost
    if formula is None:
        return "declares no cost; it is counted operator by operator"
    for wanted in ((7, 7), (5, 9), (14, 14)):
        size = subject.map_size(wanted)
        options = subject.options_at(size, subject.channels, {})
        declared = formula(MapShape(subject.channels, *size), options).to_json()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            counted = measure_cost(_uncosted(subject, size), (subject.channels, *size)).to_json()
        for name in declared:
            exact = name in ("params", "trainable_params") or not subject.facts.counted
            if exact and declared[name] != counted[name]:
                raise ConformanceError(
                    f"{subject.at(1, size)}: declares {declared[name]:,} {name}, and"
                    f" {counted[name]:,} are counted; needed: the same number"
                    f"{''.join(f' ({warning.message})' for warning in said)}"
                )
    return subject.facts.counted


def _uncosted(subject: Subject, size: Size) -> nn.Module:
    """The block on the meta device after a first run, its formula out of the way."""
    block = subject.fresh(size).to("meta").eval()
    block(torch.empty(1, subject.channels, *size, device="meta"))  # what is made once is no cost
    if hasattr(block, "attention_block"):
        del block.attention_block
    return block
