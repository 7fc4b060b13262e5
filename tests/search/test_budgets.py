"""Time, devices and patience: counted by hand, and the same after a restart."""

import math
from types import SimpleNamespace

import pytest
from instant import drive, outcome_of

from blocks.errors import SpaceError, StudyError
from search import show, spending
from search.budgets import (
    Budgets,
    Front,
    Spent,
    budget_rows,
    ended_words,
    reached,
    read_budgets,
    stored_budgets,
)
from search.reading import read_attempts, read_trials
from search.spending import (
    Meter,
    Run,
    Span,
    device_seconds,
    last_heard,
    running_seconds,
    wall_seconds,
)
from spaces.duration import duration_text, read_duration

SMALL = """
backbone: resnet20
attention: {type: [none, se, eca, simam], placement: [stem, stage, in-block], reduction: [4, 16]}
training: {epochs: 1}
"""


# As they are written. ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1.5h", 5400),
     ("1d 2h 3m 4s", 93784), (" 2h ", 7200)],
)  # fmt: skip
def test_durations(text, seconds):
    assert read_duration(text) == seconds
    assert read_duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("90", "it has no unit: write 90s, 90m or 90h"),
        ("2 hours", "write 90s, 30m, 2h, 1d or 1h30m"),
        ("30m1h", "is no duration"),
        ("", "is no duration"),
        ("-1h", "is no duration"),
        ("0h", "no time at all"),
    ],
)
def test_what_is_no_duration_is_taught(text, words):
    with pytest.raises(ValueError, match=words):
        read_duration(text)


def test_hours_and_minutes_are_written_back():
    written = [duration_text(seconds) for seconds in (90, 3600, 5400, 93784)]
    assert written == ["1m30s", "1h", "1h30m", "1d2h3m4s"]


def chosen(**given):
    return {"time_limit": None, "device_hours": None, "patience": None, **given}


def test_budgets_are_read_from_flags_files_and_settings():
    given = chosen(time_limit="2h", device_hours="0.5", patience="20")
    budgets = read_budgets(given)
    assert budgets == Budgets(7200.0, 0.5, 20)
    stored = stored_budgets(given, budgets)
    assert stored == {"time_limit": "2h", "device_hours": 0.5, "patience": 20}
    assert read_budgets(chosen(**stored)) == budgets
    assert read_budgets(chosen(time_limit=90)) == Budgets(90.0)
    without = chosen(time_limit="none", patience="none")
    assert read_budgets(without) == Budgets()
    assert stored_budgets(without, Budgets()) == {"time_limit": "none", "patience": "none"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"time_limit": "2 hours"}, "--time-limit '2 hours' is no duration; write 90s"),
        ({"time_limit": -3}, "--time-limit is -3 seconds; it must be above 0"),
        ({"device_hours": "many"}, "--device-hours 'many' is no number of hours above 0; write 8"),
        ({"device_hours": 0}, "no number of hours above 0"),
        ({"device_hours": math.inf}, "no number of hours above 0"),
        ({"patience": "0"}, "--patience '0' is no number of trials; write 1 or more"),
        ({"patience": "2.5"}, "no number of trials"),
    ],
)
def test_wrong_budgets_are_refused(given, words):
    with pytest.raises(StudyError, match=words):
        read_budgets(chosen(**given))


def test_a_space_file_may_carry_them(opened, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(SMALL + "study: {time_limit: 2h, device_hours: 8, patience: 5}\n")
    assert opened(str(path)).plan.budgets == Budgets(7200.0, 8.0, 5)
    assert opened(str(path), patience="none").plan.budgets == Budgets(7200.0, 8.0, None)
    # Taken away by a flag, it stays away.
    assert opened(str(path)).plan.budgets == Budgets(7200.0, 8.0, None)
    assert opened(str(path), patience=9).plan.budgets.patience == 9


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("time_limit: 90", "own.yaml:5: study.time_limit is the number 90; a duration such as 90s"),
        ("time_limit: 2 hours", "own.yaml:5: study.time_limit: '2 hours' is no duration"),
        ("device_hours: 0", "study.device_hours is the number 0; a number of hours above 0"),
        ("patience: 0", "study.patience"),
    ],
)
def test_a_wrong_one_in_a_file_is_named_with_its_line(opened, tmp_path, line, words):
    path = tmp_path / "own.yaml"
    path.write_text(SMALL + f"study: {{{line}}}\n")
    with pytest.raises(SpaceError, match=words):
        opened(str(path))


# What is reached. --------------------------------------------------------------------------------


def test_the_first_budget_that_is_reached_is_named():
    budgets = Budgets(7200.0, 2.0, 10)
    assert reached(budgets, Spent(7199.0, 7199.0, 9)) == ""
    assert reached(budgets, Spent(7200.0, 0.0, 0)) == "the time limit of 2h is reached"
    assert reached(budgets, Spent(0.0, 7200.0, 0)) == "the 2 device-hours are spent"
    assert reached(budgets, Spent(0.0, 0.0, 10)) == "the front has not moved for 10 trials"
    assert reached(Budgets(), Spent(1e9, 1e9, 10**6)) == ""


def test_budgets_in_words():
    rows = dict(budget_rows(Budgets(7200.0, 2.0, 10), Spent(3720.0, 1800.0, 3)))
    assert rows == {
        "time limit": "2h, 1 h 2 min spent",
        "device-hours": "2, 0.50 spent",
        "patience": "10 trials, 3 since the front has moved",
    }
    words = ended_words("the time limit of 2h is reached", finished=7, total=24, waiting=1)
    assert words == (
        "the time limit of 2h is reached: 7 of 24 trials are finished, 1 begun waits; a larger"
        " budget goes on"
    )


# Time and devices. -------------------------------------------------------------------------------


def span(owner, started, ended, known=True, trial=0):
    return Span(trial, owner, started, ended, known)


def test_wall_time_counts_once_where_several_ran_and_not_between():
    runs = [Run(1, "a", 0, 100, 1), Run(2, "b", 50, 150, 1), Run(3, "c", 1000, 1010, 1)]
    assert wall_seconds(runs, []) == 160
    # Attempts of a version that kept no runs count by themselves: 10 to 40, and 30 to 60.
    assert wall_seconds([], [span("old", 10, 40), span("old", 30, 60)]) == 50
    # One that was only found cut off a night later does not.
    assert wall_seconds([], [span("old", 10, 50000, known=False)]) == 0
    assert wall_seconds([], []) == 0


def test_device_time_is_that_of_attempts_times_their_devices():
    runs = [Run(1, "a", 0, 100, 2), Run(2, "a", 200, 300, 0.5)]
    spans = [span("a", 0, 10), span("a", 5, 10), span("a", 200, 220), span("a", 250, None)]
    # 10 x 2 + 5 x 2 + 20 x 0.5; process numbers come back, so the last run before counts.
    assert device_seconds(runs, spans) == 40
    assert device_seconds([], [span("old", 0, 10), span("old", 0, 999, known=False)]) == 10


def test_a_process_that_was_killed_was_last_heard_of_when_it_wrote():
    runs = [Run(1, "a", 0, 100, 1)]
    assert last_heard(runs, [], "a", 90) == 100
    assert last_heard(runs, [], "a", 110) == 110
    spans = [span("old", 10, 40), span("old", 45, None)]
    assert last_heard([], spans, "old", 45) == 45
    assert last_heard([], spans, "old", 20) == 45


def test_running_attempts_count_until_their_process_was_last_heard_of():
    runs = [Run(1, "a", 0, 100, 2), Run(2, "b", 50, 60, 1)]
    spans = [span("a", 0, 10), span("a", 70, None), span("b", 55, None), span("b", 58, None)]
    # 30 x 2 of a; 5 and 2 of b. What has ended is counted elsewhere.
    assert running_seconds(runs, spans) == 67
    assert running_seconds([], [span("a", 0, 10)]) == 0


@pytest.fixture
def clock(monkeypatch):
    """Seconds of both clocks, moved by hand."""
    at = SimpleNamespace(seconds=1_000_000.0)
    fake = SimpleNamespace(monotonic=lambda: at.seconds)
    monkeypatch.setattr(spending, "time", fake)

    def now():
        from datetime import UTC, datetime

        return datetime.fromtimestamp(at.seconds, UTC).isoformat(timespec="milliseconds")

    for module in (spending, __import__("search.store", fromlist=["now"])):
        monkeypatch.setattr(module, "now", now)
    return at


def train(study, clock, seconds, trials=1):
    """Finish so many trials that take so long each; how many there were."""
    done = 0
    while done < trials and (assignment := study.next_assignment()) is not None:
        clock.seconds += seconds
        study.on_finish(assignment.trial, outcome_of(study.trials[assignment.trial]), {})
        done += 1
    return done


def test_a_time_limit_holds_over_restarts_and_the_time_between_is_free(opened, clock):
    first = opened(trials=20, time_limit="100s")
    assert train(first, clock, 30, trials=2) == 2
    first.meter.beat(at_once=True)
    clock.seconds += 5000
    second = opened(trials=20)
    assert second.meter.seconds == pytest.approx(60)
    # 60 spent; at 90 one more may begin, which ends at 120.
    assert train(second, clock, 30, trials=9) == 2
    assert second.meter.seconds == pytest.approx(120)
    assert second.is_finished
    assert second.ending() == (
        "out of budget",
        "the time limit of 1m40s is reached: 4 of 20 trials are finished; a larger budget goes on",
    )
    second.meter.beat(at_once=True)
    third = opened(trials=20)
    assert third.is_finished
    assert third.next_assignment() is None
    assert third.ending() == second.ending()
    fourth = opened(trials=20, time_limit="1h")
    assert train(fourth, clock, 1, trials=3) == 3


def test_what_runs_is_finished_and_what_waits_stays(opened, clock):
    study = opened(trials=20, time_limit="100s")
    train(study, clock, 40)
    running, cut = study.next_assignment(), study.next_assignment()
    clock.seconds += 70
    assert study.next_assignment() is None
    assert study.why_idle() == "the time limit of 1m40s is reached"
    assert not study.is_finished
    study.on_finish(running.trial, outcome_of(study.trials[running.trial]), {})
    study.on_lost(cut.trial, "killed: its worker ended with signal 9")
    assert study.is_finished
    assert "2 of 20 trials are finished, 1 begun waits" in study.ending()[1]
    again = opened(trials=20)
    assert again.next_assignment() is None
    more = opened(trials=20, time_limit="none")
    assert more.next_assignment().trial == cut.trial


def test_device_hours_count_attempts_that_were_cut_off(opened, clock):
    first = opened(trials=20, device_hours=0.1)  # 360 seconds
    train(first, clock, 100)
    number = first.next_assignment().trial
    clock.seconds += 50
    first.on_lost(number, "killed: its worker ended with signal 9")
    assert first.meter.device_seconds == pytest.approx(150)
    first.next_assignment()
    first.next_assignment()
    clock.seconds += 40
    assert first.meter.device_seconds == pytest.approx(230)
    first.meter.beat(at_once=True)
    clock.seconds += 9  # and killed, 9 seconds after it last wrote
    clock.seconds += 70000
    second = opened(trials=20)
    assert second.meter.device_seconds == pytest.approx(230)
    cut = [a for a in read_attempts(second.store.engine, second.id) if "parent ended" in a.cause]
    assert len(cut) == 2
    # What is stored counts the same in the next process.
    assert opened(trials=20).meter.device_seconds == pytest.approx(230)
    train(second, clock, 131)
    assert second.next_assignment() is None
    assert "the 0.1 device-hours are spent" in second.ending()[1]


def test_a_parent_sees_what_attempts_of_others_cost_while_they_run(opened, clock):
    other = opened(trials=20)
    train(other, clock, 100)
    other.next_assignment()
    seen = Meter(other.store, other.id, "another parent", 1.0)
    clock.seconds += 40
    other.meter.beat(at_once=True)
    seen.look()
    assert seen.device_seconds == pytest.approx(140)
    other.on_finish(1, outcome_of(other.trials[1]), {})
    clock.seconds += 11
    seen.look()
    assert seen.device_seconds == pytest.approx(140), "what has ended counts once"


def test_gpus_that_workers_share_count_once(opened):
    plan = opened(trials=20).plan
    for gpus, workers, processes, devices in (
        ((), 4, 1, 1.0), ((), 2, 2, 2.0), (("0",), 1, 1, 1.0), (("0",), 3, 1, 1 / 3),
        (("0", "1"), 1, 1, 1.0), (("0", "1"), 4, 1, 0.5), (("0", "1"), 1, 2, 2.0),
    ):  # fmt: skip
        plan = opened(trials=20).plan.__class__(
            **{**plan.__dict__, "gpus": gpus, "workers": workers, "processes": processes}
        )
        assert plan.devices_of_attempt == pytest.approx(devices)


def test_a_run_that_begins_no_trial_costs_no_time(opened, clock):
    drive(opened(trials=3))
    before = show.study_data(opened(trials=3).store.engine, "attention")
    again = opened(trials=3)
    clock.seconds += 500
    again.meter.beat(at_once=True)
    assert again.meter.seconds < 1
    assert show.study_data(again.store.engine, "attention") == before


# Patience. ---------------------------------------------------------------------------------------


def trial(number, accuracy, flops, *, baseline=False, state="complete"):
    values = {"accuracy": accuracy, "flops": flops}
    return SimpleNamespace(
        number=number, state=state, baseline=baseline, metric=lambda name: values[name]
    )


def still(*trials):
    front = Front({"accuracy": "max", "flops": "min"})
    return front.since_it_moved({t.number: t for t in trials})


def test_patience_counts_since_the_front_moved():
    first = trial(0, 0.90, 10, baseline=True)
    assert still(first) == 0
    assert still(first, trial(1, 0.80, 20)) == 1  # dominated
    assert still(first, trial(1, 0.80, 20), trial(2, 0.91, 20)) == 0  # joins
    assert still(first, trial(1, 0.91, 20), trial(2, 0.91, 20)) == 1  # a tie moves nothing
    assert still(first, trial(1, 0.91, 20), trial(2, 0.85, 5), trial(3, 0.95, 4)) == 0
    assert still(first, trial(1, 0.95, 4), trial(2, 0.91, 20), trial(3, 0.85, 5)) == 2
    assert still(first, trial(1, 0.9, 11), trial(2, 0.5, 50, baseline=True)) == 1
    for state in ("failed", "diverged", "pruned"):
        assert still(first, trial(1, 0.99, 1, state=state)) == 1
    assert still(first, trial(1, 0.99, 1, state="running")) == 0


def test_patience_goes_by_numbers_also_where_they_end_in_another_order():
    front = Front({"accuracy": "max", "flops": "min"})
    trials = {0: trial(0, 0.9, 10, baseline=True), 1: trial(1, 0.99, 1, state="running")}
    trials |= {n: trial(n, 0.5, 50) for n in (2, 3, 4)}
    assert front.since_it_moved(trials) == 3
    trials[1].state = "complete"
    assert front.since_it_moved(trials) == 3  # trials 2 to 4 came after it
    trials[5] = trial(5, 0.995, 2)
    assert front.since_it_moved(trials) == 0
    assert Front(front.objectives).since_it_moved(trials) == 0


@pytest.fixture
def one_objective(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(SMALL + "objectives: {accuracy: max}\n")
    return str(path)


@pytest.mark.parametrize("stops", [(), (1, 3), (2, 2, 2)])
def test_patience_ends_a_study_at_the_same_trial_however_often_it_is_stopped(
    opened, one_objective, stops
):
    for stop_after in stops:
        drive(opened(one_objective, trials=25, patience=4, sampler="random"), stop_after=stop_after)
    study = opened(one_objective, trials=25, patience=4, sampler="random")
    drive(study)
    assert study.ending()[0] == "out of budget"
    assert "the front has not moved for 4 trials" in study.ending()[1]
    accuracies = [t.accuracy for t in read_trials(study.store.engine, study.id)]
    best = max(accuracies[: len(accuracies) - 4])
    assert all(a <= best for a in accuracies[-4:])
    assert accuracies[-5] == best
    assert len(accuracies) < 25
    again = opened(one_objective)
    assert again.next_assignment() is None
    assert again.ending() == study.ending()
    assert drive(opened(one_objective, patience=6)) > 0


def test_a_study_that_has_its_total_is_finished_whatever_its_budgets(opened):
    study = opened(trials=4, patience=3)
    drive(study)
    if len(study.trials) == 4:
        assert study.ending() == ("finished", "")
