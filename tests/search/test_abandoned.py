"""A study whose process is gone is not shown as running."""

import os
import platform
import subprocess
import sys

import pytest
from instant import drive
from sqlalchemy import text

from search import show


def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("owner", "status", "shown"),
    [
        ({"host": platform.node(), "pid": "mine"}, "running", "running"),
        ({"host": platform.node(), "pid": "gone"}, "running", "cut off"),
        ({"host": "elsewhere", "pid": "gone"}, "running", "running"),
        ({"host": platform.node()}, "running", "running"),
        ({}, "running", "running"),
        ({"host": platform.node(), "pid": "gone"}, "interrupted", "interrupted"),
    ],
)
def test_a_study_whose_process_is_gone_was_cut_off(opened, owner, status, shown):
    study = opened(trials=2)
    drive(study)
    pids = {"mine": os.getpid(), "gone": gone()}
    owner = {k: pids.get(v, v) for k, v in owner.items()}
    study.store.update_study(study.id, owner=owner, status=status)
    engine = study.store.engine
    assert show.study_data(engine, None)["status"] == shown
    assert show.studies_data(engine)[0]["status"] == shown


def test_a_shared_study_is_cut_off_once_no_parent_has_a_lease(parents):
    study = parents(trials=1)
    engine = study.store.engine
    assert show.study_data(engine, None)["status"] == "running"
    with study.store.transaction() as connection:
        connection.execute(text("UPDATE search_leases SET expires = now() - interval '1 s'"))
    assert show.study_data(engine, None)["status"] == "cut off"
    assert show.studies_data(engine)[0]["status"] == "cut off"
