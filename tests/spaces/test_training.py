from dataclasses import fields, replace

import pytest

from blocks.architecture import Architecture, Placement
from blocks.errors import SpaceError
from spaces.candidate import Candidate, DataFacts
from spaces.drawing import baseline_candidates, check_possible, distinct_candidates, propose
from spaces.parameters import Range, fixed
from spaces.recipes import RECIPES
from spaces.space import parse_space
from spaces.training import FIRST, LATER, Training, milestones, operations

NONE = Architecture("resnet20", (), (14, 14))
SE = Architecture("resnet20", (Placement("stage", "se", {"reduction": 4}),), (14, 14))
DATA = DataFacts("digits", (1, 14, 14), 10, "d" * 32, (1077, 360, 360))
PLAIN = "backbone: resnet20\nattention: {type: [none, se]}\n"


def space_of(training, **more):
    text = PLAIN + f"training: {training}\n"
    return parse_space(text, source="t.yaml", name="t", **more)


def digest_of(training):
    return Candidate(SE, training.of(SE), DATA, "").digest


# Identity. ---------------------------------------------------------------------------------------


def test_settings_that_are_off_leave_the_digest_of_the_first_version():
    """Results that were stored before these settings existed keep their identity."""
    assert digest_of(Training()) == "c1-8bb4510c4c6735bf0a2749583f23c98d"
    assert set(Training().to_json()) == set(FIRST)


CHANGED = {
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.2,
    "momentum": 0.8,
    "weight_decay": 0.1,
    "label_smoothing": 0.1,
    "pretrained": "timm:a1_in1k",
    "freeze": "norms",
    "attention_learning_rate": 2.0,
    "optimizer": "adamw",
    "schedule": "linear",
    "warmup": 0.1,
    "final_learning_rate": 0.1,
    "milestones": "0.5",
    "milestone_decay": 0.5,
    "reference_batch": 256,
    "decayed": "weights",
    "clip_gradient": 1.0,
    "weight_average": 0.99,
    "mixup": 0.2,
    "cutmix": 1.0,
    "crop": 4,
    "resized_crop": 0.3,
    "flip": "random",
    "cutout": 8,
    "rand_augment": "2x9",
    "precision": "bfloat16",
    "input_size": 32,
}
NEEDS_STEPS = ("milestones", "milestone_decay")
ELSEWHERE = ("input_size",)  # part of architecture and data once a candidate is made


def test_every_setting_is_tried_here():
    assert set(CHANGED) == {field.name for field in fields(Training)}


@pytest.mark.parametrize("name", CHANGED)
def test_every_setting_is_part_of_the_identity(name):
    base = Training(schedule="step") if name in NEEDS_STEPS else Training()
    other = replace(base, **{name: CHANGED[name]})
    assert (digest_of(other) == digest_of(base)) == (name in ELSEWHERE)
    assert Training.from_json(other.to_json()) == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"milestones": "0.3"}, {}),
        ({"milestone_decay": 0.5}, {}),
        ({"schedule": "step", "final_learning_rate": 0.5}, {"schedule": "step"}),
        ({"schedule": "constant", "final_learning_rate": 0.5}, {"schedule": "constant"}),
        ({"optimizer": "adamw", "momentum": 0.5}, {"optimizer": "adamw"}),
        ({"weight_decay": 0, "decayed": "weights"}, {"weight_decay": 0}),
        ({"reference_batch": 128, "learning_rate": 0.2}, {"learning_rate": 0.1}),
        ({"input_size": 32}, {}),
    ],
)
def test_what_has_no_say_is_not_part_of_it(one, other):
    assert digest_of(Training(**one)) == digest_of(Training(**other))


def test_a_rate_for_another_batch_is_scaled_in_proportion():
    scaled = Training(batch_size=32, learning_rate=0.4, reference_batch=128).of(NONE)
    assert scaled.learning_rate == pytest.approx(0.1)
    assert scaled.reference_batch == 0
    assert scaled.of(NONE) == scaled


def test_texts_of_milestones_and_operations():
    assert milestones("0.75 + 0.5") == (0.5, 0.75)
    assert operations("2x9") == (2, 9)
    for text in ("0.5 + 1", "0", "half", ""):
        with pytest.raises(ValueError):
            milestones(text)
    for text in ("9x9", "0x9", "2x31", "x", "2"):
        with pytest.raises(ValueError):
            operations(text)


# Space files. ------------------------------------------------------------------------------------


def test_settings_are_fixed_listed_or_ranges():
    space = space_of(
        "{optimizer: [sgd, adamw], mixup: {low: 0, high: 1}, crop: {low: 0, high: 4}, cutout: 4,"
        " milestones: [0.5, 0.3 + 0.6], schedule: [cosine, step], rand_augment: [none, 2x9]}"
    )
    assert space.training["optimizer"].values == ("sgd", "adamw")
    assert space.training["mixup"] == Range(0.0, 1.0)
    assert space.training["crop"] == Range(0, 4)
    assert space.training["crop"].is_integer
    assert space.training["cutout"] == fixed(4)
    assert space.training["milestones"].values == ("0.5", "0.3 + 0.6")
    assert space.training["rand_augment"].values == ("none", "2x9")


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ("{optimizer: adamv}", "t.yaml:3: .*unknown optimizer 'adamv'. Did you mean 'adam"),
        ("{schedule: cosin}", "unknown schedule 'cosin'. Did you mean 'cosine'"),
        ("{recipe: senet}", "unknown recipe 'senet'. Did you mean 'senet-imagenet'"),
        ("{flip: yes}", "unknown flip 'yes'. Allowed: none, random, alternating"),
        ("{milestones: 1.5}", "1.5 is no choice of milestones: 0.5, or '0.5 \\+ 0.75'"),
        ("{milestones: true}", "is no choice of milestones"),
        ("{rand_augment: 9}", "9 is no RandAugment: none, or '2x9'"),
        ("{rand_augment: 2x40}", "a magnitude from 0 to 30"),
        ("{warmup: 1}", "warmup is the number 1; a number from 0 to below 1 is needed"),
        ("{resized_crop: 2}", "a number from 0 to 1 is needed"),
        ("{crop: 1.5}", "a whole number from 0 is needed"),
        ("{crop: {low: 0, high: 1.5}}", "low and high must be whole numbers from 0"),
        ("{mixup: {low: -1, high: 1}}", "low is -1; it must be 0 or above"),
        ("{resized_crop: {low: 0, high: 2}}", "0 to 2 must lie in 0 to 1"),
        ("{warmup: {low: 0, high: 1}}", "0 to 1 must lie in 0 to below 1"),
        ("{milestones: 0.5}", "training.milestones changes nothing with schedule cosine"),
        ("{optimizer: adamw, momentum: 0.8}", "momentum changes nothing with optimizer adamw"),
        ("{schedule: step, final_learning_rate: 0.1}", "changes nothing with schedule step"),
    ],
)
def test_mistakes_say_what_is_allowed(training, words):
    with pytest.raises(SpaceError, match=words):
        space_of(training)


def test_a_changed_decider_may_leave_settings_of_the_file_idle():
    space = space_of("{momentum: 0.8}", overrides=["training.optimizer=adamw"])
    (candidate, _), *_ = baseline_candidates(space, DATA)
    assert candidate.training.momentum == Training().momentum


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fills_in_what_the_file_does_not_say(name):
    recipe = RECIPES[name]
    space = space_of(f"{{recipe: {name}, input_size: 0, label_smoothing: 0.3}}")
    (candidate, _), *_ = baseline_candidates(space, DATA)
    given = dict(recipe.settings) | {"input_size": 0, "label_smoothing": 0.3}
    expected = Training(**given).of(NONE)
    assert candidate.training == expected
    # A recipe is what it says, spelt out or by name.
    spelt = ", ".join(f"{key}: {value}" for key, value in given.items())
    (other, _), *_ = baseline_candidates(space_of(f"{{{spelt}}}"), DATA)
    assert other.digest == candidate.digest


def test_a_recipe_at_another_scale_scales_its_rate_and_a_rate_of_the_file_stays():
    small = space_of("{recipe: senet-imagenet, epochs: 10, batch_size: 128, input_size: 0}")
    (candidate, _), *_ = baseline_candidates(small, DATA)
    assert candidate.training.learning_rate == pytest.approx(0.6 * 128 / 1024)
    assert candidate.training.epochs == 10
    assert milestones(candidate.training.milestones) == (0.3, 0.6, 0.9)
    own = space_of("{recipe: senet-imagenet, learning_rate: 0.05, batch_size: 128, input_size: 0}")
    (candidate, _), *_ = baseline_candidates(own, DATA)
    assert candidate.training.learning_rate == 0.05


def test_recipes_have_known_settings_and_sources():
    for recipe in RECIPES.values():
        assert set(recipe.settings) <= set(FIRST) | set(LATER)
        assert "arXiv" in recipe.source or "repository" in recipe.source


# The size of the images. -------------------------------------------------------------------------


def test_the_input_size_is_part_of_architecture_data_and_cost():
    space = space_of("{input_size: [0, 28]}")
    found = distinct_candidates(space, DATA)
    sizes = {candidate.architecture.input_size for candidate, _ in found.values()}
    assert sizes == {(14, 14), (28, 28)}
    for candidate, proposal in found.values():
        assert candidate.data.input_shape == (1, *candidate.architecture.input_size)
        assert candidate.training.input_size == 0
        assert proposal.values["input_size"] in (0, 28)
    assert len(found) == 2 * len(distinct_candidates(space_of("{}"), DATA))
    (baseline, _), *_ = baseline_candidates(space, DATA)
    assert baseline.architecture.input_size == (14, 14)


def test_its_own_size_by_name_is_the_same_candidate():
    def digests(training):
        return set(distinct_candidates(space_of(training), DATA))

    assert digests("{input_size: 14}") == digests("{}")


def test_it_is_asked_before_the_stages_are_decided():
    asked = []

    def choose(name, domain):
        asked.append(name)
        return domain.values[-1]

    text = PLAIN.replace("{type: [none, se]}", "{type: se, per_stage: true, placement: stage}")
    space = parse_space(text + "training: {input_size: [14, 28]}\n", source="t.yaml", name="t")
    proposal = propose(space, choose, DATA)
    assert asked.index("input_size") == 0
    assert asked.count("input_size") == 1
    assert proposal.training.input_size == 28


def test_a_value_that_no_size_can_take_is_named():
    text = "backbone: resnet20\nattention: {type: rgse, placement: stage}\n"
    fits = parse_space(text + "training: {input_size: [30, 28]}\n", source="t.yaml", name="t")
    with pytest.raises(SpaceError, match="t.yaml:3: no site can take input_size 30"):
        check_possible(fits, DATA)
