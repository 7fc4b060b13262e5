"""Plans and studies of what is not simply a shipped file: made spaces, and spaces with rules."""

import pytest
from instant import drive

from blocks.errors import StudyError
from search.plan import make_plan
from search.reading import read_proposals
from spaces.drawing import distinct_candidates
from spaces.space import make_space

CONTENT = {
    "backbone": "resnet20",
    "attention": {"type": ["none", "se", "fca"], "placement": ("stem", "stage"), "reduction": [4]},
    "training": {"epochs": 1},
    "forbid": [{"type": "fca", "placement": "stem"}],
}


def test_a_plan_and_a_study_take_it(tmp_path, opened):
    made = make_space(CONTENT, name="mine")
    plan = make_plan(made, storage=f"sqlite:///{tmp_path}/s.db", trials=3)
    assert (plan.study, plan.trials, plan.space.digest) == ("mine", 3, made.digest)
    # none, se at the stem and at the stages, fca at the stages alone.
    assert len(distinct_candidates(plan.space, plan.data)) == 4
    study = opened(made, trials=9, sampler="grid")
    assert drive(study) == 4
    assert drive(opened(made, trials=9, sampler="grid")) == 0
    other = make_space({**CONTENT, "training": {"epochs": 2}}, name="mine")
    with pytest.raises(StudyError, match="another space or setting"):
        opened(other, trials=9, sampler="grid")


@pytest.mark.parametrize("sampler", ["nsga2", "random", "grid"])
def test_forbidden_proposals_cost_no_trial_and_say_their_rule(opened, sampler):
    study = opened(make_space(CONTENT, name="ruled"), trials=9, sampler=sampler)
    assert drive(study) == 4
    labels = [trial.label for trial in study.trials.values()]
    assert sorted(labels) == ["fca stage r=4", "none", "se stage r=4", "se stem r=4"]
    assert study.note.startswith("every distinct candidate of the space has been tried (4 in the")
    refused = {p.reason for p in read_proposals(study.store.engine, study.id) if p.reason}
    forbidden = "the space forbids it (type fca, placement stem)"
    assert (forbidden in refused) == (sampler != "grid")  # the grid walks past it
    verdicts = {
        p.verdict for p in read_proposals(study.store.engine, study.id) if p.reason == forbidden
    }
    assert verdicts <= {"impossible"}


def test_a_ruled_study_goes_on_as_it_was(opened, tmp_path):
    made = make_space(CONTENT, name="ruled")
    whole = opened(made, trials=9, url=f"sqlite:///{tmp_path}/whole.db")
    drive(whole)
    url = f"sqlite:///{tmp_path}/parts.db"
    for stop_after in (1, 1, 9):
        parts = opened(made, trials=9, url=url)
        drive(parts, stop_after=stop_after)
    assert [t.digest for t in parts.trials.values()] == [t.digest for t in whole.trials.values()]


def test_other_rules_are_another_space(opened):
    drive(opened(make_space(CONTENT, name="ruled"), trials=2))
    other = make_space({**CONTENT, "forbid": [{"type": "se", "placement": "stem"}]}, name="ruled")
    with pytest.raises(StudyError, match=r"(?s)another space or setting.*- ?forbid.*\+ ?forbid"):
        opened(other, trials=2)
