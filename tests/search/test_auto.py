import pytest
from instant import drive

from search.live import sampler_words
from search.show import study_data

SMALL = """
backbone: resnet20
attention:
  type: [none, se]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
"""
# none, and se at the stem or the stages with r = 4 or 16: five distinct candidates.


@pytest.fixture
def space(tmp_path):
    def written(text=SMALL):
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return str(path)

    return written


@pytest.mark.parametrize(
    ("trials", "seeds", "sampler"), [(5, 1, "grid"), (4, 1, "tpe"), (10, 2, "grid"), (9, 2, "tpe")]
)
def test_grid_where_all_candidates_at_all_seeds_fit(opened, space, trials, seeds, sampler):
    plan = opened(space(), trials=trials, seeds=seeds, sampler="auto").plan
    assert plan.sampler == sampler
    if sampler == "grid":
        each = " at 2 seeds" if seeds == 2 else ""
        assert plan.auto_because == f"all 5 distinct candidates{each} fit into {trials} trials"


def test_a_grid_of_auto_tries_every_candidate(opened, space):
    study = opened(space(), trials=5, sampler="auto")
    assert drive(study) == 5
    assert study.is_finished


@pytest.mark.parametrize(
    ("rate", "trials", "sampler"),
    [
        ("0.1", 24, "tpe"),
        ("0.1", 1001, "evolution"),
        ("{low: 0.01, high: 1}", 1000, "tpe"),
        ("{low: 0.01, high: 1}", 1001, "nsga2"),
    ],
)
def test_models_for_few_candidates_and_generations_for_many(opened, space, rate, trials, sampler):
    text = (
        "backbone: resnet20\nattention: {type: [none, se], per_stage: true,"
        " placement: [stem, stage, in-block], reduction: [1, 2, 4, 8]}\n"
        f"training: {{epochs: 1, learning_rate: {rate}}}\n"
    )
    assert opened(space(text), trials=trials, sampler="auto").plan.sampler == sampler


def test_a_baseline_beside_the_space_counts(opened, space):
    text = SMALL.replace("[none, se]", "se")  # four candidates and the baseline
    assert opened(space(text), trials=4, sampler="auto").plan.sampler == "tpe"
    assert opened(space(text), trials=5, sampler="auto", study="b").plan.sampler == "grid"


def test_no_attention_at_all_settings_counts_where_it_is_tuned(opened, space):
    # Four networks of SE at two rates, and no attention at both: ten candidates.
    text = SMALL.replace("[none, se]", "se").replace(
        "epochs: 1", "epochs: 1, learning_rate: [0.1, 0.2]"
    )
    assert opened(space(text), trials=9, sampler="auto").plan.sampler == "tpe"
    study = opened(space(text), trials=10, sampler="auto", study="b")
    assert study.plan.sampler == "grid"
    assert drive(study) == 10
    untuned = f"{text}study: {{tune_baseline: false}}\n"
    assert opened(space(untuned), trials=9, sampler="auto", study="c").plan.sampler == "grid"


def test_the_choice_is_kept_when_more_trials_are_wanted(opened, space):
    path = space()
    drive(opened(path, trials=4, sampler="auto"))
    again = opened(path, trials=50)
    assert again.plan.sampler == "tpe"  # by the rule alone it would be grid now
    assert opened(path, trials=50, sampler="auto").plan.sampler == "tpe"
    assert opened(path, trials=50, sampler="grid").plan.sampler == "grid"


def test_a_changed_space_chooses_anew(opened, space):
    drive(opened(space(), trials=5, sampler="auto", study="s"))
    wider = space(SMALL.replace("[4, 16]", "[2, 4, 8, 16]"))
    study = opened(wider, trials=6, study="s", extend=True)
    assert study.plan.sampler == "tpe"


def test_it_is_said_what_auto_became_and_why(opened, space):
    study = opened(space(), trials=5, sampler="auto")
    words = "auto, which is grid here (all 5 distinct candidates fit into 5 trials)"
    assert sampler_words(study.plan) == words
    settings = study_data(study.store.engine, None)["settings"]
    assert settings["sampler"] == "auto"
    assert settings["auto"]["sampler"] == "grid"
