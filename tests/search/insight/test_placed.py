import pytest
import torch
from torch import nn

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from search.insight.gates import channel_gain
from search.insight.placed import evaluating, placed_blocks, run_observed

PAIR = Placement("stage2", "sequential", {"blocks": "se + eca", "residual": True})


def built(*placements, seed=0):
    return build_network(Architecture("resnet20", placements, (14, 14)), in_channels=1, seed=seed)


def test_what_was_inserted_is_found_with_members_of_compositions():
    network = built(
        Placement("stem", "simam"), PAIR, Placement("stage3", "se", identity_start=True)
    )
    found = placed_blocks(network)
    assert [(block.key, block.block, block.stage) for block in found] == [
        ("stem", "simam", 0),
        ("stage2", "sequential", 2),
        ("stage2/1", "se", 2),
        ("stage2/2", "eca", 2),
        ("stage3", "se", 3),
    ]
    assert placed_blocks(built()) == []


def test_observers_see_maps_and_labels_and_the_network_is_as_before():
    network = built(PAIR).train()
    network.fc = network.get_submodule("fc") if hasattr(network, "fc") else nn.Identity()
    next(network.parameters()).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    whole, first, second = placed_blocks(network)
    seen = []

    def see(x, y, labels):
        seen.append((x, y, labels.tolist(), network.training))

    images, labels = torch.randn(5, 1, 14, 14), torch.arange(5)
    shares = run_observed(network, images, labels, [(whole.module, see)], batch=3)
    assert [labels for _, _, labels, _ in seen] == [[0, 1, 2], [3, 4]]
    assert not any(training for *_, training in seen)
    assert shares.sum(1).tolist() == pytest.approx([1] * 5)
    torch.testing.assert_close(shares, network.eval()(images).softmax(1))
    x, y, *_ = seen[0]
    with torch.no_grad():
        torch.testing.assert_close(y, x + second.module(first.module(x)))
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    assert not whole.module._forward_hooks
    assert not whole.module._forward_pre_hooks


class Halve(nn.Module):
    def forward(self, x):
        return x.mul_(0.5)


def test_a_block_that_changes_its_input_is_seen_as_it_is():
    network = nn.Sequential(nn.Identity(), Halve(), nn.Flatten())
    gains = []

    def see(x, y, labels):
        gains.append(channel_gain(x, y))

    images = torch.randn(2, 3, 2, 2)
    run_observed(network, images.clone(), torch.zeros(2), [(network[1], see)])
    assert gains[0].flatten().tolist() == pytest.approx([0.5] * 6)


def test_the_state_comes_back_after_an_error():
    network = built().train()
    with pytest.raises(ValueError, match="planted"), evaluating(network):
        assert not network.training
        raise ValueError("planted")
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
