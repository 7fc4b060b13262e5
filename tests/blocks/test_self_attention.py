import math

import numpy as np
import pytest
import torch
from literal import PixelAttention
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blocks import registry
from blocks.architecture import Architecture, Placement, architecture_cost, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.cost import measure_cost
from blocks.errors import SiteError
from blocks.formulas import Cost
from blocks.options import MapShape
from blocks.residual import Residual
from blocks.self_attention import MultiHeadAttention, SelfAttention

SIZES = [(1, 1), (2, 2), (3, 3), (5, 5), (4, 7), (7, 4), (1, 6)]


def filled(block, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return block.double()


def maps(size, channels=8, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=generator)


def projected(x, conv):
    # 1x1 convolution with bias on (C, T).
    return conv.weight.detach().numpy()[:, :, 0, 0] @ x + conv.bias.detach().numpy()[:, None]


def attended(query, key, value, scale):
    # Output pixel i: sum over j of softmax_j(scale q_i . k_j) v_j, all (D, T).
    pixels = query.shape[1]
    out = np.zeros_like(value)
    for i in range(pixels):
        logits = np.array([scale * (query[:, i] @ key[:, j]) for j in range(pixels)])
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        for j in range(pixels):
            out[:, i] += weights[j] * value[:, j]
    return out


def reference(x, block, *, heads, scale):
    out = np.empty_like(x)
    channels = x.shape[1]
    width = channels // heads
    for b in range(x.shape[0]):
        flat = x[b].reshape(channels, -1)
        q, k, v = (projected(flat, conv) for conv in (block.query, block.key, block.value))
        joined = np.empty_like(flat)
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            joined[own] = attended(q[own], k[own], v[own], scale)
        if hasattr(block, "output"):
            joined = projected(joined, block.output)
        out[b] = block.gamma.item() * joined.reshape(x.shape[1:])
    return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_one_head_equals_the_formula(size, scale, training):
    block = filled(SelfAttention(8, scale=scale)).train(training)
    x = maps(size)
    expected = reference(x.numpy(), block, heads=1, scale=1 / math.sqrt(8) if scale else 1.0)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_heads_equal_the_formula(size, heads, training):
    block = filled(MultiHeadAttention(8, heads=heads)).train(training)
    x = maps(size)
    expected = reference(x.numpy(), block, heads=heads, scale=(8 / heads) ** -0.5)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [SelfAttention, MultiHeadAttention])
def test_channels_last_gives_the_same_numbers(make):
    block, x = filled(make(8)), maps((4, 5))
    out = block(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, block(x), rtol=1e-12, atol=1e-14)


def plain(block, **values):
    """Zeros, but for identity convolutions and what is given."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        for conv in (module for module in block.modules() if isinstance(module, nn.Conv2d)):
            conv.weight.copy_(torch.eye(conv.in_channels)[:, :, None, None])
        for name, value in values.items():
            block.get_parameter(name).copy_(torch.tensor(value).reshape(-1))
    return block


def test_one_head_worked_out_by_hand():
    # Query, key and value are x = (0, a) with a^2 = ln 3. Pixel 1 sees 0, 0: the mean a / 2.
    # Pixel 2 sees 0 and a^2 = ln 3: weights 1/4 and 3/4. Times gamma = 2.
    a = math.sqrt(math.log(3))
    block = plain(SelfAttention(1), gamma=2.0)
    out = block(torch.tensor([[[[0.0, a]]]]))
    torch.testing.assert_close(out, torch.tensor([[[[a, 1.5 * a]]]]))


def test_a_pixel_is_indexed_by_its_query_and_attends_to_keys():
    # Queries 0 everywhere but at pixel 2 (q = ln 3), keys (1, 0): pixel 1 takes the mean, pixel 2
    # the weights 3/4 and 1/4. With the names exchanged both pixels would look otherwise.
    block = plain(MultiHeadAttention(2, heads=1), gamma=1.0)
    with torch.no_grad():
        block.query.weight.zero_()
        block.query.weight[0, 1] = math.log(3) * math.sqrt(2)  # the scale takes the root away
        block.value.weight.zero_()
        block.value.weight[0, 0] = 4.0
        block.key.weight[1] = 0.0
    x = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # channel 0: keys; channel 1: queries
    torch.testing.assert_close(block(x)[:, 0], torch.tensor([[[2.0, 3.0]]]))


def test_heads_see_their_own_channels_alone():
    # Two heads of one channel: the second is constant, so it takes the mean; the first is the
    # case above without gamma, as the root of one channel is 1.
    a = math.sqrt(math.log(3))
    block = plain(MultiHeadAttention(2, heads=2), gamma=1.0)
    out = block(torch.tensor([[[[0.0, a]], [[5.0, 5.0]]]]))
    expected = torch.tensor([[[[a / 2, 0.75 * a]], [[5.0, 5.0]]]])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("name", ["selfatt", "mha"])
def test_starts_as_the_identity_with_the_residual_that_is_on_by_default(name):
    block = registry.create(name, 16)
    assert isinstance(block, Residual)
    x = maps((4, 5), channels=16).float()
    assert torch.equal(block(x), x)
    alone = registry.create(name, 16, residual=False)
    assert torch.equal(alone(x), torch.zeros_like(x))


@pytest.mark.parametrize("name", ["selfatt", "mha"])
def test_only_gamma_learns_first(name):
    block = registry.create(name, 16).train()
    block(maps((4, 5), channels=16).float()).square().sum().backward()
    moved = {key for key, p in block.named_parameters() if p.grad.abs().max() > 0}
    assert moved == {"block.gamma"}


@pytest.mark.parametrize("name", ["selfatt", "mha"])
def test_the_residual_is_in_the_identity_where_it_is_off(name):
    sites = site_table("resnet20", (3, 32, 32), 10)

    def options(**given):
        written = Architecture("resnet20", (Placement("stage3", name, given),))
        return dict(resolve(written, sites).placements[0].options)

    assert "residual" not in options(residual=True)
    assert options() == options(residual=True)
    assert options(residual=False) == {**options(), "residual": False}


def test_options_without_effect_are_one_architecture():
    row = registry.spec("selfatt")
    assert row.in_use({"scale": True}, MapShape(8, 2, 2)) == {"scale": True}
    assert row.in_use({"scale": True}, MapShape(8, 1, 1)) == {}
    assert row.in_use({"scale": True}, MapShape(1, 4, 4)) == {}
    row = registry.spec("mha")
    assert row.in_use({}, MapShape(16, 2, 2)) == {"heads": 8}
    assert row.in_use({"heads": 4}, MapShape(16, 1, 1)) == {"heads": 1}
    block, x = filled(MultiHeadAttention(16, heads=8)), maps((1, 1), channels=16)
    single = MultiHeadAttention(16, heads=1).double()
    single.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), single(x))


def test_channels_that_no_heads_divide_are_refused():
    message = "mha: 12 channels cannot be split into 8 equal heads"
    with pytest.raises(SiteError, match=message):
        registry.spec("mha").in_use({}, MapShape(12, 4, 4))
    with pytest.raises(SiteError, match=f"{message}; choose a number that divides the channels"):
        registry.create("mha", 12)
    written = Architecture("resnet20", (Placement("stage1", "mha", {"heads": 3}),))
    with pytest.raises(SiteError, match="16 channels .* 3 equal heads at site stage1 of resnet20"):
        build_network(written)


# Cost --------------------------------------------------------------------------------------------


CASES = [
    ("selfatt", {}, {"heads": 1, "scale": False, "output": False}),
    ("selfatt", {"scale": True}, {"heads": 1, "scale": True, "output": False}),
    ("mha", {}, {"heads": 8, "scale": True, "output": True}),
    ("mha", {"heads": 2}, {"heads": 2, "scale": True, "output": True}),
]
LITERAL = pytest.mark.parametrize(("name", "options", "literal"), CASES)


@LITERAL
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_literal_module(name, options, literal, size):
    block = filled(registry.create(name, 16, residual=False, **options))
    written = PixelAttention(16, **literal).double()
    written.load_state_dict(block.state_dict())
    x = maps(size, channels=16)
    torch.testing.assert_close(block(x), written(x), rtol=1e-10, atol=1e-12)


@LITERAL
@pytest.mark.parametrize("shape", [(64, 7, 7), (64, 1, 1), (32, 5, 9), (16, 3, 2)])
@pytest.mark.parametrize("residual", [True, False])
def test_formula_equals_the_count_of_the_literal_module(name, options, literal, shape, residual):
    row = registry.spec(name)
    cost = row.cost(MapShape(*shape), row.complete({**options, "residual": residual}))
    added = Cost(flops=math.prod(shape) if residual else 0)
    assert cost == measure_cost(PixelAttention(shape[0], **literal), shape) + added


@pytest.mark.parametrize(
    ("name", "channels", "params"),
    [
        ("selfatt", 64, 3 * (64 * 64 + 64) + 1),
        ("mha", 64, 4 * (64 * 64 + 64) + 1),
        ("mha", 16, 4 * 272 + 1),
    ],
)
def test_parameters(name, channels, params):
    assert sum(p.numel() for p in registry.create(name, channels).parameters()) == params


@pytest.mark.parametrize(
    ("name", "params", "gmacs"), [("selfatt", 286_189, "0.0812"), ("mha", 291_677, "0.0820")]
)
def test_published_counts(name, params, gmacs):
    sites = site_table("resnet20", (3, 32, 32), 10)
    resolved = resolve(Architecture("resnet20", (Placement("stage", name),)), sites)
    cost = architecture_cost(resolved, sites)
    assert cost.params == params
    assert f"{cost.macs / 1e9:.4f}" == gmacs
    network = build_network(resolved, seed=0)
    assert sum(p.numel() for p in network.parameters()) == params
    assert measure_cost(network, (3, 32, 32)) == cost


# Memory and compilers ----------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Notes the operators that run and the largest tensor that one of them returns."""

    def __init__(self):
        super().__init__()
        self.numbers = 0
        self.operators = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [r for r in tree_leaves(result) if isinstance(r, torch.Tensor)]
        self.numbers = max([self.numbers, *(t.untyped_storage().nbytes() // 4 for t in tensors)])
        self.operators.add(func.overloadpacket)
        return result


@pytest.mark.parametrize("make", [SelfAttention, MultiHeadAttention])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_matrix_of_all_pairs_is_never_stored(make, layout):
    # 32 x 32 pixels: 16 * 1024 numbers in a map, 1024 * 1024 in the matrix.
    block = filled(make(16)).float()
    x = maps((32, 32), channels=16, batch=1).float().to(memory_format=layout).requires_grad_()
    with Largest() as seen:
        block(x).sum().backward()
    assert seen.numbers == 16 * 1024
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    assert fused in seen.operators


@pytest.mark.parametrize("name", ["selfatt", "mha"])
@pytest.mark.parametrize("training", [True, False])
def test_is_exported_and_compiled_as_one_graph(name, training):
    block = registry.create(name, 16)
    filled(block).float().train(training)
    x = maps((20, 20), channels=16).float()
    expected = block(x)
    torch.compiler.reset()
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    exported = torch.export.export(block, (x,))
    torch.testing.assert_close(exported.module()(x), expected)
    operators = {node.target for node in exported.graph.nodes if node.op == "call_function"}
    assert torch.ops.aten.scaled_dot_product_attention.default in operators
