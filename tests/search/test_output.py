import csv
import io
import json

import pytest
from rich.console import Console

from search import output
from search.records import TrialRecord
from search.show import front_table


@pytest.mark.parametrize(
    ("number", "text"),
    [(17_101_234, "17.10 M"), (269_434, "269.4 k"), (4.0892e9, "4.089 G"), (12, "12"), (None, "")],
)
def test_counts_for_people(number, text):
    assert output.count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_durations_for_people(seconds, text):
    assert output.duration(seconds) == text


def test_control_characters_never_reach_a_terminal():
    assert output.clean("a\x1b[31mb\x07\nc") == "a�[31mb�\nc"


def test_json_has_null_for_what_is_no_number():
    data = {"a": float("nan"), "b": [float("inf"), 1.5], 3: None}
    assert json.loads(output.json_text(data)) == {"a": None, "b": [None, 1.5], "3": None}


def test_csv_quotes_what_a_sheet_would_run():
    rows = [{"a": "=1+1", "b": -3, "c": {"x": 1}}, {"a": "plain", "b": 2.5, "c": []}]
    read = list(csv.DictReader(io.StringIO(output.csv_text(rows))))
    assert read[0] == {"a": "'=1+1", "b": "-3", "c": '{"x": 1}'}
    assert read[1]["a"] == "plain"


def drawn(table, width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(table)
    return console.file.getvalue()


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(output, "results", Console(width=60, file=io.StringIO()))


def test_a_narrow_terminal_loses_droppable_columns_and_no_others(narrow):
    columns = ["trial", "block", "accuracy", "macs", "params", "flops"]
    rows = [(7, "se in-block r=16", "98.6 %", "8.466 M", "269.4 k", "17.10 M")]
    text = drawn(output.table("", columns, rows, droppable=("macs", "params")), 60)
    for word in ("trial", "7", "se in-block r=16", "98.6 %", "17.10 M"):
        assert word in text
    assert "macs" not in text


def trial(number, backbone, accuracy, *, baseline=False, seed=0, flops=100):
    return TrialRecord(
        number, number, "complete", seed, "none" if baseline else "se", baseline, "d", "a",
        {"backbone": backbone}, {"epochs": 1}, 10, 10, 50, flops, {}, {}, None, 1, "", 0.0, "", "",
        None, {("validation", "accuracy"): accuracy},
    )  # fmt: skip


def test_a_trial_is_compared_with_its_own_backbone_and_seed():
    trials = [
        trial(0, "small", 0.50, baseline=True),
        trial(1, "small", 0.60, baseline=True, seed=1),
        trial(2, "large", 0.90, baseline=True, flops=1000),
        trial(3, "small", 0.65, seed=1, flops=110),
        trial(4, "large", 0.95, flops=1010),
    ]
    text = drawn(front_table(trials, [0, 1, 2, 3, 4], title=""), 200)
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()[:1].isdigit()}
    assert "+5.0" in rows["3"]  # against trial 1, not 0
    assert "(+10.00 %)" in rows["3"]
    assert "+5.0" in rows["4"]
    assert "(+1.00 %)" in rows["4"]
    assert all("baseline" in rows[number] for number in "012")
