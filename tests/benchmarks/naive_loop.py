"""A search as one writes it by hand: Optuna on SQLite, a DataLoader a trial, one trial at a time.

    python tests/benchmarks/naive_loop.py --data digits --epochs 6 --storage sqlite:///naive.db

Written as a careful user would, without a trick and without a trap: PIL images and torchvision's
transforms in a Dataset, a DataLoader for each trial, float32, SGD with Nesterov momentum and a
cosine, all threads, validation after every epoch. Blocks and networks are this project's, so that
the loop alone differs. The last line it prints is JSON.
"""

import argparse
import json
import os
import time

import optuna
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from search.datasets import load_data
from search.include import include

CANDIDATES = {
    "none": ("none", {}),
    "se r=4": ("se", {"reduction": 4}),
    "se r=8": ("se", {"reduction": 8}),
    "se r=16": ("se", {"reduction": 16}),
    "eca k=3": ("eca", {"kernel_size": 3}),
    "eca k=5": ("eca", {"kernel_size": 5}),
    "coord": ("coord", {"reduction": 16}),
    "simam": ("simam", {}),
    "cbam r=8": ("cbam", {"reduction": 8}),
    "cbam r=16": ("cbam", {"reduction": 16}),
    "fca top2": ("fca", {"frequency": "top2", "reduction": 16}),
    "fca top16": ("fca", {"frequency": "top16", "reduction": 16}),
}
BATCH_SIZE = 64
LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


class Images(Dataset):
    def __init__(self, images, labels, transform):
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def make_datasets(data, crop, flip):
    to_numbers = [transforms.ToTensor(), transforms.Normalize(data.mean, data.deviation)]
    moves = []
    if crop:
        moves.append(transforms.RandomCrop(data.images["train"].shape[2:], padding=crop))
    if flip:
        moves.append(transforms.RandomHorizontalFlip())
    steps = {"train": [*moves, *to_numbers], "validation": to_numbers}
    return [
        Images(data.images[split][:, 0], data.labels[split], transforms.Compose(steps[split]))
        for split in ("train", "validation")
    ]


def make_network(candidate, data, seed):
    channels, height, width = data.facts.input_shape
    block, options = CANDIDATES[candidate]
    placements = () if block == "none" else (Placement("in-block", block, options),)
    return build_network(
        Architecture("resnet20", placements, (height, width)),
        num_classes=data.facts.classes,
        in_channels=channels,
        seed=seed,
    )


def train_one_epoch(network, loader, optimiser, scheduler, criterion, device):
    network.train()
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimiser.zero_grad()
        loss = criterion(network(images), labels)
        loss.backward()
        optimiser.step()
        scheduler.step()


def evaluate(network, loader, device):
    network.eval()
    right = count = 0
    with torch.no_grad():
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            right += (network(images).argmax(dim=1) == labels).sum().item()
            count += len(labels)
    return right / count


def read_arguments(parser):
    parser.add_argument("--data", default="digits")
    parser.add_argument("--include", help="a file that registers a data set")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--crop", type=int, default=1)
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="of each candidate, from --seed on")
    parser.add_argument("--loader-workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--storage", required=True)
    arguments = parser.parse_args()
    if arguments.include:
        include(arguments.include)
    return arguments


def search(objective, arguments, candidates):
    seeds = list(range(arguments.seed, arguments.seed + arguments.seeds))
    grid = {"candidate": candidates, "seed": seeds}
    sampler = optuna.samplers.GridSampler(grid, seed=arguments.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="attention", storage=arguments.storage, sampler=sampler, direction="maximize"
    )
    started, worked = time.perf_counter(), time.process_time()
    study.optimize(objective, n_trials=len(candidates) * len(seeds))
    taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - worked}
    accuracies = {"{candidate}, seed {seed}".format(**t.params): t.value for t in study.trials}
    print(json.dumps({**taken, "accuracies": accuracies}))


def main():
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__.partition("\n")[0]))
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    data = load_data(arguments.data)
    train_set, validation_set = make_datasets(data, arguments.crop, arguments.flip)

    def objective(trial):
        candidate = trial.suggest_categorical("candidate", list(CANDIDATES))
        seed = trial.suggest_int("seed", arguments.seed, arguments.seed + arguments.seeds - 1)
        torch.manual_seed(seed)
        network = make_network(candidate, data, seed).to(device)
        workers = {
            "num_workers": arguments.loader_workers,
            "persistent_workers": arguments.loader_workers > 0,
            "pin_memory": device.type == "cuda",
        }
        train_loader = DataLoader(
            train_set, batch_size=BATCH_SIZE, shuffle=True, drop_last=True, **workers
        )
        validation_loader = DataLoader(validation_set, batch_size=512, **workers)
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            nesterov=True,
        )
        steps = arguments.epochs * len(train_loader)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
        criterion = nn.CrossEntropyLoss()
        for epoch in range(arguments.epochs):
            train_one_epoch(network, train_loader, optimiser, scheduler, criterion, device)
            accuracy = evaluate(network, validation_loader, device)
            trial.report(accuracy, epoch)
        return accuracy

    search(objective, arguments, list(CANDIDATES))


if __name__ == "__main__":
    main()
