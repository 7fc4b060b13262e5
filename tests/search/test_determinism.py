from dataclasses import replace

import pytest

from blocks.errors import StudyError
from search import plan as plans
from search.determinism import check_deterministic, unrepeatable_parts
from search.plan import make_plan
from search.study import execute
from search.workers import _command

PLANTED = """
import torch
from torch import nn
from blocks.registry import register

@register("planted", title="pools to 2 x 2")
class Planted(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        pooled = nn.functional.adaptive_avg_pool2d(self.mix(x), 2)
        return x * pooled.mean(dim=(2, 3), keepdim=True).sigmoid()
"""
SPACE = """
backbone: resnet20
attention:
  type: [none, se, fca, spse]
  placement: [stage]
  dct_size: [7, map]
training: {epochs: 1}
"""


def planned(tmp_path, text=SPACE, **flags):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return make_plan(path, storage=f"sqlite:///{tmp_path}/studies.db", **flags)


def test_the_blocks_that_cannot_are_named_before_anything_is_written(tmp_path):
    plan = replace(planned(tmp_path, deterministic=True), device="cuda", gpus=("0",))
    with pytest.raises(StudyError) as caught:
        execute(plan)
    words = str(caught.value)
    assert "spse: torch.nn.AdaptiveAvgPool2d" in words
    assert "fca: torch.nn.AdaptiveAvgPool2d in " in words
    assert "dct_size=7" in words
    assert " of its forms, such as fca(" in words
    assert "\n  se:" not in words
    assert "Leave them out of " in words
    assert "--no-deterministic" in words
    assert not (tmp_path / "studies.db").exists()


def test_own_blocks_are_examined_too(tmp_path, monkeypatch):
    from blocks import registry

    monkeypatch.setattr(registry, "_BLOCKS", dict(registry._BLOCKS))
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    own = tmp_path / "own.py"
    own.write_text(PLANTED)
    text = SPACE.replace("[none, se, fca, spse]", "[none, se, planted]")
    text = text.replace("  dct_size: [7, map]\n", "")
    plan = planned(tmp_path, text, includes=[str(own)])
    (line,) = unrepeatable_parts(plan)
    assert line.startswith("planted: torch.nn.AdaptiveAvgPool2d, such as planted() at a map of ")


def test_on_a_processor_nothing_is_refused(tmp_path):
    check_deterministic(planned(tmp_path, deterministic=True))


def test_it_is_kept_with_the_study_and_told_to_workers(tmp_path, opened):
    flags = {"study": "d", "trials": 3}
    assert opened("smoke", deterministic=True, **flags).plan.deterministic
    again = opened("smoke", **flags).plan
    assert again.deterministic
    assert "--deterministic" in _command(again, 0)
    assert not opened("smoke", deterministic=False, **flags).plan.deterministic
    after = opened("smoke", **flags).plan
    assert not after.deterministic
    assert "--deterministic" not in _command(after, 0)


def test_workers_are_a_number_or_auto(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "usable_cores", lambda: 6)
    assert (planned(tmp_path).workers, planned(tmp_path).auto) == (6, True)
    assert planned(tmp_path, workers="auto", processes=2).workers == 3
    given = planned(tmp_path, workers="4", processes=2)
    assert (given.workers, given.auto, given.threads) == (4, False, 1)
    with pytest.raises(StudyError, match="--workers 'many' is neither a number nor auto"):
        planned(tmp_path, workers="many")
    with pytest.raises(StudyError, match="--workers is 0; it must be 1 or more"):
        planned(tmp_path, workers=0)


@pytest.mark.parametrize(
    ("batch", "flags", "words"),
    [
        ("[64, 100]", {"processes": 3}, "training.batch_size 64; give a multiple of 3, such as 66"),
        ("{low: 16, high: 64}", {"processes": 2}, "batch_size a range; list multiples of 2"),
        ("64", {"processes": 0}, "--processes-per-trial is 0; it must be 1 or more"),
    ],
)
def test_processes_that_cannot_share_are_refused(tmp_path, batch, flags, words):
    text = SPACE.replace("epochs: 1", f"epochs: 1, batch_size: {batch}")
    with pytest.raises(StudyError, match=words):
        planned(tmp_path, text, **flags)


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "_check_cuda", lambda: None)
    monkeypatch.setattr("search.devices.gpu_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert planned(tmp_path, device="cuda", processes=2).gpus == ("0", "1")
    with pytest.raises(StudyError, match="-per-trial 3 needs as many GPUs, and there are 2"):
        planned(tmp_path, device="cuda", processes=3)
