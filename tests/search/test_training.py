import math

import pytest
import torch

from blocks.architecture import Architecture, Placement
from blocks.build import build_network
from blocks.errors import DataError
from search.datasets import load_data
from search.evaluation import loss_and_accuracy
from search.outcome import Assignment
from search.training import DeviceData, Diverged, to_device, train
from search.trial import evaluate_candidate
from spaces.candidate import Training

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
    data = to_device(load_data("digits"), CPU)
    cut = {"train": 256, "validation": 64, "test": 64}
    return DeviceData(
        {split: data.images[split][:n] for split, n in cut.items()},
        {split: data.labels[split][:n] for split, n in cut.items()},
    )


def trained(data, architecture=NONE, *, seed=0, epochs=2, stop_at=None, **settings):
    network = build_network(architecture, in_channels=1, seed=seed)
    network = network.to(memory_format=torch.channels_last)
    results = []

    def goes_on(result):
        results.append(result)
        return result.epoch != stop_at

    train(network, data, Training(epochs=epochs, **settings), seed=seed, goes_on=goes_on)
    return network, results


def curve(results):
    return [(r.train_loss, r.train_accuracy, r.loss, r.accuracy) for r in results]


def test_training_images_are_normalised():
    images = to_device(load_data("digits"), CPU).images["train"]
    assert images.mean().abs() < 1e-5
    assert (images.std() - 1).abs() < 1e-3
    assert images.is_contiguous(memory_format=torch.channels_last)


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
        logits = torch.cat([network(image[None]) for image in few.images["validation"]])
    right = (logits.argmax(1) == few.labels["validation"]).double().mean().item()
    assert accuracy == pytest.approx(right)
    expected = torch.nn.functional.cross_entropy(logits, few.labels["validation"]).item()
    assert loss == pytest.approx(expected, rel=1e-4)


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
