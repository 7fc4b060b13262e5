"""Candidates beside published figures: matched by network and data, judged by an interval."""

import io
import math

import pytest
from instant import PROVENANCE
from rich.console import Console
from typer.testing import CliRunner

from blocks.architecture import architecture_cost
from reports.page import write_report
from search import show
from search.beside import (
    CANNOT,
    CONSISTENT,
    NOT_CONSISTENT,
    beside_parts,
    beside_published,
    beside_table,
    t_interval,
    unread_tables,
)
from search.cli import app
from search.database import open_for_reading, open_for_writing, storage_url
from search.outcome import EpochResult, Outcome
from search.reading import read_study, read_trials
from search.records import NewTrial
from search.store import Store
from spaces.candidate import DataFacts
from spaces.drawing import distinct_candidates, sites_of
from spaces.space import make_space

CIFAR = DataFacts("cifar10", (3, 32, 32), 10, "split-1", (45_000, 5_000, 10_000))
DIGITS = DataFacts("digits", (1, 14, 14), 10, "split-2", (1257, 270, 270))
CONTENT = {
    "backbone": "resnet20",
    "attention": {
        "type": {"none": {}, "selfatt": {}, "se": {}, "mha": {"heads": [4, 8]}},
        "placement": ["stage", "in-block"],
    },
    "training": {"epochs": 2},
}


def outcome(accuracy):
    epoch = EpochResult(1, 0.5, 0.8, 0.4, accuracy, 0.1, 0.01)
    measured = (("validation", "accuracy", accuracy), ("test", "accuracy", 0.5))
    return Outcome("complete", (epoch,), measured, 0.01)


@pytest.fixture
def filled(storage):
    """Fill a study with (label of a candidate, seed, accuracy); gives (record, trials)."""

    def fill(rows, facts=CIFAR, content=CONTENT):
        engine = open_for_writing(storage_url(storage))
        space = make_space(content, name="mine")
        identity = {"data": {**facts.identity(), "sizes": list(facts.sizes)}, "epochs": 2}
        store = Store(engine)
        store.add_study("mine", space, identity={**identity, "seed": 0}, settings={"trials": 9})
        study = read_study(engine, "mine")
        known = {c.label: c for c, _ in distinct_candidates(space, facts).values()}
        for number, (label, seed, accuracy) in enumerate(rows):
            candidate = known[label]
            sites = sites_of(candidate.architecture.backbone, candidate.data)
            cost = architecture_cost(candidate.architecture, sites)
            plain = label == "none"
            row = NewTrial(number, candidate.digest, seed, label, {}, {}, None, plain, None)
            store.add_trials(study.id, [row], candidates=[(candidate, cost)], proposals=[])
            store.start_attempt(study.id, number, owner="host 1")
            store.finish_trial(study.id, number, outcome(accuracy), provenance=PROVENANCE)
        found = study, read_trials(engine, study.id)
        engine.dispose()
        return found

    return fill


def test_students_interval_of_three_values():
    low, high = t_interval([0.01, 0.02, 0.03])
    # Mean 0.02, deviation 0.01, t(0.975, 2) = 4.302653: 4.302653 x 0.01 / sqrt(3) = 0.024841.
    assert (low, high) == pytest.approx((0.02 - 0.0248414, 0.02 + 0.0248414), abs=1e-6)
    assert t_interval([0.01]) is None
    assert t_interval([]) is None
    assert t_interval([0.01, 0.01]) == (0.01, 0.01)


def paired(gains, label="selfatt stage"):
    """Trials of no attention at 0.90 and of a candidate above it, one pair a seed."""
    rows = [("none", seed, 0.90) for seed in range(len(gains))]
    return rows + [(label, seed, 0.90 + gain) for seed, gain in enumerate(gains)]


def test_a_difference_inside_the_interval_is_consistent(filled):
    # The published difference of self-attention after the stages is 91.44 - 90.96 = 0.48 points.
    found, untuned = beside_published(*filled(paired([0.003, 0.005, 0.007])))
    assert untuned.why == ("other epochs: 182, here 2",)
    assert found.figure.paper == "CNNtention"
    assert found.figure.difference == pytest.approx(0.0048)
    assert found.differences == pytest.approx((0.003, 0.005, 0.007))
    assert found.difference == pytest.approx(0.005)
    assert found.accuracy == pytest.approx(0.905)
    assert found.why == ()
    assert found.verdict == CONSISTENT


def test_one_outside_is_not(filled):
    found, _ = beside_published(*filled(paired([0.010, 0.011, 0.012])))
    # 0.011 +- 4.302653 x 0.001 / sqrt(3) = 0.0085 to 0.0135.
    assert found.interval == pytest.approx((0.0085159, 0.0134841), abs=1e-6)
    assert found.verdict == NOT_CONSISTENT


@pytest.mark.parametrize(
    ("rows", "facts", "why"),
    [
        (paired([0.005]), CIFAR, ("one seed only",)),
        (
            [("none", 0, 0.9), ("selfatt stage", 1, 0.9), ("selfatt stage", 2, 0.9)],
            CIFAR,
            ("no attention has no result at the same seeds",),
        ),
        (paired([0.0, 0.01]), DIGITS, ("another data set: cifar10, here digits",)),
    ],
)
def test_why_it_cannot_be_compared_here(filled, rows, facts, why):
    found, _ = beside_published(*filled(rows, facts))
    assert found.why == why
    assert found.verdict == CANNOT


def test_another_backbone_and_a_network_that_differs_are_said(filled):
    content = {
        **CONTENT,
        "backbone": "resnet32",
        "attention": {
            "type": {"none": {}, "cbam": {"reduction": 16, "norm": False, "residual": True}},
            "placement": "stage",
        },
    }
    (label,) = [
        c.label
        for c, _ in distinct_candidates(make_space(content), CIFAR).values()
        if "cbam" in c.label
    ]
    (found,) = beside_published(*filled(paired([0.0, 0.01], label), CIFAR, content))
    assert found.why == (
        "its CBAM has other biases",
        "another backbone: resnet20, here resnet32",
    )
    assert found.verdict == CANNOT


def test_only_the_same_attention_is_matched(filled):
    rows = [*paired([0.0, 0.01], "selfatt in-block"), ("mha stage heads=4", 0, 0.9)]
    assert beside_published(*filled(rows)) == []


@pytest.mark.parametrize("reduction", [16, 8])
def test_where_no_figure_is_near_those_from_elsewhere_are_shown(filled, reduction):
    types = {"none": {}, "se": {"reduction": reduction}}
    content = {**CONTENT, "attention": {"type": types, "placement": "in-block"}}
    record, trials = filled(paired([0.0, 0.01], f"se in-block r={reduction}"), DIGITS, content)
    found = beside_published(record, trials)
    assert [str(table.paper) for table in unread_tables(trials)] == ["SENet, 1709.01507"]
    if reduction == 8:  # nobody's whose figures are known here
        assert found == []
        return
    (one,) = found
    assert str(one.figure) == "resnet50 + se in-block reduction=16"
    assert one.verdict == CANNOT
    assert one.why == (
        "another data set: imagenet, here digits",
        "another backbone: resnet50, here resnet20",
    )
    assert one.elsewhere
    (line,) = beside_parts([one.to_json()])
    assert "has 77.06 % accuracy in resnet50 on imagenet: another backbone and other" in line.plain


def test_a_paper_whose_figures_are_not_known_is_said(filled, storage, tmp_path):
    types = {"none": {}, "tripse1": {"reduction": 16}}
    content = {**CONTENT, "attention": {"type": types, "placement": "stage"}}
    filled(paired([0.0, 0.01], "tripse1 stage r=16"), CIFAR, content)
    engine = open_for_reading(storage_url(storage))
    data = show.study_data(engine, "mine")
    engine.dispose()
    assert "published" not in data
    (words,) = data["published_unread"]
    assert words.startswith("TripSE, 2505.05943: its accuracies of TripSE1 to TripSE4 on cifar100")
    assert words in list(show.remarks(data))
    page = write_report("mine", storage=storage, output=tmp_path / "r.html").read_text("utf-8")
    assert "No figure of what was trained here is known." in page
    assert words in page


def test_pairs_are_of_equal_settings(filled):
    content = {**CONTENT, "training": {"epochs": 2, "momentum": [0.9, 0.5]}}
    rows = [
        *[("none [momentum=0.9]", seed, 0.90) for seed in (0, 1)],
        *[("none [momentum=0.5]", seed, 0.80) for seed in (0, 1)],
        *[("selfatt stage [momentum=0.5]", seed, 0.85 + seed / 100) for seed in (0, 1)],
    ]
    found, _ = beside_published(*filled(rows, CIFAR, content))
    assert found.differences == pytest.approx((0.05, 0.06))


@pytest.mark.parametrize(("seeds", "momentum"), [(1, "0.5"), (2, "0.9")])
def test_one_candidate_stands_for_a_network_at_several_settings(filled, seeds, momentum):
    """That with more seeds; else the more accurate."""
    content = {**CONTENT, "training": {"epochs": 2, "momentum": [0.9, 0.5]}}
    rows = [
        ("none [momentum=0.9]", 0, 0.90),
        ("selfatt stage [momentum=0.5]", 0, 0.97),
        *[("selfatt stage [momentum=0.9]", seed, 0.91) for seed in range(seeds)],
    ]
    found, _ = beside_published(*filled(rows, CIFAR, content))
    assert found.label == f"selfatt stage [momentum={momentum}]"


def test_show_and_report_set_it_beside_ours(filled, storage, tmp_path):
    filled([*paired([0.003, 0.005, 0.007]), ("mha stage heads=8", 0, 0.91)])
    engine = open_for_reading(storage_url(storage))
    data = show.study_data(engine, "mine")
    engine.dispose()
    attention, untuned, heads, _ = data["published"]
    assert untuned["published"] == 91.48
    assert attention["verdict"] == "consistent"
    assert (attention["published"], attention["published_baseline"]) == (91.44, 90.96)
    assert attention["trials"] == [3, 4, 5]
    assert attention["seeds"] == 3
    assert math.isclose(attention["difference"], 0.005)
    assert heads["why"] == ["one seed only"]
    page = write_report("mine", storage=storage, output=tmp_path / "r.html").read_text("utf-8")
    assert "Beside published figures" in page
    assert "4 published figures: 1 consistent with ours and 3 that cannot be compared here." in page
    assert "early by the test error" in page


def test_a_study_of_nothing_published_says_nothing(filled, storage, tmp_path):
    filled([("none", 0, 0.9), ("se stage", 0, 0.91)])
    engine = open_for_reading(storage_url(storage))
    assert "published" not in show.study_data(engine, "mine")
    engine.dispose()
    page = write_report("mine", storage=storage, output=tmp_path / "r.html").read_text("utf-8")
    assert "Beside published figures" not in page


def test_the_terminal_has_a_table_of_them(filled, storage):
    filled(paired([0.003, 0.005, 0.007]))
    done = CliRunner().invoke(app, ["show", "mine", "--storage", storage])
    assert done.exit_code == 0
    engine = open_for_reading(storage_url(storage))
    rows = show.study_data(engine, "mine")["published"]
    engine.dispose()
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(beside_table(rows))
    text = console.export_text()
    assert "91.44 % accuracy" in text
    assert "+0.48" in text
    # 0.005 +- 4.302653 x 0.002 / sqrt(3): three pairs, 0.5 points.
    assert "+0.00 to +1.00" in text
    assert "consistent" in text
