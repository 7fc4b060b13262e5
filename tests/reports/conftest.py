"""Small studies with made-up outcomes, written as the engine writes them."""

import math
from dataclasses import dataclass, field, replace

import pytest

from blocks.architecture import Architecture, Placement
from blocks.formulas import Cost
from search.database import checkpoint, open_for_writing, storage_url
from search.outcome import EpochResult, Outcome
from search.reading import read_study, read_trials
from search.records import NewTrial, ProposalRow
from search.store import Store
from spaces.candidate import Candidate, DataFacts
from spaces.space import parse_space
from spaces.training import Training

FACTS = DataFacts("digits", (1, 14, 14), 10, "0123456789abcdef0123456789abcdef", (1077, 360, 360))
BASE = Cost(269_434, 269_434, 8_466_112, 17_062_954)
SPACE = """\
question: Which attention block, where, and how strong?
backbone: resnet20
attention:
  type: [none, se, eca, simam]
  placement: [stem, stage, in-block]
  reduction: [4, 8, 16]
training: {epochs: 12, learning_rate: 0.1}
objectives: {accuracy: max, flops: min, params: min}
constraints: {params: 1.05x baseline}
"""
PROVENANCE = {
    "versions": {"python": "3.11.9", "torch": "2.10.0"},
    "machine": {"system": "Linux 6.1", "cpu": "Some CPU", "cores": 2},
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
}


def curve(final, epochs=12):
    return tuple(
        EpochResult(e, 2.0 / e, 1 - 0.8 / e, 1.5 / e, final - 0.5 * (1 / e - 1 / epochs), 0.1, 1.5)
        for e in range(1, epochs + 1)
    )


def complete(accuracy, test=None):
    """A complete outcome; both are counts of right images among 360."""
    test = accuracy - 2 if test is None else test
    measured = (
        ("validation", "accuracy", accuracy / 360),
        ("validation", "loss", 0.1),
        ("test", "accuracy", test / 360),
    )
    return Outcome("complete", curve(accuracy / 360), measured, 18.5)


def failed(error="RuntimeError: out of memory"):
    trace = f'Traceback (most recent call last):\n  File "trial.py", line 1\n{error}\n'
    return Outcome("failed", (), (), 2.0, error, trace)


DIVERGED = Outcome("diverged", curve(0.1, 3), (), 4.0, "training loss is nan in epoch 4")


def candidate(block="none", site="stage1", *, label=None, backbone="resnet20", **options):
    placements = () if block == "none" else (Placement(site, block, tuple(options.items())),)
    words = [block, site, *(f"r={value}" for value in options.values())]
    text = label or ("none" if block == "none" else " ".join(words))
    architecture = Architecture(backbone, placements, (14, 14))
    return Candidate(architecture, Training(), FACTS, text)


def more(flops, params):
    """The baseline's cost and some more."""
    return Cost(
        BASE.params + params, BASE.trainable_params + params, BASE.macs + params, BASE.flops + flops
    )


@dataclass
class Studies:
    """A database that tests fill."""

    folder: object
    store: Store
    ids: dict = field(default_factory=dict)

    @property
    def url(self):
        return f"sqlite:///{self.folder}/studies.db"

    def add(self, name="attention", *, status="finished", space=SPACE, seeds=1, **identity):
        facts = {**FACTS.identity(), "sizes": list(FACTS.sizes)}
        self.store.add_study(
            name,
            parse_space(space, source="attention.yaml"),
            identity={"data": facts, "epochs": 12, "seed": 0} | identity,
            settings={"trials": 9, "seeds": seeds, "sampler": "nsga2", "pruner": "none"},
        )
        record = read_study(self.store.engine, name)
        self.store.update_study(record.id, status=status)
        self.ids[name] = record.id
        return self

    def trial(
        self,
        number,
        given,
        cost,
        outcome=None,
        *,
        study="attention",
        seed=0,
        parameters=None,
        baseline=False,
        origin=None,
        provenance=PROVENANCE,
        running=False,
    ):
        row = NewTrial(
            number, given.digest, seed, given.label, parameters or {}, {}, None, baseline, origin
        )
        key = self.ids[study]
        self.store.add_trials(key, [row], candidates=[(given, cost)], proposals=[])
        if outcome is not None or running:
            self.store.start_attempt(key, number, owner="host 1")
        if outcome is not None:
            self.store.finish_trial(key, number, outcome, provenance=provenance)
        return self

    def propose(self, number, verdict, reason="", given=None, cost=None, study="attention"):
        digest = given.digest if given else None
        row = ProposalRow(
            number, {}, {}, {}, digest, given.label if given else "x", verdict, reason, "failed"
        )
        candidates = [(given, cost)] if cost else []
        self.store.add_trials(self.ids[study], [], candidates=candidates, proposals=[row])
        return self

    def trials(self, study="attention"):
        return read_trials(self.store.engine, self.ids[study])

    def close(self):
        checkpoint(self.store.engine)
        self.store.engine.dispose()


@pytest.fixture
def studies(tmp_path):
    """An empty database."""
    engine = open_for_writing(storage_url(f"sqlite:///{tmp_path}/studies.db"))
    made = Studies(tmp_path, Store(engine))
    yield made
    made.close()


# label -> (right validation images, FLOPs and parameters more than the baseline's)
RESULTS = {
    0: (candidate(), 350, 0, 0),
    1: (candidate("se", reduction=16), 354, 12_000, 800),
    2: (candidate("se", reduction=4), 355, 14_000, 2_700),
    3: (candidate("eca", "stem"), 353, 9_000, 3),
    4: (candidate("simam"), 352, 20_000, 0),
    5: (candidate("eca"), 352, 13_000, 9),
}


@pytest.fixture
def small(studies):
    """Nine trials: six complete, one failed, one diverged, one reused; and refused proposals."""
    studies.add("first")
    other = candidate("simam", "stem")
    studies.trial(0, other, more(5_000, 0), complete(349), study="first")
    studies.add()
    for number, (given, right, flops, params) in RESULTS.items():
        chosen = {} if number == 0 else {"type": given.label.split()[0]}
        studies.trial(
            number,
            given,
            more(flops, params),
            complete(right),
            parameters=chosen,
            baseline=number == 0,
        )
        if number:
            studies.propose(number, "accepted", given=given)
    studies.trial(6, candidate("se", "stem", reduction=8), more(2_000, 200), failed())
    studies.trial(7, candidate("se", "stem", reduction=4), more(3_000, 300), DIVERGED)
    (origin,) = studies.trials("first")
    studies.trial(8, other, more(5_000, 0), origin=origin)
    for number in (10, 11):
        studies.propose(number, "repeated", "its candidate is in the study already")
    reason = "params 290,000 is over 282,906 (1.05x baseline)"
    big = candidate("se", "stage1.unit1.standard", reduction=4)
    studies.propose(12, "rejected", reason, big, more(50_000, 20_566))
    studies.propose(13, "impossible", "eca cannot stand at the stem")
    return studies


def many(studies, count):
    """A study of many complete trials with different architectures, seeds apart."""
    studies.add()
    store, key = studies.store, studies.ids["attention"]
    sites = [f"stage{s}.unit{u}.standard" for s in (1, 2, 3) for u in (1, 2, 3)]
    kinds = ("se", "eca", "fca", "simam", "cbam")
    rows, candidates = [], []
    for number in range(count):
        kind = kinds[number % 5]
        placements = tuple(
            Placement(site, kind, (("reduction", 4 + (number >> (i % 8)) % 29),))
            for i, site in enumerate(sites)
        )
        given = Candidate(
            Architecture("resnet20", placements, (14, 14)),
            Training(),
            FACTS,
            f"{kind} in-block r={4 + number % 29} variant {number}",
        )
        candidates.append((given, more(100 + 7 * number % 90_000, 11 * number % 12_000)))
        chosen = {"type": kind, "placement": "in-block", "reduction": number % 29}
        rows.append(NewTrial(number, given.digest, number, given.label, chosen, {}, None, False))
    store.add_trials(key, rows, candidates=candidates, proposals=[])
    _measure_all(store, count)
    return studies


def _measure_all(store, count):
    """Outcomes of all trials in one transaction: ten thousand would take a minute one by one."""
    from sqlalchemy import insert, select, update

    from search import tables

    with store.transaction() as connection:
        ids = connection.execute(select(tables.trials.c.id)).scalars().all()
        connection.execute(update(tables.trials).values(state="complete", epochs=12, seconds=18.25))
        accuracies = [0.9 + 0.09 * abs(math.sin(0.7 * n)) for n in range(count)]
        connection.execute(
            insert(tables.measurements),
            [
                {"trial_id": key, "split": split, "metric": "accuracy", "value": value}
                for key, accuracy in zip(ids, accuracies, strict=True)
                for split, value in (("validation", accuracy), ("test", accuracy - 0.004))
            ],
        )
        connection.execute(
            insert(tables.curves),
            [
                {
                    "trial_id": key,
                    "epoch": e,
                    "accuracy": accuracy - 0.3 / e,
                    "loss": 0.1,
                    "train_loss": 0.1,
                    "train_accuracy": 0.9,
                    "learning_rate": 0.1,
                    "seconds": 1.0,
                }
                for key, accuracy in zip(ids, accuracies, strict=True)
                for e in range(1, 13)
            ],
        )


@pytest.fixture
def fill():
    """Writes a study of many trials."""
    return many


@pytest.fixture(name="make")
def _make():
    """Makes a candidate: block, site, options."""
    return candidate


@pytest.fixture(name="more")
def _more():
    """Makes a cost above the baseline's: FLOPs, parameters."""
    return more


@pytest.fixture(name="complete")
def _complete():
    """Makes a complete outcome from the number of right images."""
    return complete


@pytest.fixture(name="failed")
def _failed():
    """Makes a failed outcome from its error."""
    return failed


def _speed(ratio, **more):
    """Measurements of a latency: its ratio, with quartiles 0.05 to either side."""
    numbers = {
        "latency_ratio": ratio,
        "latency_ratio_first": ratio - 0.05,
        "latency_ratio_third": ratio + 0.05,
        "latency_ms": 2 * ratio,
        "throughput": 4_000 / ratio,
    }
    return tuple(("speed", name, float(value)) for name, value in (numbers | more).items())


def timed_trials(studies):
    """Five complete trials: four with a latency, of which one was flagged; one without."""
    latencies = {0: _speed(1), 1: _speed(1.25), 2: _speed(1.125, busy=1), 3: _speed(1.5), 4: ()}
    for number, measured in latencies.items():
        given, right, flops, params = RESULTS[number]
        outcome = complete(right)
        outcome = replace(outcome, measurements=(*outcome.measurements, *measured))
        cost = more(flops, params)
        studies.trial(number, given, cost, outcome, baseline=number == 0)
    return studies


@pytest.fixture
def timed(studies):
    return timed_trials(studies.add())


@pytest.fixture
def timed_for(studies):
    """The same trials in a study of other objectives."""
    default = "{accuracy: max, flops: min, params: min}"

    def made(objectives):
        return timed_trials(studies.add(space=SPACE.replace(default, objectives)))

    return made
