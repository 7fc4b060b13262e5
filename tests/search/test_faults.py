"""A database that cannot be written: said, waited for, and survived."""

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import quick
from instant import drive, outcome_of
from sqlalchemy import create_engine, event

from blocks.errors import StorageFault, StudyError
from search import database, faults
from search import study as study_module
from search.database import open_for_reading, open_for_writing, storage_url
from search.faults import Outlast, fault_of
from search.kept import KeptFile
from search.mounts import NETWORK, file_system, network_warning
from search.plan import make_plan
from search.reading import read_study, read_trials
from search.study import execute
from search.watch import Silent
from spaces.space import find_space


class Saying(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.words = []
        self.done = []
        self.on_finished = lambda trial: None

    def said(self, words):
        self.words.append(words)

    def finished(self, trial):
        self.done.append(trial.number)
        self.on_finished(trial)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Workers that train nothing; faults are looked at again soon."""
    monkeypatch.setattr("search.workers._command", quick.command(0.0))
    monkeypatch.setattr(faults, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)


@pytest.fixture
def plan(tmp_path):
    def of(**flags):
        given = {"trials": 8, "workers": 1, "epochs": 1, **flags}
        return make_plan("attention", storage=f"sqlite:///{tmp_path}/studies.db", **given)

    return of


def states(tmp_path):
    engine = open_for_reading(storage_url(f"sqlite:///{tmp_path}/studies.db"))
    try:
        return [t.state for t in read_trials(engine, read_study(engine, "attention").id)]
    finally:
        engine.dispose()


def limit_pages(monkeypatch, pages):
    """A disk on which a database has room for so many pages; a list whose one entry changes it."""
    limit = [pages]

    def connected(connection, *_):
        connection.execute(f"PRAGMA max_page_count = {limit[0]}")

    real = open_for_writing

    def opened(url):
        engine = real(url)
        event.listen(engine, "checkout", connected)
        return engine

    monkeypatch.setattr(study_module, "open_for_writing", opened)
    return limit


def pages_of(tmp_path):
    connection = sqlite3.connect(tmp_path / "studies.db")
    try:
        return connection.execute("PRAGMA page_count").fetchone()[0]
    finally:
        connection.close()


# Which fault it is. ------------------------------------------------------------------------------


def error_of(statement, path, prepare=()):
    engine = open_for_writing(storage_url(f"sqlite:///{path}"))
    try:
        with engine.connect() as connection:
            for one in prepare:
                connection.exec_driver_sql(one)
            connection.exec_driver_sql(statement)
    except Exception as error:
        return error
    finally:
        engine.dispose()
    return None


def test_a_full_disk_and_a_read_only_file_are_told_apart(tmp_path):
    path = tmp_path / "studies.db"
    assert error_of("SELECT 1", path) is None
    big = "CREATE TABLE big AS SELECT zeroblob(1000000) AS x"
    full = error_of(big, path, ["PRAGMA max_page_count = 1"])
    assert fault_of(full).words == "its disk is full"
    fixed = error_of(big, path, ["PRAGMA query_only = ON"])
    assert fault_of(fixed).words == "it can only be read"
    assert fault_of(error_of("SELECT * FROM nothing", path)) is None


@pytest.fixture
def damaged(opened, storage, tmp_path):
    """A database whose first page is sound and whose others are not."""
    study = opened(trials=20)
    drive(study)
    database.checkpoint(study.store.engine)
    study.store.engine.dispose()
    file = tmp_path / "studies.db"
    content = file.read_bytes()
    file.write_bytes(content[: 4096 * 3] + b"\xff" * (len(content) - 4096 * 3))
    return storage


def test_a_damaged_database_is_said_by_whoever_reads_it(damaged):
    words = "cannot be (opened|read): it is damaged, or no database .*recover"
    with pytest.raises(StudyError, match=words):
        engine = open_for_reading(storage_url(damaged))
        try:
            read_trials(engine, read_study(engine, "attention").id)
        finally:
            engine.dispose()
    with pytest.raises(StudyError, match=words):
        execute(make_plan("attention", storage=damaged, trials=21, workers=1))


def test_damage_is_not_waited_for(damaged, tmp_path):
    said = []
    outlast = Outlast("x.db")
    outlast.arm(said.append, lambda: False)
    engine = create_engine(damaged)

    def read():
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT * FROM search_trials").all()

    with pytest.raises(StorageFault, match="x.db: it is damaged, or no database. What had fini"):
        outlast(read)
    engine.dispose()
    assert said == []
    assert outlast.given_up


# Before a study begins. --------------------------------------------------------------------------


def test_a_locked_database_is_refused_at_the_start(plan, tmp_path):
    execute(plan(trials=1))
    other = sqlite3.connect(tmp_path / "studies.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StudyError, match="another program keeps it locked.*database browser"):
        execute(plan())
    other.execute("ROLLBACK")
    other.close()
    assert len(execute(plan()).trials) == 8


def test_a_full_disk_is_refused_at_the_start(plan, tmp_path, monkeypatch):
    execute(plan(trials=1))
    limit_pages(monkeypatch, pages_of(tmp_path))
    filler = sqlite3.connect(tmp_path / "studies.db")
    filler.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    filler.close()
    long = tmp_path / "long.yaml"  # its text alone needs new pages
    long.write_text(find_space("smoke").read_text() + "# a long comment\n" * 2000)
    with pytest.raises(StudyError, match="its disk is full.*make room") as error:
        execute(make_plan(long, storage=plan().storage.render_as_string()))
    assert not isinstance(error.value, StorageFault)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_at_the_start(plan, tmp_path):
    execute(plan(trials=1))
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StudyError, match="cannot be (opened|written)"):
            execute(plan())
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_that_takes_no_lock_file_is_refused(plan, tmp_path):
    (tmp_path / "studies.artefacts").write_text("not a folder")
    with pytest.raises(StudyError, match="studies.artefacts cannot be written: .*--storage"):
        execute(plan())


# While it runs. ----------------------------------------------------------------------------------


def test_a_locked_database_is_waited_for_and_the_result_is_written(plan, tmp_path):
    watch = Saying()
    other = sqlite3.connect(tmp_path / "studies.db", isolation_level=None, check_same_thread=False)

    def lock(trial):
        if trial.number == 2:
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(1.0, lambda: other.execute("ROLLBACK")).start()

    watch.on_finished = lock
    result = execute(plan(), watch)
    other.close()
    assert [t.state for t in result.trials] == ["complete"] * 8
    assert sorted(watch.done) == list(range(8))
    waiting, again = watch.words
    assert "another program keeps it locked; end what has it open for writing" in waiting
    assert "Trying again for 10 min 0 s" in waiting
    assert again.endswith("studies.db can be written again")
    assert states(tmp_path) == ["complete"] * 8


def test_a_lock_before_the_first_trial_and_after_the_last_is_waited_for(plan, tmp_path):
    execute(plan(trials=2))
    other = sqlite3.connect(tmp_path / "studies.db", isolation_level=None, check_same_thread=False)

    def lock():
        other.execute("BEGIN EXCLUSIVE")
        threading.Timer(1.0, lambda: other.execute("ROLLBACK")).start()

    class Locking(Saying):
        def began(self, study):
            if not self.words:
                lock()
            study.result()  # as the live view, which shows the study

        def ended(self):
            lock()

    watch = Locking()
    result = execute(plan(trials=4), watch)
    other.close()
    assert [t.state for t in result.trials] == ["complete"] * 4
    assert ["keeps it locked" in words for words in watch.words] == [True, False] * 2
    assert states(tmp_path) == ["complete"] * 4


def test_a_full_disk_is_waited_for_and_the_result_is_written(plan, tmp_path, monkeypatch):
    watch = Saying()
    execute(plan(trials=2))
    limit = limit_pages(monkeypatch, pages_of(tmp_path) + 2)

    def room(words):
        watch.words.append(words)
        limit[0] = 100_000

    watch.said = room
    result = execute(plan(), watch)
    assert [t.state for t in result.trials] == ["complete"] * 8
    assert "its disk is full; make room there" in watch.words[0]
    assert "can be written again" in watch.words[1]
    assert states(tmp_path) == ["complete"] * 8


def test_a_disk_that_stays_full_ends_the_study_and_loses_nothing(plan, tmp_path, monkeypatch):
    execute(plan(trials=2))
    monkeypatch.setattr(faults, "WAIT_SECONDS", 0.3)
    with monkeypatch.context() as patch:
        limit_pages(patch, pages_of(tmp_path) + 2)
        with pytest.raises(StorageFault, match="its disk is full. What had finished is kept; make"):
            execute(plan(trials=40))
    assert quick.workers_of(os.getpid()) == []
    kept = states(tmp_path)
    assert kept[:2] == ["complete"] * 2
    assert 2 <= len(kept) < 40
    before = [state for state in kept if state == "complete"]
    result = execute(plan(trials=12))
    assert [t.state for t in result.trials] == ["complete"] * 12
    assert len(before) >= 2
    assert len({(t.digest, t.seed) for t in result.trials}) == 12


def test_a_file_that_becomes_read_only_is_waited_for(plan, tmp_path, monkeypatch):
    watch = Saying()
    fixed = [False]
    real = open_for_writing

    def opened(url):
        engine = real(url)
        event.listen(
            engine,
            "checkout",
            lambda connection, *_: connection.execute(f"PRAGMA query_only = {int(fixed[0])}"),
        )
        return engine

    monkeypatch.setattr(study_module, "open_for_writing", opened)

    def on_finished(trial):
        fixed[0] = trial.number == 3

    def said(words):
        watch.words.append(words)
        fixed[0] = False

    watch.on_finished, watch.said = on_finished, said
    assert len(execute(plan(), watch).trials) == 8
    assert "it can only be read; make the file and its folder writable" in watch.words[0]


def test_somebody_who_interrupts_does_not_wait():
    said = []
    outlast = Outlast("x.db")

    def write():
        connection = sqlite3.connect(":memory:")
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("CREATE TABLE t (x)")
        except sqlite3.Error as error:
            from sqlalchemy.exc import OperationalError

            raise OperationalError("", {}, error) from error
        finally:
            connection.close()

    with pytest.raises(Exception, match="readonly"):
        outlast(write)  # before it is armed, errors pass
    outlast.arm(said.append, lambda: True)
    with pytest.raises(StorageFault, match="x.db: it can only be read"):
        outlast(write)
    assert outlast.given_up
    assert outlast(lambda: 7) == 7


def test_a_transaction_that_failed_is_written_whole_the_second_time(opened, monkeypatch):
    study = opened(trials=3)
    study.store.outlast.arm(lambda words: None, lambda: False)
    assignment = study.next_assignment()
    real, failed = study.store._end_attempt, []

    def fails_once(*arguments, **named):
        if not failed:
            failed.append(1)
            connection = arguments[0].connection
            connection.exec_driver_sql("PRAGMA query_only = ON")
            try:
                real(*arguments, **named)
            finally:
                connection.exec_driver_sql("PRAGMA query_only = OFF")
        return real(*arguments, **named)

    monkeypatch.setattr(study.store, "_end_attempt", fails_once)
    study.on_finish(assignment.trial, outcome_of(study.trials[assignment.trial]), {})
    assert failed
    drive(study)
    stored = read_trials(study.store.engine, study.id)
    assert [t.state for t in stored] == ["complete"] * 3
    assert stored[0].measurements == study.trials[0].measurements


def test_weights_that_are_to_go_wait_for_the_disk_too(opened, tmp_path):
    study = opened(trials=3, keep_weights="all")
    drive(study, stop_after=1)
    file = tmp_path / "attention-0.safetensors"
    file.write_bytes(b"weights")
    row = {"path": file.name, "sha256": "0", "bytes": 7}
    study.keeper.files = {0: KeptFile(study.trials[0].id, row["path"], row["sha256"], 7)}
    said, fixed = [], [True]

    def connected(connection, *_):
        connection.execute(f"PRAGMA query_only = {int(fixed[0])}")

    def say(words):
        said.append(words)
        fixed[0] = False

    event.listen(study.store.engine, "checkout", connected)
    study.store.outlast.arm(say, lambda: False)
    study.keeper._remove([0])
    assert "it can only be read" in said[0]
    assert study.keeper.files == {}
    assert not file.exists()


def test_the_command_ends_with_1_and_the_way_to_go_on(tmp_path):
    code = (
        "import sys, search.faults, search.study, search.workers, quick\n"
        "from blocks.errors import StorageFault\n"
        "from search.cli import main\n"
        "def broken(study, watch):\n"
        "    raise StorageFault('studies.db: its disk is full; make room')\n"
        "search.workers.run_locally = broken\n"
        "sys.argv = ['search', 'run', '--space', 'smoke', '--workers', '1']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1] == (
        "search: studies.db: its disk is full; make room; then go on"
        " with: search run --space smoke --workers 1"
    )


# In a worker. ------------------------------------------------------------------------------------


def test_a_checkpoint_that_cannot_be_written_fails_no_training(tmp_path):
    import torch

    from search.checkpoint import Checkpoint

    class Large:
        def state(self):
            return {"x": torch.zeros(1_000_000)}

    checkpoint = Checkpoint(str(tmp_path / "c.pt"), "identity", seconds=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        checkpoint.keep(Large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.problem.startswith("could not be written: ")
    assert list(tmp_path.iterdir()) == []
    checkpoint.keep(Large())
    assert checkpoint.problem == ""
    assert checkpoint.read()["x"].shape == (1_000_000,)


# Network file systems. ---------------------------------------------------------------------------

MOUNTINFO = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:25 / /proc rw,nosuid - proc proc rw
41 22 0:40 / /home rw,relatime shared:20 - nfs4 server:/home rw,vers=4.2
42 41 0:41 / /home/local rw,relatime - xfs /dev/vdb rw
43 22 0:42 / /mnt/my\040data rw - cifs //server/share rw
44 22 0:43 / /scratch rw master:1 shared:2 - lustre mgs:/fs rw
45 22 0:44 / /scratch/over rw - lustre mgs:/fs rw
46 22 0:45 / /scratch/over rw - ext4 /dev/vdc rw
47 22 0:46 / /far rw - fuse.sshfs me@there: rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "point"),
    [
        ("/studies.db", "ext4", "/"),
        ("/home/me/studies.db", "nfs4", "/home"),
        ("/home", "nfs4", "/home"),
        ("/homework/studies.db", "ext4", "/"),
        ("/home/local/me/studies.db", "xfs", "/home/local"),
        ("/mnt/my data/studies.db", "cifs", "/mnt/my data"),
        ("/scratch/x/studies.db", "lustre", "/scratch"),
        ("/scratch/over/studies.db", "ext4", "/scratch/over"),
        ("/far/studies.db", "fuse.sshfs", "/far"),
    ],
)
def test_the_file_system_of_a_path(path, kind, point):
    assert file_system(path, MOUNTINFO) == (kind, point)
    assert (kind in NETWORK) == (kind in ("nfs4", "cifs", "lustre", "fuse.sshfs"))


def test_a_network_file_system_is_said(tmp_path):
    warning = network_warning(Path("/home/me/studies.db"), MOUNTINFO)
    assert "/home/me/studies.db lies on a network file system (nfs4 at /home)" in warning
    assert "PostgreSQL" in warning
    assert network_warning(Path("/studies.db"), MOUNTINFO) == ""
    assert network_warning(Path("/studies.db"), "") == ""
    assert network_warning(tmp_path / "studies.db") == ""


def test_a_run_says_it_once_and_goes_on(plan, monkeypatch):
    monkeypatch.setattr(study_module, "network_warning", lambda file: f"{file.name} lies far away")
    watch = Saying()
    assert len(execute(plan(trials=2), watch).trials) == 2
    assert watch.words == ["studies.db lies far away"]
