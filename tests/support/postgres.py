"""A PostgreSQL server of the tests' own: Debian's programs, a temporary folder, a socket in it.

Nobody but this machine's users can reach it: it listens on no network at all.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

NEEDED = "ATTENTION_SEARCH_NEEDS_POSTGRES"
# Power cuts are PostgreSQL's business; what was committed outlives its processes as it is.
SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=60")


def programs():
    """The folder of the newest initdb; None where there is no PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = str(found[-1]) if found else shutil.which("initdb")
    return Path(path).parent if path else None


def lacking():
    """Why no server can be started; empty where one can."""
    if programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if not os.geteuid() and not _server_user():
        return "PostgreSQL does not run as root, and there is no user postgres"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (pip install 'attention-search[postgres]')"
    return ""


def is_needed():
    """Whether tests that cannot have a server fail instead of being skipped."""
    return os.environ.get(NEEDED, "") not in ("", "0")


def _server_user():
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else None


def _as_user(*command):
    """The server refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if not os.geteuid() else [*command]


class Server:
    """A server that runs; called with the name of a database, it gives its URL."""

    def __init__(self, folder, control, start):
        self.folder = folder
        self._control = control
        self._start = start

    def __call__(self, name):
        return f"postgresql+psycopg://tester@/{name}?host={self.folder}"

    def stop(self, mode="immediate"):
        """End it: "immediate" as a kill would, "fast" in order."""
        stop = _as_user(*self._control, "-m", mode, "-w", "stop")
        subprocess.run(stop, check=True, capture_output=True, cwd=self.folder)

    def start(self):
        """Start it again."""
        # What it says goes to a file: a pipe that it inherits would stay open for ever.
        subprocess.run(
            self._start, check=True, cwd=self.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def server():
    """Start one; yields what gives the URL of its databases, and stops and starts it."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
    if not os.geteuid():
        shutil.chown(folder, "postgres")
    data, bin_ = folder / "data", programs()
    quiet = {"check": True, "capture_output": True, "cwd": folder, "text": True}
    create = [bin_ / "initdb", "-D", data, "-U", "tester", "--auth=trust", "-E", "UTF8"]
    subprocess.run(_as_user(*map(str, create), "--locale=C", "--no-sync"), **quiet)
    options = " ".join([f"-k {folder} -h ''", *(f"-c {setting}" for setting in SETTINGS)])
    control = [str(bin_ / "pg_ctl"), "-D", str(data)]
    start = _as_user(*control, "-w", "-l", str(folder / "log"), "-o", options, "start")
    started = Server(folder, control, start)
    started.start()
    try:
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)
