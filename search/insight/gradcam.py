"""Grad-CAM: which pixels of the last stage's map speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv:1610.02391. For a class c and the maps A^k, eq. 1 weighs each map by
its mean gradient, alpha_k = 1/Z sum_ij d y^c / d A^k_ij with y^c before the softmax; eq. 2 is
L = ReLU(sum_k alpha_k A^k). The map is what the last stage returns, with a block that stands there;
gradients reach it alone, in evaluation mode.
"""

# Shape letters: B batch, C channels, H height, K classes, W width.
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.backbone import site_table
from blocks.build import MadeFor
from blocks.errors import StudyError
from blocks.site import NHWC, STAGE, TOKENS, Site
from search.insight.placed import evaluating


def last_stage(network: nn.Module) -> Site:
    """The site at the end of the last stage of a network that ``blocks.build`` made.

    Raises:
        StudyError: The network does not say what it was made for.
    """
    made_for: Any = getattr(network, "made_for", None)
    if not isinstance(made_for, MadeFor):
        raise StudyError(
            "Grad-CAM needs a network of blocks.build.build_network, which says where its stages"
            " end; for another one give the module (grad_cam)"
        )
    table = site_table(made_for.backbone, made_for.shape, made_for.classes)
    return [site for site in table.sites if site.placement == STAGE][-1]


def grad_cam_of(network: nn.Module, images_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    """Grad-CAM on the map of the last stage; arguments and result as those of ``grad_cam``."""
    site = last_stage(network)
    return grad_cam(network, images_BCHW, classes_B, network.get_submodule(site.path), site)


def grad_cam(
    network: nn.Module,
    images_BCHW: Tensor,
    classes_B: Tensor,
    module: nn.Module,
    site: Site | None = None,
) -> Tensor:
    """How much each pixel of a module's map speaks for a class, by eq. 1 and 2.

    Args:
        network: Maps images to logits (B, K).
        images_BCHW: Normalised images.
        classes_B: The class of each image that is asked for.
        module: Returns the map.
        site: How the map lies in memory; left out, (B, C, H, W).

    Returns:
        (B, H, W) of the map's size, 0 and above.
    """
    kept: list[Tensor] = []

    def cut(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        """Begin the graph here; what follows may change its input in place, so it has a copy."""
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    handle = module.register_forward_hook(cut)
    try:
        with evaluating(network), torch.enable_grad():
            logits_BK = network(images_BCHW)
            score = logits_BK.gather(1, classes_B[:, None]).sum()
            found = torch.autograd.grad(score, kept[-1], allow_unused=True, materialize_grads=True)
    finally:
        handle.remove()
    map_BCHW, gradient_BCHW = (as_map(each, site) for each in (kept[-1].detach(), *found))
    alpha_BC11 = gradient_BCHW.mean(dim=(2, 3), keepdim=True)
    return (alpha_BC11 * map_BCHW).sum(dim=1).relu()


def as_map(x: Tensor, site: Site | None) -> Tensor:
    """What lies at a site as (B, C, H, W); tokens before those of the pixels are left out."""
    if site is None or site.layout not in (NHWC, TOKENS):
        return x
    if site.layout == TOKENS:
        x = x[:, site.prefix :].reshape(len(x), site.shape.height, site.shape.width, -1)
    return x.permute(0, 3, 1, 2)


def upsampled(maps_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps at the size of the image, each divided by its largest number; (B, height, width)."""
    large = functional.interpolate(
        maps_BHW[:, None], size=size, mode="bilinear", align_corners=False
    ).squeeze(1)
    return scaled(large)


def scaled(maps_BHW: Tensor) -> Tensor:
    """Each map divided by its largest number; one of zeros stays."""
    peaks_B11 = maps_BHW.amax(dim=(1, 2), keepdim=True)
    return maps_BHW / peaks_B11.where(peaks_B11 > 0, 1)
