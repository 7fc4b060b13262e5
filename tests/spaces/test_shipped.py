"""The shipped spaces: each loads, asks a question, plans, and builds what it proposes."""

import random
import re
from contextlib import suppress

import pytest
from sampled import built_on_meta

from blocks import backbone
from blocks.architecture import architecture_cost, has_closed_cost
from blocks.errors import SiteError
from search.datasets import DATASETS
from search.plan import make_plan
from spaces.candidate import DataFacts
from spaces.drawing import baseline_candidates, distinct_candidates, draw, propose, sites_of
from spaces.metrics import METRICS
from spaces.parameters import Choice
from spaces.space import load_space, shipped_spaces

EVERY_SPACE = pytest.mark.parametrize("name", shipped_spaces())
SHIPPED = {
    *("attention", "attention-tuned", "cnntention", "eca-kernel", "fca-frequency", "mobile"),
    *("per-stage", "placement", "scse", "se-position", "se-reduction", "se-stages", "smoke"),
    "tripse",
}
# Candidates of each space on its own data; None: ranges of numbers, or too many to list.
DISTINCT = {
    "attention": 136,
    "attention-tuned": None,
    "cnntention": 1 + 2 + 2 + 2 * 3,
    "eca-kernel": 1 + 5,
    "mobile": 1 + 3,
    "scse": 1 + 2 + 1 + 2 * 3,
    "se-position": 1 + 4,
    "se-reduction": 1 + 5,
    "se-stages": 1 + 4,
    "tripse": 3 * (1 + 4 * 3),
}


def facts_of(space):
    """The facts of the data that a space is meant for."""
    shapes = {"cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100)}
    shape, classes = shapes.get(space.study["data"], ((1, 14, 14), 10))
    return DataFacts(space.study["data"], shape, classes, "split", (45_000, 5_000, 10_000))


def test_which_spaces_there_are():
    assert set(shipped_spaces()) == SHIPPED


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
    assert commands
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


@EVERY_SPACE
def test_the_comment_names_data_and_what_else_it_runs_on(name):
    space = load_space(name)
    assert space.study["data"] in DATASETS
    text = shipped_spaces()[name].read_text(encoding="utf-8")
    if space.study["data"] != "digits":
        assert "--data digits" in text, "how to look at it without files"
        assert "--download" in text
    if space.study.get("seeds", 1) > 1:
        assert space.study["trials"] % space.study["seeds"] == 0


@EVERY_SPACE
def test_a_shipped_space_plans(name, tmp_path):
    plan = make_plan(name, data="digits", storage=f"sqlite:///{tmp_path}/s.db")
    assert plan.study == name
    assert plan.trials == load_space(name).study["trials"]


@pytest.mark.parametrize("name", DISTINCT)
def test_how_many_candidates_a_shipped_space_has(name):
    space = load_space(name)
    found = distinct_candidates(space, facts_of(space))
    assert (found and len(found)) == DISTINCT[name]
    study = space.study
    if study["sampler"] == "grid":
        assert len(found) * study.get("seeds", 1) == study["trials"]


def some_candidates(space, facts, count):
    """The baselines, and as many at random."""
    yield from (candidate for candidate, _ in baseline_candidates(space, facts))
    chance = random.Random(0)

    def choose(name, domain):
        if isinstance(domain, Choice):
            return chance.choice(domain.values)
        return chance.uniform(domain.low, domain.high)

    while count:
        with suppress(SiteError):
            yield draw(propose(space, choose, facts), facts)
            count -= 1


def check_built(name, count):
    space = load_space(name)
    facts = facts_of(space)
    for candidate in some_candidates(space, facts, count):
        sites = sites_of(candidate.architecture.backbone, candidate.data)
        network = built_on_meta(candidate.architecture, sites)
        if has_closed_cost(candidate.architecture):
            params = sum(parameter.numel() for parameter in network.parameters())
            assert params == architecture_cost(candidate.architecture, sites).params


@EVERY_SPACE
def test_its_baseline_and_a_few_of_its_candidates_are_built(name):
    check_built(name, 2)


@pytest.mark.slow
@EVERY_SPACE
def test_its_baseline_and_twenty_of_its_candidates_are_built(name):
    check_built(name, 20)


def test_frequencies_alone_then_in_sets_then_learnt():
    space = load_space("fca-frequency")
    frequencies = space.attention.own["fca"]["frequency"].values
    assert frequencies[:2] == ("0,0", "0,1")
    assert len([one for one in frequencies if "," in one]) == 49
    assert frequencies[-1] == "nas16"
    found = distinct_candidates(space, facts_of(space))
    # none, 49 alone, the 11 sets of more than one, and nas; at 8 x 8 no two of the 49 are one.
    assert len(found) == 1 + 49 + 11 + 1
    # What nas finds is a candidate of its own, so that there is one more than can be proposed.
    assert space.study["trials"] >= (len(found) + 1) * space.study["seeds"]


def test_placement_uses_both_kinds_of_rules():
    space = load_space("placement")
    found = [c.label for c, _ in distinct_candidates(space, facts_of(space)).values()]
    # none; se, eca, cbam and coord at five places; simam too, and inner at the two with units;
    # triplet at three.
    assert len(found) == 1 + 4 * 5 + 5 + 2 + 3
    assert "simam in-block.inner" in found
    assert not [label for label in found if "triplet stem +" in label]


def test_per_stage_holds_one_block_everywhere():
    space = load_space("per-stage")
    # Stem: none, se at 2 reductions, eca, simam: 5. Stages: none; se at the end at 2 reductions and
    # within at one; eca and simam at 2 places each: 8.
    found = distinct_candidates(space, facts_of(space))
    assert len(found) == 5 * 8**3


@EVERY_SPACE
def test_what_the_comment_says_to_set_can_be_set(name):
    lines = shipped_spaces()[name].read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    found = re.findall(r'--set (?:"([^"]+)"|(\S+))', comment)
    overrides = [quoted or plain.rstrip(".,;`") for quoted, plain in found]
    assert load_space(name, overrides=overrides).source.startswith(name)
