"""What every block must do, as a table of checks: for the blocks of the table and for users' own.

``examine`` runs the table over a subject and gives one finding per check. A check is a function of
the subject that raises ``ConformanceError`` with the block, its options, the size, what came out
and what is needed; what it returns is a remark. No check leaves a trace: random state, default
dtype, deterministic mode and the compiler's caches are put back.
"""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from blocks.checks import maps, numbers, options, state, tracing, training
from blocks.errors import ToolError
from blocks.subject import ConformanceError, NotCheckedError, Subject, words_of

OK, SKIPPED, FAILED = "ok", "skipped", "failed"


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Args:
        name: Its short name.
        proves: What holds when it passes.
        run: Raises ``ConformanceError`` or ``NotCheckedError``; returns a remark.
        cure: What to do when it fails.
        slow: Whether it takes seconds and more.
    """

    name: str
    proves: str
    run: Callable[[Subject], str]
    cure: str
    slow: bool = False


@dataclass(frozen=True)
class Finding:
    """What a check found: ok, skipped or failed, in words, and the cure where it failed."""

    check: str
    state: str
    detail: str
    proves: str
    cure: str = ""


CHECKS: tuple[Check, ...] = (
    Check(
        "shape",
        "the output has the input's shape and type, is finite, and is not the input",
        maps.keeps_the_shape,
        "return a tensor of x.shape and x.dtype for every batch",
    ),
    Check(
        "sizes",
        "any map from 1 x 1 up works and trains, or is refused with words",
        maps.takes_every_size,
        "guard divisions by H * W - 1 and the like; where a size is impossible, raise"
        " blocks.errors.SiteError with the sizes that work",
    ),
    Check(
        "one-image",
        "training on a single image works, or is refused with words",
        maps.trains_on_one_image,
        "use blocks.norm.BatchNorm2d, or raise blocks.errors.SiteError",
    ),
    Check(
        "channels",
        "other numbers of channels work, or are refused with words",
        maps.takes_other_channels,
        "derive all widths from `channels`, with max(1, channels // r)",
    ),
    Check(
        "option-values",
        "every value worth trying of every option runs",
        options.option_values_run,
        "take the value off the option's `values`, or let the block run with it",
    ),
    Check(
        "options-differ",
        "every value of an option builds a function of its own, but for stated aliases",
        options.option_values_differ,
        "use the option in the block, remove it, or state the alias in blocks/facts.py",
    ),
    Check(
        "gradients",
        "gradients reach the input and every parameter that is used",
        training.gradients_arrive,
        "look for a detach(), a rounding or a constant between it and the output",
    ),
    Check(
        "unused",
        "no parameter is without use",
        training.parameters_are_used,
        "remove the layer, or use it in forward()",
    ),
    Check(
        "slope",
        "the input's gradient is that of the finite difference",
        training.gradient_is_the_slope,
        "correct the backward of a torch.autograd.Function, or remove a detach()",
    ),
    Check(
        "repeatable",
        "the same map and the same seed give the same numbers",
        state.repeats_itself,
        "draw random numbers in training alone, and from torch's generator",
    ),
    Check(
        "batch",
        "in evaluation an image's result does not depend on the others in its batch",
        state.images_are_apart,
        "take means and norms over dimensions 1 to 3 alone, not over dimension 0",
    ),
    Check(
        "eval-state",
        "evaluation changes no state",
        state.evaluation_keeps_the_state,
        "change buffers only `if self.training`",
    ),
    Check(
        "input",
        "the input is not written to",
        maps.input_is_kept,
        "use x * gate in place of x.mul_(gate), x + y in place of x += y",
    ),
    Check(
        "state-dict",
        "a stored state loads strictly into another block, which then is the same",
        state.state_moves,
        "keep every number that is learnt in a parameter or a registered buffer",
    ),
    Check(
        "copies",
        "copies and pickles of a block that has run are equal to it",
        state.copies_are_equal,
        "store functions of a module and no lambda; keep no graph between runs",
    ),
    Check(
        "autocast",
        "float16 and bfloat16 autocast are close to float32",
        numbers.autocast_is_close,
        "compute sums, squares and exponentials of large numbers in float32",
    ),
    Check(
        "types",
        "it runs as float64 and as bfloat16",
        numbers.runs_in_other_types,
        "make constants with x.new_tensor(...) or dtype=x.dtype",
    ),
    Check(
        "channels-last",
        "a map in channels-last order gives the same numbers in that order",
        maps.layout_is_kept,
        "scale x itself by broadcasting; avoid view(), and contiguous() without memory_format",
    ),
    Check(
        "meta",
        "it runs on the meta device, where costs are counted",
        numbers.runs_on_meta,
        "make new tensors on x.device; do not read numbers in forward()",
    ),
    Check(
        "cost",
        "the declared cost is the one counted",
        numbers.declared_cost_is_counted,
        "correct the formula, or leave `cost` out: then it is counted",
    ),
    Check(
        "compile",
        "torch.compile makes one graph of it (backend eager), with the same numbers",
        tracing.compiles,
        "decide by shapes and options alone in forward(), not by numbers; no print() or item()",
    ),
    Check(
        "export",
        "torch.export exports it before any run, without a warning, with the same numbers",
        tracing.exports,
        "set no attribute in forward(); decide by shapes and options alone",
    ),
    Check(
        "deterministic",
        "whether it trains under torch.use_deterministic_algorithms (said, and no failure)",
        training.deterministic_mode,
        "",
    ),
    Check(
        "inductor",
        "torch.compile's own backend gives the same numbers",
        tracing.compiles_to_machine_code,
        "make the block simpler, or report the operator to torch",
        slow=True,
    ),
    Check(
        "onnx",
        "ONNX export and onnxruntime give the same numbers",
        tracing.exports_to_onnx,
        "use operators that ONNX has",
        slow=True,
    ),
)


# Running ------------------------------------------------------------------------------------------


def checks(*, slow: bool = False) -> tuple[Check, ...]:
    """The table's rows.

    Args:
        slow: Whether the slow ones too.
    """
    return tuple(check for check in CHECKS if slow or not check.slow)


def examine(subject: Subject, *, slow: bool = False) -> Iterator[Finding]:
    """Put a block to the checks, one finding after another.

    Args:
        subject: The block.
        slow: Whether the slow checks too.
    """
    first, *others = checks(slow=slow)
    finding = run_check(first, subject)
    yield finding
    for check in others:
        if finding.state == FAILED:
            yield Finding(check.name, SKIPPED, f"needs `{first.name}` to hold", check.proves)
        else:
            yield run_check(check, subject)


def run_check(check: Check, subject: Subject) -> Finding:
    """Put a block to one check; one that it is excused from must fail, and is skipped then."""
    finding = _outcome(check, subject)
    why = dict(subject.facts.excused).get(check.name)
    if why is None:
        return finding
    if finding.state == FAILED:
        return Finding(check.name, SKIPPED, f"{why} ({finding.detail})", check.proves)
    words = f"{subject.row.name}: is excused ({why}), and passes"
    return Finding(check.name, FAILED, words, check.proves, "take the excuse out of its facts")


def _outcome(check: Check, subject: Subject) -> Finding:
    """What a check says; whatever it raises is a finding."""
    try:
        with undisturbed():
            remark = check.run(subject)
    except NotCheckedError as error:
        return Finding(check.name, SKIPPED, str(error), check.proves)
    except (ConformanceError, ToolError) as error:
        return Finding(check.name, FAILED, str(error), check.proves, check.cure)
    except Exception as error:
        words = f"{subject.row.name}: {words_of(error)}"
        return Finding(check.name, FAILED, words, check.proves, check.cure)
    return Finding(check.name, OK, remark, check.proves)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever happens inside: random state, modes, warnings and the default dtype come back."""
    dtype = torch.get_default_dtype()
    mode = torch.get_deterministic_debug_mode()
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic mode asks for it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings(), torch.enable_grad():
            torch.use_deterministic_algorithms(False)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(mode)
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
