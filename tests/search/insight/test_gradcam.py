import pytest
import torch
from torch import nn

from blocks import registry
from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from blocks.errors import StudyError
from search.insight.gradcam import grad_cam, grad_cam_of, last_stage, scaled, upsampled


class Pooled(nn.Module):
    """Two maps, (x, -2 x + 1), their means, and two classes with weights ((3, 1), (-1, 0))."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(1, 2, kernel_size=1)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.maps.weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
            self.maps.bias.copy_(torch.tensor([0.0, 1.0]))
            self.head.weight.copy_(torch.tensor([[3.0, 1.0], [-1.0, 0.0]]))

    def forward(self, x):
        return self.head(self.maps(x).mean((2, 3)))


def test_by_hand():
    network = Pooled()
    x = torch.tensor([[[[1.0, 2.0], [-3.0, 0.0]]]]).repeat(2, 1, 1, 1)
    cam = grad_cam(network, x, torch.tensor([0, 1]), network.maps)
    # alpha = w / 4. Class 0: (3 x + (1 - 2 x)) / 4 = (x + 1) / 4; class 1: -x / 4; negatives are 0.
    assert cam[0].tolist() == [[0.5, 0.75], [0.0, 0.25]]
    assert cam[1].tolist() == [[0.0, 0.0], [0.75, 0.0]]


def test_nothing_of_the_network_is_changed():
    network = Pooled().train()
    network.head.weight.requires_grad_(False)
    grad_cam(network, torch.randn(2, 1, 3, 3), torch.tensor([0, 1]), network.maps)
    assert network.training
    assert [p.requires_grad for p in network.parameters()] == [True, True, False]
    assert all(p.grad is None for p in network.parameters())
    assert not network.maps._forward_hooks


def test_a_step_in_place_behind_the_map_changes_nothing():
    network = Pooled()
    changed = Pooled()
    changed.maps = nn.Sequential(changed.maps, nn.ReLU(inplace=True))
    network.maps = nn.Sequential(network.maps, nn.ReLU())
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    asked = torch.tensor([0, 0])
    torch.testing.assert_close(
        grad_cam(changed, x, asked, changed.maps[0]), grad_cam(network, x, asked, network.maps[0])
    )


def test_maps_are_enlarged_and_divided_by_their_peak():
    maps = torch.tensor([[[0.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    large = upsampled(maps, (8, 6))
    assert large.shape == (2, 8, 6)
    assert large[0, 0, -1] == large.max() == 1
    assert large[1].max() == 0
    assert scaled(maps).amax((1, 2)).tolist() == [1, 0]


def built(backbone, size, *placements, channels=1):
    architecture = Architecture(backbone, placements, size)
    return build_network(architecture, in_channels=channels, seed=0)


@pytest.mark.parametrize("block", ["none", "se", "mha", "simam", "timm:gc"])
def test_it_is_the_gradient_of_the_whole_network(block):
    """Against plain autograd through everything, with the map read where the stage ends."""
    placed = () if block == "none" else (Placement("stage3", block),)
    network = built("resnet20", (14, 14), *placed).eval()
    x = torch.randn(3, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    kept = []
    stage = network.get_submodule(last_stage(network).path)

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    handle = stage.register_forward_hook(keep)
    logits = network(x)
    handle.remove()
    logits[:, 2].sum().backward()
    (maps,) = kept
    expected = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()
    found = grad_cam_of(network, x, torch.tensor([2, 2, 2]))
    assert found.shape == (3, 4, 4)
    assert found.max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["se", "fca", "cbam", "simam", "scse", "triplet", "tripse4", "spse"]
)
def test_gradients_of_our_own_are_those_of_the_plain_steps(name):
    """In evaluation mode, on a map large enough for all of ``blocks.passes``."""
    torch.manual_seed(0)
    block = registry.create(name, 32).eval()
    x = torch.randn(8, 32, 48, 48)
    weight = torch.randn_like(x)

    def score(x):
        return (block(x) * weight).sum()

    leaf = x.clone().requires_grad_()
    (own,) = torch.autograd.grad(score(leaf), leaf)
    torch.testing.assert_close(own, torch.func.grad(score)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "size", "map_size"),
    [
        ("vit_tiny_patch16_224", (64, 64), (4, 4)),
        ("swin_tiny_patch4_window7_224", (64, 64), (2, 2)),
        ("convnext_atto", (64, 64), (2, 2)),
        ("densenet121", (64, 64), (2, 2)),
        ("preact-resnet18", (32, 32), (4, 4)),
    ],
)
@pytest.mark.parametrize("block", ["none", "se"])
def test_other_backbones(backbone, size, map_size, block):
    placed = () if block == "none" else (Placement("stage", block),)
    network = built(backbone, size, *placed, channels=3)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    cam = torch.stack([grad_cam_of(network, x, torch.full((2,), c)) for c in range(4)])
    assert cam.shape == (4, 2, *map_size)
    assert (cam.amax((0, 2, 3)) > 0).all()


def test_a_network_that_says_nothing_of_its_stages_is_refused():
    with pytest.raises(StudyError, match=r"build_network.*grad_cam"):
        grad_cam_of(Pooled(), torch.zeros(1, 1, 2, 2), torch.tensor([0]))
