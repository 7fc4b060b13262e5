import math

import pytest
import torch

from blocks.simam import SimpleAttention

SIZES = [(2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6)]
SIGMOID_HALF = 1 / (1 + math.exp(-0.5))


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def reference(x, energy_lambda):
    # n = HW - 1; d = (x - mean)^2; v = sum d / n; y = x * s(d / (4 (v + lambda)) + 0.5)
    out = x.clone()
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            numbers = x[b, c].flatten().tolist()
            mean = math.fsum(numbers) / len(numbers)
            deviations = [(number - mean) ** 2 for number in numbers]
            variance = math.fsum(deviations) / (len(numbers) - 1)
            gated = [
                number * sigmoid(d / (4 * (variance + energy_lambda)) + 0.5)
                for number, d in zip(numbers, deviations, strict=True)
            ]
            out[b, c] = torch.tensor(gated, dtype=x.dtype).reshape(x.shape[2:])
    return out


def test_gates_worked_out_by_hand():
    # Mean 2; deviations 1, 1, 1, 9; variance 12 / 3 = 4 (not 12 / 4); 4 (4 + 1) = 20;
    # gates s(1/20 + 1/2) and s(9/20 + 1/2).
    x = torch.tensor([[[[1.0, 1.0], [1.0, 5.0]]]], dtype=torch.float64)
    low, high = sigmoid(0.55), sigmoid(0.95)
    expected = torch.tensor([[[[low, low], [low, 5 * high]]]], dtype=torch.float64)
    torch.testing.assert_close(SimpleAttention(1, energy_lambda=1.0)(x), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("energy_lambda", [1e-4, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_formula(size, energy_lambda, training):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    block = SimpleAttention(3, energy_lambda=energy_lambda).train(training)
    torch.testing.assert_close(block(x), reference(x, energy_lambda), rtol=1e-12, atol=1e-14)


def test_lambda_defaults_to_the_class_default_of_the_authors():
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(SimpleAttention(2)(x), reference(x, 1e-4), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [(1, 2), (3, 3), (8, 5)])
def test_constant_channel_is_scaled_by_sigmoid_of_a_half(size):
    x = torch.full((2, 3, *size), 4.0, dtype=torch.float64)
    torch.testing.assert_close(SimpleAttention(3)(x), x * SIGMOID_HALF, rtol=1e-15, atol=0)


def test_one_pixel_is_scaled_by_sigmoid_of_a_half_and_has_a_gradient():
    x = torch.tensor([[[[2.0]], [[-3.0]]]], requires_grad=True)
    out = SimpleAttention(2)(x)
    torch.testing.assert_close(out, x * SIGMOID_HALF)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, SIGMOID_HALF))


def test_gates_lie_between_sigmoid_of_a_half_and_one():
    x = torch.randn(4, 8, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gates = SimpleAttention(8)(x) / x
    assert gates.min() >= SIGMOID_HALF
    assert gates.max() < 1


def test_has_no_parameters_and_no_state():
    assert SimpleAttention(64).state_dict() == {}
