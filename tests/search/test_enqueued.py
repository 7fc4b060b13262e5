import pytest
from instant import drive

from blocks.errors import SpaceError, StudyError
from search.enqueued import read_given, words
from search.reading import read_proposals, read_rejected

SPACE = """
backbone: resnet20
attention:
  type: [none, se, simam, fca]
  placement: [stem, stage, in-block]
  reduction: [4, 8, 16]
  frequency: [top1, "0,0+0,1"]
training: {epochs: 1, learning_rate: {low: 0.01, high: 1.0, log: true}}
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return str(path)


def with_study(tmp_path, study, text=SPACE):
    path = tmp_path / "with.yaml"
    path.write_text(f"{text}study: {study}\n")
    return str(path)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("type=se,reduction=16", {"type": "se", "reduction": 16}),
        (" type = se , learning_rate = 1e-2 ", {"type": "se", "learning_rate": 0.01}),
        ("type=fca,frequency=0,0+6,0", {"type": "fca", "frequency": "0,0+6,0"}),
        ("stage1.type=none,identity_start=true", {"stage1.type": "none", "identity_start": True}),
    ],
)
def test_settings_of_the_flag(text, settings):
    assert read_given(text) == settings
    assert read_given(settings) == settings


@pytest.mark.parametrize("text", ["se", "type=", "=se", "type=[se"])
def test_what_is_no_setting_is_refused(text):
    with pytest.raises(StudyError, match="--enqueue"):
        read_given(text)


def test_a_setting_that_is_given_twice_is_refused():
    with pytest.raises(StudyError, match="'type=se,type=fca': type is given twice; give it once"):
        read_given("type=se,type=fca")


OWN = """
backbone: resnet20
attention:
  type: {se: {reduction: [4, 8]}, cbam: {reduction: [8, 16]}}
  placement: [stage, in-block]
  per_stage: %s
training: {epochs: 1}
"""


def test_a_blocks_own_option_may_be_named_without_it(opened, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN % "false")
    study = opened(str(path), trials=3, enqueue=["type=se,placement=stage,reduction=8"])
    drive(study)
    assert study.trials[1].label == "se stage r=8"
    with pytest.raises(
        StudyError, match="se.reduction is 16; the space has 4, 8. The nearest is 8"
    ):
        opened(str(path), study="b", enqueue=["type=se,reduction=16"])
    path.write_text(OWN % "true")
    stages = [f"stage{n}.type={'se' if n < 3 else 'cbam'},stage{n}.reduction=8" for n in (1, 2, 3)]
    study = opened(str(path), study="c", trials=3, enqueue=[",".join(stages)])
    drive(study)
    options = [(p["block"], p["options"]["reduction"]) for p in placements(study.trials[1])]
    assert set(options) == {("se", 8), ("cbam", 8)}


def placements(trial):
    return trial.architecture["placements"]


def test_they_come_right_after_the_baseline_in_their_order(opened, space):
    given = ["type=se,placement=stage,reduction=8,learning_rate=0.1", "type=simam,placement=stem"]
    study = opened(space, trials=6, sampler="random", enqueue=given)
    drive(study)
    assert study.trials[0].label.startswith("none")
    assert study.trials[1].label == "se stage r=8 [learning_rate=0.1]"
    assert study.trials[1].parameters["learning_rate"] == 0.1
    assert study.trials[2].label.startswith("simam stem")
    assert study.result().remarks == ()


def test_what_is_left_out_is_drawn_from_the_seed(opened, space, tmp_path):
    def drawn(seed, name):
        url = f"sqlite:///{tmp_path}/{name}.db"
        study = opened(space, trials=4, seed=seed, url=url, enqueue=[{"reduction": 16}])
        drive(study)
        return study.trials[1].parameters

    first = drawn(1, "a")
    assert first["reduction"] == 16
    assert first["type"] in ("se", "fca")  # the others have none
    assert drawn(1, "b") == first
    assert drawn(2, "c") != first


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "evolution", "grid", "random", "nsga3"])
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_each_is_taken_once_however_the_study_is_cut(opened, tmp_path, sampler, stop_after):
    lists = SPACE.replace("{low: 0.01, high: 1.0, log: true}", "[0.1, 0.2]")
    path = with_study(tmp_path, "{enqueue: [{type: se, reduction: 4}, {type: simam}]}", lists)
    flags = {"trials": 7, "sampler": sampler, "enqueue": ["type=fca,frequency=top1"]}

    def labels(url, cuts):
        for cut in cuts:
            study = opened(path, url=f"sqlite:///{tmp_path}/{url}.db", **flags)
            drive(study, stop_after=cut)
            study.next_assignment()
        rows = read_proposals(study.store.engine, study.id)
        marked = [row for row in rows if "given" in row.system_attributes]
        assert len([row for row in marked if row.verdict == "accepted"]) == 3
        return [study.trials[number].label for number in sorted(study.trials)]

    whole = labels("whole", [None])
    assert [label.split()[0] for label in whole[:4]] == ["none", "se", "simam", "fca"]
    assert labels("parts", [stop_after, stop_after, None]) == whole


def test_without_the_flag_the_stored_ones_are_still_taken(opened, space):
    drive(opened(space, trials=2, enqueue=["type=se", "type=simam"]), stop_after=1)
    study = opened(space, trials=4)
    drive(study)
    assert [t.label.split()[0] for t in study.trials.values()][:3] == ["none", "se", "simam"]


def test_others_can_be_given_later(opened, space):
    drive(opened(space, trials=3, enqueue=["type=se"]))
    study = opened(space, trials=5, enqueue=["type=se", "type=fca,reduction=4"])
    assert study.plan.remarks == ()
    drive(study)
    assert study.trials[3].parameters["type"] == "fca"
    assert len([g for g in study.plan.enqueue if g == {"type": "se"}]) == 1


@pytest.mark.parametrize(
    ("given", "remark"),
    [
        (["type=se", "type=se"], "'type=se' is the same as type=se before it; it is left out"),
        (["type=none,learning_rate=0.1"], "is the baseline, which is always there"),
        (
            [
                "type=se,placement=stem,reduction=16,learning_rate=0.1",
                "type=se,placement=stem,reduction=16,learning_rate=0.10",
            ],
            "is the same as type=se, placement=stem",
        ),
    ],
)
def test_duplicates_are_left_out_with_a_remark(opened, space, given, remark):
    study = opened(space, trials=4, enqueue=given)
    (text,) = study.plan.remarks
    assert remark in text
    assert study.result().remarks == (text,)


def test_equal_networks_are_duplicates_too(opened, tmp_path):
    # 16 channels at the stem: r = 16 and r = 32 both leave one channel.
    path = tmp_path / "space.yaml"
    path.write_text(
        SPACE.replace("[4, 8, 16]", "[4, 16, 32]").replace(
            "{low: 0.01, high: 1.0, log: true}", "0.1"
        )
    )
    given = ["type=se,placement=stem,reduction=16", "type=se,placement=stem,reduction=32"]
    (text,) = opened(str(path), trials=4, enqueue=given).plan.remarks
    assert "reduction=32' is the same candidate as type=se, placement=stem, reduction=16" in text


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("typ=se", "unknown setting 'typ'. Did you mean 'type'? Settings of this space: "),
        ("type=see", "type is 'see'; the space has none, se, simam, fca. Did you mean 'se'?"),
        ("type=eca", "type is 'eca'; the space has none, se, simam, fca."),
        ("reduction=15", "reduction is 15; the space has 4, 8, 16. The nearest is 16"),
        ("learning_rate=2", "learning_rate is 2; the space has numbers from 0.01 to 1.0. The near"),
        ("learning_rate=fast", "learning_rate is 'fast'; the space has numbers from 0.01 to 1.0"),
        ("epochs=5", "epochs is 5; the space has 1. The nearest is 1"),
        ("backbone=resnet32", "backbone is 'resnet32'; the space has resnet20."),
        ("type=simam,reduction=4", "reduction changes nothing beside type=simam; leave it out"),
        ("type=se,frequency=top1", "frequency changes nothing beside type=se"),
    ],
)
def test_what_does_not_fit_the_space_is_refused_before_anything_starts(
    opened, space, tmp_path, given, problem
):
    with pytest.raises(StudyError) as error:
        opened(space, enqueue=[given])
    assert problem in str(error.value)
    assert str(error.value).startswith("--enqueue '")
    assert [file.name for file in tmp_path.iterdir()] == ["space.yaml"]


def test_a_files_mistakes_are_named_with_their_place(opened, tmp_path):
    path = with_study(tmp_path, "{enqueue: [{type: se}, {type: sse}]}")
    with pytest.raises(StudyError, match=r"with.yaml: study.enqueue, item 2: type is 'sse'"):
        opened(path)
    with pytest.raises(SpaceError, match="one value is needed"):
        opened(with_study(tmp_path, "{enqueue: [{type: [se, eca]}]}"))


def test_settings_that_are_fixed_may_be_said_and_spelt_in_other_ways(opened, space):
    given = ["backbone=resnet20,type=fca,frequency=0,1+0,0,epochs=1"]
    study = opened(space, trials=3, enqueue=given)
    assert study.plan.enqueue == ({"type": "fca", "frequency": "0,0+0,1"},)


def test_one_over_a_cap_is_rejected_and_shown(opened, tmp_path):
    path = tmp_path / "capped.yaml"
    path.write_text(SPACE + "constraints: {params: 1.0x baseline}\n")
    study = opened(
        str(path),
        trials=3,
        sampler="random",
        enqueue=["type=se,placement=stem,reduction=4,learning_rate=0.1"],
    )
    drive(study)
    (rejected, *_) = read_rejected(study.store.engine, study.id)
    assert rejected.label == "se stem r=4 [learning_rate=0.1]"
    (remark,) = study.result().remarks
    assert "was given and is no trial: params 269,562 is over 269,434 (1.0x baseline)" in remark
    assert len(study.trials) == 3


def test_one_whose_network_is_over_a_cap_is_not_drawn_again(opened, tmp_path):
    """Another learning rate makes no smaller network; another block would."""
    path = tmp_path / "capped.yaml"
    path.write_text(SPACE + "constraints: {params: 1.0x baseline}\n")
    study = opened(
        str(path),
        trials=2,
        sampler="random",
        enqueue=["type=se,placement=stem,reduction=4", "placement=stem"],
    )
    drive(study)
    proposals = read_proposals(study.store.engine, study.id)
    rejected = [p for p in proposals if p.label.startswith("se stem r=4")]
    assert len(rejected) == 1
    (remark,) = study.result().remarks
    assert remark.startswith("type=se, placement=stem, reduction=4 was given and is no trial")
    assert study.trials[1].label.startswith("simam stem")  # alone without parameters of its own


def test_one_that_the_study_has_already_is_said(opened, space):
    given = "type=se,placement=stem,reduction=4,learning_rate=0.1"
    drive(opened(space, trials=2, enqueue=[given]))
    study = opened(space, trials=4, enqueue=[given.replace("0.1", "0.2"), given])
    drive(study)
    assert study.trials[2].parameters["learning_rate"] == 0.2
    assert study.result().remarks == ()


def test_what_a_changed_space_no_longer_has_is_left_out(opened, space, tmp_path):
    drive(opened(space, trials=2, study="s", enqueue=["type=simam"]))
    changed = tmp_path / "changed.yaml"
    changed.write_text(SPACE.replace("se, simam, fca", "se, fca"))
    study = opened(str(changed), trials=3, study="s", extend=True)
    (remark,) = study.plan.remarks
    assert "type is 'simam'" in remark
    assert remark.endswith("it is left out")


def test_words_for_people():
    assert words({"type": "se", "reduction": 16}) == "type=se, reduction=16"
