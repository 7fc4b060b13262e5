import pytest

from search.database import open_for_writing, storage_url
from search.mirror import Mirror
from search.plan import make_plan
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
