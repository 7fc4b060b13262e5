"""The golden files of sites: which tensor each site of a backbone is, and its shape.

`python tests/support/site_files.py` writes them again; look at what changed before keeping it.
"""

import json
from pathlib import Path

from blocks.backbone import trace_sites

FOLDER = Path(__file__).parent.parent / "blocks" / "sites"
CIFAR = ("resnet20", "resnet20-b", "resnet32", "wrn16-4", "wrn28-10", "preact-resnet18")
# Of the images; 224 otherwise.
SIDES = {"inception_v3": 299, "inception_v4": 299, **dict.fromkeys(CIFAR, 32)}
GOLDEN = (
    *("resnet18", "resnet50", "resnet50d", "wide_resnet50_2", "resnext50_32x4d", "seresnet50"),
    *("resnetv2_18", "resnetv2_50", "densenet121", "mobilenetv2_100"),
    *("mobilenetv3_small_100", "mobilenetv3_large_100", "mnasnet_100", "efficientnet_b0"),
    *("efficientnetv2_rw_t", "ghostnet_100", "regnetx_004", "regnety_004"),
    *("vgg11_bn", "vgg16", "vgg16_bn", "inception_v3", "inception_v4"),
    *("convnext_tiny", "convnextv2_tiny", "vit_tiny_patch16_224"),
    *("deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
    *(*CIFAR, "mobilenext_100"),
    *("xception41", "poolformer_s12", "volo_d1_224"),
)


def site_rows(name):
    """[name, path, side, layout, C, H, W, other positions] of every site."""
    side = SIDES.get(name, 224)
    table = trace_sites(name, (3, side, side), 1000)
    return [
        [
            *(site.name, site.path, site.side, site.layout),
            *(site.shape.channels, site.shape.height, site.shape.width),
            " ".join((*site.also, *(["own"] if site.own else []))),
        ]
        for site in table.sites
    ]


def read_rows(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write_rows(name):
    rows = ",\n".join(json.dumps(row) for row in site_rows(name))
    (FOLDER / f"{name}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    for name in GOLDEN:
        write_rows(name)
