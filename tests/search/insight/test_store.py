import numpy as np
import pytest

from search import tables
from search.database import open_for_writing, storage_url
from search.insight.store import Insight, packed, read_insights, unpacked, write_insights
from search.reading import read_study, read_trials


@pytest.fixture
def engine(opened, storage):
    opened(trials=3)
    engine = open_for_writing(storage_url(storage))
    yield engine
    engine.dispose()


def test_what_is_written_is_read_and_replaced(engine):
    study = read_study(engine, None)
    trial = read_trials(engine, study.id)[0]
    arrays = {"stage1.map": np.arange(6, dtype=np.float16).reshape(2, 3)}
    size = write_insights(
        engine, trial.id, {"gates": Insight({"images": 4}, arrays), "maps": Insight({})}
    )
    found = read_insights(engine, study.id)
    assert list(found) == [trial.number]
    assert list(found[trial.number]) == ["gates", "maps"]
    kept = found[trial.number]["gates"]
    assert kept.content == {"images": 4}
    assert kept.created
    np.testing.assert_array_equal(kept.arrays["stage1.map"], arrays["stage1.map"])
    assert kept.arrays["stage1.map"].dtype == np.float16
    assert 0 < size < 1000
    write_insights(engine, trial.id, {"gates": Insight({"images": 5})})
    (again,) = read_insights(engine, study.id, trial.number).values()
    assert {kind: insight.content for kind, insight in again.items()} == {"gates": {"images": 5}}
    assert read_insights(engine, study.id, trial.number + 1) == {}


def test_a_database_without_the_table_has_none(engine):
    study = read_study(engine, None)
    tables.insights.drop(engine)
    assert read_insights(engine, study.id) == {}


def test_bytes_are_the_same_for_the_same_arrays_and_run_nothing():
    arrays = {"a": np.ones(3, dtype=np.uint8)}
    assert packed(arrays) == packed(arrays)
    with pytest.raises(ValueError, match="allow_pickle"):
        unpacked(packed({"a": np.array([print], dtype=object)}))
