import pytest
import torch
from torch.nn import functional

from blocks.cifar_resnet import CifarResNet, PaddedShortcut, ResidualUnit


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("depth", "projection", "params"),
    [
        (20, False, 269_722),
        (20, True, 272_474),
        (32, True, 466_906),
        (56, True, 855_770),
        (110, True, 1_730_714),
    ],
)
def test_published_parameters(depth, projection, params):
    with torch.device("meta"):
        assert parameters(CifarResNet((depth - 2) // 6, projection=projection)) == params


def test_padded_shortcut_worked_out_by_hand():
    # Pixels of even rows and columns; one channel of zeros on each side.
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    expected = torch.zeros(1, 3, 2, 2)
    expected[0, 1] = torch.tensor([[0.0, 2.0], [8.0, 10.0]])
    assert torch.equal(PaddedShortcut(2)(x), expected)


def test_padded_shortcut_puts_the_odd_channel_last():
    out = PaddedShortcut(3)(torch.ones(1, 2, 2, 2))
    assert out[0, :, 0, 0].tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 2)])
def test_unit_is_two_convolutions_and_a_shortcut(channels, stride, projection):
    torch.manual_seed(0)
    unit = ResidualUnit(4, channels, stride=stride, projection=projection).eval().double()
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    # Norms at their start divide by sqrt(1 + 1e-5).
    norm = (1 + 1e-5) ** -0.5
    first = functional.conv2d(x, unit.conv1.weight, stride=stride, padding=1) * norm
    branch = functional.conv2d(first.relu(), unit.conv2.weight, padding=1) * norm
    if channels == 4:
        shortcut = x
    elif projection:
        shortcut = functional.conv2d(x, unit.shortcut[0].weight, stride=2) * norm
    else:
        shortcut = torch.cat(
            [torch.zeros(2, 2, 4, 3), x[:, :, ::2, ::2], torch.zeros(2, 2, 4, 3)], 1
        )
    torch.testing.assert_close(unit(x), (branch + shortcut).relu())


@pytest.mark.parametrize("projection", [False, True])
def test_network_is_its_stages_and_a_classifier_of_means(projection):
    torch.manual_seed(0)
    network = CifarResNet(2, num_classes=5, in_channels=1, projection=projection).eval()
    x = torch.randn(2, 1, 13, 8)
    features = network.bn1(network.conv1(x)).relu()
    for stage in (network.layer1, network.layer2, network.layer3):
        assert len(stage) == 2
        for unit in stage:
            features = unit(features)
    assert features.shape == (2, 64, 4, 2)
    expected = features.mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network(x), expected)


def test_start_is_kaiming_normal_without_biases():
    torch.manual_seed(0)
    network = CifarResNet(3)
    # Deviation sqrt(2 / fan in): 64 channels of 9 taps, 36,864 weights.
    deviation = network.layer3[2].conv2.weight.std().item()
    assert deviation == pytest.approx((2 / 576) ** 0.5, rel=0.02)
    assert not network.fc.bias.any()
