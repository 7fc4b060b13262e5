"""The commands as a user types them, in processes of their own."""

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import authors
import optuna
import pytest
import torch

from blocks.weight_file import open_network

SPACE = """
backbone: resnet20
attention:
  type: [none, se, eca]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
study: {trials: 4, sampler: random}
"""


def search(*arguments, cwd, check=None, **more):
    command = [sys.executable, "-P", "-m", "search.cli", *map(str, arguments)]
    more.setdefault("env", {**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, **more)
    if check is not None:
        assert done.returncode == check, f"{done.returncode}: {done.stderr}\n{done.stdout}"
    return done


def shown(cwd, study):
    return json.loads(search("show", study, "--format", "json", cwd=cwd, check=0).stdout)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder in which a real study of four trials has been run."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "mine.yaml").write_text(SPACE)
    done = search("run", "--space", "mine.yaml", cwd=folder, check=0)
    return folder, done


def test_run_ends_with_the_front_and_the_reports_path(ran):
    folder, done = ran
    assert "Front of mine:" in done.stdout
    assert done.stdout.rstrip().endswith("report: mine-report.html")
    assert (folder / "mine-report.html").stat().st_size > 10_000
    assert (folder / "studies.db").is_file()


def test_run_states_its_settings_and_one_line_a_trial(ran):
    remarks = ran[1].stderr
    for words in ("mine.yaml on resnet20", "digits", "4 in all", "random", "accuracy max"):
        assert words in remarks
    assert len(re.findall(r"^\[\d/4\] trial \d complete: .* % at .*FLOPs", remarks, re.M)) == 4


def test_show_json_has_the_contracts_keys(ran):
    data = shown(ran[0], "mine")
    assert data["study"] == "mine"
    assert data["objectives"] == {"accuracy": "max", "flops": "min", "params": "min"}
    assert len(data["trials"]) == 4
    keys = {
        "number", "state", "architecture", "architecture_digest", "digest", "baseline", "seed",
        "epochs", "accuracy", "test_accuracy", "params", "macs", "flops",
    }  # fmt: skip
    for trial in data["trials"]:
        assert keys <= set(trial)
        assert trial["state"] == "complete"
        assert 0 <= trial["accuracy"] <= 1
        assert 0 <= trial["test_accuracy"] <= 1
    assert [t["baseline"] for t in data["trials"]] == [True, False, False, False]


def test_show_csv_and_one_trial(ran):
    folder = ran[0]
    text = search("show", "mine", "--format", "csv", cwd=folder, check=0).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    one = json.loads(search("show", "mine", "1", "--format", "json", cwd=folder, check=0).stdout)
    assert len(one["curve"]) == 1
    made = one["attempts"][0]["provenance"]
    assert made["versions"]["torch"]
    assert made["threads"] == 1 or os.cpu_count() > 2
    assert made["command"][1:] == ["run", "--space", "mine.yaml"]


def test_one_trial_as_tables_and_the_time_to_a_target(ran):
    table = search("show", "mine", "1", cwd=ran[0], check=0).stdout
    for words in ("mine, trial 1: complete", "Classes, validation", "Classes, test", "images/s"):
        assert words in table
    table = search("show", "mine", "--target-accuracy", "0.01", cwd=ran[0], check=0).stdout
    assert "to target" in table
    done = search("show", "mine", "--target-accuracy", "7", cwd=ran[0], check=2)
    assert "it must be a share above 0 and up to 1; write 0.07 for 7 %" in done.stderr


def test_the_fronts_weights_are_kept_beside_the_database(ran):
    data = shown(ran[0], "mine")
    kept = {trial["number"]: trial["weights"] for trial in data["trials"] if "weights" in trial}
    assert sorted(kept) == sorted({0, *data["front"]})
    for weights in kept.values():
        assert (ran[0] / weights["path"]).stat().st_size == weights["bytes"]
    assert data["weights"]["files"] == len(kept)
    assert data["weights"]["bytes"] == sum(weights["bytes"] for weights in kept.values())
    words = f"weights: {len(kept)} files, "
    assert words in ran[1].stdout
    assert words in search("show", "mine", cwd=ran[0], check=0).stdout


def test_list_and_the_default_study(ran):
    (row,) = json.loads(search("list", "--format", "json", cwd=ran[0], check=0).stdout)
    assert (row["study"], row["status"], row["trials"]) == ("mine", "finished", 4)
    table = search("show", cwd=ran[0], check=0).stdout
    assert "mine: finished" in table
    assert "none" in table


def test_report_anew(ran, tmp_path):
    done = search("report", "--output", tmp_path / "r.html", cwd=ran[0], check=0)
    assert done.stdout.strip() == f"report: {tmp_path / 'r.html'}"
    assert (tmp_path / "r.html").read_bytes() == (ran[0] / "mine-report.html").read_bytes()


def test_optuna_loads_the_study(ran):
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{ran[0]}/studies.db")
    assert len(study.trials) == 4
    assert sorted(t.number for t in study.best_trials) == shown(ran[0], "mine")["front"]


def test_a_finished_study_run_again_trains_nothing(ran):
    before = shown(ran[0], "mine")
    search("run", "--space", "mine.yaml", cwd=ran[0], check=0)
    assert shown(ran[0], "mine") == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run",), "Missing option '--space'"),
        (("run", "--space", "nothing"), "no file 'nothing' and no shipped space"),
        (("run", "--space", "atention"), "Did you mean 'attention'"),
        (("run", "--space", "smoke", "--trials", "0"), "--trials is 0; it must be 1 or more"),
        (("run", "--space", "smoke", "--trials", "x"), "valid integer"),
        (("run", "--space", "smoke", "--trials", "xyz"), "given: 'xyz'"),
        (("run", "--space", "smoke", "--sampler", "nsga"), "Did you mean 'nsga3'"),
        (("run", "--space", "smoke", "--data", "cifar11"), "Did you mean 'cifar10'?"),
        (("run", "--space", "smoke", "--data", "mnist"), "train-images-idx3-ubyte"),
        (("run", "--space", "smoke", "--device", "tpu"), "Allowed: cpu, cuda"),
        (("run", "--space", "smoke", "--study", "../x"), "no name"),
        (("run", "--space", "smoke", "--storage", "x.db"), "no database URL"),
        (("run", "--space", "smoke", "--storage", "sqlite:///no/x.db"), "there is no folder"),
        (("run", "--space", "smoke", "--set", "training.epoch=1"), "Did you mean 'epochs'"),
        (("run", "--space", "smoke", "--executor", "slurm"), "Allowed: local"),
        (("run", "--space", "smoke", "--include", "no.py"), "no such file"),
        (("run", "--space", "smoke", "--report", "no/r.html"), "there is no folder"),
        (("run", "--space", "smoke", "--device", "cuda"), "finds no GPU"),
        (("run", "--space", "smoke", "--study", "-x"), "is no name"),
        (("run", "--space", "smoke", "--storage", "mysql+pymysql://u:s@h/x"), "not installed"),
        (
            (
                "run",
                "--space",
                "smoke",
                "--set",
                "attention.type=[none, fca]",
                "--set",
                "attention.placement=stem",
                "--set",
                "attention.frequency=top32",
            ),
            "no site can take",
        ),
        (("show", "x"), "no results yet"),
        (("list",), "no results yet"),
        (("report",), "no results yet"),
        (("list", "--format", "xml"), "Allowed: table, json, csv"),
        (("blocks", "--sites"), "needs a backbone"),
        (("blocks", "--stages"), "--stages needs a backbone"),
        (("blocks", "--backbone", "resnet21"), "Did you mean 'resnet20'"),
        (("blocks", "resnet20", "--input", "3x32"), "channels x height x width"),
        (("nothing",), "No such command 'nothing'"),
        (("spaces", "smok"), "Did you mean 'smoke'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, words, tmp_path):
    done = search(*arguments, cwd=tmp_path, check=2)
    assert words in done.stderr
    assert done.stderr.startswith("search: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_all_mistakes_of_a_file_come_together_and_nothing_is_written(tmp_path):
    (tmp_path / "bad.yaml").write_text("backbone: resnet2\nattention: {type: sea}\ntrainng: 3\n")
    done = search("run", "--space", "bad.yaml", cwd=tmp_path, check=2)
    lines = done.stderr.strip().splitlines()
    assert lines[0] == "search: bad.yaml has 3 problems"
    assert [line.split(": ")[0].strip() for line in lines[1:]] == [
        "bad.yaml:1", "bad.yaml:2", "bad.yaml:3",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_repeated_key_is_named_with_the_other_mistakes(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "backbone: resnet20\nbackbone: resnet20\nattention: {type: sea}\nattentio: 3\n"
    )
    lines = search("run", "--space", "bad.yaml", cwd=tmp_path, check=2).stderr.splitlines()
    assert lines[0] == "search: bad.yaml has 3 problems"
    assert "bad.yaml:2: key 'backbone' is given twice" in lines[1]


@pytest.mark.parametrize("delay", [0.3, 0.8, 1.5])
def test_an_interrupt_during_the_start_says_how_to_go_on(tmp_path, delay):
    (tmp_path / "mine.yaml").write_text(SPACE)
    for longer in (1, 2, 4):
        process = start(tmp_path)
        time.sleep(delay * longer)
        process.send_signal(signal.SIGINT)
        remarks = process.communicate(timeout=30)[1]
        if process.returncode != -signal.SIGINT:
            break  # else Python itself was still starting, on a busy machine
    assert process.returncode == 130
    assert "Go on with: " in remarks
    assert "Traceback" not in remarks


def test_a_study_can_be_run_from_a_thread(tmp_path):
    code = (
        "import threading\nfrom search.study import run_study\nfound = []\n"
        "def run():\n    found.append(run_study('smoke', trials=1, epochs=1))\n"
        "thread = threading.Thread(target=run)\nthread.start()\nthread.join()\n"
        "print([trial.state for trial in found[0].trials])\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=code, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "['complete']", done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = search("--debug", "show", "x", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert "StudyError" in done.stderr


def test_catalogues_as_json(tmp_path):
    blocks = json.loads(search("blocks", "--format", "json", cwd=tmp_path, check=0).stdout)
    assert {"none", "se", "eca", "fca", "simam", "cbam"} <= {row["name"] for row in blocks}
    adapted = {row["name"]: row for row in blocks if row["adapted"]}
    assert {"timm:gc", "timm:ge", "timm:se"} < set(adapted)
    assert all(name.startswith("timm:") for name in adapted)
    assert adapted["timm:gc"]["options"][1]["meaning"].startswith("how the context joins the map")
    table = search("blocks", cwd=tmp_path, check=0, env={**os.environ, "COLUMNS": "200"}).stdout
    own, of_timm = table.split("timm's own modules")
    assert "energy_lambda" in own
    assert "timm:" not in own
    assert "use_attn = true, combine = scale" in of_timm
    sites = search("blocks", "--sites", "resnet20", "--format", "json", cwd=tmp_path, check=0)
    # The stem; three units of five positions in three stages, the last unit's post is the stage.
    assert len(json.loads(sites.stdout)) == 1 + 3 * 3 * 5
    costs = search("blocks", "--backbone", "resnet20", "--format", "json", cwd=tmp_path, check=0)
    by_name = {row["name"]: row for row in json.loads(costs.stdout)}
    assert by_name["none"]["params"] == 269722
    spaces = json.loads(search("spaces", "--format", "json", cwd=tmp_path, check=0).stdout)
    assert {"attention", "smoke"} <= {row["name"] for row in spaces}
    schema = json.loads(search("spaces", "--schema", cwd=tmp_path, check=0).stdout)
    assert {"backbone", "attention", "training"} <= set(schema["properties"])
    text = search("spaces", "attention", cwd=tmp_path, check=0).stdout
    assert text == (Path(__file__).parents[2] / "spaces" / "attention.yaml").read_text()


def test_what_blocks_add_and_stages_cost(tmp_path):
    costs = search("blocks", "--backbone", "resnet20", "--format", "json", cwd=tmp_path, check=0)
    by_name = {row["name"]: row for row in json.loads(costs.stdout)}
    assert by_name["se"]["adds"]["params"] == 2016
    assert by_name["se"]["adds_percent"]["params"] == pytest.approx(100 * 2016 / 269722)
    # Nine maps, 86,016 numbers; for each of C channels a mean and a gate, and the hidden layer.
    assert by_name["se"]["adds"]["kept_bytes"] == 346_836
    assert "no grid of whole 7 x 7 windows" in by_name["rgse"]["note"]
    narrow = {**os.environ, "COLUMNS": "100"}
    table = search("blocks", "--backbone", "resnet20", cwd=tmp_path, check=0, env=narrow).stdout
    assert re.search(r"se +\+2,016 \(0\.75 %\) +\+2\.016 k \(0\.005 %\)", table)
    assert all(len(line) <= 100 for line in table.splitlines())
    stages = search("blocks", "--stages", "resnet20", "--format", "json", cwd=tmp_path, check=0)
    rows = json.loads(stages.stdout)
    assert [row["part"] for row in rows] == ["stem", "stage1", "stage2", "stage3", "head"]
    for figure in ("params", "macs", "flops", "kept_bytes"):
        assert sum(row[figure] for row in rows) == by_name["none"][figure]
    table = search("blocks", "--stages", "resnet20", cwd=tmp_path, check=0, env=narrow).stdout
    assert re.search(r"together +269,722 +40\.55 M", table)


def test_every_command_has_an_example_in_its_help(tmp_path):
    top = search("--help", cwd=tmp_path, check=0).stdout
    for command in ("run", "report", "list", "show", "blocks", "spaces", "doctor"):
        assert command in top
        assert f"search {command}" in search(command, "--help", cwd=tmp_path, check=0).stdout
    text = search("run", "--help", cwd=tmp_path, check=0, env={**os.environ, "COLUMNS": "200"})
    for default in ("24", "12", "digits", "nsga2", "auto"):
        assert f"default: {default}" in text.stdout or f"else {default}" in text.stdout


def test_doctor_finds_this_machine_well(tmp_path):
    done = search("doctor", "--format", "json", cwd=tmp_path, check=0)
    states = {row["what"]: row["state"] for row in json.loads(done.stdout)}
    assert states["torch"] == states["data digits"] == states["package names"] == "ok"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights as CNNtention's authors would have it, with its network."""
    network = authors.SmallResNet(authors.MultiHead).eval()
    path = tmp_path_factory.mktemp("weights") / "mha.pth"
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return path, network


def test_published_weights_are_loaded_described_and_written(weights, tmp_path):
    path, network = weights
    arguments = ("blocks", "--load", path, "--as", "mha", "--set", "heads=4")
    done = search(*arguments, "--output", "a.safetensors", cwd=tmp_path, check=0)
    for words in ("AttentionSeekers/CNNtention", "resnet20 + mha stage heads=4", "291,677"):
        assert words in done.stdout
    assert re.search(r"att\{S\}\.query\.\{P\} +stage: key\.\{P\} +6", done.stdout)
    opened = open_network(tmp_path / "a.safetensors")
    assert torch.equal(opened.fc.weight, network.fc.weight)

    data = json.loads(search(*arguments, "--format", "json", cwd=tmp_path, check=0).stdout)
    assert (data["params"], data["classes"], data["input"]) == (291_677, 10, [3, 32, 32])
    assert sum(row["tensors"] for row in data["renamed"]) == len(network.state_dict())
    assert {"theirs": "att{S}.weights", "ours": "stage: gamma", "tensors": 3} in data["renamed"]
    assert [row["options"] for row in data["placements"]] == [{"heads": 4}] * 3
    assert data["written"] is None


TOGETHER = "--load FILE and --as BLOCK go together"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--as", "se"), "--load FILE and --as BLOCK go together"),
        (("--load", "WEIGHTS"), "--load FILE and --as BLOCK go together"),
        (
            ("--load", "WEIGHTS", "--as", "mha", "resnet20"),
            "--load FILE and --as BLOCK go together",
        ),
        (("--output", "a.safetensors"), "--load FILE and --as BLOCK go together"),
        (("--load", "none.pth", "--as", "mha"), "none.pth: there is no such file"),
        (("--load", "WEIGHTS", "--as", "eca"), "--as mha"),
        (("--load", "WEIGHTS", "--as", "coord"), "MobileNetV2"),
        (("--load", "WEIGHTS", "--as", "mha", "--set", "heads"), "write OPTION=VALUE"),
        (("--load", "WEIGHTS", "--as", "mha", "--set", "heads=3"), "3 equal heads"),
        (("--load", "WEIGHTS", "--as", "mha", "--input", "1x32x32"), "takes images of 3"),
        (("--load", "WEIGHTS", "--as", "mha", "--output", "a.pt"), "must end in .safetensors"),
    ],
)
def test_weights_that_cannot_be_loaded_are_wrong_usage(arguments, words, weights, tmp_path):
    given = [weights[0] if a == "WEIGHTS" else a for a in arguments]
    done = search("blocks", *given, cwd=tmp_path, check=2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_own_blocks_work_like_built_in_ones(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "from blocks.registry import register\n\n"
        "@register('halve', title='Scale by a learned share')\n"
        "class Halve(nn.Module):\n"
        "    def __init__(self, channels, *, start=0.5):\n"
        "        super().__init__()\n"
        "        import torch\n"
        "        self.share = nn.Parameter(torch.full((1, channels, 1, 1), start))\n"
        "    def forward(self, x):\n"
        "        return x * self.share\n"
    )
    (tmp_path / "own.yaml").write_text(
        "backbone: resnet20\nattention: {type: [none, halve], placement: stem, start: [0.5, 1.0]}\n"
        "training: {epochs: 1}\n"
    )
    arguments = ("--space", "own.yaml", "--include", "own.py", "--trials", "3")
    search("run", *arguments, cwd=tmp_path, check=0)
    trials = shown(tmp_path, "own")["trials"]
    assert [t["state"] for t in trials] == ["complete"] * 3
    assert trials[1]["params"] - trials[0]["params"] == 16
    refused = search("run", "--space", "own.yaml", cwd=tmp_path, check=2)
    assert "unknown block 'halve'" in refused.stderr


def start(folder, *arguments):
    command = [sys.executable, "-P", "-m", "search.cli", "run", "--space", "mine.yaml", *arguments]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def wait_for_results(folder, study, count, process):
    """Until the study holds so many finished trials."""
    while process.poll() is None:
        try:
            connection = sqlite3.connect(f"file:{folder}/studies.db?mode=ro", uri=True)
            rows = connection.execute(
                "SELECT count(*) FROM search_trials WHERE state = 'complete'"
            ).fetchone()
            connection.close()
        except sqlite3.OperationalError:
            rows = (0,)
        if rows[0] >= count:
            return
        time.sleep(0.05)


def workers_of(parent):
    found = subprocess.run(
        ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in found.splitlines() if f"--parent {parent} " in line]


def wait_for_workers(parent):
    """Until the study has begun to train."""
    for _ in range(600):
        if workers_of(parent):
            return
        time.sleep(0.1)


def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path):
    (tmp_path / "mine.yaml").write_text(SPACE)
    process = start(tmp_path, "--trials", "5")
    wait_for_results(tmp_path, "mine", 1, process)
    process.send_signal(signal.SIGINT)
    remarks = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "run --space mine.yaml --trials 5" in remarks
    assert not workers_of(process.pid)
    data = shown(tmp_path, "mine")
    assert data["status"] == "interrupted"
    assert "running" not in {trial["state"] for trial in data["trials"]}
    search("run", "--space", "mine.yaml", cwd=tmp_path, check=0)
    trials = shown(tmp_path, "mine")["trials"]
    assert [t["state"] for t in trials] == ["complete"] * 5, "the stored total is kept"


def test_a_second_parent_is_refused_and_told_who_runs_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(SPACE)
    process = start(tmp_path, "--epochs", "40")
    wait_for_workers(process.pid)
    second = search("run", "--space", "mine.yaml", "--epochs", "40", cwd=tmp_path, check=2)
    assert f"is being run by process {process.pid} on" in second.stderr
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.slow
def test_killed_five_times_it_has_exactly_the_trials_asked_for(tmp_path):
    (tmp_path / "mine.yaml").write_text(SPACE)
    total = 8
    for kill in range(5):
        process = start(tmp_path, "--trials", str(total), "--set", "attention.reduction=[2,4,8,16]")
        wait_for_results(tmp_path, "mine", kill + 1, process)
        time.sleep(0.37 * kill)
        process.kill()
        process.wait()
        process.stderr.close()
        time.sleep(0.5)
        assert not workers_of(process.pid), "workers die with their parent"
    search(
        "run", "--space", "mine.yaml", "--trials", total, "--set",
        "attention.reduction=[2,4,8,16]", cwd=tmp_path, check=0,
    )  # fmt: skip
    trials = shown(tmp_path, "mine")["trials"]
    assert sorted(t["number"] for t in trials) == list(range(total))
    assert {t["state"] for t in trials} == {"complete"}
    assert len({(t["digest"], t["seed"]) for t in trials}) == total
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path}/studies.db")
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * total


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_trial_repeated(tmp_path):
    (tmp_path / "mine.yaml").write_text(SPACE)
    process = start(tmp_path)
    wait_for_results(tmp_path, "mine", 1, process)
    os.kill(int(workers_of(process.pid)[0].split()[0]), signal.SIGKILL)
    remarks = process.communicate(timeout=200)[1]
    assert process.returncode == 0
    assert "its worker ended with signal 9" in remarks
    trials = shown(tmp_path, "mine")["trials"]
    assert [t["state"] for t in trials] == ["complete"] * 4
    endings = [
        attempt["ending"]
        for number in range(4)
        for attempt in json.loads(
            search("show", "mine", number, "--format", "json", cwd=tmp_path).stdout
        )["attempts"]
    ]
    assert sorted(endings) == ["complete"] * 4 + ["lost"]
