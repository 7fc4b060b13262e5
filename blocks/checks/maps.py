"""Shape, sizes, batches and channels of the maps that a block takes."""

# Shape letters: B batch, C channels, H height, W width.
from __future__ import annotations

import torch

from blocks.checks.judging import mode_name, passed_back, require_close, require_map
from blocks.subject import REFUSALS, ConformanceError, Size, Subject, words_of

SIZES: tuple[Size, ...] = (
    *((1, 1), (1, 5), (5, 1), (1, 14), (2, 2), (3, 3), (4, 6), (5, 5), (7, 7), (9, 6), (14, 14)),
)
CHANNEL_COUNTS = (16, 48, 64)


def keeps_the_shape(subject: Subject) -> str:
    """The output is a finite map of the same shape and type, and not the input itself."""
    size = subject.map_size()
    for training, batch in ((False, 1), (False, 3), (True, 3)):
        x = subject.maps(batch, size)
        out = subject.built(size).train(training)(x.clone())
        where = f"{subject.at(batch, size)}, {mode_name(training)}"
        require_map(where, out, x)
        if torch.equal(out, x):
            raise ConformanceError(f"{where}: the input came out; needed: a map that it changes")
    return ""


def takes_every_size(subject: Subject) -> str:
    """Every size of a map works in evaluation and in training, or is refused with words."""
    refused = []
    for size in SIZES:
        words = subject.refusal(size)
        if words is not None:
            _require_named(subject, size, words)
            refused.append(f"{size[0]} x {size[1]}")
            continue
        for batch in (1, 3):
            x = subject.maps(batch, size)
            out = subject.built(size)(x.clone())
            require_map(subject.at(batch, size), out, x)
            if x[0, 0].numel() > 1 and torch.equal(out, x):
                raise ConformanceError(f"{subject.at(batch, size)}: the input came out unchanged")
        _trains_at(subject, size)
    return f"refuses {', '.join(refused)}" if refused else ""


def _require_named(subject: Subject, size: Size, words: str) -> None:
    if not words.strip():
        raise ConformanceError(
            f"{subject.at(1, size)}: refused without a word; needed: which maps it takes"
        )


def _trains_at(subject: Subject, size: Size) -> None:
    block = subject.built(size).train()
    where = f"{subject.at(3, size)}, training"
    try:
        _, gradient = passed_back(block, subject.maps(3, size))
    except REFUSALS:
        return  # in its own words
    except ConformanceError as error:
        raise ConformanceError(f"{where}: {error}") from None
    except Exception as error:
        raise ConformanceError(f"{where}: stops with {words_of(error)}") from error
    found = {"the input": gradient, **{n: p.grad for n, p in block.named_parameters()}}
    for name, tensor in found.items():
        if tensor is not None and not torch.isfinite(tensor).all():
            raise ConformanceError(
                f"{where}: the gradient of {name} is NaN or infinite; needed: finite numbers"
            )


def trains_on_one_image(subject: Subject) -> str:
    """One image, and one pixel: a batch norm has no variance there."""
    remarks = []
    for size in dict.fromkeys(((1, 1), subject.map_size())):
        if not _evaluates(subject, size):
            continue
        block, where = subject.built(size).train(), f"{subject.at(1, size)}, training"
        try:
            out, _ = passed_back(block, subject.maps(1, size))
            require_map(where, out, subject.maps(1, size))
        except REFUSALS as error:
            remarks.append(f"{size[0]} x {size[1]} is refused: {words_of(error)}")
        except ConformanceError as error:
            raise ConformanceError(f"{where}: {error}") from None
        except Exception as error:
            raise ConformanceError(
                f"{where}: stops with {words_of(error)}; needed: an output, or a SiteError that"
                " says how many images it needs"
            ) from error
    return "; ".join(remarks)


def _evaluates(subject: Subject, size: Size) -> bool:
    """Whether there is an evaluation at all at this size; if not, `sizes` says so."""
    try:
        return bool(torch.isfinite(subject.run(size)).all())
    except Exception:
        return False


def takes_other_channels(subject: Subject) -> str:
    """Two numbers of channels at least work; what does not is refused with words."""
    taken = []
    for channels in dict.fromkeys((*CHANNEL_COUNTS, subject.channels)):
        try:
            size = subject.map_size(channels=channels)
        except ConformanceError:
            subject.refusal((14, 14), channels=channels)  # has words of its own, or this raises
            continue
        x = subject.maps(2, size, channels=channels)
        where = subject.at(2, size, channels=channels)
        require_map(where, subject.built(size, channels=channels)(x.clone()), x)
        taken.append(channels)
    if len(taken) < 2 and subject.aliases_are_stated:
        raise ConformanceError(
            f"{subject.row.name}: of {CHANNEL_COUNTS} channels it takes {taken}; needed: a block"
            " that can stand in more than one stage"
        )
    return f"takes {', '.join(map(str, taken))}" if len(taken) < len(CHANNEL_COUNTS) else ""


def input_is_kept(subject: Subject) -> str:
    """The input has the same numbers after a run, in both modes."""
    size = subject.map_size()
    for training in (False, True):
        x = subject.maps(3, size)
        kept = x.clone()
        with torch.no_grad():
            subject.built(size).train(training)(x)
        if not torch.equal(x, kept):
            raise ConformanceError(
                f"{subject.at(3, size)}, {mode_name(training)}: the input was written to; needed:"
                " an input that stays as it is, since the network may use it again"
            )
    return ""


def layout_is_kept(subject: Subject) -> str:
    """Channels-last in, channels-last out, with the same numbers."""
    size = subject.map_size()
    x, block = subject.maps(2, size), subject.built(size)
    expected = block(x.clone())
    out = block(x.to(memory_format=torch.channels_last))
    where = f"{subject.at(2, size)} in channels-last order"
    require_close(where, out, expected, 1e-5)
    if not out.is_contiguous(memory_format=torch.channels_last):
        raise ConformanceError(
            f"{where}: another order came out (strides {out.stride()}); needed: channels-last, or"
            " the next convolution copies the map"
        )
    return ""
