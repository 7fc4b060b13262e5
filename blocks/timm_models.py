"""Registers our networks with timm: ``timm.create_model("cifar_resnet20", num_classes=100)``.

Importing this module is what registers them. Their arguments are timm's ``num_classes`` and
``in_chans`` and those of the network's class; there are no pretrained weights of them.
"""

from __future__ import annotations

from typing import Any

from timm.models import is_model, register_model
from torch import nn

from blocks.errors import BackboneError
from blocks.own_networks import OWN_NETWORKS, OwnNetwork

# What timm hands to every model, which says where pretrained weights would come from.
OF_PRETRAINED = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def _register(row: OwnNetwork) -> None:
    def entrypoint(pretrained: bool = False, **settings: Any) -> nn.Module:
        if pretrained:
            raise BackboneError(
                f"{row.timm_name}: no pretrained weights of it are published; leave pretrained"
                " out, or set it to False"
            )
        for name in OF_PRETRAINED:
            settings.pop(name, None)
        classes = settings.pop("num_classes", 10 if row.small else 1000)
        return row.build(classes, settings.pop("in_chans", 3), **settings)

    entrypoint.__name__ = entrypoint.__qualname__ = row.timm_name
    entrypoint.__doc__ = f"{row.title}."
    if not is_model(row.timm_name):
        register_model(entrypoint)


for _row in OWN_NETWORKS:
    _register(_row)
