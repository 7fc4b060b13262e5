"""A few images of a data set, for trainings of a fraction of a second."""

from dataclasses import replace

import torch

from search.batches import resident
from search.datasets import load_data


def fewer(name="digits", *, device="cpu", **cut):
    """Batches of the first images of each part.

    Args:
        name: The data set.
        device: Where.
        cut: Split -> how many images.
    """
    data = load_data(name)
    images = {split: data.images[split][:n] for split, n in cut.items()}
    labels = {split: data.labels[split][:n] for split, n in cut.items()}
    return resident(replace(data, images=images, labels=labels), torch.device(device))
