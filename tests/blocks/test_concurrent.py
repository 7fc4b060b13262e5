import math

import numpy as np
import pytest
import torch

from blocks import registry
from blocks.architecture import Architecture, Placement, resolve
from blocks.backbone import site_table
from blocks.concurrent import (
    ChannelSqueezeExcite,
    ConcurrentSqueezeExcite,
    SpatialSqueezeExcite,
)
from blocks.formulas import total
from blocks.options import MapShape
from blocks.squeeze_excite import SqueezeExcite

SIZES = [(1, 1), (2, 2), (5, 5), (4, 7), (7, 4), (8, 8), (1, 6)]


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def channel_reference(x, w1, b1, w2, b2):
    # Mean over H W -> linear -> ReLU -> linear -> sigmoid -> scale.
    out = np.empty_like(x)
    for b in range(x.shape[0]):
        means = [x[b, c].sum() / x[b, c].size for c in range(x.shape[1])]
        hidden = [max(0.0, row @ np.array(means) + bias) for row, bias in zip(w1, b1, strict=True)]
        for c in range(x.shape[1]):
            out[b, c] = x[b, c] * sigmoid(w2[c] @ np.array(hidden) + b2[c])
    return out


def spatial_reference(x, weights, bias):
    # x * s(conv1x1 from C to 1).
    out = np.empty_like(x)
    batch, channels, height, width = x.shape
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                logit = bias + sum(weights[c] * x[b, c, i, j] for c in range(channels))
                out[b, :, i, j] = x[b, :, i, j] * sigmoid(logit)
    return out


JOINED = {"max": np.maximum, "add": np.add, "mul": np.multiply}


def channel_numbers(block):
    layers = (block.squeeze, block.excite)
    return [n.detach().numpy() for layer in layers for n in (layer.weight, layer.bias)]


def spatial_numbers(block):
    return block.squeeze.weight.detach().numpy().ravel(), block.squeeze.bias.item()


def maps(size, channels=12):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, channels, *size, dtype=torch.float64, generator=generator)


def equal(out, expected):
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_channel_gate_equals_the_formula(size, training):
    torch.manual_seed(0)
    block = ChannelSqueezeExcite(12, reduction=4).double().train(training)
    x = maps(size)
    equal(block(x), channel_reference(x.numpy(), *channel_numbers(block)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_spatial_gate_equals_the_formula(size, training):
    torch.manual_seed(0)
    block = SpatialSqueezeExcite(12).double().train(training)
    x = maps(size)
    equal(block(x), spatial_reference(x.numpy(), *spatial_numbers(block)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("combine", JOINED)
@pytest.mark.parametrize("size", SIZES)
def test_both_gates_equal_the_formula(size, combine, training):
    torch.manual_seed(0)
    block = ConcurrentSqueezeExcite(12, combine=combine).double().train(training)
    x = maps(size)
    by_channel = channel_reference(x.numpy(), *channel_numbers(block.channel))
    by_pixel = spatial_reference(x.numpy(), *spatial_numbers(block.spatial))
    equal(block(x), JOINED[combine](by_channel, by_pixel))


def test_spatial_gates_worked_out_by_hand():
    # Logits ln 3 * (1 * 1 + 0 * 5) = ln 3 and ln 3 * (-1) = -ln 3: gates 3/4 and 1/4.
    block = SpatialSqueezeExcite(2)
    with torch.no_grad():
        block.squeeze.weight.copy_(math.log(3) * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))
        block.squeeze.bias.zero_()
    x = torch.tensor([[[[1.0, -1.0]], [[5.0, 8.0]]]])
    expected = torch.tensor([[[[0.75, -0.25]], [[3.75, 2.0]]]])
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("max", [[[3.0, -2.0]], [[3.0, -2.0]]]),
        ("add", [[[5.0, -5.0]], [[4.0, -8.0]]]),
        ("mul", [[[6.0, 6.0]], [[3.0, 12.0]]]),
    ],
)
def test_joined_maps_worked_out_by_hand(combine, expected):
    # Without weights the biases make the gates: 1/2 and 1/4 for the channels, 3/4 for all pixels.
    # By channel (2, -2) and (1, -2); by pixel (3, -3) and (3, -6).
    block = ConcurrentSqueezeExcite(2, combine=combine)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.channel.excite.bias.copy_(torch.tensor([0.0, -math.log(3)]))
        block.spatial.squeeze.bias.fill_(math.log(3))
    x = torch.tensor([[[[4.0, -4.0]], [[4.0, -8.0]]]])
    torch.testing.assert_close(block(x), torch.tensor([expected]))


def test_the_channel_gate_is_that_of_se_with_biases():
    torch.manual_seed(0)
    se = SqueezeExcite(12, reduction=2, bias=True)
    block = ChannelSqueezeExcite(12)
    block.load_state_dict(se.state_dict())
    x = maps((5, 6)).float()
    assert torch.equal(block(x), se(x))


def parameters(block):
    return sum(p.numel() for p in block.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "options", "params"),
    [
        ("cse", 64, {}, 4096 + 32 + 64),  # 2 C h + h + C with h = 32
        ("cse", 64, {"reduction": 16}, 512 + 4 + 64),
        ("cse", 8, {"reduction": 16}, 16 + 1 + 8),  # 1 wide
        ("sse", 64, {}, 65),
        ("scse", 64, {}, 4192 + 65),
        ("scse", 64, {"combine": "mul", "reduction": 4}, 2048 + 16 + 64 + 65),
    ],
)
def test_parameters(name, channels, options, params):
    assert parameters(registry.create(name, channels, **options)) == params
    row = registry.spec(name)
    assert row.cost(MapShape(channels, 5, 4), row.complete(options)).params == params


def test_published_parameters_of_eight_blocks():
    blocks = [ConcurrentSqueezeExcite(64) for _ in range(8)]
    assert sum(map(parameters, blocks)) == 34_056
    weights = [p for block in blocks for name, p in block.named_parameters() if "bias" not in name]
    assert sum(p.numel() for p in weights) == 33_280
    row = registry.spec("scse")
    costs = [row.cost(MapShape(64, size, size), row.complete({})) for size in (64, 32, 16, 8) * 2]
    assert total(costs).params == 34_056


def test_what_is_off_stays_out_of_the_identity():
    sites = site_table("resnet20", (3, 32, 32), 10)

    def options(**given):
        written = Architecture("resnet20", (Placement("stage1", "scse", given),))
        return dict(resolve(written, sites).placements[0].options)

    assert options() == options(combine="max", gate="sigmoid", residual=False) == {"reduction": 2}
    assert options(combine="add") == {"reduction": 2, "combine": "add"}
