import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from blocks import registry
from blocks.cost import block_cost
from blocks.errors import BlockError, SiteError
from blocks.fca import FrequencyChannelAttention, dct_basis
from blocks.options import MapShape
from blocks.squeeze_excite import SqueezeExcite

SIZES = [(1, 1), (2, 2), (3, 5), (6, 4), (5, 5), (7, 7), (8, 8), (9, 7), (14, 7), (7, 14), (28, 15)]
TOP4 = [(0, 0), (0, 1), (6, 0), (0, 5)]


def cosine(position, frequency, size):
    # B(p, f, N) = cos(pi f (p + 0.5) / N) / sqrt(N), times sqrt(2) where f > 0.
    value = math.cos(math.pi * frequency * (position + 0.5) / size) / math.sqrt(size)
    return value if frequency == 0 else value * math.sqrt(2)


def index_on(size, frequency, authors=False):
    if size >= 7 or authors:
        return frequency * (size // 7)
    return min(size - 1, round(frequency * size / 7))


def descriptor(x, pairs, authors=False):
    # Channel c belongs to group c // (C / n); u is the vertical frequency.
    batch, channels, height, width = x.shape
    out = np.zeros((batch, channels))
    for c in range(channels):
        u, v = pairs[c // (channels // len(pairs))]
        u, v = index_on(height, u, authors), index_on(width, v, authors)
        for h in range(height):
            for w in range(width):
                out[:, c] += x[:, c, h, w] * cosine(h, u, height) * cosine(w, v, width)
    return out


def reference(x, seen, pairs, w1, w2, authors=False):
    logits = np.maximum(descriptor(seen, pairs, authors) @ w1.T, 0) @ w2.T
    return x * (1 / (1 + np.exp(-logits)))[:, :, None, None]


def random_map(channels, size, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=generator)


def test_coefficients_worked_out_by_hand():
    # On a 2 x 2 map the bases are +-1/2, and frequency 6 of the grid is index 1.
    # [[1, 2], [3, 4]]: (0,0) (1+2+3+4)/2 = 5; (0,1) columns (1-2+3-4)/2 = -1;
    # (1,0) rows (1+2-3-4)/2 = -2; (1,1) (1-2-3+4)/2 = 0.
    block = FrequencyChannelAttention(4, frequency="0,0+0,6+6,0+6,6").double()
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64).expand(1, 4, 2, 2)
    expected = torch.tensor([[5.0, -1.0, -2.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(block.describe(x), expected)


def test_gates_worked_out_by_hand():
    # Descriptors (5, -1) as above; squeezed by (1, 1) to 4; excited to (0, ln(3)/4 * 4).
    block = FrequencyChannelAttention(2, frequency="0,0+0,6", reduction=2).double()
    with torch.no_grad():
        block.squeeze.weight.fill_(1.0)
        block.excite.weight.copy_(torch.tensor([[0.0], [math.log(3) / 4]]))
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64).expand(1, 2, 2, 2)
    gates = torch.tensor([0.5, 0.75], dtype=torch.float64)[None, :, None, None]
    torch.testing.assert_close(block(x), x * gates, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("authors", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_formula(size, authors, training):
    torch.manual_seed(0)
    block = FrequencyChannelAttention(8, frequency="top4", reduction=2, authors=authors)
    block = block.double().train(training)
    x = random_map(8, size)
    w1, w2 = block.squeeze.weight.detach().numpy(), block.excite.weight.detach().numpy()
    expected = reference(x.numpy(), x.numpy(), TOP4, w1, w2, authors)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 7), (14, 14), (9, 5), (3, 3), (1, 1), (7, 14)])
def test_dct_size_pools_first_and_gates_the_original(size):
    torch.manual_seed(0)
    block = FrequencyChannelAttention(8, frequency="top4", reduction=2, dct_size=7).double()
    x = random_map(8, size)
    pooled = np.zeros((2, 8, 7, 7))
    for i in range(7):
        for j in range(7):
            rows = slice(i * size[0] // 7, -(-(i + 1) * size[0] // 7))
            columns = slice(j * size[1] // 7, -(-(j + 1) * size[1] // 7))
            pooled[:, :, i, j] = x.numpy()[:, :, rows, columns].mean((2, 3))
    w1, w2 = block.squeeze.weight.detach().numpy(), block.excite.weight.detach().numpy()
    expected = reference(x.numpy(), pooled, TOP4, w1, w2)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 5), (6, 4), (1, 1)])
def test_authors_rule_sees_the_mean_alone_below_seven_pixels(size):
    block = FrequencyChannelAttention(8, frequency="bot4", authors=True)
    x = random_map(8, size)
    mean = math.sqrt(size[0] * size[1]) * x.mean(dim=(2, 3))
    torch.testing.assert_close(block.describe(x), mean)
    if size != (1, 1):
        ours = FrequencyChannelAttention(8, frequency="bot4").describe(x)
        assert (ours - mean).abs().max() > 0.1


def test_authors_rule_is_about_each_side_on_its_own():
    # 7 rows keep their frequency (6, .), 5 columns lose theirs (., 6).
    x = random_map(1, (7, 5))
    both = FrequencyChannelAttention(1, frequency="6,6", authors=True).describe(x)
    torch.testing.assert_close(both, FrequencyChannelAttention(1, frequency="6,0").describe(x))


@pytest.mark.parametrize("size", [(7, 7), (14, 9), (4, 4), (56, 56)])
def test_lowest_frequency_is_the_mean_times_the_root_of_the_pixels(size):
    x = random_map(4, size)
    scale = math.sqrt(size[0] * size[1])  # 56 at 56 x 56
    for name in ("top1", "low1", "0,0"):
        described = FrequencyChannelAttention(4, frequency=name).describe(x)
        torch.testing.assert_close(described, scale * x.mean(dim=(2, 3)))


@pytest.mark.parametrize("size", range(1, 17))
def test_bases_are_orthonormal(size):
    basis = torch.stack([dct_basis(index, size) for index in range(size)])
    identity = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(basis @ basis.T, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 7), (14, 14), (7, 15)])
def test_the_forty_nine_two_dimensional_bases_are_orthonormal(size):
    frequency = "+".join(f"{u},{v}" for u in range(7) for v in range(7))
    block = FrequencyChannelAttention(49, frequency=frequency)
    flat = block.bases(torch.empty(1, 49, *size, dtype=torch.float64)).flatten(1)
    identity = torch.eye(49, dtype=torch.float64)
    torch.testing.assert_close(flat @ flat.T, identity, rtol=0, atol=1e-12)


def test_the_first_number_of_a_pair_is_vertical():
    # A wave down the rows, the same in every column, of one cycle's half: index 1.
    rows = torch.cos(math.pi * (torch.arange(7, dtype=torch.float64) + 0.5) / 7)
    x = rows[None, None, :, None].expand(1, 2, 7, 9)
    vertical, horizontal = FrequencyChannelAttention(2, frequency="1,0+0,1").describe(x)[0]
    # Its norm down the rows is sqrt(7/2), and sqrt(9) across: sqrt(31.5).
    assert vertical.item() == pytest.approx(math.sqrt(31.5))
    assert horizontal.item() == pytest.approx(0, abs=1e-12)


def test_groups_are_contiguous_and_in_order():
    x = random_map(1, (7, 7)).expand(2, 6, 7, 7)
    described = FrequencyChannelAttention(6, frequency="0,0+3,5+2,2").describe(x)
    singles = [
        FrequencyChannelAttention(1, frequency=pair).describe(x[:, :1])[:, 0]
        for pair in ("0,0", "0,0", "3,5", "3,5", "2,2", "2,2")
    ]
    torch.testing.assert_close(described, torch.stack(singles, dim=1))


def test_with_the_weights_of_se_it_is_not_se():
    torch.manual_seed(0)
    se = SqueezeExcite(8, reduction=2)
    fca = FrequencyChannelAttention(8, frequency="top1", reduction=2)
    fca.load_state_dict(se.state_dict())
    x = torch.randn(2, 8, 7, 7)
    assert (se(x) - fca(x)).abs().max() > 1e-3
    # ... but SE of a map whose mean is 7 times as large.
    gate = (se(7 * x) / (7 * x))[:, :, :1, :1]
    torch.testing.assert_close(fca(x), x * gate)


@pytest.mark.parametrize(("channels", "frequency", "groups"), [(24, "top16", 16), (8, "low16", 16)])
def test_channels_that_cannot_be_split_are_refused(channels, frequency, groups):
    with pytest.raises(SiteError, match=f"{channels} channels .* {groups} equal frequency groups"):
        FrequencyChannelAttention(channels, frequency=frequency)


def test_has_the_parameters_of_se_and_keeps_the_bases_out_of_its_state():
    block = FrequencyChannelAttention(64)
    block(torch.randn(1, 64, 7, 7))
    assert {name: v.numel() for name, v in block.state_dict().items()} == {
        "squeeze.weight": 256,
        "excite.weight": 256,
    }


def test_one_block_follows_maps_of_several_sizes_and_types():
    block = FrequencyChannelAttention(8, frequency="top4", reduction=2)
    first = block.describe(random_map(8, (7, 7)).float())
    block.describe(random_map(8, (14, 7)))
    again = block.describe(random_map(8, (7, 7)).float())
    assert first.dtype == torch.float32
    assert torch.equal(first, again)


def test_can_be_trained_after_it_was_run_in_inference_mode():
    block = FrequencyChannelAttention(8, frequency="top4", reduction=2)
    x = torch.randn(2, 8, 7, 7, requires_grad=True)
    with torch.inference_mode():
        block(x)
    block(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_pooling_of_torch_is_the_one_meant():
    x = random_map(8, (9, 5))
    pooled = FrequencyChannelAttention(8, frequency="top4", dct_size=7).describe(x)
    direct = FrequencyChannelAttention(8, frequency="top4")
    torch.testing.assert_close(pooled, direct.describe(functional.adaptive_avg_pool2d(x, 7)))


# Learnt frequencies. -----------------------------------------------------------------------------


@pytest.mark.parametrize("authors", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (5, 9), (7, 7), (14, 8)])
def test_learnt_frequencies_are_the_weighted_sum_of_all_coefficients(size, authors):
    x = random_map(8, size)
    block = FrequencyChannelAttention(8, frequency="nas4", authors=authors).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        block.alpha.copy_(torch.randn(4, 49, generator=generator))
    weights = block.alpha.detach().numpy()
    weights = np.exp(weights) / np.exp(weights).sum(axis=1, keepdims=True)
    expected = np.zeros((2, 8))
    for index in range(49):
        pair = (index // 7, index % 7)
        coefficient = descriptor(x.numpy(), [pair], authors)
        expected += coefficient * weights[np.arange(8) // 2, index]
    np.testing.assert_allclose(block.describe(x).detach(), expected, rtol=1e-10, atol=1e-12)


def test_learnt_frequencies_are_16_groups_unless_said():
    assert FrequencyChannelAttention(32, frequency="nas").alpha.shape == (16, 49)
    with pytest.raises(
        SiteError, match="8 channels cannot be split into 16 equal frequency groups"
    ):
        FrequencyChannelAttention(8, frequency="nas")


def test_the_selected_frequencies_are_the_largest():
    block = FrequencyChannelAttention(4, frequency="nas2")
    with torch.no_grad():
        block.alpha[0, 7 * 2 + 3] = 1
        block.alpha[1, 7 * 6] = 1
    assert block.selected() == "2,3+6,0"
    with pytest.raises(BlockError, match="its frequencies were given"):
        FrequencyChannelAttention(4, frequency="top1").selected()


def test_at_the_limit_of_one_frequency_it_is_the_ordinary_block():
    x = random_map(4, (7, 7))
    learnt = FrequencyChannelAttention(4, frequency="nas2", reduction=2).double()
    with torch.no_grad():
        learnt.alpha[0, 7 * 2 + 3] = learnt.alpha[1, 7 * 6] = 100
    ordinary = FrequencyChannelAttention(4, frequency=learnt.selected(), reduction=2).double()
    state = {key: value for key, value in learnt.state_dict().items() if key != "alpha"}
    ordinary.load_state_dict(state)
    torch.testing.assert_close(learnt(x), ordinary(x), rtol=1e-12, atol=1e-12)


def test_learnt_frequencies_learn():
    # The target needs frequency (0, 1) alone: its weight must grow over the others.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, 7, 7, generator=generator)
    block = FrequencyChannelAttention(4, frequency="nas1", reduction=1)
    wanted = FrequencyChannelAttention(4, frequency="0,1").describe(x)
    optimiser = torch.optim.Adam([block.alpha], lr=0.1)
    for _ in range(60):
        loss = functional.mse_loss(block.describe(x), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert block.selected() == "0,1"


@pytest.mark.parametrize(
    ("shape", "options", "in_use"),
    [
        ((64, 14, 14), {"frequency": "nas"}, "nas16"),
        ((64, 14, 14), {"frequency": "nas4", "authors": True}, "nas4"),
        ((64, 1, 1), {"frequency": "nas"}, "0,0"),
        ((64, 5, 5), {"frequency": "nas"}, "nas16"),
        ((64, 5, 5), {"frequency": "nas", "authors": True}, "0,0"),
        ((64, 5, 5), {"frequency": "nas", "authors": True, "dct_size": 7}, "nas16"),
    ],
)
def test_learnt_frequencies_have_one_spelling(shape, options, in_use):
    found = registry.spec("fca").in_use(options, MapShape(*shape))
    assert found["frequency"] == in_use
    assert "authors" not in found


def test_the_authors_rule_matters_to_learnt_frequencies_on_maps_short_on_one_side():
    options = {"frequency": "nas4", "authors": True}
    assert registry.spec("fca").in_use(options, MapShape(64, 5, 9))["authors"] is True


def test_cost_of_learnt_frequencies_by_hand():
    # Four groups on 14 x 7: a softmax of 49 (5 each) and (14, 7) (7, 7) (7, 7) products, 2 a MAC.
    shape = MapShape(64, 14, 7)
    given = block_cost("fca", shape, {"frequency": "low4"})
    learnt = block_cost("fca", shape, {"frequency": "nas4"})
    assert learnt.params - given.params == 4 * 49
    assert learnt.macs == given.macs
    assert learnt.flops - given.flops == 4 * (5 * 49 + 2 * 14 * 7 * 7 + 2 * 14 * 7 * 7)
