import math

import numpy as np
import pytest
import torch

from blocks.eca import EfficientChannelAttention
from blocks.options import eca_kernel_size

SIZES = [(1, 1), (2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6)]


def reference(x, kernel):
    # x * s(conv1d_k(GAP x over the channel axis)), zeros beyond the first and the last channel.
    half = len(kernel) // 2
    out = np.empty_like(x)
    for b in range(x.shape[0]):
        means = [x[b, c].sum() / x[b, c].size for c in range(x.shape[1])]
        for c in range(x.shape[1]):
            logit = 0.0
            for tap, weight in enumerate(kernel):
                neighbour = c + tap - half
                if 0 <= neighbour < x.shape[1]:
                    logit += weight * means[neighbour]
            out[b, c] = x[b, c] / (1 + math.exp(-logit))
    return out


def test_gates_worked_out_by_hand():
    # Means (1, 1, 0), kernel ln 3 * (1, 0, -1): logits (0 - 1, 1 - 0, 1 - 0) ln 3, so gates
    # (1/4, 3/4, 3/4). A flipped kernel would give (3/4, 1/4, 1/4).
    block = EfficientChannelAttention(3, kernel_size=3)
    with torch.no_grad():
        block.conv.weight.copy_(math.log(3) * torch.tensor([[[1.0, 0.0, -1.0]]]))
    x = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]], [[4.0, -4.0]]]])
    expected = torch.tensor([[[[0.0, 0.5]], [[0.75, 0.75]], [[3.0, -3.0]]]])
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kernel_size", ["auto", 1, 3, 5, 9])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_formula(size, kernel_size, training):
    torch.manual_seed(0)
    block = EfficientChannelAttention(12, kernel_size=kernel_size).double().train(training)
    x = torch.randn(2, 12, *size, dtype=torch.float64)
    expected = reference(x.numpy(), block.conv.weight.detach().numpy().ravel())
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


# (log2 C + 1) / 2: 8 -> 2 and 128 -> 4 and 2048 -> 6 are ties between two odd numbers, upwards.
KERNELS = [
    (8, 3),
    (16, 3),  # 2.5
    (32, 3),  # 3
    (64, 3),  # 3.5
    (96, 3),  # 3.79
    (128, 5),
    (256, 5),  # 4.5
    (512, 5),  # 5
    (1024, 5),  # 5.5
    (2048, 7),
]


@pytest.mark.parametrize(("channels", "size"), KERNELS)
def test_auto_kernel_is_the_published_table(channels, size):
    assert eca_kernel_size(channels) == size
    assert tuple(EfficientChannelAttention(channels).conv.weight.shape) == (1, 1, size)


def test_auto_kernel_is_the_nearest_odd_number():
    for channels in range(1, 3000):
        psi = (math.log2(channels) + 1) / 2
        size = eca_kernel_size(channels)
        assert size % 2 == 1
        assert abs(size - psi) < 1 or size == psi + 1, channels  # ties go upwards


def test_kernel_is_the_only_parameter():
    assert [p.numel() for p in EfficientChannelAttention(64, kernel_size=7).parameters()] == [7]


def test_few_channels_see_zeros_beyond_them():
    # One channel, kernel (9, ln 3, 9): the outer taps meet zeros alone; mean 1, gate 3/4.
    block = EfficientChannelAttention(1, kernel_size=3)
    with torch.no_grad():
        block.conv.weight.copy_(torch.tensor([[[9.0, math.log(3), 9.0]]]))
    torch.testing.assert_close(block(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 0.75))
