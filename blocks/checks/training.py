"""Gradients: that they arrive, that they are right, and that nothing is left out."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import torch
from torch import nn

from blocks.checks.judging import mode_name, passed_back, require_close
from blocks.determinism import unrepeatable
from blocks.errors import listing
from blocks.subject import ConformanceError, Size, Subject, words_of

NO_GRADIENT = 1e-9  # what rounding leaves of a gradient that is 0
DRAWS = 4  # of the weights: a narrow ReLU may be shut in one of them


def gradients_arrive(subject: Subject) -> str:
    """Gradients reach all channels of the input and all parameters in use."""
    size = subject.map_size((6, 5))
    for training in (True, False):
        where = f"{subject.at(4, size)}, {mode_name(training)}"
        stated = subject.unreachable(subject.built(size), training=training)
        missed = _without_gradient(subject, size, training=training)
        if stated - missed:
            names = listing(sorted(stated - missed))
            raise ConformanceError(f"{where}: {names} is stated to be out of reach and is not")
        for draw in range(1, DRAWS):
            if missed > stated:
                missed &= _without_gradient(subject, size, training=training, draw=draw)
        if missed > stated:
            names = listing(sorted(missed - stated))
            raise ConformanceError(
                f"{where}: the gradient of {names} is 0; needed: one that reaches it"
            )
    return ""


def _without_gradient(subject: Subject, size: Size, *, training: bool, draw: int = 0) -> set[str]:
    """What is used and has a gradient of 0: parameters, and "the input" for any of its channels."""
    block = subject.built(size, draw=draw).double().train(training)
    _, of_input = passed_back(block, subject.maps(4, size, dtype=torch.float64))
    gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
    missed = {n for n, g in gradients.items() if g is not None and not g.abs().max() > NO_GRADIENT}
    return missed if (of_input.abs().amax(dim=(2, 3)) > 0).all() else missed | {"the input"}


def parameters_are_used(subject: Subject) -> str:
    """Every parameter that can be trained takes part in the output."""
    size = subject.map_size()
    block = subject.built(size).train()
    passed_back(block, subject.maps(3, size))
    unused = [n for n, p in block.named_parameters() if p.requires_grad and p.grad is None]
    if unused:
        raise ConformanceError(
            f"{subject.at(3, size)}: {', '.join(unused)} takes no part in the output; needed:"
            " parameters that do, as they are counted and trained"
        )
    return ""


def gradient_is_the_slope(subject: Subject) -> str:
    """Along a random direction the gradient is the finite difference, in float64."""
    size = subject.map_size((4, 3))
    block = subject.built(size).double()
    x = subject.maps(2, size, dtype=torch.float64)
    direction = subject.maps(2, size, seed=3, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    block(leaf.clone()).sum().backward()
    assert leaf.grad is not None
    step = 1e-6
    with torch.no_grad():
        ahead, behind = block(x + step * direction).sum(), block(x - step * direction).sum()
    where = f"{subject.at(2, size)}: the input's gradient against the finite difference"
    require_close(where, (leaf.grad * direction).sum(), (ahead - behind) / (2 * step), 1e-6)
    return ""


def deterministic_mode(subject: Subject) -> str:
    """Whether training runs under deterministic mode: a report, and no failure."""
    size = subject.map_size()
    remarks = []
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        block = subject.built(size).to(device).train()
        leaf = subject.maps(3, size).to(device).requires_grad_()
        torch.use_deterministic_algorithms(True)
        try:
            out = block(leaf.clone())
            out.backward(torch.ones_like(out))
            remarks.append(f"runs on {device}")
        except RuntimeError as error:
            remarks.append(f"cannot on {device}: {words_of(error)}")
        finally:
            torch.use_deterministic_algorithms(False)
    if not torch.cuda.is_available():
        listed = _listed(subject.built(size), (subject.channels, *size))
        remarks += [f"cannot on cuda: {listed}"] if listed else []
    return "; ".join(remarks)


def _listed(block: nn.Module, shape: tuple[int, int, int]) -> str:
    """What of a block torch lists as not repeatable on a GPU."""
    try:
        return ", ".join(unrepeatable(block, shape))
    except (RuntimeError, NotImplementedError):
        return ""
