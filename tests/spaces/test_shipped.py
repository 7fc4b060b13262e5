import pytest

from blocks import backbone
from spaces.metrics import METRICS
from spaces.space import load_space, shipped_spaces

EVERY_SPACE = pytest.mark.parametrize("name", shipped_spaces())


def test_which_spaces_there_are():
    assert {"attention", "smoke"} <= set(shipped_spaces())


@EVERY_SPACE
def test_a_shipped_space_loads_and_says_what_it_is_to_answer(name):
    space = load_space(name)
    assert space.name == name
    assert space.question.endswith("?")
    assert set(space.objectives) <= set(METRICS)
    assert "none" in space.attention.blocks.values, "the baseline is one of the choices"


@EVERY_SPACE
def test_a_shipped_space_runs_without_further_flags(name):
    study = load_space(name).study
    assert {"trials", "data", "sampler", "seed"} <= set(study)
    assert study["trials"] > 0


@EVERY_SPACE
def test_the_comment_has_the_command_that_runs_it(name):
    lines = shipped_spaces()[name].read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    commands = [line for line in comment if line.startswith("search run ")]
    assert len(commands) == 1
    words = commands[0].split()
    assert words[2] == "--space"
    assert words[3] in (name, f"{name}.yaml")
    assert "?" in comment[0], "the first line asks the question"


@EVERY_SPACE
def test_a_shipped_space_is_plain_text_of_moderate_width(name):
    text = shipped_spaces()[name].read_text(encoding="utf-8")
    assert text.isascii()
    assert text.endswith("\n")
    assert "\t" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_two_shipped_spaces_of_the_contract():
    space = load_space("attention")
    assert space.backbones.values == ("resnet20",)
    assert space.attention.placements.values == ("stem", "stage", "in-block")
    assert space.attention.shared["reduction"].values == (4, 8, 16, 32)
    assert space.objectives == {"accuracy": "max", "flops": "min", "params": "min"}
    assert str(space.constraints[0]) == "params <= 1.05x baseline"
    assert (space.epochs, space.training["learning_rate"].default) == (12, 0.1)
    smoke = load_space("smoke")
    assert smoke.epochs <= 2
    assert smoke.study["trials"] <= 6


@EVERY_SPACE
def test_shipped_spaces_for_digits_use_small_backbones(name):
    space = load_space(name)
    if space.study["data"] == "digits":
        assert all(backbone.backbone(one).small for one in space.backbones.values)
