import pandas as pd
import pytest

from blocks.errors import StudyError
from reports.frame import CURVE_COLUMNS, TRIAL_COLUMNS, curves_frame, trials_frame


def test_one_row_per_trial_equal_to_the_records(small):
    frame = trials_frame(small.url, "attention")
    trials = small.trials()
    assert frame["number"].tolist() == [t.number for t in trials] == list(range(9))
    for name in ("state", "label", "digest", "architecture_digest", "flops", "macs", "params"):
        assert frame[name].tolist() == [getattr(t, name) for t in trials], name
    measured = frame["accuracy"].astype(object).where(frame["accuracy"].notna(), None)
    assert measured.tolist() == [t.accuracy for t in trials]
    assert frame["test_accuracy"][1] == 352 / 360


def test_traits_come_from_architecture_and_parameters(small):
    frame = trials_frame(small.url, "attention").set_index("number")
    assert frame["type"].tolist() == [
        "none",
        "se",
        "se",
        "eca",
        "simam",
        "eca",
        "se",
        "se",
        "simam",
    ]
    assert frame.loc[3, "placement"] == "stem"
    assert frame.loc[0, "placement"] == ""
    assert frame.loc[1, "reduction"] == 16
    assert pd.isna(frame.loc[4, "reduction"])
    assert frame.loc[1, "param_type"] == "se"
    assert frame["baseline"].tolist() == [True] + [False] * 8


def test_front_worked_out_by_hand(small):
    # accuracy (of 360), extra FLOPs, extra parameters; 8 has 349 right and costs more than 0
    # 0: 350, 0, 0      on: the cheapest
    # 1: 354, 12k, 800  on: nothing as accurate is cheaper in FLOPs
    # 2: 355, 14k, 2.7k on: the most accurate
    # 3: 353, 9k, 3     on
    # 4: 352, 20k, 0    on: nothing as accurate has as few parameters
    # 5: 352, 13k, 9    off: 3 is better in all three
    # 8: 349, 5k, 0     off: 0 is better
    frame = trials_frame(small.url, "attention")
    assert frame.loc[frame["front"], "number"].tolist() == [0, 1, 2, 3, 4]


def test_times_are_times_and_the_reused_trial_names_its_origin(small):
    frame = trials_frame(small.url, "attention").set_index("number")
    assert str(frame["created"].dtype.tz) == "UTC"
    assert frame["finished"].notna().all()
    assert frame.loc[8, "origin"] == "first 0"
    assert frame.loc[6, "error"].startswith("RuntimeError")


def test_without_a_name_the_study_that_was_run_last(small):
    assert len(trials_frame(small.url)) == 9


def test_curves_have_one_row_per_trial_and_epoch(small):
    frame = curves_frame(small.url, "attention")
    assert list(frame.columns) == list(CURVE_COLUMNS)
    counts = frame.groupby("number").size()
    assert counts.to_dict() == dict.fromkeys((0, 1, 2, 3, 4, 5, 8), 12) | {7: 3}
    last = frame[frame["epoch"] == 12].set_index("number")["accuracy"]
    assert last[2] == pytest.approx(355 / 360)


def test_empty_study_keeps_its_columns(studies):
    studies.add()
    assert list(trials_frame(studies.url).columns) == list(TRIAL_COLUMNS)
    assert list(curves_frame(studies.url).columns) == list(CURVE_COLUMNS)


def test_unknown_study_is_refused_with_the_near_one(small):
    with pytest.raises(StudyError, match="Did you mean 'attention'"):
        trials_frame(small.url, "atention")
