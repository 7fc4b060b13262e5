"""One process at a time runs a study, by whatever name its database is opened."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from blocks.errors import StudyError
from search.database import artefacts_of, open_for_writing, storage_url
from search.holding import held
from search.mounts import names_warning
from search.store import Store


@pytest.fixture
def holding():
    """Hold a study of a database as a run does; gives a context."""
    engines = []

    def hold(path, study="s"):
        url = storage_url(f"sqlite:///{path}")
        engines.append(open_for_writing(url))
        return held(artefacts_of(url), study, Store(engines[-1]))

    yield hold
    for engine in engines:
        engine.dispose()


@pytest.fixture
def file(tmp_path):
    """A database in a folder of its own."""
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "studies.db"
    open_for_writing(storage_url(f"sqlite:///{path}")).dispose()
    return path


def linked(file, tmp_path):
    path = tmp_path / "link.db"
    path.symlink_to(file)
    return path


def folder_linked(file, tmp_path):
    (tmp_path / "b").symlink_to(file.parent)
    return tmp_path / "b" / file.name


def named_twice(file, tmp_path):
    path = tmp_path / "again.db"
    os.link(file, path)
    return path


NAMES = [linked, folder_linked, named_twice]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turn", [1, -1])
def test_another_name_of_the_file_is_refused_while_one_is_held(holding, file, tmp_path, name, turn):
    first, second = (file, name(file, tmp_path))[::turn]
    with holding(first):
        with pytest.raises(StudyError, match="study 's' is being run by process"), holding(second):
            pass
        with holding(second, "t"):
            pass  # another study of the same file
    with holding(second):
        pass


def test_links_are_followed_where_the_system_cannot_hold_a_file(
    holding, file, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "platform", "darwin")
    with holding(file), pytest.raises(StudyError, match="is being run"):
        holding(linked(file, tmp_path)).__enter__()


def test_a_lock_that_somebody_took_away_still_counts(holding, file):
    with holding(file):
        (file.parent / "studies.artefacts" / "s.lock").unlink()
        with pytest.raises(StudyError, match="is being run"), holding(file):
            pass


def test_a_copy_is_another_database(holding, file, tmp_path):
    copy = tmp_path / "copy.db"
    copy.write_bytes(file.read_bytes())
    with holding(file), holding(copy):
        pass


def test_a_system_that_knows_no_such_sockets_has_the_lock_alone(holding, file, monkeypatch):
    class Without(socket.socket):
        def bind(self, address):
            raise PermissionError(1, "not here")

    monkeypatch.setattr(socket, "socket", Without)
    with holding(file), pytest.raises(StudyError, match="is being run"), holding(file):
        pass


def test_after_a_kill_the_next_has_it_at_once(holding, file):
    code = f"""
        import time
        from search.database import artefacts_of, open_for_writing, storage_url
        from search.holding import held
        from search.store import Store
        url = storage_url("sqlite:///{file}")
        with held(artefacts_of(url), "s", Store(open_for_writing(url))):
            print("held", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StudyError, match="is being run"), holding(file):
        pass
    process.kill()
    process.communicate()
    with holding(file):
        pass


def test_a_second_name_is_said(file, tmp_path):
    assert names_warning(file) == ""
    assert names_warning(tmp_path / "none.db") == ""
    mounted = f"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n30 22 0:25 /x {file} rw - ext4 /dev/vda1 rw"
    assert "is mounted without its folder: SQLite's log" in names_warning(file, mounted)
    assert names_warning(linked(file, tmp_path)) == "", "SQLite follows links"
    again = named_twice(file, tmp_path)
    for path in (file, again):
        assert f"{path} has 2 names (hard links)" in names_warning(path)
