import math

import numpy as np
import pytest
import torch

from blocks.squeeze_excite import SqueezeExcite

SIZES = [(1, 1), (2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6)]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def reference(x, w1, w2, b1=0.0, b2=0.0):
    # x * s(W2 relu(W1 GAP x))
    out = np.empty_like(x)
    for b in range(x.shape[0]):
        pooled = np.array([x[b, c].sum() / x[b, c].size for c in range(x.shape[1])])
        gate = sigmoid(w2 @ np.maximum(w1 @ pooled + b1, 0) + b2)
        for c in range(x.shape[1]):
            out[b, c] = x[b, c] * gate[c]
    return out


def test_gates_worked_out_by_hand():
    # Means (2, 1); squeezed 1*2 + 1*1 = 3; excited (0, ln 3); gates (1/2, 3/4).
    block = SqueezeExcite(2, reduction=2)
    with torch.no_grad():
        block.squeeze.weight.copy_(torch.tensor([[1.0, 1.0]]))
        block.excite.weight.copy_(torch.tensor([[0.0], [math.log(3) / 3]]))
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])
    expected = torch.tensor([[[[0.5, 1.5]], [[0.0, 1.5]]]])
    torch.testing.assert_close(block(x), expected)


def test_relu_stands_between_the_two_layers():
    # Squeezed 1*1 - 1*3 = -2, cut to 0: every gate is 1/2 whatever the second layer is.
    block = SqueezeExcite(2, reduction=2)
    with torch.no_grad():
        block.squeeze.weight.copy_(torch.tensor([[1.0, -1.0]]))
        block.excite.weight.fill_(5.0)
    x = torch.tensor([[[[1.0]], [[3.0]]]])
    torch.testing.assert_close(block(x), x / 2)


def test_biases_worked_out_by_hand():
    # Mean 0 everywhere: squeezed 0 + 2, excited 0 * 2 + (0, ln 3); on zeros the output is zero,
    # so a map of +1 and -1 (mean 0) shows the gates (1/2, 3/4).
    block = SqueezeExcite(2, reduction=2, bias=True)
    with torch.no_grad():
        block.squeeze.weight.fill_(1.0)
        block.squeeze.bias.fill_(2.0)
        block.excite.weight.copy_(torch.tensor([[0.0], [math.log(3) / 4]]))
        block.excite.bias.copy_(torch.tensor([0.0, math.log(3) / 2]))
    x = torch.tensor([[[[1.0, -1.0]], [[1.0, -1.0]]]])
    expected = torch.tensor([[[[0.5, -0.5]], [[0.75, -0.75]]]])
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_formula(size, bias, training):
    torch.manual_seed(0)
    block = SqueezeExcite(12, reduction=4, bias=bias).double().train(training)
    x = torch.randn(3, 12, *size, dtype=torch.float64)
    weights = [block.squeeze.weight, block.excite.weight]
    if bias:
        weights += [block.squeeze.bias, block.excite.bias]
    expected = reference(x.numpy(), *(w.detach().numpy() for w in weights))
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden"),
    [(64, 16, 4), (96, 16, 6), (100, 16, 6), (16, 16, 1), (8, 16, 1), (3, 32, 1), (64, 1, 64)],
)
def test_squeezed_width_is_floored_and_never_rounded_up(channels, reduction, hidden):
    block = SqueezeExcite(channels, reduction=reduction)
    assert tuple(block.squeeze.weight.shape) == (hidden, channels)
    assert tuple(block.excite.weight.shape) == (channels, hidden)


@pytest.mark.parametrize(
    ("channels", "reduction", "bias", "params"),
    [
        (64, 16, False, 512),  # 2 * 64 * 4
        (64, 16, True, 580),  # 512 + 4 + 64
        (256, 16, False, 8192),  # 2 * 256 * 16
        (8, 16, False, 16),  # 2 * 8 * max(1, 0)
    ],
)
def test_parameters(channels, reduction, bias, params):
    block = SqueezeExcite(channels, reduction=reduction, bias=bias)
    assert sum(p.numel() for p in block.parameters()) == params


def test_default_is_the_paper_reduction_without_biases():
    assert sum(p.numel() for p in SqueezeExcite(64).parameters()) == 2 * 64 * 4
