import math

import pytest
import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import CosineLRScheduler
from torch import nn

from search.optimisation import FUSED, TORCHS, Cosine, make_optimiser, make_schedule
from spaces.training import OPTIMIZERS, SCHEDULES, Training


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_lowers_the_loss_and_reads_the_momentum_it_says(name):
    assert name in list_optimizers()
    assert get_optimizer_info(name).has_momentum == OPTIMIZERS[name]
    model = network()
    training = Training(optimizer=name, learning_rate=2e-3, weight_decay=1e-4)
    optimiser = make_optimiser(model, training)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(3, (32,))
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", FUSED)
def test_torch_optimisers_are_fused_and_what_timm_makes_of_the_name(name):
    training = Training(optimizer=name, learning_rate=0.03, weight_decay=2e-4, momentum=0.8)
    more = {"momentum": 0.8} if OPTIMIZERS[name] else {}
    optimiser = make_optimiser(network(), training)
    timms = create_optimizer_v2(
        list(network().parameters()), opt=name, lr=0.03, weight_decay=2e-4, **more, fused=True
    )
    assert type(optimiser) is type(timms)
    assert optimiser.defaults == timms.defaults
    assert optimiser.defaults["fused"] is True


@pytest.mark.parametrize("name", TORCHS)
def test_without_the_compiler_the_steps_are_the_same(name):
    lean, plain = network(), network()
    training = Training(optimizer=name, learning_rate=0.03, weight_decay=2e-4, momentum=0.8)
    optimiser = make_optimiser(lean, training)
    settings = dict(optimiser.defaults)
    settings.pop("decoupled_weight_decay", None)  # Adam's, which AdamW has settled
    usual = type(optimiser)(plain.parameters(), **settings)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(3, (32,))
    for _ in range(3):
        for model, steps in ((lean, optimiser), (plain, usual)):
            steps.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            steps.step()
    for one, other in zip(lean.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad


@pytest.mark.parametrize("warm", [0, 1, 7])
@pytest.mark.parametrize("lowest", [0.0, 0.003])
def test_the_cosine_is_timms_to_the_last_bit(warm, lowest):
    def optimiser():
        first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.07}], lr=0.31)

    ours, theirs = optimiser(), optimiser()
    schedule = Cosine(ours, warm=warm, rest=41, lowest=lowest)
    timms = CosineLRScheduler(
        theirs, 41, lr_min=lowest, warmup_t=warm, warmup_prefix=True, t_in_epochs=False
    )
    assert ours.state_dict() == theirs.state_dict()
    for step in (0, 5, *range(60)):
        schedule.step_update(step)
        timms.step_update(step)
        assert ours.state_dict() == theirs.state_dict()


def rates(steps, **settings):
    """The learning rate of each step, and after the last."""
    training = Training(learning_rate=0.2, **settings)
    optimiser = make_optimiser(network(), training)
    schedule = make_schedule(optimiser, training, steps)
    found = []
    for step in range(steps + 1):
        schedule.step_update(step)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_a_cosine_falls_from_the_whole_rate_to_the_final_share():
    expected = [0.2 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(11)]
    assert rates(10) == pytest.approx(expected)
    ended = rates(10, final_learning_rate=0.1)
    assert ended[0] == pytest.approx(0.2)
    assert ended[-1] == pytest.approx(0.02)


def test_warming_up_takes_its_share_of_the_steps_and_the_schedule_the_rest():
    found = rates(20, warmup=0.25)
    assert found[:6] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2])
    assert found[-1] == pytest.approx(0, abs=1e-9)
    constant = rates(20, warmup=0.25, schedule="constant")
    assert constant[5:] == pytest.approx([0.2] * 16)


def test_steps_fall_at_their_milestones():
    found = rates(20, schedule="step", milestones="0.5 + 0.75", milestone_decay=0.1)
    for share, rate in ((0.2, 0.2), (0.6, 0.02), (0.9, 0.002)):
        assert found[int(share * 20)] == pytest.approx(rate)
    # Warm-up leaves the milestones where they are: shares of the whole training.
    late = rates(20, schedule="step", milestones="0.5", milestone_decay=0.5, warmup=0.25)
    assert late[8] == pytest.approx(0.2)
    assert late[11] == pytest.approx(0.1)


def test_linear_and_polynomial_are_what_they_say():
    assert rates(4, schedule="linear") == pytest.approx([0.2, 0.15, 0.1, 0.05, 0])
    root = [0.2 * (1 - step / 4) ** 0.5 for step in range(5)]
    assert rates(4, schedule="polynomial") == pytest.approx(root)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_depends_on_the_number_of_the_step_alone(name):
    straight = rates(12, schedule=name, warmup=0.25)
    training = Training(learning_rate=0.2, schedule=name, warmup=0.25)
    optimiser = make_optimiser(network(), training)
    schedule = make_schedule(optimiser, training, 12)
    for step in (7, 2, 11, 0):
        schedule.step_update(step)
        assert optimiser.param_groups[0]["lr"] == pytest.approx(straight[step])
    assert len(set(straight)) > 2


def test_groups_keep_the_proportion_of_their_rates():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [first]}, {"params": [second], "lr": 0.4}]
    optimiser = torch.optim.SGD(groups, lr=0.2)
    schedule = make_schedule(optimiser, Training(learning_rate=0.2), 10)
    schedule.step_update(5)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.1, 0.2])
