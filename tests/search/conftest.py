import secrets

import pytest
from postgres import NEEDED, is_needed, lacking, server
from sqlalchemy import create_engine, text

from search.database import open_for_writing, storage_url
from search.mirror import Mirror
from search.plan import make_plan
from search.sharing import sharing_of
from search.store import Store
from search.study import open_study


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture
def opened(storage):
    """Open a study as a fresh process would; all engines are disposed of at the end."""
    engines = []

    def open_(space="attention", *, url=None, **flags):
        plan = make_plan(space, storage=url or storage, **flags)
        engine = open_for_writing(storage_url(url or storage))
        engines.append(engine)
        return open_study(plan, Store(engine))[0]

    yield open_
    for engine in engines:
        engine.dispose()


@pytest.fixture
def mirrored():
    """Mirror a study into Optuna's tables, whole."""

    def mirror_(study, *, rebuild=False):
        mirror = Mirror(
            study.plan.storage,
            study.plan.study,
            study.objectives,
            caps=study.above_caps,
            distributions=study.mirrored_distributions(),
            lock=study.store.lock,
            trials=lambda: list(study.trials.values()),
        )
        mirror.start(rebuild=rebuild)
        mirror.changed()
        mirror.close()
        assert mirror.problem == ""

    return mirror_


@pytest.fixture(scope="session")
def postgres_server():
    """Gives the URL of a database by its name, on a server of this run."""
    if reason := lacking():
        if is_needed():
            pytest.fail(f"{reason}, and {NEEDED} is set")
        pytest.skip(reason)
    with server() as url_of:
        yield url_of


@pytest.fixture
def postgres(postgres_server, tmp_path, monkeypatch):
    """The URL of a fresh database; files go to this test's folder."""
    monkeypatch.chdir(tmp_path)
    name = f"test_{secrets.token_hex(6)}"
    url = postgres_server("postgres")  # a test may restart it
    engine = create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgres_server(name)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def parents(postgres):
    """Open a study as one more of its parents would, in this process."""
    opened, entered = [], []

    def parent(space="attention", **flags):
        plan = make_plan(space, storage=postgres, **flags)
        engine = open_for_writing(plan.storage)
        opened.append(engine)
        store = Store(engine)
        sharing = sharing_of(store, plan.study)
        with sharing.opening():
            study = open_study(plan, store, sharing)[0]
            sharing.enter(study)
        entered.append(sharing)
        return study

    yield parent
    for sharing in entered:
        sharing.leave("interrupted", "")
    for engine in opened:
        engine.dispose()
