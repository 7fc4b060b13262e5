"""Evaluating a network on one split: loss, accuracy, which images were right, classes, calibration.

Sums and predictions stay on the device until the last batch; then they are brought over at once.
"""

# Shape letters: B images of a batch, N images of the split, K classes.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from search.outcome import Answers

BINS = 15  # of confidence; Guo et al. use as many

Parts = Iterable[tuple[Tensor, Tensor]]  # (images (B, C, H, W), labels (B,)), in the stored order


@dataclass(frozen=True)
class Evaluation:
    """What a network has come to on one split.

    Args:
        loss: Mean cross-entropy, without label smoothing.
        accuracy: Share of images classified right.
        right: Whether each image was, (N,), in the stored order of the split.
        images: Images of each class, (K,).
        right_by_class: Those of them that were classified right, (K,).
        predicted: Images that were taken for each class, (K,).
        calibration_error: As the function of that name has it; NaN where a logit is none.
    """

    loss: float
    accuracy: float
    right: NDArray[np.bool_]
    images: NDArray[np.int64]
    right_by_class: NDArray[np.int64]
    predicted: NDArray[np.int64]
    calibration_error: float

    def answers(self, split: str) -> Answers:
        """What of it passes through a pipe and is stored, beside the single numbers."""
        columns = (self.images.tolist(), self.right_by_class.tolist(), self.predicted.tolist())
        bits = np.packbits(self.right).tobytes()
        return Answers(split, len(self.right), bits, tuple(zip(*columns, strict=True)))


def loss_and_accuracy(network: nn.Module, parts: Parts) -> tuple[float, float]:
    """Mean cross-entropy and accuracy alone: what is looked at after every epoch.

    Args:
        network: Put into evaluation mode; on the images' device.
        parts: All batches of a split.
    """
    losses, rights, count = [], [], 0
    for logits_BK, labels_B, loss in _answered(network, parts):
        losses.append(loss)
        rights.append((logits_BK.argmax(dim=1) == labels_B).sum())
        count += len(labels_B)
    return float(_added(losses)) / count, int(_added(rights)) / count


def evaluate(network: nn.Module, parts: Parts, *, classes: int) -> Evaluation:
    """Everything that is recorded of a network on one split.

    Loss and accuracy are bit for bit those of ``loss_and_accuracy``, where the network's answers
    are the same (on a processor they are).

    Args:
        network: Put into evaluation mode; on the images' device.
        parts: All batches of the split, in its stored order.
        classes: How many there are.
    """
    losses, rows = [], []
    for logits_BK, labels_B, loss in _answered(network, parts):
        confidence_B = logits_BK.softmax(dim=1).amax(dim=1)
        row = (logits_BK.argmax(dim=1), labels_B, confidence_B)
        rows.append(torch.stack([column.to(torch.float64) for column in row]))
        losses.append(loss)
    table_3N = torch.cat(rows, dim=1)
    loss_1 = _added(losses).to(torch.float64)[None]
    brought = torch.cat((table_3N.flatten(), loss_1)).cpu().numpy()  # the one transfer
    predicted_N, labels_N, confidence_N = brought[:-1].reshape(3, -1)
    right_N = predicted_N == labels_N
    return Evaluation(
        loss=float(brought[-1]) / len(labels_N),
        accuracy=int(right_N.sum()) / len(labels_N),
        right=right_N,
        images=_counts(labels_N, classes),
        right_by_class=_counts(labels_N[right_N], classes),
        predicted=_counts(predicted_N, classes),
        calibration_error=calibration_error(confidence_N, right_N),
    )


def calibration_error(confidence_N: NDArray[np.float64], right_N: NDArray[np.bool_]) -> float:
    """Expected calibration error: how far confidence and accuracy are apart, on average.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599, eq. 3: the
    images are put into 15 bins of confidence ((m - 1) / 15, m / 15], and the bins' distances
    between mean confidence and accuracy are averaged, weighted by their images.

    Args:
        confidence_N: Largest softmax share of each image, (N,), from above 0 to 1.
        right_N: Whether each was classified right, (N,).

    Returns:
        A share from 0 (calibrated) to 1; NaN where a confidence is.
    """
    if np.isnan(confidence_N).any():
        return float("nan")
    bins_N = np.clip(np.ceil(confidence_N * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins_N, weights=confidence_N - right_N, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence_N))


def _answered(network: nn.Module, parts: Parts) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(logits, labels, summed cross-entropy) of every batch."""
    network.eval()
    for images_BCHW, labels_B in parts:
        with torch.inference_mode():
            logits_BK = network(images_BCHW).float()
            loss = functional.cross_entropy(logits_BK, labels_B, reduction="sum")
        yield logits_BK, labels_B, loss


def _added(sums: list[Tensor]) -> Tensor:
    """The sum of scalars on their device, in their order."""
    return sum(sums[1:], start=sums[0])


def _counts(numbers_N: NDArray[np.float64], classes: int) -> NDArray[np.int64]:
    return np.bincount(numbers_N.astype(np.int64), minlength=classes)
