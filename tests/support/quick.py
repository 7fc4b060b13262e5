"""Whole studies in processes, with workers that train nothing."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

WORKER = Path(__file__).parent / "instant_worker.py"


def command(seconds):
    """The command of such a worker, in place of ``search.workers._command``."""

    def of(plan, index):
        parent = str(os.getpid())
        return [sys.executable, str(WORKER), "--parent", parent, "--seconds", str(seconds)]

    return of


def run(space, seconds, flags):
    """Run a study in this process and end it with the command line's exit code."""
    from search import workers
    from search.interruption import Interrupted
    from search.plan import make_plan
    from search.study import execute

    warnings.simplefilter("error")
    workers._command = command(seconds)
    try:
        execute(make_plan(space, **flags))
    except (Interrupted, KeyboardInterrupt):
        sys.exit(130)


def run_in(folder, space, seconds, flags, environment):
    """The same in a folder of its own; faults of the database are looked at again soon."""
    from search import faults

    os.environ |= environment
    os.chdir(folder)
    faults.RETRY_SECONDS = 0.2
    run(space, seconds, flags)


def workers_of(parent):
    """The numbers of the worker processes of a parent, also of one that is gone."""
    listed = subprocess.run(
        ["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, words in rows if f"--parent {parent} " in f"{words} "]
