import hashlib
from dataclasses import replace

import pytest

from blocks.architecture import Architecture, Placement
from spaces.candidate import Candidate, DataFacts
from spaces.training import Training

DATA = DataFacts("digits", (1, 14, 14), 10, "split-1", (1257, 270, 270))
SE = Architecture("resnet20", (Placement("stem", "se", (("reduction", 8),)),), (14, 14))
CANDIDATE = Candidate(SE, Training(), DATA, "se stem r=8")


def test_the_digest_of_one_candidate():
    # What is hashed, written out by hand: keys sorted, no spaces.
    content = (
        '{"architecture":{"backbone":"resnet20","input_size":[14,14],"placements":'
        '[{"block":"se","options":{"reduction":8},"site":"stem"}]},'
        '"data":{"classes":10,"input_shape":[1,14,14],"name":"digits","split_digest":"split-1"},'
        '"training":{"batch_size":64,"epochs":12,"learning_rate":0.1,"momentum":0.9,'
        '"optimizer":"sgd-nesterov","schedule":"cosine","weight_decay":0.0005}}'
    )
    assert CANDIDATE.digest == "c1-" + hashlib.sha256(content.encode()).hexdigest()[:32]
    # Results are kept under it: should this line fail, stored studies are no longer recognised.
    assert CANDIDATE.digest == "c1-15bac1624bdb7bd607fc215278316ae5"


def test_the_digest_of_an_architecture_is_part_of_a_candidate():
    assert CANDIDATE.architecture_digest == SE.digest
    assert CANDIDATE.architecture_digest.startswith("a1-")


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 13},
        {"batch_size": 32},
        {"learning_rate": 0.11},
        {"momentum": 0.8},
        {"weight_decay": 0.0},
        {"label_smoothing": 0.1},
        {"pretrained": "timm:a1_in1k"},
        {"pretrained": "sha256:00"},
        {"freeze": "norms"},
        {"freeze": "backbone"},
        {"attention_learning_rate": 2},
    ],
)
def test_every_training_setting_changes_the_digest(change):
    other = replace(CANDIDATE, training=replace(Training(), **change))
    assert other.digest != CANDIDATE.digest
    assert other.architecture_digest == CANDIDATE.architecture_digest


@pytest.mark.parametrize(
    "change",
    [
        {"name": "mnist"},
        {"input_shape": (1, 8, 8)},
        {"classes": 9},
        {"split_digest": "split-2"},
    ],
)
def test_the_data_and_its_split_change_the_digest(change):
    assert replace(CANDIDATE, data=replace(DATA, **change)).digest != CANDIDATE.digest


def test_another_network_changes_the_digest():
    for other in (
        replace(SE, backbone="resnet20-b"),
        replace(SE, placements=()),
        replace(SE, placements=(Placement("stem", "se", (("reduction", 4),)),)),
        replace(SE, placements=(Placement("stage1", "se", (("reduction", 8),)),)),
        replace(SE, input_size=(8, 8)),
    ):
        assert replace(CANDIDATE, architecture=other).digest != CANDIDATE.digest


def test_what_changes_no_result_leaves_the_digest():
    assert replace(CANDIDATE, label="another name").digest == CANDIDATE.digest
    # The sizes follow from the split.
    assert replace(CANDIDATE, data=replace(DATA, sizes=(1, 1, 1))).digest == CANDIDATE.digest


def test_a_setting_that_is_off_is_as_if_it_did_not_exist():
    assert "label_smoothing" not in Training().identity()
    assert "label_smoothing" not in Training(label_smoothing=0).identity()
    assert Training(label_smoothing=0.1).identity()["label_smoothing"] == 0.1
    assert Training().to_json()["label_smoothing"] == 0.0


def test_settings_of_later_versions_are_stored_and_hashed_only_while_they_are_on():
    off = Training(pretrained="", freeze="none", attention_learning_rate=1)
    later = {"pretrained", "freeze", "attention_learning_rate"}
    assert not later & (off.to_json().keys() | off.identity().keys())
    assert replace(CANDIDATE, training=off).digest == "c1-15bac1624bdb7bd607fc215278316ae5"
    on = Training(pretrained="timm:a1_in1k", freeze="backbone", attention_learning_rate=10)
    assert later < on.to_json().keys()
    assert later < on.identity().keys()
    assert Training.from_json(on.to_json()) == on
    assert Training.from_json(off.to_json()) == off


def test_a_rate_of_attention_has_no_say_where_there_is_none():
    fast = Training(attention_learning_rate=10, freeze="backbone")
    assert fast.of(SE) == fast
    assert fast.of(replace(SE, placements=())) == Training(freeze="backbone")


def test_a_number_has_one_digest_however_it_is_written():
    # A range with whole ends gives whole numbers, JSON spells 1 and 1.0 differently.
    whole = Training(learning_rate=1, weight_decay=0, momentum=0)
    assert (
        whole.identity() == Training(learning_rate=1.0, weight_decay=0.0, momentum=0.0).identity()
    )
    assert (
        replace(CANDIDATE, training=whole).digest
        == replace(CANDIDATE, training=Training(12, 64, 1.0, 0.0, 0.0)).digest
    )
    assert isinstance(Training(learning_rate=1).learning_rate, float)
    assert isinstance(Training(batch_size=32).batch_size, int)


def test_a_training_survives_being_written():
    training = Training(3, 16, 0.3, 0.5, 0.0, 0.1)
    assert training.to_json() == {
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 0.3,
        "momentum": 0.5,
        "weight_decay": 0.0,
        "label_smoothing": 0.1,
    }
    assert Training.from_json(training.to_json()) == training
    # What a newer version added beside is no obstacle.
    assert Training.from_json({**training.to_json(), "ema": 0.9}) == training


def test_a_baseline_has_no_attention():
    assert not CANDIDATE.is_baseline
    assert replace(CANDIDATE, architecture=replace(SE, placements=())).is_baseline
