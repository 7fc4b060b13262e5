import math

import numpy as np
import pytest
import torch

from blocks.cbam import ConvolutionalBlockAttention

SIZES = [(1, 1), (2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6)]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def filled(block, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                low = 0.5 if name in ("norm.weight", "norm.running_var") else -0.5
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return block


def reference(x, state, kernel_size, training):
    # Channel: s(MLP(avg) + MLP(max)); spatial, on the refined map: s(BN(conv([max, mean]))).
    def shared(pooled):
        hidden = np.maximum(pooled @ state["squeeze.weight"].T + state["squeeze.bias"], 0)
        return hidden @ state["excite.weight"].T + state["excite.bias"]

    batch, channels, height, width = x.shape
    flat = x.reshape(batch, channels, -1)
    x = x * sigmoid(shared(flat.mean(-1)) + shared(flat.max(-1)))[:, :, None, None]
    pooled = np.stack([x.max(1), x.mean(1)], axis=1)
    half = kernel_size // 2
    padded = np.pad(pooled, ((0, 0), (0, 0), (half, half), (half, half)))
    logits = np.empty((batch, height, width))
    for i in range(height):
        for j in range(width):
            window = padded[:, :, i : i + kernel_size, j : j + kernel_size]
            logits[:, i, j] = (window * state["spatial.weight"][0]).sum((1, 2, 3))
    if "norm.weight" in state:
        mean, variance = state["norm.running_mean"][0], state["norm.running_var"][0]
        if training:
            mean, variance = logits.mean(), logits.var()
        logits = (logits - mean) / math.sqrt(variance + 1e-5)
        logits = logits * state["norm.weight"][0] + state["norm.bias"][0]
    return x * sigmoid(logits)[:, None]


def test_gates_worked_out_by_hand():
    # Channel means (2, 2) and maxima (3, 4). Squeezed by (1, 0) - 2: relu(0) = 0 and relu(1) = 1.
    # Excited by (ln 3, 0) with biases (0, ln(3)/2), once for each pooling, and added:
    # (ln 3, ln 3), so both channel gates are 3/4: [[0.75, 2.25], [3, 0]].
    # Maximum over channels (3, 2.25); the centre tap ln(3)/3 gives logits (ln 3, 0.75 ln 3), so
    # pixel gates 3/4 and 3^0.75 / (1 + 3^0.75).
    block = ConvolutionalBlockAttention(2, reduction=2, kernel_size=3, norm=False).double()
    with torch.no_grad():
        block.squeeze.weight.copy_(torch.tensor([[1.0, 0.0]]))
        block.squeeze.bias.fill_(-2.0)
        block.excite.weight.copy_(torch.tensor([[math.log(3)], [0.0]]))
        block.excite.bias.copy_(torch.tensor([0.0, math.log(3) / 2]))
        block.spatial.weight.zero_()
        block.spatial.weight[0, 0, 1, 1] = math.log(3) / 3
    x = torch.tensor([[[[1.0, 3.0]], [[4.0, 0.0]]]], dtype=torch.float64)
    second = 3**0.75 / (1 + 3**0.75)
    expected = torch.tensor(
        [[[[0.75 * 0.75, 2.25 * second]], [[3 * 0.75, 0.0]]]], dtype=torch.float64
    )
    torch.testing.assert_close(block(x), expected, rtol=1e-6, atol=1e-7)


def test_spatial_gate_reads_the_maximum_first_and_the_mean_second():
    # Channels (1, 3): maximum 3, mean 2. Taps ln 3 on the second plane alone: s(2 ln 3) = 9/10.
    block = ConvolutionalBlockAttention(2, kernel_size=3, norm=False).double()
    with torch.no_grad():
        block.spatial.weight.zero_()
        block.spatial.weight[0, 1, 1, 1] = math.log(3)
    x = torch.tensor([[[[1.0]], [[3.0]]]], dtype=torch.float64)
    assert block.spatial_gate(x).item() == pytest.approx(0.9)


def test_channels_are_gated_before_pixels():
    block = filled(ConvolutionalBlockAttention(8, reduction=2, norm=False)).double()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    refined = x * block.channel_gate(x)[:, :, None, None]
    torch.testing.assert_close(block(x), refined * block.spatial_gate(refined))
    pixels_first = x * block.spatial_gate(x)
    pixels_first = pixels_first * block.channel_gate(pixels_first)[:, :, None, None]
    assert (block(x) - pixels_first).abs().max() > 1e-3


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_formula(size, kernel_size, norm, training):
    block = ConvolutionalBlockAttention(12, reduction=4, kernel_size=kernel_size, norm=norm)
    block = filled(block.double()).train(training)
    x = torch.randn(3, 12, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    state = {name: value.clone().numpy() for name, value in block.state_dict().items()}
    expected = reference(x.numpy(), state, kernel_size, training)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_spatial_gate_starts_at_one_half(training):
    block = ConvolutionalBlockAttention(16).train(training)
    x = torch.randn(2, 16, 6, 5, generator=torch.Generator().manual_seed(4))
    assert torch.equal(block.spatial_gate(x), torch.full((2, 1, 6, 5), 0.5))
    torch.testing.assert_close(block(x), x * block.channel_gate(x)[:, :, None, None] / 2)


def test_without_norm_the_spatial_gate_does_not_start_flat():
    torch.manual_seed(0)
    gate = ConvolutionalBlockAttention(16, norm=False).spatial_gate(torch.randn(2, 16, 6, 5))
    assert gate.std() > 1e-3


def test_norm_moves_its_statistics_by_a_hundredth():
    # A map of one value v: every logit away from the border is the same; with a zero kernel all
    # are 0, so the running variance goes from 1 to 0.99 and the running mean stays 0.
    block = ConvolutionalBlockAttention(4).train()
    with torch.no_grad():
        block.spatial.weight.zero_()
    block(torch.ones(2, 4, 3, 3))
    assert block.norm.running_var.item() == pytest.approx(0.99)
    assert block.norm.running_mean.item() == 0


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ({}, 512 + 4 + 64 + 100),  # 2 C h + h + C + 2 * 49 + 2 with h = 4
        ({"norm": False}, 512 + 4 + 64 + 98),
        ({"kernel_size": 3}, 512 + 4 + 64 + 18 + 2),
        ({"reduction": 8}, 1024 + 8 + 64 + 100),
        ({"reduction": 128}, 128 + 1 + 64 + 100),
    ],
)
def test_parameters(options, params):
    block = ConvolutionalBlockAttention(64, **options)
    assert sum(p.numel() for p in block.parameters()) == params
