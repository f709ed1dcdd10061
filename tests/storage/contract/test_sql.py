"""Every driver runs an operator's read-only SQL, within limits."""

from __future__ import annotations

import time

import pytest

from camber.errors import StorageError
from camber.storage import Storage
from tests.storage.people import Person, commit, everyone, inserting

PATIENCE = 30.0
PEOPLE_THERE = [Person(number, f"name {number}") for number in range(20)]


@pytest.fixture
def people(storage: Storage) -> Storage:
    commit(storage, *map(inserting, PEOPLE_THERE))
    return storage


def test_the_latest_state_is_read(people: Storage) -> None:
    assert people.sql("SELECT count(*) AS n FROM people", limit=1, seconds=PATIENCE) == (("n",), [(20,)], False)
    commit(people, inserting(Person(20, "new")))
    assert people.sql("SELECT count(*) FROM people", limit=1, seconds=PATIENCE).rows == [(21,)]


def test_a_semicolon_and_a_comment_may_follow(people: Storage) -> None:
    assert people.sql("SELECT 1 AS one; -- done\n", limit=1, seconds=PATIENCE) == (("one",), [(1,)], False)


def test_columns_are_named_where_there_are_no_rows(people: Storage) -> None:
    assert people.sql("SELECT _id, name FROM people WHERE 1 = 0", limit=5, seconds=PATIENCE) == (
        ("_id", "name"),
        [],
        False,
    )


@pytest.mark.parametrize(("limit", "more"), [(0, True), (19, True), (20, False), (21, False)])
def test_rows_above_the_limit_are_only_hinted_at(people: Storage, limit: int, more: bool) -> None:
    result = people.sql("SELECT name FROM people", limit=limit, seconds=PATIENCE)

    assert (len(result.rows), result.more) == (min(limit, 20), more)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM t10001",
        "INSERT INTO commits VALUES (1, '', '')",
        "UPDATE commits SET token = ''",
        "CREATE TABLE mine (a int)",
        "CREATE TEMP TABLE mine (a int)",
        "DROP VIEW people",
        "BEGIN",
        "WITH gone AS (SELECT id FROM t10001) DELETE FROM t10001 WHERE id IN (SELECT id FROM gone)",
    ],
)
def test_whatever_would_write_is_refused(people: Storage, statement: str) -> None:
    with pytest.raises(StorageError, match="only statements that read"):
        people.sql(statement, limit=5, seconds=PATIENCE)

    assert len(everyone(people)) == len(PEOPLE_THERE)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nmae FROM people", "nmae"),
        ("SELECT * FROM persons", "persons"),
        ("", "no SQL statement"),
        ("-- nothing", "no SQL statement"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT 1; DELETE FROM t10001", "only statements that read|one statement"),
    ],
)
def test_what_is_wrong_with_a_statement_is_said(people: Storage, statement: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        people.sql(statement, limit=5, seconds=PATIENCE)


def test_a_statement_that_takes_too_long_is_ended(people: Storage) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"

    with pytest.raises(StorageError, match=r"longer than 0.2 s"):
        people.sql(endless, limit=5, seconds=0.2)


def test_comments_in_any_number_are_read_at_once(people: Storage) -> None:
    started = time.monotonic()

    assert people.sql("/**/" * 400 + "SELECT 1", limit=1, seconds=PATIENCE).rows == [(1,)]
    assert people.sql("-- one\n/* two */ " * 400 + "SELECT 1", limit=1, seconds=PATIENCE).rows == [(1,)]

    assert time.monotonic() - started < PATIENCE


def test_a_result_of_many_small_values_is_bounded_too(people: Storage) -> None:
    row = ", ".join(f"{number}" for number in range(100))
    endless = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000) SELECT {row} FROM n"

    with pytest.raises(StorageError, match="64 MiB: select less"):
        people.sql(endless, limit=1_000_000, seconds=4 * PATIENCE)
