"""What a block remembers: that it repeats itself, and can be stored, loaded and copied."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import Tensor, nn

from blocks.checks.judging import require_close
from blocks.subject import ConformanceError, Subject, words_of


def repeats_itself(subject: Subject) -> str:
    """Evaluation repeats itself, and one seed starts one block."""
    size = subject.map_size()
    x, block = subject.maps(2, size), subject.built(size)
    first, again = block(x.clone()), block(x.clone())
    other = subject.built(size)(x.clone())
    for how, out in (("again", again), ("by another block of the same numbers", other)):
        if not torch.equal(out, first):
            raise ConformanceError(
                f"{subject.at(2, size)}: the same map evaluated {how} gave other numbers; needed:"
                " the same, bit for bit"
            )
    starts = [subject.fresh(size, seed=5).train()(x.clone()) for _ in range(2)]
    if not torch.equal(*starts):
        raise ConformanceError(f"{subject.at(2, size)}: one seed gave two blocks that differ")
    return ""


def images_are_apart(subject: Subject) -> str:
    """In evaluation, images of a batch have the results that they have alone."""
    size = subject.map_size()
    block = subject.built(size).double()
    x = subject.maps(3, size, dtype=torch.float64)
    with torch.no_grad():
        alone = torch.cat([block(image[None].clone()) for image in x])
        together = block(x.clone())
    where = f"{subject.at(3, size)}: in evaluation, an image in a batch against it alone"
    require_close(where, together, alone, 1e-11)
    return ""


def evaluation_keeps_the_state(subject: Subject) -> str:
    """A run in evaluation mode leaves the state dict as it is."""
    size = subject.map_size()
    block = subject.built(size)
    before = copy.deepcopy(block.state_dict())
    block(subject.maps(3, size))
    after = block.state_dict()
    changed = before.keys() ^ after.keys()
    changed |= {key for key in before if key in after and not _equal(before[key], after[key])}
    if changed:
        raise ConformanceError(
            f"{subject.at(3, size)}: evaluation changed {', '.join(sorted(changed))}; needed: a"
            " state that changes in training alone"
        )
    return ""


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def state_moves(subject: Subject) -> str:
    """A state that is stored and loaded strictly makes another block the same."""
    size = subject.map_size()
    x = subject.maps(3, size)
    trained = subject.built(size).train()
    trained(x.clone())
    stored = io.BytesIO()
    torch.save(trained.state_dict(), stored)
    stored.seek(0)
    other = subject.fresh(size, seed=7)
    try:
        other.load_state_dict(torch.load(stored, weights_only=True), strict=True)
    except Exception as error:
        raise ConformanceError(
            f"{subject.row.name}: its state cannot be loaded into another: {words_of(error)}"
        ) from error
    where = f"{subject.at(3, size)}: another block with its stored state"
    require_close(where, other.eval()(x.clone()), trained.eval()(x.clone()), 0.0)
    return ""


def copies_are_equal(subject: Subject) -> str:
    """A deep copy and a pickle of a block that has run give its numbers."""
    size = subject.map_size()
    x, block = subject.maps(2, size), subject.built(size)
    expected = block(x.clone())
    for how, twin in (("copy.deepcopy", copy.deepcopy), ("pickle", _pickled)):
        try:
            out = twin(block)(x.clone())
        except Exception as error:
            raise ConformanceError(
                f"{subject.row.name}: {how} after a run stops with {words_of(error)}"
            ) from error
        require_close(f"{subject.at(2, size)}: after {how}", out, expected, 0.0)
    return ""


def _pickled(block: nn.Module) -> nn.Module:
    other: nn.Module = pickle.loads(pickle.dumps(block))
    return other
