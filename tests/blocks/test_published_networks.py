"""Networks of timm against published figures, and against other counters where they agree.

MACs are those of convolutions, linear layers and matrix products, attention's included: the
convention of torchvision's table of weights, whose figures these are where it has the network.
Others print the same to one digit (DeiT, arXiv:2012.12877; RegNet, arXiv:2003.13678).
"""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from blocks.cost import measure_cost

# timm's name: side of the image, parameters (timm's), GMACs as printed, torchvision's name
PUBLISHED = {
    "resnet18": (224, 11_689_512, "1.814", "ResNet18"),
    "resnet50": (224, 25_557_032, "4.089", "ResNet50"),
    "resnext50_32x4d": (224, 25_028_904, "4.230", "ResNeXt50_32X4D"),
    "wide_resnet50_2": (224, 68_883_240, "11.398", "Wide_ResNet50_2"),
    "densenet121": (224, 7_978_856, "2.834", "DenseNet121"),
    "convnext_tiny": (224, 28_589_128, "4.456", "ConvNeXt_Tiny"),
    "mobilenetv2_100": (224, 3_504_872, "0.301", "MobileNet_V2"),
    "mobilenetv3_large_100": (224, 5_483_032, "0.217", "MobileNet_V3_Large"),
    "efficientnet_b0": (224, 5_288_548, "0.386", "EfficientNet_B0"),
    "regnetx_008": (224, 7_259_656, "0.800", "RegNet_X_800MF"),
    "regnety_008": (224, 6_263_168, "0.8", None),
    "vgg16": (224, 138_357_544, "15.470", "VGG16"),
    "inception_v3": (299, 23_834_568, "5.713", "Inception_V3"),
    "vit_tiny_patch16_224": (224, 5_717_416, "1.3", None),
    "vit_small_patch16_224": (224, 22_050_664, "4.6", None),
    "swin_tiny_patch4_window7_224": (224, 28_288_354, "4.491", "Swin_T"),
}


def on_meta(name):
    with torch.device("meta"):
        return timm.create_model(name).eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    # An operator in no table would be a warning, and so an error.
    side, params, gmacs, _ = PUBLISHED[name]
    cost = measure_cost(on_meta(name), (3, side, side))
    assert (cost.params, cost.trainable_params) == (params, params)
    decimals = len(gmacs.partition(".")[2])
    assert f"{cost.macs / 1e9:.{decimals}f}" == gmacs
    # What the papers leave out is little beside it.
    assert 2 * cost.macs < cost.flops < 2.2 * cost.macs


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row[3]])
def test_the_figures_above_are_torchvisions(name):
    *_, gmacs, theirs = PUBLISHED[name]
    weights = getattr(torchvision.models, f"{theirs}_Weights").DEFAULT
    assert weights.meta["_ops"] == float(gmacs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchs_counter_counts_two_operations_a_mac(name):
    side, *_ = PUBLISHED[name]
    network = on_meta(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        network(torch.empty(1, 3, side, side, device="meta"))
    assert counted.get_total_flops() == 2 * measure_cost(network, (3, side, side)).macs


class Attention(nn.Module):
    """Torch's own multi-head attention between the rows of an image."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x_B1TC):
        tokens_BTC = x_B1TC.squeeze(1)
        return self.attention(tokens_BTC, tokens_BTC, tokens_BTC, need_weights=False)[0]


def test_where_torchs_counter_differs():
    # 6 tokens of 8: three projections in and one out, 6 x 6 pairs twice.
    network = Attention().eval()
    assert measure_cost(network, (1, 6, 8)).macs == 4 * 6 * 64 + 2 * 36 * 8
    with torch.no_grad(), FlopCounterMode(display=False) as fused:
        network(torch.zeros(1, 1, 6, 8))
    assert fused.get_total_flops() == 0  # one operator that it does not know
    plain = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Softmax(dim=1)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as others:
        plain(torch.zeros(1, 4, 6, 6))
    assert others.get_total_flops() == 0
    assert measure_cost(plain, (4, 6, 6)).flops == 2 * 144 + 144 + 3 * 36 + 5 * 36


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLISHED)
def test_fvcore_counts_the_same_macs(name):
    """It counts one operation a MAC; its own table beside the three operators is left out.

    It leaves fused attention out, so that networks with attention have fewer there by its
    products: 2 T^2 C a layer of T tokens of C.
    """
    fvcore = pytest.importorskip("fvcore.nn", reason="pip install fvcore")
    side, *_ = PUBLISHED[name]
    network = timm.create_model(name).eval()
    analysis = fvcore.FlopCountAnalysis(network, torch.zeros(1, 3, side, side))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    theirs = analysis.by_operator()
    macs = sum(theirs[kind] for kind in ("conv", "linear", "matmul", "addmm", "bmm"))
    assert macs == measure_cost(network, (3, side, side)).macs - unseen_attention(name)


def unseen_attention(name):
    if not name.startswith("vit"):
        return 0
    channels = {"vit_tiny_patch16_224": 192, "vit_small_patch16_224": 384}[name]
    return 12 * 2 * 197**2 * channels
