import sys
import warnings
from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from blocks.errors import SpaceError, StudyError
from search import sampler_table, steady_tpe
from search.datasets import load_data
from search.plan import make_plan
from search.sampler_table import sampler_row
from search.samplers import SAMPLERS, Proposer, distribution, proposal_seed
from spaces.document import AUTO
from spaces.document import SAMPLERS as IN_SPACES
from spaces.flat import flat_domains
from spaces.parameters import Choice, Range
from spaces.space import load_space, parse_space

DIGITS = load_data("digits").facts
SPACE = load_space("attention")


def test_spaces_and_samplers_know_the_same_names():
    assert {*SAMPLERS, AUTO} == set(IN_SPACES)


def test_domains_in_optunas_words():
    assert distribution(Choice((4, 8))) == CategoricalDistribution((4, 8))
    assert distribution(Range(1, 8)) == IntDistribution(1, 8)
    assert distribution(Range(0.1, 1.0, log=True)) == FloatDistribution(0.1, 1.0, log=True)


def test_every_proposal_has_a_seed_of_its_own():
    seeds = {proposal_seed(seed, number) for seed in range(3) for number in range(100)}
    assert len(seeds) == 300


def proposer(sampler, seed=0, space=SPACE, objectives=("max", "min")):
    names = dict(zip(("accuracy", "flops", "params"), objectives, strict=False))
    return Proposer(sampler, names, seed=seed, space=space, data=DIGITS)


def values_of(number):
    """Two objectives that hang on the number alone, one that is better high and one low."""
    return [0.9 + number * 37 % 100 / 1000, 1e6 + number * 53 % 97]


def proposed(made, count, *, tell=values_of):
    found = []
    for _ in range(count):
        number, proposal = made.ask()
        found.append(dict(proposal.values))
        made.tell(number, "complete", tell(number))
    return found


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_the_same_seed_proposes_the_same(sampler):
    def first(seed):
        return proposed(proposer(sampler, seed), 6)

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_conditional_parameters_are_asked_for_where_they_matter():
    made = proposer("random")
    for _ in range(40):
        values = made.ask()[1].values
        wanted = {"type"}
        if values["type"] != "none":
            wanted.add("placement")
        if values["type"] not in ("none", "eca", "simam", "triplet"):
            wanted.add("reduction")
        if values["type"] == "fca":
            wanted.add("frequency")
        assert set(values) == wanted


# What is faster proposes what Optuna's proposes. ------------------------------------------------

RANGES = parse_space(
    "backbone: resnet20\nattention: {type: [none, se, fca], placement: [stem, stage]}\n"
    "training: {epochs: 1, learning_rate: {low: 0.01, high: 1, log: true}, momentum: [0.8, 0.9]}"
)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("space", [SPACE, RANGES], ids=["lists", "ranges"])
def test_groups_of_settings_are_those_of_optunas_tpe(monkeypatch, space):
    def theirs(seed):
        return optuna.samplers.TPESampler(
            n_startup_trials=10, multivariate=True, group=True, constant_liar=True, seed=seed
        )

    def run(made):  # two at a time; some are told as failed or as pruned
        found, open_ones = [], []
        for count in range(50):
            number, proposal = made.ask()
            found.append((dict(proposal.values), dict(made.notes(number).system_attributes)))
            open_ones.append(number)
            state = "failed" if count % 5 == 3 else "pruned" if count % 7 == 5 else "complete"
            if len(open_ones) > 1:
                first = open_ones.pop(count % 2)
                made.tell(first, state, values_of(first) if state == "complete" else None)
        return found

    assert steady_tpe.IS_KNOWN
    mine = run(proposer("tpe", space=space))
    row = replace(SAMPLERS["tpe"], make=theirs)
    monkeypatch.setitem(sampler_table.SAMPLERS, "tpe", row)
    monkeypatch.setattr("search.samplers.TrialMemory", optuna.storages.InMemoryStorage)
    assert run(proposer("tpe", space=space)) == mine


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("nsga2", optuna.samplers.NSGAIISampler), ("nsga3", optuna.samplers.NSGAIIISampler)],
)
@pytest.mark.parametrize("space", [SPACE, RANGES], ids=["lists", "ranges"])
def test_generations_are_those_of_optuna(monkeypatch, name, theirs, space):
    def run(made):  # some proposals are told as failed or as pruned
        found = []
        for count in range(70):
            number, proposal = made.ask()
            found.append((dict(proposal.values), dict(made.notes(number).system_attributes)))
            state = "failed" if count % 5 == 3 else "pruned" if count % 7 == 5 else "complete"
            made.tell(number, state, values_of(number) if state == "complete" else None)
        return found

    mine = run(proposer(name, space=space))
    row = replace(SAMPLERS[name], make=lambda seed: theirs(population_size=10, seed=seed))
    monkeypatch.setitem(sampler_table.SAMPLERS, name, row)
    monkeypatch.setattr("search.samplers.TrialMemory", optuna.storages.InMemoryStorage)
    assert run(proposer(name, space=space)) == mine
    generations = {notes[f"{theirs.__name__}:generation"] for _, notes in mine}
    assert max(generations) >= 4


def test_only_the_parents_of_the_last_generations_are_kept():
    made = proposer("nsga2")
    proposed(made, 60)
    assert sorted(made.sampler_state()) == ["NSGAIISampler:parent:4", "NSGAIISampler:parent:5"]


def test_a_generation_may_end_out_of_order():
    def run(order):
        made = proposer("nsga2")
        numbers = [made.ask()[0] for _ in range(10)]
        for number in order(numbers):
            made.tell(number, "complete", values_of(number))
        return proposed(made, 12)

    assert run(list) == run(lambda numbers: numbers[::-1])


# Samplers that model only what all trials share. ------------------------------------------------


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe", "evolution"])
def test_what_is_proposed_hangs_on_what_came_out(name):
    """In a space with conditions, where no attention has one setting alone."""

    def run(good):
        made, found = proposer(name), []
        for _ in range(60):
            number, proposal = made.ask()
            found.append(dict(proposal.values))
            accuracy = 0.9 if proposal.values["type"] == good else 0.5
            made.tell(number, "complete", [accuracy, 1.0])
        return found

    for good, other in (("se", "fca"), ("fca", "se")):
        late = [values["type"] for values in run(good)[30:]]
        assert late.count(good) > 1.5 * max(1, late.count(other)), late


@pytest.mark.parametrize("name", ["gp", "nsga2", "nsga3"])
def test_samplers_without_conditions_are_asked_for_all_settings_always(name):
    made = proposer(name)
    flat = set(flat_domains(SPACE, DIGITS))
    assert flat == {"type", "placement", "reduction", "frequency"}
    for _ in range(3):
        number, proposal = made.ask()
        assert set(made.notes(number).parameters) == flat
        assert set(proposal.values) <= flat
        made.tell(number, "complete", values_of(number))
    domains = {"type": SPACE.attention.blocks}
    number = made.add({"type": "none"}, domains)
    assert set(made.notes(number).parameters) == flat
    assert made.notes(number).parameters["type"] == "none"


def test_chance_proposes_once_a_model_has_nothing_new():
    made = proposer("gp")
    asked = []

    class Stubborn(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, param_name, param_distribution):
            asked.append(trial.number)
            return param_distribution.choices[0]

    made.row = replace(made.row, make=lambda seed: Stubborn(seed=seed))
    draws = [dict(made.ask(draw=draw)[1].values) for draw in range(made.row.draws + 4)]
    assert draws[: made.row.draws] == [{"type": "none"}] * made.row.draws
    assert len({str(values) for values in draws[made.row.draws :]}) > 1
    assert max(asked) == made.row.draws - 1


# Samplers by a dotted name. ---------------------------------------------------------------------

OWN = """
import optuna

class Own(optuna.samplers.RandomSampler):
    def __init__(self, seed):
        super().__init__(seed=seed)

class Seedless(optuna.samplers.RandomSampler):
    def __init__(self):
        super().__init__()

class Needy(optuna.samplers.RandomSampler):
    def __init__(self, seed, more):
        super().__init__(seed=seed)

class Failing(Own):
    def sample_independent(self, study, trial, name, distribution):
        raise RuntimeError("no licence")

def make(seed):
    return optuna.samplers.TPESampler(seed=seed)

def number(seed):
    return seed

Constant = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "ownsampler.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ownsampler", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["ownsampler:Own", "ownsampler.Own", "ownsampler:make", "optuna.samplers.TPESampler"]
)
def test_another_sampler_by_its_dotted_name(own, name):
    first, again = (proposed(proposer(name), 14) for _ in range(2))
    assert first == again
    assert len({str(values) for values in first}) > 5


def test_those_that_share_parameters_are_asked_on_a_flattened_space():
    for name in ("GPSampler", "NSGAIISampler", "NSGAIIISampler"):
        assert sampler_row(f"optuna.samplers.{name}").flat
    assert not sampler_row("optuna.samplers.TPESampler").flat


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nsga", "--sampler 'nsga' is unknown. Did you mean 'nsga3'? Allowed: nsga2, tpe"),
        ("nowhere.at.All", "nowhere.at cannot be imported (ModuleNotFoundError: No module named"),
        ("ownsampler:mak", "ownsampler has no sampler 'mak'. Did you mean 'make'?"),
        ("ownsampler:Constant", "ownsampler has no sampler 'Constant'"),
        ("ownsampler:Seedless", "cannot be made from a seed"),
        ("ownsampler:Needy", "missing 1 required positional argument: 'more'"),
        ("ownsampler:number", "it gives a int); give a function of your own"),
        ("optuna.samplers.GridSampler", "has no use here; give --sampler grid"),
        ("optuna.samplers.BaseSampler", "cannot be made from a seed"),
        ("optuna.samplers.nsgaii", "optuna.samplers has no sampler 'nsgaii'"),
        ("ownsampler:Failing", "failed (RuntimeError: no licence); see what it needs"),
    ],
)
def test_a_sampler_that_cannot_be_is_refused_in_one_line(own, name, problem):
    with pytest.raises(StudyError) as error:
        make_plan("attention", storage=f"sqlite:///{own}/s.db", sampler=name)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert not (own / "s.db").exists()


def test_a_file_names_optunas_samplers_and_no_other_code(own):
    text = "backbone: resnet20\nattention: {type: se}\nstudy: {sampler: %s}\n"
    assert parse_space(text % "optuna.samplers.TPESampler").study["sampler"].endswith("TPESampler")
    for name in ("ownsampler:Own", "ownsampler.Own", "optuna.samplers.x.y", "optuna.storages.X"):
        with pytest.raises(SpaceError, match=f"'{name}' would run code .*--sampler {name}"):
            parse_space(text % name)


def test_code_that_the_database_names_is_run_by_the_flag_alone(own, opened):
    opened("smoke", sampler="ownsampler:Own", trials=2)
    with pytest.raises(StudyError, match="stored study was run with --sampler ownsampler:Own"):
        opened("smoke", trials=3)
    assert opened("smoke", trials=3, sampler="ownsampler:Own").plan.sampler == "ownsampler:Own"
    assert opened("smoke", trials=3, sampler="random").plan.sampler == "random"


def test_an_included_file_may_hold_the_sampler(tmp_path):
    file = tmp_path / "mysampler.py"
    file.write_text(OWN)
    plan = make_plan(
        "attention",
        storage=f"sqlite:///{tmp_path}/s.db",
        includes=[str(file)],
        sampler="mysampler:Own",
    )
    assert plan.sampler == "mysampler:Own"


def test_experimental_samplers_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposed(proposer("nsga3"), 2)
