"""Small trainings that one process and several must end alike.

As a script, one of the several: ``python together.py RANK PROCESSES PORT RESULTS``.
"""

import sys

import torch
from fewer import fewer
from torch import nn

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from search.distributed import ALONE, join, open_store
from search.training import Diverged, Step, begin, train
from spaces.training import Training


def plain():
    """No batch norm."""
    layers = [nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def normed():
    """Two batch norms: torch's, and timm's with an activation inside.

    Without biases before them: their gradients are 0, and Adam makes whole steps of rounding.
    """
    from timm.layers import BatchNormAct2d

    layers = [nn.Conv2d(1, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 16, 3, stride=2, bias=False), BatchNormAct2d(16)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def residual():
    """A whole network with attention."""
    placements = (Placement("stage", "se", {"reduction": 4}),)
    architecture = Architecture("resnet20", placements, (14, 14))
    return build_network(architecture, in_channels=1, seed=0)


CASES = {
    "plain": (plain, {}),
    "mixed": (plain, {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1, "crop": 2}),
    "normed": (normed, {"clip_gradient": 1.0, "flip": "random"}),
    "averaged": (normed, {"weight_average": 0.9, "optimizer": "adamw", "learning_rate": 0.01}),
    "residual": (residual, {"epochs": 1, "learning_rate": 0.02, "freeze": "norms"}),
    "stopped": (plain, {"epochs": 4}),
    "wild": (plain, {"learning_rate": 1e12, "epochs": 6}),
}


def trained(case, division=ALONE):
    """(loss and accuracy of every epoch, the evaluated network's state, checkpoints, ending)."""
    make, settings = CASES[case]
    torch.manual_seed(3)
    network = make().to(memory_format=torch.channels_last)
    data = fewer(train=128, validation=64, test=64)
    curve, kept = [], []

    def goes_on(result):
        curve.append((result.train_loss, result.train_accuracy, result.loss, result.accuracy))
        return not (case == "stopped" and result.epoch == 2)

    training = Training(**{"epochs": 2, "batch_size": 32, "learning_rate": 0.1, **settings})
    try:
        network = train(
            network, data, training, seed=1, goes_on=goes_on, kept=kept.append, division=division
        )
        ending = "trained"
    except Diverged:
        ending = "diverged"
    return curve, network.state_dict(), len(kept), ending


def stepped(division=ALONE):
    """Losses and weights of three steps of a network with 21 batch norms, in double precision."""
    network = residual().double()
    training = Training(epochs=1, batch_size=16, learning_rate=0.1)
    step = Step(begin(network, training, 3), division.wrap(network), training, 1, division)
    step.begin()
    chance = torch.Generator().manual_seed(5)
    losses = []
    for _ in range(3):
        images = torch.randn(16, 1, 14, 14, generator=chance, dtype=torch.float64)
        labels = torch.randint(10, (16,), generator=chance)
        loss, _ = step.take(division.share((images, labels, labels, 1.0)))
        losses.append(float(division.mean(loss)))
    return losses, network.state_dict()


if __name__ == "__main__":
    rank, processes, port = (int(number) for number in sys.argv[1:4])
    torch.set_num_threads(1)
    division = join(open_store(port), rank, processes, "cpu")
    found = {case: trained(case, division) for case in CASES}
    found["stepped"] = stepped(division)
    torch.save(found, f"{sys.argv[4]}-{rank}.pt")
