"""search plan: what it says, and that it leaves nothing behind."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from instant import drive
from typer.testing import CliRunner

from blocks.backbone import site_table
from blocks.cached import is_untouched, read_cached, untouched, write_cached
from blocks.errors import StudyError
from search import cli
from search.costing import Spread, costing_of
from search.output import several
from search.plan import make_plan
from search.plan_view import amount, histogram, plan_parts, share
from search.possible import possible
from search.preview import preview_study
from search.taken_over import TakenOver, taken_over
from spaces.census import take_census
from spaces.estimates import Amount

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
SMALL = """
backbone: resnet20
attention: {type: [none, se, triplet], placement: [stem, stage], reduction: [4, 16]}
training: {epochs: 2}
constraints: {params: 1.01x baseline, flops: 1.001x baseline}
study: {trials: 6, sampler: random}
"""


def search(*arguments, cwd, check=0, **environment):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "search.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )
    assert done.returncode == check, f"{done.stderr}\n{done.stdout}"
    return done


def snapshot(folder):
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    } | {path.as_posix(): None for path in folder.rglob("*") if path.is_dir()}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.yaml").write_text(SMALL)
    site_table("resnet20", (1, 14, 14), 10)
    return tmp_path


def keys_of(data, prefix=""):
    """Every key of nested data, the rows of lists under []."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"{prefix}{key}"
            yield from keys_of(value, f"{prefix}{key}.")
    elif isinstance(data, list) and data:
        yield from keys_of(data[0], prefix.removesuffix(".") + "[].")


def test_a_fresh_folder_stays_as_it_is(folder):
    before = snapshot(folder)
    done = search("plan", "--space", "mine.yaml", "--no-timing", "--format", "json", cwd=folder)
    assert snapshot(folder) == before
    data = json.loads(done.stdout)
    # none; se at two places with two reductions; triplet at two places.
    assert data["space_size"]["candidates"]["value"] == 7
    assert data["space_size"]["candidates"]["exact"]
    assert data["stored"] is None
    assert data["forecast"] is None
    assert data["left"] == data["caps"]["together"]["of"] - data["caps"]["together"]["count"]


def test_a_stored_study_stays_as_it_is(folder, opened, storage):
    study = opened(str(folder / "mine.yaml"), trials=4)
    drive(study, stop_after=3)
    study.store.engine.dispose()
    before = snapshot(folder)
    data = preview_study(str(folder / "mine.yaml"), storage=storage, timing=False)
    assert snapshot(folder) == before
    assert data["stored"]["done"] == 3
    assert data["stored"]["left"] == 1


def test_a_study_that_is_being_run_can_be_planned(folder, opened, storage):
    study = opened(str(folder / "mine.yaml"), trials=5)
    drive(study, stop_after=1)
    assignment = study.next_assignment()
    data = preview_study(str(folder / "mine.yaml"), storage=storage, timing=False)
    assert data["stored"]["states"] == {"complete": 1, "running": 1}
    assert data["first"][0]["number"] == assignment.trial


@pytest.mark.slow
def test_timing_writes_nothing_either_and_takes_seconds(folder):
    (folder / "home").mkdir()
    before = snapshot(folder)
    done = search(
        "plan", "--space", "mine.yaml", "--format", "json", "--budget", "2cpu*30m",
        cwd=folder, XDG_CACHE_HOME=str(folder / "home"),
    )  # fmt: skip
    assert snapshot(folder) == before
    data = json.loads(done.stdout)
    assert [row["which"] for row in data["forecast"]["timed"]] == ["smallest", "median", "largest"]
    assert data["forecast"]["wall_seconds"]["low"] < data["forecast"]["wall_seconds"]["high"]
    assert data["memory"]["kept_bytes"]["max"] > data["memory"]["kept_bytes"]["min"] > 0
    assert len(data["budget"]["options"]) == 6
    assert abs(data["budget"]["simulation"]["found"] - 0.8) < 0.05
    documented = set(re.findall(r"^\| `([a-z_.\[\]]+)` \|", DOCUMENT, re.M))
    shown = {key for key in keys_of(data) if not re.search(r"baseline\.|states\.", key)}
    assert {key for key in shown if not covered(key, documented)} == set()


def covered(key, documented):
    """Whether a key, what it is a part of, or all parts of it have rows in the document."""
    key = key.replace("[]", "")
    parts = key.split(".")
    inside = any(name.startswith(f"{key}.") for name in documented)
    return inside or any(".".join(parts[:end]) in documented for end in range(1, len(parts) + 1))


def test_planning_needs_no_torch(folder):
    code = (
        "import sys; from search.preview import preview_study;"
        "preview_study('mine.yaml', timing=False);"
        "print(sorted({'torch', 'timm', 'ray'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    assert found.stdout.strip() == "[]"


def test_caps_are_told_by_rule(folder, storage):
    data = preview_study(str(folder / "mine.yaml"), storage=storage, timing=False)
    rules = {row["rule"]: row["count"] for row in data["caps"]["rules"]}
    together = data["caps"]["together"]["count"]
    assert list(rules) == ["params <= 1.01x baseline", "flops <= 1.001x baseline"]
    assert max(rules.values()) <= together <= sum(rules.values())
    assert together > 0
    flops = data["costs"]["flops"]
    assert flops["min"] == flops["baseline"]["resnet20"]
    assert sum(flops["histogram"]["counts"]) == data["costs"]["of"] == 7


def test_what_caps_reject_fits_into_no_budget(folder, storage):
    plan = make_plan(str(folder / "mine.yaml"), storage=storage)
    census = take_census(plan.space, plan.data)
    costing = costing_of(plan.space, plan.data, census)
    # Of 7 candidates the cap on flops rejects 3.
    assert possible(census, costing, 4) == 4
    assert possible(census, replace(costing, uncounted=2), 4) == 6
    many = replace(census, candidates=Amount(7000, 6500, 7500, exact=False))
    assert possible(many, replace(costing, complete=False), 4) == 4000
    assert possible(replace(census, ranges=("learning_rate",)), costing, 4) is None


def test_results_of_another_study_would_be_taken_over(folder, opened, storage):
    study = opened(str(folder / "mine.yaml"), study="before", trials=6)
    drive(study)
    data = preview_study(str(folder / "mine.yaml"), storage=storage, timing=False)
    first = data["first"][0]
    assert (first["number"], first["baseline"], first["origin"]) == (0, True, "before 0")
    # What caps reject cannot be taken over, so that all that the space allows is known.
    assert data["taken_over"]["known"] == data["taken_over"]["of"] == len(study.trials) == 4
    assert data["left"] == 0


def test_a_study_that_has_taken_results_over_has_them_itself(folder, opened, storage):
    drive(opened(str(folder / "mine.yaml"), study="before", trials=3))
    drive(opened(str(folder / "mine.yaml"), trials=3))
    data = preview_study(str(folder / "mine.yaml"), storage=storage, timing=False, trials=6)
    assert data["taken_over"] == {"known": 0, "of": 1, "complete": True}
    assert data["left"] == 1


def test_results_of_others_are_not_trained():
    elsewhere = {("a", 0): "other 1", ("b", 0): "other 2", ("z", 0): "other 3"}
    pairs = [(digest, 0) for digest in "abcd"]
    found = taken_over(pairs, elsewhere, [("b", 0)], complete=True)
    assert found == TakenOver(known=1, of=3, complete=True)
    assert found.to_train(3) == 2  # all that there are: c and d
    assert found.to_train(2) == 1  # a is one of the two with a chance of two thirds
    assert replace(found, complete=False).to_train(3) == 3
    assert taken_over([], elsewhere, [], complete=True).to_train(5) == 5


def test_trials_over_several_processes_have_no_forecast_and_it_is_said(folder, storage):
    def told(**flags):
        return preview_study(str(folder / "mine.yaml"), storage=storage, workers=1, **flags)

    assert "not timed" in told(processes=2, timing=False)["notes"][-1]
    with pytest.raises(StudyError, match="leave --budget or --processes-per-trial 2 out"):
        told(processes=2, budget="1h")


def test_caps_that_only_the_baseline_is_within_are_pointed_out(folder, storage):
    def notes(caps):
        text = re.sub("constraints: .*", f"constraints: {caps}", SMALL)
        (folder / "mine.yaml").write_text(text)
        return preview_study(str(folder / "mine.yaml"), storage=storage, timing=False)["notes"]

    # On 14 x 14 digits resnet20 has 269,434 parameters, 8.466 M macs and 17.06 M flops.
    assert notes("{params: 269434, macs: 1x baseline, flops: 18M}") == []
    (few,) = notes("{params: 269433}")
    assert few == (
        "the cap params <= 269433 is under what resnet20 itself has, 269.4 k: no block is within it"
    )
    (meant,) = notes("{flops: 9M}")
    assert meant.endswith("over its 8.466 M macs, which papers print as FLOPs: no block is within"
                          " it; to cap those, write macs")  # fmt: skip
    assert "papers" not in notes("{flops: 0.4x baseline}")[0]


def test_a_changed_space_is_shown_and_refused_by_the_run_alone(folder, opened, storage):
    drive(opened(str(folder / "mine.yaml"), trials=3))
    (folder / "mine.yaml").write_text(SMALL.replace("[4, 16]", "[4, 8]"))
    data = preview_study(str(folder / "mine.yaml"), storage=storage, timing=False)
    assert data["stored"]["changes"] == [
        "-attention.reduction: [4, 16]",
        "+attention.reduction: [4, 8]",
    ]
    with pytest.raises(StudyError, match="another space"):
        opened(str(folder / "mine.yaml"), trials=3)
    text = "\n".join(part for part in plan_parts(data) if isinstance(part, str))
    assert "+attention.reduction: [4, 8]" in text
    assert "refuses to go on without --extend" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--space'"),
        (("--space", "atention"), "Did you mean 'attention'"),
        (("--space", "smoke", "--trials", "0"), "--trials is 0"),
        (("--space", "smoke", "--sampler", "randon"), "Did you mean 'random'"),
        (("--space", "smoke", "--storage", "sqlite:///no/x.db"), "there is no folder"),
        (("--space", "smoke", "--executor", "slurm"), "Allowed: local"),
        (("--space", "smoke", "--report", "no/r.html"), "of search run and plan, --report)"),
        (("--space", "smoke", "--explain", "--keep-weights", "none"), "kept networks"),
        (("--space", "smoke", "--first", "0"), "--first is 0; it must be 1 or more"),
        (("--space", "smoke", "--format", "csv"), "Allowed: table, json"),
        (("--space", "smoke", "--budget", "6"), "64gpu*6h or 2cpu*90m"),
        (("--space", "smoke", "--budget", "1h", "--no-timing"), "leave --no-timing out"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["search", "plan", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_run_and_plan_take_the_same_options():
    def options(command):
        done = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"})
        return set(re.findall(r"--[a-z][a-z-]+", done.output))

    run, plan = options("run"), options("plan")
    assert run <= plan
    assert {"--budget", "--first", "--no-timing", "--format"} <= plan - run


def test_the_documents_example_is_what_the_command_says(tmp_path, monkeypatch, capsys):
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.S)
    command, shown = re.search(r"```console\n\$ search (.*?)\n(.*?)```", DOCUMENT, re.S).groups()
    (tmp_path / "example.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["search", *command.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    for key, value in json.loads(shown).items():
        assert said[key] == value, key


# Small things. -----------------------------------------------------------------------------------


def test_what_is_untouched_is_remembered_and_forgotten(cache_home):
    with untouched():
        write_cached("plan/test.json", {"a": 1})
        assert read_cached("plan/test.json") == {"a": 1}
        assert is_untouched()
        with untouched():
            pass
        assert is_untouched()
    assert not is_untouched()
    assert read_cached("plan/test.json") is None
    assert not list(cache_home.rglob("plan"))


def test_spreads_by_hand():
    spread = Spread.of([1, 2, 3, 4, 5])
    assert spread.values == (1, 2, 3, 4, 5)
    assert sum(spread.counts) == 5
    assert spread.counts[0] == spread.counts[-1] == 1
    assert Spread.of([7]).counts == (1,)
    assert Spread.of([7, 7]).values == (7, 7, 7, 7, 7)


def test_one_of_a_thing_is_one():
    assert (several(1, "trial"), several(0, "trial"), several(1200, "trial")) == (
        "1 trial", "0 trials", "1,200 trials",
    )  # fmt: skip


def test_histograms_show_what_is_not_empty():
    assert histogram([0, 1, 100]) == " ▁█"


def test_amounts_and_shares_in_words():
    exact = {"value": 1234, "low": 1234, "high": 1234, "exact": True}
    assert amount(exact) == "1,234 (exact)"
    about = {"value": 10**12, "low": 10**11, "high": 10**13, "exact": False}
    assert amount(about) == "about 1e+12 (1e+11 to 1e+13)"
    part = {"share": 0.125, "low": 0.11, "high": 0.14, "exact": False}
    assert share(part) == "12.5 % (11.0 to 14.0)"
    assert share({**part, "exact": True}) == "12.5 %"


def test_who_proposes_and_what_was_given_is_said(folder, monkeypatch):
    monkeypatch.chdir(folder)
    tuned = SMALL.replace("epochs: 2", "epochs: 1, learning_rate: {low: 0.01, high: 0.4}")
    (folder / "mine.yaml").write_text(tuned)
    given = ["type=se, placement=stem", "placement=stem, type=se"]
    data = preview_study("mine.yaml", sampler="auto", timing=False, enqueue=given)
    assert data["sampler"] == "tpe"
    assert data["tune_baseline"]
    assert data["enqueue"] == [{"type": "se", "placement": "stem"}]
    assert len(data["remarks"]) == 1
    headline, tuning, enqueued, remark, *_ = plan_parts(data)
    assert "6 trials of 1 epoch, 1 seed" in headline
    assert f"auto, which is tpe here ({data['sampler_because']})" in headline
    assert tuning.startswith("for no attention as many settings")
    assert enqueued == "enqueued: type=se, placement=stem"
    assert "'placement=stem, type=se' is the same as" in remark
    assert remark.endswith("it is left out")
