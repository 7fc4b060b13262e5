"""A search over networks of CIFAR papers, as a user types it."""

import json
import os
import subprocess
import sys

import pytest

SPACE = """
backbone: [resnet32, wrn16-4]
attention:
  type: [none, se, simam]
  placement: [stem, stage, in-block]
  reduction: [4]
training: {epochs: 1}
study: {trials: 4, sampler: random}
"""


def search(*arguments, cwd):
    command = [sys.executable, "-P", "-m", "search.cli", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=280, env=environment
    )


@pytest.mark.slow
def test_a_search_over_two_small_backbones(tmp_path):
    (tmp_path / "small.yaml").write_text(SPACE)
    done = search("run", "--space", "small.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = search("show", "small", "--format", "json", cwd=tmp_path)
    trials = json.loads(shown.stdout)["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 4
    assert {trial["architecture"]["backbone"] for trial in trials} == {"resnet32", "wrn16-4"}
    plain = {t["architecture"]["backbone"]: t["params"] for t in trials if t["baseline"]}
    # One grey channel in place of three.
    assert plain == {"resnet32": 464_154 - 2 * 144, "wrn16-4": 2_748_890 - 2 * 144}


def test_a_backbone_that_cannot_take_the_images_is_refused_in_a_line(tmp_path):
    (tmp_path / "vit.yaml").write_text(SPACE.replace("[resnet32, wrn16-4]", "vit_tiny_patch16_224"))
    done = search("run", "--space", "vit.yaml", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("search: vit_tiny_patch16_224 cannot take images of 14 x 14 pixels: ")
    assert "Resize to 16 x 16" in line
