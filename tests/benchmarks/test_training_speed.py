"""Images per second of one training beside timm's recipe, and whether compiling blocks pays."""

import os
import time
from statistics import median, quantiles

import pytest
import timm
import torch
from race import keep_memory, processor
from timm_recipe import SMALLEST, Recipe, make_loader, write_pngs

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from search.batches import resident
from search.data import Data
from search.datasets import load_data, look, source_of
from search.plan import usable_cores
from search.training import train
from search.tuning import attention_blocks
from spaces.training import Training

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
BATCH_SIZE = 128
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
IMAGES = {"cpu": 640, "cuda": 25_600}
HAS_FASHION = look(source_of("fashion-mnist")) is not None


def network(block, side, device):
    placements = (Placement("in-block", block, {}),) if block else ()
    architecture = Architecture("resnet20", placements, (side, side))
    made = build_network(architecture, in_channels=1, seed=0)
    return made.to(device, memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def all_threads():
    """All threads on both sides: this is one training at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    keep_memory()
    yield
    torch.set_num_threads(threads)


def our_epochs(data, count, device):
    """One epoch after another of our trainer; images per second of each."""
    first = {"train": count, "validation": 64, "test": 64}
    images = {split: data.images[split][:n] for split, n in first.items()}
    labels = {split: data.labels[split][:n] for split, n in first.items()}
    batches = resident(Data(data.facts, images, labels, data.checksum), device)
    settings = {"batch_size": BATCH_SIZE, "resized_crop": SMALLEST, "flip": "random"}
    training = Training(epochs=1, **settings)
    trained = network("se", 28, device)
    while True:
        told = []
        train(trained, batches, training, seed=0, goes_on=lambda r, told=told: told.append(r))
        yield told[0].images_per_second


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not HAS_FASHION, reason="needs Fashion-MNIST's files")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves files
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # open
@pytest.mark.parametrize("device", DEVICES)
def test_images_per_second_beside_timms_recipe(device, tmp_path):
    data, count = load_data("fashion-mnist"), IMAGES[device]
    where = torch.device(device)
    write_pngs(data, tmp_path, count)
    made = {}
    for processes in (0, 2):
        loader = make_loader(
            tmp_path, data, batch_size=BATCH_SIZE, processes=processes, device=where
        )
        plain = network("se", 28, where).to(memory_format=torch.contiguous_format)
        made[f"timm, {processes} loader processes"] = Recipe(
            plain, loader, where, epochs=ROUNDS + 1
        ).epoch
    mine = our_epochs(data, count, where)
    made["ours"] = lambda: next(mine)
    rates = {name: [] for name in made}
    for epoch in made.values():
        epoch()  # to warm up
    for _ in range(ROUNDS):
        for name, epoch in made.items():
            rates[name].append(epoch())
    best = max((n for n in rates if n != "ours"), key=lambda name: median(rates[name]))
    ratios = [a / b for a, b in zip(rates["ours"], rates[best], strict=True)]
    first, middle, third = quantiles(ratios, n=4)
    print(
        f"\nresnet20 with SE, {device}, {count} images of 1 x 28 x 28 from PNGs / resident,"
        f" {usable_cores()} threads, {processor()}, torch {torch.__version__}, timm"
        f" {timm.__version__}, {ROUNDS} interleaved epochs:"
        f" {', '.join(f'{name} {median(rate):.0f}/s' for name, rate in rates.items())};"
        f" ratio to timm's faster {middle:.2f} ({first:.2f} to {third:.2f})"
    )
    assert middle > 1


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch, when it traces a block
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("block", ["se", "triplet"])
def test_whether_compiling_the_blocks_of_a_trial_pays(block, device, tmp_path, monkeypatch):
    """The steps after which it would: only printed, since it is of this machine."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.set_num_threads(1)
    torch.compiler.reset()
    x = torch.randn(64, 1, 14, 14, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (64,), device=device)
    networks = {"eager": network(block, 14, device), "compiled": network(block, 14, device)}
    for part in attention_blocks(networks["compiled"]):
        part.compile()

    def seconds(name):
        started = time.perf_counter()
        torch.nn.functional.cross_entropy(networks[name](x), labels).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    first = {name: seconds(name) for name in networks}
    times = {name: [] for name in networks}
    for _ in range(30):
        for name in networks:
            times[name].append(seconds(name))
    gain = median(times["eager"]) - median(times["compiled"])
    cost = first["compiled"] - first["eager"]
    pays = f"pays after {cost / gain:.0f} steps" if gain > 0 else "never pays"
    print(
        f"\n{block} in-block of resnet20, {device}, batch 64 of 1 x 14 x 14, one thread, one"
        f" compilation, 30 interleaved steps: eager {1e3 * median(times['eager']):.1f} ms,"
        f" compiled {1e3 * median(times['compiled']):.1f} ms a step; compiling {cost:.1f} s;"
        f" {pays} (a trial of 12 epochs of digits has 192)"
    )
    assert cost > 0
