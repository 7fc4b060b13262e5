import sqlite3

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from blocks.plain import Settled
from search import statements, tables
from search.database import open_for_writing, storage_url
from search.direct import DirectTransaction, begun

MADE = insert(tables.provenance)


@pytest.fixture
def engine(storage):
    engine = open_for_writing(storage_url(storage))
    yield engine
    engine.dispose()


def kept(engine):
    with engine.connect() as connection:
        return dict(connection.execute(select(tables.provenance)).all())


def test_what_goes_straight_to_the_driver_reads_back_as_sqlalchemys(engine):
    rows = [
        {"digest": "a", "content": {"x": [1, True, None], "é": 0.1}},
        {"digest": "b", "content": Settled(y=2)},
        {"digest": "c", "content": None},
    ]
    with begun(engine) as transaction:
        assert isinstance(transaction, DirectTransaction)
        transaction.execute_all(MADE, rows)
        transaction.execute_all(MADE, [])
        assert "connection" not in vars(transaction)  # SQLAlchemy's was not needed
    direct = kept(engine)
    with engine.begin() as connection:
        stored = connection.execute(text("SELECT content FROM search_provenance")).scalars().all()
        connection.execute(text("DELETE FROM search_provenance"))
        connection.execute(MADE, [{**row, "content": row["content"]} for row in rows])
    assert kept(engine) == direct == {"a": rows[0]["content"], "b": {"y": 2}, "c": None}
    with engine.begin() as connection:
        again = connection.execute(text("SELECT content FROM search_provenance")).scalars().all()
    assert stored == again  # to the letter


def test_both_ways_are_one_transaction(engine):
    with pytest.raises(RuntimeError), begun(engine) as transaction:
        transaction.execute(MADE, {"digest": "a", "content": 1})
        found = transaction.connection.execute(select(tables.provenance.c.digest)).scalars().all()
        assert found == ["a"]
        transaction.connection.execute(MADE, [{"digest": "b", "content": 1}])
        raise RuntimeError
    assert kept(engine) == {}
    with begun(engine) as transaction:
        transaction.connection.execute(MADE, [{"digest": "b", "content": 1}])
        transaction.execute(MADE, {"digest": "a", "content": 1})
    assert kept(engine) == {"a": 1, "b": 1}


def test_a_transaction_keeps_others_from_writing_from_its_beginning(engine, storage):
    other = sqlite3.connect(storage.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    with begun(engine), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_errors_are_sqlalchemys_and_take_the_transaction_back(engine):
    with pytest.raises(IntegrityError, match="UNIQUE"), begun(engine) as transaction:
        transaction.execute(MADE, {"digest": "a", "content": 1})
        transaction.execute(MADE, {"digest": "a", "content": 2})
    assert kept(engine) == {}
    with pytest.raises(OperationalError, match="readonly"), begun(engine) as transaction:
        transaction.run("PRAGMA query_only = ON")
        try:
            transaction.execute(MADE, {"digest": "a", "content": 1})
        finally:
            transaction.run("PRAGMA query_only = OFF")
    assert kept(engine) == {}


def test_rows_and_keys_come_back(engine):
    with begun(engine) as transaction:
        assert transaction.execute(MADE, {"digest": "a", "content": {"x": 1}}) == []
        found = select(tables.provenance.c.digest, tables.provenance.c.content)
        assert [tuple(row) for row in transaction.execute(found, {})] == [("a", '{"x": 1}')]
        owner = {"owner": "me", "started": "now", "seconds": 0.0, "devices": 1.0}
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):  # there is no such study
            transaction.add(insert(tables.runs), {"study_id": 7, **owner})
        wanted = {"study": 7, "wanted": 0}
        assert list(transaction.execute(statements.FIND_TRIAL, wanted)) == []
