import os
import signal
import subprocess
import time

from search.engine import Silent
from search.plan import make_plan
from search.reading import read_attempts, read_trials
from search.study import execute

SPACE = """
backbone: resnet20
attention: {type: none}
training: {epochs: 2, batch_size: 64}
"""


def peers_of(parent):
    """Processes of further ranks below this one."""
    listed = subprocess.run(
        ["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    workers = {pid for pid, above, _ in rows if int(above) == parent}
    return [int(pid) for pid, above, words in rows if above in workers and "--rank" in words]


class Killer(Silent):
    """Kills the second process of the first trial once, after its first epoch."""

    def __init__(self):
        self.killed = []
        self.causes = []

    def epoch(self, trial, result):
        if not self.killed:
            self.killed = peers_of(os.getpid())
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)

    def lost(self, trial, cause):
        self.causes.append(cause)


def test_a_trial_on_two_processes_survives_the_loss_of_one(tmp_path, opened):
    (tmp_path / "one.yaml").write_text(SPACE)
    url = f"sqlite:///{tmp_path}/studies.db"
    flags = {"storage": url, "trials": 1, "workers": 1, "processes": 2}
    watch = Killer()
    result = execute(make_plan(tmp_path / "one.yaml", **flags), watch)
    (trial,) = result.trials
    assert (trial.state, trial.error) == ("complete", "")
    assert trial.test_accuracy > 0.1
    assert len(watch.killed) == 1
    assert len(watch.causes) == 1
    study = opened(tmp_path / "one.yaml", url=url)
    assert len(read_attempts(study.store.engine, study.id)) == 2
    made = study.store.provenance_of(read_trials(study.store.engine, study.id)[0])
    assert (made["processes"], made["deterministic"]) == (2, False)
    until = time.monotonic() + 10
    while peers_of(os.getpid()) and time.monotonic() < until:
        time.sleep(0.1)
    assert peers_of(os.getpid()) == []
