"""The command on a study whose block is broken, mended, and given a budget."""

import json
import os
import subprocess
import sys

import pytest

BLOCK = """
from torch import nn
from blocks.registry import register


@register("halve", title="Scale by a share")
class Halve(nn.Module):
    def __init__(self, channels, *, start=0.5):
        super().__init__()
        self.start = start

    def forward(self, x):
        if self.training and BROKEN:
            raise RuntimeError(f"not with {self.start} of {x.shape}")
        return x * self.start
"""
SPACE = """
backbone: resnet20
attention: {type: [none, halve], placement: [stem, stage], start: [0.25, 0.5, 0.75]}
training: {epochs: 1}
study: {trials: 6, sampler: random}
"""


def search(*arguments, cwd):
    command = [sys.executable, "-P", "-m", "search.cli", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    core = {min(os.sched_getaffinity(0))}  # one thread: two are slow on a busy machine
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )


def shown(cwd, *what):
    return json.loads(search("show", *what, "--format", "json", cwd=cwd).stdout)


@pytest.mark.slow
def test_the_same_mistake_stops_a_study_and_its_trials_are_tried_again(tmp_path):
    (tmp_path / "own.py").write_text(f"BROKEN = True\n{BLOCK}")
    (tmp_path / "own.yaml").write_text(SPACE)
    arguments = ("run", "--space", "own.yaml", "--include", "own.py", "--workers", "1")
    stopped = search(*arguments, cwd=tmp_path)
    assert stopped.returncode == 1, stopped.stderr
    last = stopped.stderr.strip().splitlines()
    assert "stopped: the same mistake has ended trials 1, 2, 3 (RuntimeError: not with" in (
        stopped.stderr
    )
    assert any("in forward" in line and "own.py" in line for line in last)
    assert last[-1].startswith(
        "`search show own 3` shows the whole traceback. Once it is mended, go"
    )
    assert last[-1].endswith("--workers 1 --retry-failed")
    data = shown(tmp_path, "own")
    assert data["status"] == "stopped"
    assert data["causes"] == {"error": 3}
    assert [t["state"] for t in data["trials"]] == ["complete"] + ["failed"] * 3
    assert [t.get("cause") for t in data["trials"]] == [None] + ["error"] * 3
    one = search("show", "own", "3", cwd=tmp_path).stdout
    assert "Traceback of attempt 1:" in one
    assert "evaluate_candidate" in one
    assert "cut off or failed: 3 error" in search("show", "own", cwd=tmp_path).stdout

    (tmp_path / "own.py").write_text(f"BROKEN = False\n{BLOCK}")
    mended = search(*arguments, "--retry-failed", "--time-limit", "1s", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert "the time limit of 1s is reached" in mended.stderr
    data = shown(tmp_path, "own")
    assert data["status"] == "out of budget"
    assert data["settings"]["time_limit"] == "1s"
    again = search(*arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert shown(tmp_path, "own") == data, "a budget that is spent trains nothing"
    whole = search(*arguments, "--time-limit", "none", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    trials = shown(tmp_path, "own")["trials"]
    assert [t["state"] for t in trials] == ["complete"] * 6
    attempts = shown(tmp_path, "own", "2")["attempts"]
    assert [a["kind"] for a in attempts] == ["error", ""]
