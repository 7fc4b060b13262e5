"""Frozen parts do not move by a bit; attention has a learning rate of its own."""

import pytest
import torch
from fewer import fewer

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from search import optimisation
from search.training import train
from search.tuning import attention_blocks, parameter_groups
from spaces.training import Training

CBAM = Architecture(
    "resnet20", (Placement("in-block", "cbam", {}, identity_start=True),), input_size=(14, 14)
)
SE = Architecture("resnet20", (Placement("stage", "se"),), input_size=(14, 14))
NONE = Architecture("resnet20", (), (14, 14))


@pytest.fixture(scope="module")
def few():
    return fewer(train=192, validation=64, test=64)


def moved(data, architecture, **settings):
    """The network before and after two epochs, and the names of what has moved."""
    network = build_network(architecture, in_channels=1, seed=0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = Training(epochs=2, **settings)
    train(network, data, training, seed=0, goes_on=lambda result: True)
    after = network.state_dict()
    return network, {name for name in after if not torch.equal(after[name], before[name])}


def of_attention(network):
    modules = {id(part) for block in attention_blocks(network) for part in block.modules()}
    return {
        f"{path}.{name}"
        for path, module in network.named_modules()
        if id(module) in modules
        for named in (module.named_parameters, module.named_buffers)
        for name, _ in named(recurse=False)
    }


def backbone_norms(network):
    inside = of_attention(network)
    return {
        f"{path}.{name}"
        for path, module in network.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for name in module.state_dict()
    } - inside


def test_a_frozen_backbone_does_not_move_by_a_bit(few):
    network, changed = moved(few, CBAM, freeze="backbone", learning_rate=0.01)
    trained = of_attention(network) | {"fc.weight", "fc.bias"}
    # A squeezed layer of one channel whose ReLU is shut gives its bias, which is 0, no gradient.
    assert {name for name in trained - changed if not name.endswith("squeeze.bias")} == set()
    assert changed <= trained
    assert "layer1.0.bn2.attention.strength" in changed


def test_a_frozen_backbone_without_attention_trains_its_classifier(few):
    assert moved(few, NONE, freeze="backbone")[1] == {"fc.weight", "fc.bias"}


def test_frozen_norms_do_not_move_by_a_bit_and_all_else_does(few):
    network, changed = moved(few, CBAM, freeze="norms", learning_rate=0.01)
    assert changed == set(network.state_dict()) - backbone_norms(network)
    assert len(backbone_norms(network)) == 19 * 5


def test_without_freezing_everything_moves(few):
    network, changed = moved(few, CBAM, learning_rate=0.5)
    assert changed == set(network.state_dict())


def test_a_frozen_backbone_computes_in_training_what_it_computes_in_evaluation(few, monkeypatch):
    modes = []
    step = torch.optim.SGD.step

    def spy(optimiser, *arguments, **named):
        modes.append((network.layer1[0].bn1.training, network.layer1[0].bn2.host.training, block()))
        return step(optimiser, *arguments, **named)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    network = build_network(CBAM, in_channels=1, seed=0)

    def block():
        norms = [
            module
            for block in attention_blocks(network)
            for module in block.modules()
            if isinstance(module, torch.nn.BatchNorm2d)
        ]
        assert norms
        return all(module.training for module in norms)

    training = Training(epochs=2, freeze="backbone")
    train(network, few, training, seed=0, goes_on=lambda result: True)
    assert modes == [(False, False, True)] * 6


def rates(monkeypatch, data, architecture, **settings):
    """(learning rates of the groups, sizes of the groups) at every step; what was reported."""
    seen, reported = [], []
    step = torch.optim.SGD.step

    def spy(optimiser, *arguments, **named):
        groups = optimiser.param_groups
        seen.append([(g["lr"], len(g["params"]), g["weight_decay"], g["fused"]) for g in groups])
        return step(optimiser, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", spy)
        network = build_network(architecture, in_channels=1, seed=0)
        train(
            network,
            data,
            Training(epochs=2, **settings),
            seed=0,
            goes_on=lambda result: reported.append(result) or True,
        )
    return network, seen, reported


def test_the_optimiser_uses_the_factor_at_every_step_of_the_cosine(few, monkeypatch):
    network, steps, reported = rates(
        monkeypatch, few, SE, learning_rate=0.2, attention_learning_rate=2.5
    )
    blocks = [p for block in attention_blocks(network) for p in block.parameters()]
    everything = list(network.parameters())
    assert len(steps) == 6
    for index, (backbone, attention) in enumerate(steps):
        expected = 0.1 * (1 + torch.cos(torch.tensor(torch.pi * index / 6)).item())
        assert backbone == (pytest.approx(expected), len(everything) - len(blocks), 5e-4, True)
        assert attention == (pytest.approx(2.5 * backbone[0]), len(blocks), 5e-4, True)
    # What a trial reports is the backbone's.
    assert reported[0].learning_rate == pytest.approx(0.1)


def test_one_step_moves_attention_by_the_factor(few, monkeypatch):
    def step(factor):
        network = build_network(SE, in_channels=1, seed=0)
        settings = Training(
            1, 192, 0.125, 0, 0, attention_learning_rate=factor
        )  # powers of two: products are exact
        start = {name: p.detach().clone() for name, p in network.named_parameters()}
        train(network, few, settings, seed=0, goes_on=lambda result: True)
        inside = {id(p) for block in attention_blocks(network) for p in block.parameters()}
        return {
            name: (p.detach() - start[name], id(p) in inside)
            for name, p in network.named_parameters()
        }

    plain, faster = step(1), step(4)
    for name, (change, is_attention) in plain.items():
        wanted = 4 * change if is_attention else change
        torch.testing.assert_close(faster[name][0], wanted, rtol=1e-4, atol=1e-6)
        if not is_attention:
            assert torch.equal(faster[name][0], change), name
    assert any(is_attention and change.abs().max() > 0 for change, is_attention in plain.values())


def test_the_neutral_factor_and_groups_train_alike(few, monkeypatch):
    """Two groups at one rate give the weights of one group, bit for bit."""

    def two_groups(network, training):
        inside = {id(p) for block in attention_blocks(network) for p in block.parameters()}
        return [
            {"params": [p for p in network.parameters() if id(p) not in inside]},
            {"params": [p for p in network.parameters() if id(p) in inside]},
        ]

    one = moved(few, SE)[0].state_dict()
    monkeypatch.setattr(optimisation, "parameter_groups", two_groups)
    two = moved(few, SE)[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_groups_hold_what_is_trained_and_no_more():
    network = build_network(CBAM, in_channels=1, seed=0)
    (group,) = parameter_groups(network, Training())
    assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]
    plain = build_network(NONE, in_channels=1, seed=0)
    (only,) = parameter_groups(plain, Training(attention_learning_rate=3))
    assert len(only["params"]) == len(list(plain.parameters()))
