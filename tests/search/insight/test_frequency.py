import pytest
import torch

from blocks import registry
from blocks.fca import FrequencyChannelAttention, dct_basis
from blocks.frequency import scaled_index
from search.insight.frequency import FrequencyTally, frequency_blocks


def seen(block, x):
    tally = FrequencyTally(block)
    tally(x, x, torch.zeros(len(x)))
    return tally.shares()


def wave(u, v, size=7):
    return (dct_basis(u, size)[:, None] * dct_basis(v, size)[None, :]).float()


def test_a_group_picks_up_all_of_its_own_wave_and_none_of_another():
    block = FrequencyChannelAttention(4, frequency="0,1+6,0")
    x = torch.stack([wave(0, 1), 2 * wave(0, 1), wave(0, 1), wave(3, 3)])[None]
    found = seen(block, x)
    assert found.pairs == ((0, 1), (6, 0))
    assert found.shares == pytest.approx((1.0, 0.0), abs=1e-6)
    assert found.means == pytest.approx((0.0, 0.0), abs=1e-6)
    assert found.energies == pytest.approx((5 / 7, 2 / 7))
    # Energies 1 + 4 + 1 of wave (0, 1) and 1 of (3, 3).
    assert found.spectrum_uv[0, 1] == pytest.approx(6 / 7)
    assert found.spectrum_uv[3, 3] == pytest.approx(1 / 7)
    assert (found.distinct, found.size) == (49, (7, 7))


def test_share_by_hand_of_a_mixture():
    # 3 in the mean and 4 in wave (0, 2): 9 / 25 and 16 / 25 of the energy.
    block = FrequencyChannelAttention(2, frequency="0,0+0,2")
    x = (3 * wave(0, 0) + 4 * wave(0, 2)).repeat(1, 2, 1, 1)
    found = seen(block, x)
    assert found.shares == pytest.approx((9 / 25, 16 / 25))
    assert found.means == pytest.approx((9 / 25, 9 / 25))


def test_the_spectrum_of_the_grid_holds_all_energy_of_a_map_of_its_size():
    x = torch.randn(3, 16, 7, 7, generator=torch.Generator().manual_seed(0))
    assert seen(FrequencyChannelAttention(16), x).spectrum_uv.sum() == pytest.approx(1.0)


def test_shares_are_squares_of_the_blocks_own_descriptors():
    block = FrequencyChannelAttention(32, frequency="low4", dct_size=7)
    x = torch.randn(3, 32, 14, 14, generator=torch.Generator().manual_seed(0))
    described = block.describe(x).square().sum(0).view(4, 8).sum(1)
    pooled = torch.nn.functional.adaptive_avg_pool2d(x, 7)
    energy = pooled.square().sum((0, 2, 3)).view(4, 8).sum(1)
    assert seen(block, x).shares == pytest.approx((described / energy).tolist())


def test_learnt_frequencies_are_normed_and_say_what_they_chose():
    block = FrequencyChannelAttention(4, frequency="nas2")
    with torch.no_grad():
        block.alpha[0, 8] = 50.0  # (1, 1), alone
        block.alpha[1, [7, 14]] = 50.0  # (1, 0) and (2, 0), half each
    x = torch.stack([wave(1, 1), wave(1, 1), wave(1, 0) + wave(2, 0), wave(1, 0)])[None]
    found = seen(block, x)
    assert found.pairs[0] == (1, 1)
    assert found.pairs[1] in ((1, 0), (2, 0))
    assert found.weights == pytest.approx((1.0, 0.5), abs=1e-4)
    # (w1 + w2) / sqrt 2 is all of the third channel, half of the fourth: (2 + 0.5) / 3.
    assert found.shares == pytest.approx((1.0, 2.5 / 3), abs=1e-4)


def test_small_maps_say_how_many_frequencies_differ():
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    found = seen(FrequencyChannelAttention(16), x)
    assert found.distinct == len({scaled_index(i, 4) for i in range(7)}) ** 2 == 16


def test_blocks_are_found_inside_others():
    block = registry.create("sequential", 16, blocks="eca + fca(frequency=top2)", residual=True)
    (found,) = frequency_blocks(block)
    assert found.pairs == ((0, 0), (0, 1))


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        FrequencyTally(FrequencyChannelAttention(16)).shares()
