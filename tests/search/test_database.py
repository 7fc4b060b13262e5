import os
import resource
import sqlite3

import pytest
from instant import drive
from sqlalchemy import insert, text, update

from blocks.errors import StudyError
from search import tables
from search.database import checkpoint, open_for_reading, open_for_writing, shown, storage_url
from search.reading import read_studies, read_study, read_trials

OPTUNAS = {
    "studies", "trials", "version_info", "alembic_version", "study_directions",
    "study_user_attributes", "study_system_attributes", "trial_user_attributes",
    "trial_system_attributes", "trial_params", "trial_values", "trial_intermediate_values",
    "trial_heartbeats",
}  # fmt: skip


def test_no_table_can_clash_with_optunas():
    assert all(name.startswith("search_") for name in tables.metadata.tables)
    assert not OPTUNAS & set(tables.metadata.tables)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_keeps_nothing_is_refused(url):
    with pytest.raises(StudyError, match="keeps nothing"):
        storage_url(url)


@pytest.mark.parametrize("url", ["studies.db", "nosuch://x", "http://x/y"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(StudyError, match="no database URL"):
        storage_url(url)


def test_passwords_are_hidden():
    assert "secret" not in shown(storage_url("sqlite://user:secret@/x.db"))


def test_reading_makes_no_file(tmp_path):
    with pytest.raises(StudyError, match="no results yet"):
        open_for_reading(storage_url(f"sqlite:///{tmp_path}/studies.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "studies.db"
    file.write_text("this is a text, and long enough not to be taken for an empty database" * 20)
    before = file.read_bytes()
    for opener in (open_for_reading, open_for_writing):
        with pytest.raises(StudyError, match="cannot be opened"):
            opener(storage_url(f"sqlite:///{file}"))
    assert file.read_bytes() == before


def test_a_database_of_others_holds_no_studies(tmp_path):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE things (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StudyError, match="holds no studies of this tool"):
        open_for_reading(storage_url(f"sqlite:///{tmp_path}/other.db"))


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(StudyError, match="there is no folder"):
        open_for_writing(storage_url(f"sqlite:///{tmp_path}/no/studies.db"))


def test_a_newer_schema_is_refused(tmp_path):
    url = storage_url(f"sqlite:///{tmp_path}/studies.db")
    engine = open_for_writing(url)
    with engine.begin() as connection:
        connection.execute(update(tables.schema).values(version=99))
    engine.dispose()
    for opener in (open_for_reading, open_for_writing):
        with pytest.raises(StudyError, match="newer version of this tool.*schema 99"):
            opener(url)


def test_readers_cannot_write(opened, storage):
    drive(opened(trials=2))
    engine = open_for_reading(storage_url(storage))
    with (
        engine.connect() as connection,
        pytest.raises(Exception, match="readonly|read-only|attempt to write"),
    ):
        connection.execute(text("DELETE FROM search_trials"))
    engine.dispose()


def test_a_copy_of_the_one_file_is_whole_after_a_checkpoint(opened, storage, tmp_path):
    study = opened(trials=3)
    drive(study)
    checkpoint(study.store.engine)
    copy = tmp_path / "copy.db"
    copy.write_bytes((tmp_path / "studies.db").read_bytes())
    engine = open_for_reading(storage_url(f"sqlite:///{copy}"))
    (record,) = read_studies(engine)
    assert len(read_trials(engine, record.id)) == 3
    engine.dispose()


def test_a_log_that_cannot_be_moved_stays_beside_the_file(opened, storage, tmp_path):
    study = opened(trials=9)
    checkpoint(study.store.engine)
    drive(study)
    size = (tmp_path / "studies.db").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        checkpoint(study.store.engine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "studies.db-wal").stat().st_size > 0
    engine = open_for_reading(storage_url(storage))
    assert [t.state for t in read_trials(engine, study.id)] == ["complete"] * 9
    engine.dispose()
    checkpoint(study.store.engine)
    assert (tmp_path / "studies.db-wal").stat().st_size == 0


def test_a_read_only_folder_can_be_read(opened, storage, tmp_path):
    study = opened(trials=3)
    drive(study)
    checkpoint(study.store.engine)
    study.store.engine.dispose()
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "studies.db").write_bytes((tmp_path / "studies.db").read_bytes())
    (folder / "studies.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        engine = open_for_reading(storage_url(f"sqlite:///{folder}/studies.db"))
        (record,) = read_studies(engine)
        assert len(read_trials(engine, record.id)) == 3
        engine.dispose()
        if os.geteuid():  # root may write anywhere
            assert sorted(p.name for p in folder.iterdir()) == ["studies.db"]
    finally:
        folder.chmod(0o755)


def test_a_transaction_is_all_or_nothing(opened):
    study = opened(trials=2)
    drive(study)
    with pytest.raises(RuntimeError), study.store.transaction() as connection:
        connection.execute(insert(tables.provenance).values(digest="x", content={}))
        raise RuntimeError
    with study.store.engine.connect() as connection:
        found = connection.execute(text("SELECT 1 FROM search_provenance WHERE digest = 'x'"))
        assert found.first() is None


def test_the_database_itself_refuses_a_second_trial_of_a_pair(opened):
    study = opened(trials=3)
    drive(study)
    with pytest.raises(Exception, match="UNIQUE"), study.store.transaction() as connection:
        connection.execute(
            text("UPDATE search_trials SET candidate_digest = (SELECT candidate_digest FROM"
                 " search_trials WHERE number = 1) WHERE number = 2")
        )  # fmt: skip


def test_an_unknown_study_is_named_with_the_nearest(opened, storage):
    drive(opened(trials=1))
    engine = open_for_reading(storage_url(storage))
    with pytest.raises(StudyError, match="no study 'atention'. Did you mean 'attention'"):
        read_study(engine, "atention")
    assert read_study(engine, None).name == "attention"
    engine.dispose()
