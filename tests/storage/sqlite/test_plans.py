"""Every statement finds its rows through the index it is about, also when a user's tool has collected statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import apsw
import pytest

from camber.storage import BY_ID
from camber.storage.sqlite import open_storage
from camber.storage.sqlite.connections import open_reader
from camber.storage.sqlite.tables import TableSql
from tests.storage.people import PEOPLE, Person, commit, create_tables, inserting

SQL = TableSql(PEOPLE)
ONE_ROW = [SQL.get, SQL.delete, SQL.update(()), SQL.update((0, 1, 2)), SQL.clear_unique(2)]


@pytest.fixture(scope="module", params=["fresh", "analysed"])
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    folder = tmp_path_factory.mktemp("plans")
    with closing(open_storage(folder, create=True)) as storage:
        create_tables(storage, PEOPLE)
        commit(storage, *(inserting(Person(number, "everyone has this name")) for number in range(3000)))
    file = folder / "camber.sqlite3"
    if request.param == "analysed":
        tool = apsw.Connection(str(file))
        tool.execute("ANALYZE")
        tool.close()
    connection = open_reader(file, vfs=None).connection
    yield connection
    connection.close()


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    steps = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?")).fetchall()
    return [str(step[3]) for step in steps]


@pytest.mark.parametrize("number", SQL.orders)
def test_a_range_is_one_stretch_of_its_own_index(connection: apsw.Connection, number: int) -> None:
    index = "sqlite_autoindex_t10001_1" if number == BY_ID else f"t10001.k{number}"
    for sql in SQL.orders[number]:
        (step,) = plan(connection, sql)
        assert step.startswith("SEARCH t10001 USING ")
        assert f"INDEX {index} (" in step


def test_one_row_is_found_by_its_id(connection: apsw.Connection) -> None:
    for sql in ONE_ROW:
        assert plan(connection, sql) == ["SEARCH t10001 USING INDEX sqlite_autoindex_t10001_1 (id=?)"]
