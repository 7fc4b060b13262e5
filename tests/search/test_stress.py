"""Parents and workers killed at random, dozens of times: nothing is lost, nothing is done twice."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter

import pytest
import quick

from search.database import open_for_reading, storage_url
from search.reading import read_attempts, read_proposals, read_study, read_trials

EPOCHS = 2
KILLS = 18  # after which a study is left alone
PARENT_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WORKER_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)


@pytest.fixture(scope="module")
def context():
    """Processes forked from one that has imported everything: a start takes milliseconds."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["search.study", "search.workers"])
    return found


def flags(folder, **more):
    return {"storage": f"sqlite:///{folder}/studies.db", "epochs": EPOCHS, **more}


def started(context, seconds, given):
    process = context.Process(target=quick.run, args=("attention", seconds, given))
    process.start()
    return process


def kill(process, chance):
    """Send a signal to the parent or to one of its workers; to whom."""
    workers = quick.workers_of(process.pid)
    if workers and chance.random() < 0.3:
        victim, number, whom = chance.choice(workers), chance.choice(WORKER_SIGNALS), "worker"
    else:
        victim, number, whom = process.pid, chance.choice(PARENT_SIGNALS), "parent"
    try:
        os.kill(victim, number)
    except ProcessLookupError:
        return "nobody"
    return f"{whom} {signal.Signals(number).name}"


def is_gone(pid):
    """Whether a parent's workers have all ended, soon."""
    until = time.monotonic() + 10
    while quick.workers_of(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def at_some_moment(process, chance):
    """Wait until a parent is to be hit: at its start, or more often while its workers are busy."""
    if chance.random() < 0.15:
        process.join(chance.uniform(0, 0.5))
        return
    while process.exitcode is None and not quick.workers_of(process.pid):
        process.join(0.02)
    process.join(chance.uniform(0, 0.8))


def run_and_kill(context, folder, *, seed, seconds, **given):
    """Go on with a study until it ends by itself; what was killed meanwhile."""
    chance = random.Random(seed)
    killed = Counter()
    while True:
        process = started(context, seconds, flags(folder, **given))
        while True:
            if killed.total() == KILLS:
                process.join(60)
            else:
                at_some_moment(process, chance)
            if process.exitcode is not None:
                break
            whom = kill(process, chance)
            killed[whom] += 1
            if whom.startswith("parent"):
                process.join(30)
                break
        assert process.exitcode is not None, "a parent that got a signal ends"
        assert is_gone(process.pid), "workers die with their parent"
        if process.exitcode == 0:
            return killed
        assert process.exitcode in (130, 1, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)


def stored(folder):
    engine = open_for_reading(storage_url(f"sqlite:///{folder}/studies.db"))
    try:
        study = read_study(engine, "attention")
        return (
            read_trials(engine, study.id),
            read_attempts(engine, study.id),
            read_proposals(engine, study.id),
            study,
        )
    finally:
        engine.dispose()


def check_whole(folder, total):
    """Exact totals, one success a trial, no pair twice, every attempt ended."""
    trials, attempts, proposals, study = stored(folder)
    assert study.status == "finished"
    assert [t.number for t in trials] == list(range(total))
    assert {t.state for t in trials} == {"complete"}
    assert len({(t.digest, t.seed) for t in trials}) == total
    assert all(t.epochs == EPOCHS and t.accuracy is not None for t in trials)
    endings = Counter((a.trial, a.ending) for a in attempts if a.ending == "complete")
    assert list(endings.values()) == [1] * total
    assert {a.ending for a in attempts} <= {"complete", "lost", "interrupted"}
    assert all(a.finished is not None and a.finished >= a.started for a in attempts)
    numbers = Counter((a.trial, a.number) for a in attempts)
    assert set(numbers.values()) == {1}
    assert "open" not in {p.state for p in proposals}
    return trials, attempts, proposals


@pytest.mark.slow
def test_one_worker_killed_at_random_proposes_what_an_uninterrupted_study_does(context, tmp_path):
    total = 36
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = started(context, 0.0, flags(tmp_path / "whole", trials=total, workers=1))
    whole.join(60)
    assert whole.exitcode == 0
    killed = run_and_kill(
        context, tmp_path / "parts", seed=1, seconds=0.08, trials=total, workers=1
    )
    assert killed.total() == KILLS, killed
    _, _, expected = check_whole(tmp_path / "whole", total)
    trials, attempts, proposals = check_whole(tmp_path / "parts", total)
    assert len(attempts) > len(trials)
    assert [(p.digest, p.verdict, p.values) for p in proposals] == [
        (p.digest, p.verdict, p.values) for p in expected
    ]


@pytest.mark.slow
def test_several_workers_killed_at_random_lose_and_double_nothing(context, tmp_path):
    total = 70
    given = {"trials": total, "workers": 3, "seeds": 2, "sampler": "random"}
    killed = run_and_kill(context, tmp_path, seed=2, seconds=0.12, **given)
    assert killed.total() == KILLS, killed
    assert any(whom.startswith("worker") for whom in killed), killed
    trials, _, _ = check_whole(tmp_path, total)
    assert set(Counter(t.digest for t in trials).values()) == {2}
