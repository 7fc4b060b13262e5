import math

import pytest
import torch

from blocks import registry
from blocks.self_attention import MultiHeadAttention, SelfAttention
from search.insight import attention_maps
from search.insight.attention_maps import (
    AttentionTally,
    attention_blocks,
    diagonal,
    entropy,
    pixel_distances,
    relative_entropy,
)


class Given:
    """A block whose weights are given, for every image alike."""

    def __init__(self, weights_NTT):
        self.weights = weights_NTT

    def attention_weights(self, x, queries=slice(None)):
        return self.weights[:, queries].expand(len(x), *self.weights[:, queries].shape)


def seen(block, x):
    tally = AttentionTally(block)
    tally(x, x, torch.zeros(len(x)))
    return tally.summary()


def test_uniform_attention_has_all_entropy_and_attention_to_one_pixel_none():
    weights = torch.stack((torch.full((4, 4), 0.25), torch.eye(4)))
    found = seen(Given(weights), torch.zeros(3, 5, 2, 2))
    assert found.entropy_N.tolist() == pytest.approx([math.log(4), 0.0])
    assert [relative_entropy(e, 4) for e in found.entropy_N.tolist()] == pytest.approx([1.0, 0.0])
    assert math.isnan(relative_entropy(0.0, 1))


def test_distances_by_hand():
    # In 2 x 2 pixels each has neighbours at 1, 1 and sqrt 2.
    uniform = (0 + 1 + 1 + math.sqrt(2)) / 4
    opposite = torch.eye(4).flip(0)
    found = seen(Given(torch.stack((torch.full((4, 4), 0.25), opposite))), torch.zeros(1, 1, 2, 2))
    assert found.distance_N.tolist() == pytest.approx([uniform, math.sqrt(2)])
    assert found.uniform_distance == pytest.approx(uniform)
    assert diagonal(2, 2) == pytest.approx(math.sqrt(2))
    assert pixel_distances(1, 3).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]


def test_what_a_pixel_is_given_and_where_the_middle_looks():
    weights = torch.zeros(1, 4, 4)
    weights[0, :, 1] = 1  # everybody looks at the second pixel
    found = seen(Given(weights), torch.zeros(1, 1, 2, 2))
    assert found.received_BNHW.tolist() == [[[[0, 1], [0, 0]]]]
    assert found.centre_BNHW.tolist() == [[[[0, 1], [0, 0]]]]


@pytest.mark.parametrize(
    "block",
    [SelfAttention(8), SelfAttention(8, scale=True), MultiHeadAttention(8, heads=4)],
    ids=["plain", "scaled", "heads"],
)
@pytest.mark.parametrize("size", [(3, 4), (20, 20)], ids=["products", "fused"])
def test_a_blocks_weights_are_those_that_its_output_is_made_with(block, size):
    torch.manual_seed(0)
    block.start_open()
    x = torch.randn(2, 8, *size)
    heads = getattr(block, "heads", 1)
    with torch.no_grad():
        weights = block.attention_weights(x)
        values = block.value(x).reshape(2, heads, 8 // heads, -1)
        joined = (weights @ values.mT).mT.reshape(x.shape)
        made = block.output(joined) if heads > 1 else joined
        torch.testing.assert_close(made, block(x), rtol=1e-4, atol=1e-5)
        some = block.attention_weights(x, slice(2, 5))
    torch.testing.assert_close(some, weights[:, :, 2:5])
    assert weights.shape == (2, heads, size[0] * size[1], size[0] * size[1])


def test_queries_in_parts_add_up(monkeypatch):
    block, x = MultiHeadAttention(8, heads=2), torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        whole = seen(block, x)
        monkeypatch.setattr(attention_maps, "NUMBERS_AT_ONCE", 2 * 2 * 25 * 7)
        parts = seen(block, x)
    torch.testing.assert_close(whole.entropy_N, parts.entropy_N)
    torch.testing.assert_close(whole.distance_N, parts.distance_N)
    torch.testing.assert_close(whole.received_BNHW, parts.received_BNHW)


def test_entropy_of_zero_weights_is_zero():
    assert entropy(torch.tensor([0.5, 0.5, 0.0])) == pytest.approx(math.log(2))


def test_blocks_are_found_inside_others():
    block = registry.create("parallel", 8, blocks="eca + mha(heads=2)")
    assert [type(found) for found in attention_blocks(block)] == [MultiHeadAttention]


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        AttentionTally(SelfAttention(8)).summary()
