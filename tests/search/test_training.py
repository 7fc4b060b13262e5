import math
from dataclasses import replace

import pytest
import torch
from fewer import fewer
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from blocks.errors import DataError
from search.batches import resident
from search.checkpoint import Checkpoint
from search.datasets import load_data
from search.evaluation import loss_and_accuracy
from search.outcome import Assignment
from search.training import Diverged, train
from search.trial import evaluate_candidate
from spaces.training import Training

CPU = torch.device("cpu")
SE = Architecture("resnet20", (Placement("stage", "se", {"reduction": 4}),), (14, 14))
NONE = Architecture("resnet20", (), (14, 14))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def few():
    """256 images to train, 64 to validate: an epoch in a fifth of a second."""
    return fewer(train=256, validation=64, test=64)


def small(seed=0):
    """Two convolutions, and dropout, which draws by itself."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)]
    layers += [nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def trained(data, architecture=NONE, *, seed=0, epochs=2, stop_at=None, **settings):
    if architecture is None:
        network = small(seed)
    else:
        network = build_network(architecture, in_channels=1, seed=seed)
        network = network.to(memory_format=torch.channels_last)
    results = []

    def goes_on(result):
        results.append(result)
        return result.epoch != stop_at

    training = Training(epochs=epochs, **settings)
    return train(network, data, training, seed=seed, goes_on=goes_on), results


def curve(results):
    return [(r.train_loss, r.train_accuracy, r.loss, r.accuracy) for r in results]


def test_training_images_are_normalised():
    parts = [images for images, _ in resident(load_data("digits"), CPU).part("train")]
    images = torch.cat(parts)
    assert images.mean().abs() < 1e-5
    assert (images.std() - 1).abs() < 1e-3
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in parts)


def test_it_repeats_bit_for_bit(few):
    first, first_results = trained(few, SE)
    second, second_results = trained(few, SE)
    assert curve(first_results) == curve(second_results)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_seed_gives_another_curve(few):
    assert curve(trained(few, seed=0)[1]) != curve(trained(few, seed=1)[1])


def test_chance_drawn_elsewhere_changes_nothing(few):
    before = curve(trained(few)[1])
    torch.manual_seed(12345)
    torch.rand(7)
    assert curve(trained(few)[1]) == before


def test_it_learns(few):
    results = trained(few, epochs=8)[1]
    assert results[-1].train_loss < 0.5 < 1.5 < results[0].train_loss + 1
    assert results[-1].accuracy > 0.7
    assert [r.epoch for r in results] == list(range(1, 9))


def test_the_learning_rate_falls_along_a_cosine(few):
    results = trained(few, epochs=4, learning_rate=0.2)[1]
    expected = [0.2 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in (1, 2, 3, 4)]
    assert [r.learning_rate for r in results] == pytest.approx(expected, abs=1e-9)


def test_it_stops_where_it_is_told_to(few):
    assert len(trained(few, epochs=5, stop_at=2)[1]) == 2


def test_a_wild_learning_rate_diverges(few):
    with pytest.raises(Diverged, match="loss is (nan|inf)"):
        trained(few, epochs=3, learning_rate=1e9)


def test_a_batch_larger_than_the_data_is_refused(few):
    with pytest.raises(DataError, match="batch_size 512 is more than the 256"):
        trained(few, batch_size=512)


def test_label_smoothing_and_weight_decay_have_an_effect(few):
    plain = curve(trained(few)[1])
    assert curve(trained(few, label_smoothing=0.1)[1]) != plain
    assert curve(trained(few, weight_decay=0.01)[1]) != plain
    assert curve(trained(few, momentum=0.5)[1]) != plain


def test_evaluation_is_independent_of_the_batch_and_of_training_mode(few):
    network = trained(few, epochs=1)[0]
    loss, accuracy = loss_and_accuracy(network, few.part("validation"))
    network.train()
    network.eval()
    with torch.no_grad():
        [(images, labels)] = few.part("validation")
        logits = torch.cat([network(image[None]) for image in images])
    right = (logits.argmax(1) == labels).double().mean().item()
    assert accuracy == pytest.approx(right)
    expected = torch.nn.functional.cross_entropy(logits, labels).item()
    assert loss == pytest.approx(expected, rel=1e-4)


def test_the_average_of_the_weights_is_evaluated_in_their_place(few):
    plain, results = trained(few, None)
    averaged, other = trained(few, None, weight_average=0.9)
    # The weights themselves are trained as without, and only what is evaluated differs.
    assert [r.train_loss for r in results] == [r.train_loss for r in other]
    assert [r.loss for r in results] != [r.loss for r in other]
    assert other[-1].loss == loss_and_accuracy(averaged, few.part("validation"))[0]
    pairs = zip(plain.parameters(), averaged.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_the_average_is_the_one_of_its_formula(few):
    training = Training(epochs=1, batch_size=128, weight_average=0.9)
    averaged = train(small(), few, training, seed=0, goes_on=lambda result: True)
    # Two steps: the first average is the first weights; then decay 1 - 2^(-2/3), below 0.9.
    start = small()
    steps = []

    def noted(self, *_, **__):
        steps.append([p.detach().clone() for p in start.parameters()])

    hook = register_optimizer_step_post_hook(noted)
    train(start, few, replace(training, weight_average=0), seed=0, goes_on=lambda result: True)
    hook.remove()
    decay = 1 - 2 ** (-2 / 3)
    for one, two, mean in zip(*steps, averaged.parameters(), strict=True):
        assert torch.allclose(decay * one + (1 - decay) * two, mean, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_gradient": 0.1},
        {"mixup": 0.4},
        {"cutmix": 1.0},
        {"crop": 2},
        {"flip": "random"},
        {"flip": "alternating"},
        {"cutout": 4},
        {"resized_crop": 0.3},
        {"rand_augment": "1x9"},
        {"optimizer": "adamw"},
        {"optimizer": "momentum"},
        {"schedule": "step", "milestones": "0.5"},
        {"warmup": 0.4},
        {"final_learning_rate": 0.5},
        {"decayed": "weights", "weight_decay": 0.1},
        {"precision": "bfloat16"},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_every_setting_has_an_effect_and_repeats_bit_for_bit(few, settings):
    first = trained(few, None, batch_size=32, **settings)[1]
    assert curve(first) == curve(trained(few, None, batch_size=32, **settings)[1])
    assert curve(first) != curve(trained(few, None, batch_size=32)[1])
    assert all(math.isfinite(result.loss) for result in first)


def test_half_precision_learns_as_float32_does(few):
    """Weights that are cast once an epoch would not move within it."""
    settings = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05}
    full, half = (trained(few, None, precision=p, **settings)[1] for p in ("float32", "bfloat16"))
    assert full[0].train_loss < 2.2
    for one, other in zip(full, half, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=0.02)


def test_clipping_bounds_the_gradient(few):
    norms = []

    def noted(optimiser, *_):
        grads = [p.grad for group in optimiser.param_groups for p in group["params"]]
        norms.append(torch.stack([grad.norm() for grad in grads]).norm().item())

    hook = register_optimizer_step_pre_hook(noted)
    trained(few, None, epochs=1, clip_gradient=0.05)
    hook.remove()
    assert norms
    assert max(norms) <= 0.05 + 1e-5


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(few, parts):
    # Layer norms instead of batch norms: each image by itself.
    def weights(in_parts):
        torch.manual_seed(0)
        flat = nn.Sequential(nn.Flatten(), nn.LayerNorm(196), nn.Linear(196, 10))
        training = Training(epochs=1, batch_size=50, label_smoothing=0.1)
        train(flat, few, training, seed=0, goes_on=lambda result: True, parts=in_parts)
        return [p.detach() for p in flat.parameters()]

    for whole, split in zip(weights(1), weights(parts), strict=True):
        assert torch.allclose(whole, split, atol=1e-6)


MANY = {
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "weight_average": 0.9,
    "crop": 1,
    "flip": "random",
    "mixup": 0.2,
    "warmup": 0.2,
}


@pytest.mark.parametrize("settings", [{}, MANY], ids=["sgd", "adamw with everything"])
@pytest.mark.parametrize("architecture", [SE, None], ids=["se", "with dropout"])
def test_going_on_from_a_checkpoint_is_as_if_never_cut_off(few, tmp_path, settings, architecture):
    """What a network draws goes on too."""
    training = Training(epochs=4, batch_size=64, **settings)

    def network():
        if architecture is None:
            return small()
        made = build_network(architecture, in_channels=1, seed=5)
        return made.to(memory_format=torch.channels_last)

    whole = []
    straight = train(network(), few, training, seed=5, goes_on=lambda r: whole.append(r) or True)

    checkpoint = Checkpoint(str(tmp_path / "a" / "c.pt"), "of this", seconds=0)
    cut = []
    with pytest.raises(KeyboardInterrupt):
        train(
            network(),
            few,
            training,
            seed=5,
            goes_on=lambda result: cut.append(result) or not _interrupted(result),
            kept=checkpoint.keep,
        )
    torch.manual_seed(77)
    state = Checkpoint(str(tmp_path / "a" / "c.pt"), "of this").read()
    rest = []
    resumed = train(
        network(), few, training, seed=5, goes_on=lambda r: rest.append(r) or True, resumed=state
    )
    assert [r.epoch for r in rest] == [3, 4]
    assert curve(cut[:2] + rest) == curve(whole)
    for one, other in zip(
        straight.state_dict().values(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def _interrupted(result):
    if result.epoch == 3:
        raise KeyboardInterrupt
    return False


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_passed_over(few, tmp_path):
    path = str(tmp_path / "c.pt")
    training = Training(epochs=2)
    train(
        small(),
        few,
        training,
        seed=0,
        goes_on=lambda result: True,
        kept=Checkpoint(path, "one", seconds=0).keep,
    )
    assert Checkpoint(path, "one").read()["results"][0]["epoch"] == 1
    assert Checkpoint(path, "another").read() is None
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: len(whole) // 2])
    assert Checkpoint(path, "one").read() is None
    assert Checkpoint(str(tmp_path / "none.pt"), "one").read() is None
    assert Checkpoint("", "one").read() is None


def test_checkpoints_are_not_written_more_often_than_is_worth_it(few, tmp_path):
    train(
        small(),
        few,
        Training(epochs=2),
        seed=0,
        goes_on=lambda result: True,
        kept=Checkpoint(str(tmp_path / "c.pt"), "one", seconds=600).keep,
    )
    assert not list(tmp_path.iterdir())


def assignment(architecture=SE, **settings):
    training = Training(epochs=1, **settings).to_json()
    return Assignment(0, 1, "se", architecture.to_json(), training, "digits", 3)


def test_a_trial_measures_validation_and_test_at_its_last_epoch():
    outcome = evaluate_candidate(assignment(), device=CPU, goes_on=lambda result: True)
    measured = {(split, metric): value for split, metric, value in outcome.measurements}
    assert outcome.state == "complete"
    assert measured["validation", "accuracy"] == outcome.epochs[-1].accuracy
    assert 0.1 < measured["test", "accuracy"] <= 1
    assert outcome.seconds > 0


def test_a_pruned_trial_never_sees_the_test_split():
    two_epochs = Assignment(0, 1, "none", NONE.to_json(), Training(epochs=2).to_json(), "digits", 0)
    outcome = evaluate_candidate(two_epochs, device=CPU, goes_on=lambda result: False)
    assert outcome.state == "pruned"
    assert len(outcome.epochs) == 1
    assert "test" not in {split for split, _, _ in outcome.measurements}


def test_divergence_and_mistakes_are_outcomes():
    wild = evaluate_candidate(
        assignment(learning_rate=1e12), device=CPU, goes_on=lambda result: True
    )
    assert wild.state == "diverged"
    assert "loss is" in wild.error
    assert not wild.measurements
    broken = assignment(Architecture("resnet20", (Placement("nowhere", "se"),), (14, 14)))
    failed = evaluate_candidate(broken, device=CPU, goes_on=lambda result: True)
    assert failed.state == "failed"
    assert "no site 'nowhere'" in failed.error
    assert "Traceback" in failed.traceback
