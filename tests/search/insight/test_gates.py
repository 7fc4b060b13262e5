import math

import pytest
import torch
from torch import nn

from blocks import registry
from blocks.identity import IdentityStart
from search.insight.gates import (
    GainTally,
    channel_gain,
    shrunk,
    spatial_gain,
)


def images(count=6, channels=32, size=9, seed=0):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def shaken(block, seed=1):
    """Every parameter drawn, so that no gate is at rest."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return block.eval()


def tallied(block, x, labels=None, classes=2):
    tally = GainTally(classes)
    labels = torch.arange(len(x)) % classes if labels is None else labels
    with torch.no_grad():
        tally(x, block(x), labels)
    return tally.statistics()


# Gains by hand. --------------------------------------------------------------------------------


def test_gain_is_the_nearest_multiple_and_missing_where_the_input_is_nothing():
    x = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]]])  # two channels of 1 x 2 pixels
    y = torch.tensor([[[[3.0, 1.0]], [[5.0, 5.0]]]])
    (first, second), *_ = channel_gain(x, y).tolist()
    assert first == pytest.approx((3 + 2) / (1 + 4))
    assert math.isnan(second)
    assert spatial_gain(x, y).tolist() == [[[3.0, 0.5]]]


@pytest.mark.parametrize("name", ["se", "eca", "fca"])
def test_gain_of_a_channel_gate_is_the_blocks_own_sigmoid(name):
    block = shaken(registry.create(name, 32))
    seen = []
    plain = block.gate
    block.gate = lambda logits: seen.append(plain(logits)) or seen[-1]
    x = images()
    with torch.no_grad():
        gain = channel_gain(x, block(x))
    assert seen[0].min() > 0.01
    assert seen[0].std() > 1e-3
    torch.testing.assert_close(gain, seen[0].reshape(gain.shape), rtol=0, atol=1e-5)


def test_an_outer_residual_adds_one_and_an_identity_start_mixes_with_one():
    block = shaken(registry.create("se", 32))
    kept = shaken(registry.create("se", 32, residual=True))
    kept.block.load_state_dict(block.state_dict())
    opened = IdentityStart(block)
    nn.init.constant_(opened.strength, 0.25)
    x = images()
    with torch.no_grad():
        gate = channel_gain(x, block(x))
        torch.testing.assert_close(channel_gain(x, kept(x)), 1 + gate)
        torch.testing.assert_close(channel_gain(x, opened(x)), 1 + 0.25 * (gate - 1))


# Statistics. -----------------------------------------------------------------------------------


class ByLabel(nn.Module):
    """Scale the first channel by a number per image, the others by constants."""

    def __init__(self, gates):
        super().__init__()
        self.gates = torch.tensor(gates)[:, None, None, None]

    def forward(self, x):
        return torch.cat((x[:, :1] * self.gates, x[:, 1:] * 0.5), dim=1)


def test_specificity_is_eta_squared_by_hand():
    # Gains 1, 3 in class 0 and 5, 7 in class 1: mean 4, between 2*4 + 2*4 = 16, total 20.
    x = torch.ones(4, 2, 3, 3)
    found = tallied(ByLabel([1.0, 3.0, 5.0, 7.0]), x, torch.tensor([0, 0, 1, 1]), classes=3)
    assert found.specificity_C[0] == pytest.approx(0.8)
    assert found.specificity == pytest.approx(0.8)  # the constant channel does not count
    assert found.specificity_C[1].isnan()
    assert found.mean_C.tolist() == pytest.approx([4.0, 0.5])
    assert found.deviation_C.tolist() == pytest.approx([math.sqrt(5), 0.0], abs=1e-6)
    assert found.class_mean_KC[:, 0].tolist()[:2] == pytest.approx([2.0, 6.0])
    assert found.class_mean_KC[2].isnan().all()
    assert found.by_chance == pytest.approx(1 / 3)


def test_gates_of_the_class_are_specific_and_gates_of_chance_are_not():
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(400) % 4
    noise = torch.rand(400, generator=generator)
    x = torch.ones(400, 2, 2, 2)
    by_class = tallied(ByLabel((labels + 1.0).tolist()), x, labels, classes=4)
    by_noise = tallied(ByLabel(noise.tolist()), x, labels, classes=4)
    assert by_class.specificity == pytest.approx(1.0)
    assert by_noise.specificity < 4 * by_noise.by_chance < 0.05


def test_batches_add_up_to_the_whole():
    block, x, labels = shaken(registry.create("cbam", 32)), images(12), torch.arange(12) % 3
    whole, parts = GainTally(3), GainTally(3)
    with torch.no_grad():
        y = block(x)
    whole(x, y, labels)
    for start in range(0, 12, 5):
        part = slice(start, start + 5)
        parts(x[part], y[part], labels[part])
    first, second = whole.statistics(), parts.statistics()
    assert first.images == second.images == 12
    for name in ("mean_C", "deviation_C", "specificity_C", "map_HW", "class_map_KHW"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name))
    gain = channel_gain(x, y).double()
    torch.testing.assert_close(first.mean_C, gain.mean(0))
    torch.testing.assert_close(first.deviation_C, gain.std(0, correction=0))


@pytest.mark.parametrize(
    ("name", "channels_alone", "pixels_alone"),
    [("se", True, False), ("sse", False, True), ("coord", False, False), ("cbam", False, False)],
)
def test_says_how_much_a_gain_explains(name, channels_alone, pixels_alone):
    found = tallied(shaken(registry.create(name, 32)), images())
    assert (found.by_channels > 1 - 1e-6) == channels_alone
    assert (found.by_pixels > 1 - 1e-6) == pixels_alone
    assert 0 < found.by_channels <= 1 + 1e-6


def test_channels_that_are_never_seen_have_no_numbers():
    x = images()
    x[:, 3] = 0
    found = tallied(shaken(registry.create("se", 32)), x)
    assert found.mean_C.isnan().nonzero().flatten().tolist() == [3]
    assert found.specificity_C[3].isnan()


def test_shrinking_averages_what_is_there():
    maps = torch.tensor([[1.0, 3.0, math.nan, 4.0], [1.0, 3.0, math.nan, math.nan]])
    assert shrunk(maps, 2).tolist() == [[2.0, 4.0], [2.0, pytest.approx(math.nan, nan_ok=True)]]
    assert shrunk(maps[None], 14).shape == (1, 2, 4)


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        GainTally(2).statistics()
