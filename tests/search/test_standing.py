import pytest
from instant import drive

from search.costing import costing_of
from search.plan import make_plan
from search.preview import _listed
from search.standing import FITS, OUTSIDE, OVER_CAP, results_elsewhere, standing
from spaces.census import take_census

SMALL = """
backbone: resnet20
attention: {type: [none, se], placement: [stem, stage], reduction: [4, 16]}
training: {epochs: 1}
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="s"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    return write


def beside(plan, *, listed=True):
    census = take_census(plan.space, plan.data)
    known = _listed(census, costing_of(plan.space, plan.data, census))
    return standing(plan, known if listed else None)


def test_where_nothing_is_stored_there_is_no_standing(written, storage):
    assert beside(make_plan(written(SMALL), storage=storage)) is None
    assert results_elsewhere(make_plan("smoke", storage=storage).storage, "s") == {}


def test_what_is_done_and_left(opened, written, storage):
    drive(opened(written(SMALL), trials=5), stop_after=2)
    found = beside(make_plan(written(SMALL), storage=storage))
    assert (found.done, found.left) == (2, 3)
    assert found.states["complete"] == 2
    assert found.changes == ()
    assert found.new == 3


@pytest.mark.parametrize("listed", [True, False])
def test_a_changed_space_keeps_what_fits(opened, written, storage, listed):
    # All five: none, and se at two places with 4 and 16. Without 16 and with 8: se at the stages
    # is another network for each; at the stem 4, 2 and 1 wide. Two of five fall out, two are new.
    drive(opened(written(SMALL), trials=5, sampler="grid"))
    changed = written(SMALL.replace("[4, 16]", "[4, 8]"))
    found = beside(make_plan(changed, storage=storage), listed=listed)
    assert found.changes == ("-attention.reduction: [4, 16]", "+attention.reduction: [4, 8]")
    assert found.fates == {FITS: 3, OUTSIDE: 2}
    assert found.new == (2 if listed else None)


def test_a_setting_that_was_fixed_and_is_listed_now_keeps_its_trials(opened, written, storage):
    drive(opened(written(SMALL.replace("[stem, stage]", "stage")), trials=3, sampler="grid"))
    found = beside(make_plan(written(SMALL), storage=storage), listed=False)
    assert found.fates == {FITS: 3}


def test_a_tightened_cap_is_told_apart(opened, written, storage):
    drive(opened(written(SMALL), trials=5, sampler="grid"))
    capped = written(SMALL + "constraints: {params: 1.0x baseline}\n")
    found = beside(make_plan(capped, storage=storage))
    assert found.fates == {FITS: 1, OVER_CAP: 4}
    assert found.new == 0


def test_results_of_other_studies_are_found_by_digest_and_seed(opened, written, storage):
    study = opened(written(SMALL), study="first", trials=3, seeds=2, sampler="grid")
    drive(study)
    found = results_elsewhere(study.plan.storage, "second")
    assert found == {(t.digest, t.seed): f"first {t.number}" for t in study.trials.values()}
    assert results_elsewhere(study.plan.storage, "first") == {}
