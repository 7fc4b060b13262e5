"""Published recipes of training, by name: what a space's ``training: {recipe: NAME}`` stands for.

A recipe is written in shares of the training and in learning rates for a batch of a stated size, so
that it holds at any scale: fewer epochs, smaller batches. The keys given beside it win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """One published way of training.

    Args:
        name: As spaces name it.
        source: Where it is published, and where this departs from it.
        settings: Setting -> value.
    """

    name: str
    source: str
    settings: Mapping[str, Any]


_CIFAR = {"epochs": 182, "batch_size": 128, "reference_batch": 128, "crop": 4, "flip": "random"}
_STEPS = {"schedule": "step", "milestones": "0.5 + 0.75", "weight_decay": 1e-4}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "resnet-cifar",
            "He et al. 2016, arXiv:1512.03385, section 4.2: 64,000 steps of 128 images, a tenth of"
            " the rate after 32,000 and 48,000. CNNtention's baseline is trained by it",
            {**_CIFAR, **_STEPS, "optimizer": "momentum", "learning_rate": 0.1},
        ),
        Recipe(
            "cnntention",
            "The runs of CNNtention's attention networks as its repository configures them (Adam"
            " at 0.005, the steps of resnet-cifar); its reported runs also stopped early by the"
            " test error, which this does not",
            {**_CIFAR, **_STEPS, "optimizer": "adam", "learning_rate": 5e-3},
        ),
        Recipe(
            "tripse",
            "Alhazmi and Altahhan 2025, arXiv:2505.05943, name RAdam; rate, decay and schedule are"
            " RAdam's default (0.001, arXiv:1908.03265) and a cosine, since no code is published",
            {
                "epochs": 100,
                "batch_size": 128,
                "optimizer": "radam",
                "learning_rate": 1e-3,
                "reference_batch": 128,
                "weight_decay": 1e-4,
                "crop": 4,
                "flip": "random",
            },
        ),
        Recipe(
            "fcanet-imagenet",
            "Qin et al. 2021, arXiv:2012.11879, and the authors' main.py: SGD, 0.1 for 256 images,"
            " five of 100 epochs to warm up, cosine, label smoothing. Aspect ratios here are 3/4"
            " to 4/3, theirs 4/5 to 5/4",
            {
                "epochs": 100,
                "batch_size": 256,
                "optimizer": "momentum",
                "learning_rate": 0.1,
                "reference_batch": 256,
                "weight_decay": 1e-4,
                "warmup": 0.05,
                "label_smoothing": 0.1,
                "resized_crop": 0.1,
                "flip": "random",
                "input_size": 224,
            },
        ),
        Recipe(
            "senet-imagenet",
            "Hu et al. 2018, arXiv:1709.01507, section 6.1: SGD, 0.6 for 1,024 images, a tenth of"
            " it every 30 of 100 epochs. The weight decay, which the paper does not state, is"
            " ResNet's (arXiv:1512.03385)",
            {
                "epochs": 100,
                "batch_size": 1024,
                "optimizer": "momentum",
                "learning_rate": 0.6,
                "reference_batch": 1024,
                "weight_decay": 1e-4,
                "schedule": "step",
                "milestones": "0.3 + 0.6 + 0.9",
                "resized_crop": 0.08,
                "flip": "random",
                "input_size": 224,
            },
        ),
    )
}
