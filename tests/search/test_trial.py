"""A trial's training: cut off and gone on with, short of memory, at another size, fair."""

import json
from dataclasses import replace

import pytest
import torch
from fewer import fewer
from torch import nn

import search.trial as module
from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from search.batches import ResidentBatches
from search.checkpoint import Checkpoint, training_identity
from search.outcome import Assignment
from search.trial import evaluate_candidate, sized_data
from spaces.training import Training

CPU = torch.device("cpu")
NONE = Architecture("resnet20", (), (14, 14))
SE = Architecture("resnet20", (Placement("in-block", "se", {"reduction": 4}),), (14, 14))
PROVENANCE = {"versions": {"torch": torch.__version__}, "device": "cpu", "threads": 1}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Trials of this file train on 192 images."""
    batches = fewer(train=192, validation=64, test=64)
    monkeypatch.setattr(module, "device_data", lambda data, device: batches)
    return batches


def assignment(architecture=SE, *, checkpoint="", seed=3, **settings):
    training = Training(**{"epochs": 3, **settings}).of(architecture).to_json()
    return Assignment(
        7, 1, "se", architecture.to_json(), training, "digits", seed, checkpoint=str(checkpoint)
    )


def evaluated(task, goes_on=lambda result: True, **more):
    return evaluate_candidate(task, device=CPU, goes_on=goes_on, provenance=PROVENANCE, **more)


def numbers(outcome):
    """All that a training has come to, but the clock's and the memory's."""
    curve = [(r.epoch, r.train_loss, r.loss, r.accuracy, r.learning_rate) for r in outcome.epochs]
    clock = ("seconds_per_epoch", "images_per_second", "peak_memory_bytes")
    measured = [row for row in outcome.measurements if row[1] not in clock]
    return curve, measured, [answers.right for answers in outcome.answers]


class Killed(BaseException):
    """What a kill is for the code: nothing of it goes on."""


def killed_after(epoch):
    def goes_on(result):
        if result.epoch == epoch:
            raise Killed
        return True

    return goes_on


@pytest.fixture
def every_epoch(monkeypatch):
    monkeypatch.setattr(
        module, "Checkpoint", lambda path, identity: Checkpoint(path, identity, seconds=0)
    )


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "weight_average": 0.9, "crop": 1}])
def test_a_trial_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(
    tmp_path, every_epoch, settings
):
    whole = evaluated(assignment(**settings))
    task = assignment(checkpoint=tmp_path / "c.pt", **settings)
    with pytest.raises(Killed):
        evaluated(task, killed_after(3))
    told = []
    resumed = evaluated(task, lambda result: told.append(result.epoch) or True)
    assert told == [3]
    assert resumed.made == {"went on after epoch": 2}
    assert numbers(resumed) == numbers(whole)
    assert whole.made is None
    assert json.dumps(resumed.to_json())


def test_a_checkpoint_of_another_seed_setting_or_machine_is_not_gone_on_from(tmp_path, every_epoch):
    path = tmp_path / "c.pt"
    with pytest.raises(Killed):
        evaluated(assignment(checkpoint=path), killed_after(3))
    kept = path.read_bytes()
    for other in (
        assignment(checkpoint=path, seed=4),
        assignment(checkpoint=path, learning_rate=0.2),
        assignment(NONE, checkpoint=path),
    ):
        path.write_bytes(kept)
        assert evaluated(other).made is None
    path.write_bytes(kept)
    elsewhere = {**PROVENANCE, "threads": 2}
    task = assignment(checkpoint=path)
    outcome = evaluate_candidate(
        task, device=CPU, goes_on=lambda result: True, provenance=elsewhere
    )
    assert outcome.made is None
    assert training_identity(task, PROVENANCE) != training_identity(task, elsewhere)


class Hungry(nn.Module):
    """A network that runs out of memory for more than so many images at once."""

    def __init__(self, most):
        super().__init__()
        self.most = most
        self.layers = nn.Sequential(nn.Flatten(), nn.LayerNorm(196), nn.Linear(196, 10))

    def forward(self, images):
        if self.training and len(images) > self.most:
            raise torch.OutOfMemoryError("planted: out of memory")
        return self.layers(images)


def test_too_little_memory_makes_a_batch_of_parts(monkeypatch):
    def built(most):
        def make(*_):
            torch.manual_seed(0)
            return Hungry(most)

        monkeypatch.setattr(module, "assigned_network", make)
        return evaluated(assignment(NONE, epochs=2, batch_size=64))

    whole, split = built(64), built(20)
    assert whole.state == split.state == "complete"
    assert whole.made is None
    assert split.made == {"batch in parts": 4}
    assert [r.epoch for r in split.epochs] == [1, 2]
    for one, other in zip(whole.epochs, split.epochs, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
    hopeless = built(0)
    assert hopeless.state == "failed"
    assert "OutOfMemoryError" in hopeless.error


def test_images_are_brought_to_the_size_of_the_network():
    large = Architecture("resnet20", (), (20, 20))
    assert sized_data(assignment(large)).facts.input_shape == (1, 20, 20)
    assert sized_data(assignment()).facts.input_shape == (1, 14, 14)


# Fair between blocks. ----------------------------------------------------------------------------

BLOCKS = (
    SE,
    Architecture("resnet20", (Placement("in-block", "cbam", {}),), (14, 14)),
    Architecture("resnet20", (Placement("stage", "triplet", {}),), (14, 14)),
    Architecture("resnet20", (Placement("stage", "mha", {}),), (14, 14)),
)


@pytest.mark.parametrize("architecture", BLOCKS, ids=lambda one: one.placements[0].block)
def test_every_block_sees_the_same_images_and_the_same_backbone(few, architecture, monkeypatch):
    settings = {"epochs": 1, "crop": 2, "flip": "random", "mixup": 0.2, "cutout": 3}

    def seen_by(one):
        seen = []
        train = ResidentBatches.train

        def noted(self, training, *, seed, epoch):
            for batch in train(self, training, seed=seed, epoch=epoch):
                seen.append([part.clone() if hasattr(part, "clone") else part for part in batch])
                yield batch

        with monkeypatch.context() as patch:
            patch.setattr(ResidentBatches, "train", noted)
            assert evaluated(assignment(one, **settings)).state == "complete"
        return seen

    plain, other = seen_by(NONE), seen_by(architecture)
    assert len(plain) == len(other) == 3
    for one, two in zip(plain, other, strict=True):
        for a, b in zip(one, two, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    bare = build_network(NONE, in_channels=1, seed=3).state_dict()
    with_block = build_network(architecture, in_channels=1, seed=3)
    inside = {
        id(p)
        for module_ in with_block.modules()
        if hasattr(module_, "attention_site")
        for p in (*module_.parameters(), *module_.buffers())
    }
    rest = [t for t in with_block.state_dict(keep_vars=True).values() if id(t) not in inside]
    assert len(rest) == len(bare)
    for one, two in zip(bare.values(), rest, strict=True):
        assert torch.equal(one, two)


def test_another_seed_is_another_start_order_and_augmentation(few):
    first, second = (next(few.train(Training(crop=2), seed=seed, epoch=1))[0] for seed in (0, 1))
    assert not torch.equal(first, second)
    assert numbers(evaluated(assignment(seed=0))) != numbers(evaluated(assignment(seed=1)))


def test_a_loss_that_is_none_ends_the_training_at_once(monkeypatch):
    steps = []

    class Spoilt(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(196, 10))

        def forward(self, images):
            if self.training:
                steps.append(1)
                if len(steps) == 2:
                    return self.layers(images) * float("nan")
            return self.layers(images)

    monkeypatch.setattr(module, "assigned_network", lambda *_: Spoilt())
    outcome = evaluated(replace(assignment(NONE, batch_size=32), seed=0))
    assert outcome.state == "diverged"
    assert "loss is nan in epoch 1" in outcome.error
    assert len(steps) == 2
