from dataclasses import replace
from types import SimpleNamespace

import pytest

from blocks.errors import StudyError
from search.allotment import allot, blocks_of, read_budget, workers_within
from search.costing import costing_of
from search.forecast import Forecast, Timed, at_once, bend, between, chosen, forecast, trial_seconds
from search.noise import Noise
from search.plan import make_plan
from search.possible import runnable
from search.power import detectable
from spaces.census import take_census


@pytest.fixture
def plan(storage):
    return make_plan("attention", storage=storage, trials=40, workers=2)


@pytest.fixture
def counted(plan):
    return runnable(plan, costing_of(plan.space, plan.data, take_census(plan.space, plan.data)))


def timed(*rows):
    which = ("smallest", "median", "largest")
    return [Timed(w, None, *row) for w, row in zip(which, rows, strict=False)]


def test_between_known_paces_are_straight_lines():
    assert between(15, [10, 20], [1.0, 2.0]) == 1.5
    assert between(15, [20, 10], [2.0, 1.0]) == 1.5
    assert between(30, [10, 20], [1.0, 2.0]) == 2.0


def test_a_trials_seconds_by_hand(plan):
    # digits: 1,077 images in 16 batches of 64 an epoch, then 360 at a tenth of the pace; two
    # epochs; at the end validation and test once more; 0.5 seconds to build it.
    train, validation, test = plan.data.sizes
    candidate = SimpleNamespace(training=SimpleNamespace(batch_size=64, epochs=2))
    row = timed((100, 0.01, 0.001, 0.5))
    epoch = (train // 64) * 64 * 0.01 + validation * 0.001
    expected = 0.5 + 2 * epoch + (validation + test) * 0.001
    assert trial_seconds(plan, row, candidate, 100) == pytest.approx(expected)
    half = expected - epoch
    assert trial_seconds(plan, row, candidate, 100, epochs=1) == pytest.approx(half)


def test_the_bend_of_the_median():
    # On the line it would be 2; measured 3: half as much again.
    assert bend(timed((10, 1.0, 1, 0), (20, 3.0, 1, 0), (30, 3.0, 1, 0))) == pytest.approx(0.5)
    assert bend(timed((10, 1.0, 1, 0), (20, 2.0, 1, 0), (30, 3.0, 1, 0))) == 0
    assert bend(timed((10, 1.0, 1, 0))) == 0


def test_the_smallest_median_and_largest_are_chosen(counted):
    rows = chosen(counted)
    flops = sorted(cost.flops for _, cost in counted)
    assert [which for which, _, _ in rows] == ["smallest", "median", "largest"]
    assert rows[0][2] == flops[0]
    assert rows[2][2] == flops[-1]
    assert [which for which, _, _ in chosen(counted[:1])] == ["smallest"]


def made(seconds, **changed):
    row = Forecast(
        timed=(),
        at_once=1,
        start=10.0,
        seconds=tuple(seconds),
        factor=1.5,
        workers=2,
        devices=2,
        unit="cpu",
        trials=20,
    )
    return replace(row, **changed)


def test_the_whole_run_by_hand():
    # 20 trials of 60 seconds by 2 workers, after 10 seconds; a third less to half more.
    found = made([60.0] * 5)
    assert found.trial(20).value == 60
    assert (found.wall.value, found.wall.low, found.wall.high) == (610, 410, 910)
    assert found.device_hours.value == pytest.approx(2 * 610 / 3600)
    assert made([60.0], trials=0).wall.value == 0


def test_few_trials_of_unequal_candidates_are_less_sure():
    few, many = made([10.0, 100.0], trials=2), made([10.0, 100.0], trials=2000)
    assert few.trial(2).value == many.trial(2000).value == 55
    assert few.trial(2).low < many.trial(2000).low
    assert few.trial(2).high > many.trial(2000).high


def test_processes_that_are_timed_together(plan):
    assert at_once(plan) == 2
    assert at_once(replace(plan, workers=64)) == 8
    assert at_once(replace(plan, device="cuda", gpus=("0", "1"), workers=4)) == 2


@pytest.mark.parametrize(
    ("text", "device", "devices", "unit", "seconds"),
    [
        ("64gpu*6h", "cuda", 64, "gpu", 21600),
        ("2cpu*90m", "cpu", 2, "cpu", 5400),
        ("8h", "cpu", 0, "", 28800),
        ("1.5 h", "cuda", 0, "", 5400),
        ("2 cpus x 1d", "cpu", 2, "cpu", 86400),
        ("1h30m", "cpu", 0, "", 5400),
        ("2cpu*90min", "cpu", 2, "cpu", 5400),
    ],
)
def test_budgets_are_read(text, device, devices, unit, seconds):
    budget = read_budget(text, device)
    assert (budget.devices, budget.unit, budget.seconds) == (devices, unit, seconds)


@pytest.mark.parametrize(
    ("text", "device", "words"),
    [
        ("6", "cpu", "write devices . time, such as 64gpu.6h"),
        ("0cpu*1h", "cpu", "no budget"),
        ("0h", "cpu", "no budget"),
        ("\u0663cpu*1h", "cpu", "no budget"),  # an Arabic 3
        (f"{'9' * 400}h", "cpu", "no budget"),
        (f"{'9' * 5000}cpu*1h", "cpu", "no budget"),
        ("2cpu*1h*3", "cpu", "no budget"),
        ("nan", "cpu", "no budget"),
        ("64gpu*6h", "cpu", "counts gpus, and trials train .* on cpu; give --device cuda"),
        ("2cpu*6h", "cuda", "counts cpus.*count gpus"),
    ],
)
def test_wrong_budgets_say_what_is_allowed(text, device, words):
    with pytest.raises(StudyError, match=words):
        read_budget(text, device)


def test_devices_of_a_budget_become_workers(plan):
    assert workers_within(read_budget("8h", "cpu"), plan) == 2
    one = replace(plan, threads=1)
    assert workers_within(read_budget("6cpu*8h", "cpu"), one) == 6
    assert workers_within(read_budget("6cpu*8h", "cpu"), replace(plan, threads=2)) == 3
    gpus = replace(plan, device="cuda", gpus=("0",), workers=4)
    assert workers_within(read_budget("64gpu*6h", "cuda"), gpus) == 256


def test_a_budget_is_divided_by_hand(plan, counted):
    # Every trial takes (1,077 // 64) * 64 / 1,000 seconds an epoch, and nothing else.
    rows = timed((1, 0.001, 1e-12, 0.0))
    found = forecast(plan, rows, counted, start=0.0, trials=40)
    seconds = 12 * (plan.data.sizes[0] // 64) * 64 / 1000
    noise = Noise(0.01, "assumed", "here")
    data = allot(read_budget("10m", "cpu"), plan, found, counted, 1000, noise)
    trials = int(2 * 600 / seconds)
    first, second, third, *half = data["options"]
    assert (first["seeds"], first["epochs"], first["candidates"]) == (1, 12, trials)
    assert first["detectable"] is None
    assert (second["seeds"], second["candidates"]) == (3, trials // 3)
    assert (third["seeds"], third["candidates"]) == (5, trials // 5)
    assert third["trials"] == 5 * (trials // 5)
    assert half[0]["epochs"] == 6
    assert half[0]["candidates"] in (2 * trials, 2 * trials + 1)
    assert third["detectable"] == pytest.approx(detectable(0.01, 5))
    assert blocks_of(plan.space) == 10
    assert third["compared"] == min(10, trials // 5 - 1)
    holm = detectable(0.01, 5, comparisons=third["compared"])
    assert third["detectable_holm"] == pytest.approx(holm)
    simulation = data["simulation"]
    assert (simulation["studies"], simulation["seeds"]) == (2000, 5)
    assert abs(simulation["found"] - 0.8) < 0.05
    assert abs(simulation["found_holm"] - 0.8) < 0.05


def test_a_budget_too_small_for_a_comparison_says_so(plan, counted):
    found = forecast(plan, timed((1, 0.001, 1e-12, 0.0)), counted, start=0.0, trials=40)
    noise = Noise(0.01, "assumed", "here")
    data = allot(read_budget("1s", "cpu"), plan, found, counted, None, noise)
    assert all(row["detectable"] is None for row in data["options"])
    assert data["simulation"] is None
