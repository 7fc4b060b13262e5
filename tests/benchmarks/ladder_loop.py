"""The naive loop with one change after another: the rungs between it and `search run`.

    python tests/benchmarks/ladder_loop.py --storage sqlite:///rung.db --lean

Without a switch: data on the device, augmented as whole batches, in place of the DataLoader.
"""

import argparse

import torch
from naive_loop import (
    BATCH_SIZE,
    CANDIDATES,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    evaluate,
    make_network,
    read_arguments,
    search,
    train_one_epoch,
)
from torch import nn

from search.batches import resident, steps_of
from search.datasets import load_data
from spaces.training import Training


def batches(resident_data, training, seed, epoch, lean):
    for images, labels, _, _ in resident_data.train(training, seed=seed, epoch=epoch):
        yield (images if lean else images.contiguous()), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lean", action="store_true", help="channels last, fused optimiser")
    parser.add_argument("--part", type=int, default=0, help="which share of the candidates")
    parser.add_argument("--parts", type=int, default=1)
    arguments = read_arguments(parser)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    data = load_data(arguments.data)
    on_device = resident(data, device)
    training = Training(
        epochs=arguments.epochs,
        batch_size=BATCH_SIZE,
        crop=arguments.crop,
        flip="random" if arguments.flip else "none",
    )

    def objective(trial):
        candidate = trial.suggest_categorical("candidate", list(CANDIDATES))
        seed = trial.suggest_int("seed", arguments.seed, arguments.seed + arguments.seeds - 1)
        torch.manual_seed(seed)
        network = make_network(candidate, data, seed).to(device)
        if arguments.lean:
            network = network.to(memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            nesterov=True,
            fused=arguments.lean,
        )
        steps = arguments.epochs * steps_of(on_device.count, BATCH_SIZE)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
        criterion = nn.CrossEntropyLoss()
        for epoch in range(1, arguments.epochs + 1):
            loader = batches(on_device, training, seed, epoch, arguments.lean)
            train_one_epoch(network, loader, optimiser, scheduler, criterion, device)
            accuracy = evaluate(network, on_device.part("validation"), device)
            trial.report(accuracy, epoch)
        return accuracy

    search(objective, arguments, list(CANDIDATES)[arguments.part :: arguments.parts])


if __name__ == "__main__":
    main()
