"""Which adapter knows the networks of a class. No torch."""

from __future__ import annotations

FAMILIES: dict[str, str] = {
    "ConvNeXt": "convnext:points",
    "DenseNet": "dense:points",
    "EfficientNet": "inverted:points",
    "GhostNet": "ghost:points",
    "InceptionV3": "inception:v3_points",
    "InceptionV4": "inception:v4_points",
    "MobileNetV3": "inverted:points",
    "RegNet": "regnet:points",
    "ResNet": "residual:timm_points",
    "ResNetV2": "preactivation:points",
    "SwinTransformer": "tokens:swin_points",
    "VGG": "vgg:points",
    "VisionTransformer": "tokens:vit_points",
    "VisionTransformerDistilled": "tokens:vit_points",
}
ANY_OTHER = "features:points"


def family_of(network_class: str) -> str:
    """The adapter of timm's networks of a class, as "module:function" of this folder."""
    return FAMILIES.get(network_class, ANY_OTHER)
