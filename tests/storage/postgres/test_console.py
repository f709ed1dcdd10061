"""An operator's SQL on PostgreSQL gives what PostgreSQL itself writes, where it is neither a number, a truth value nor bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from camber.errors import StorageError
from camber.storage import Storage, open_storage
from tests.postgres.cluster import wait_until_waiting

PATIENCE = 30.0


@pytest.fixture
def storage(postgres_url: str, tmp_path: Path) -> Iterator[Storage]:
    with closing(open_storage(tmp_path, create=True, database_url=postgres_url)) as storage:
        yield storage


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("""'{"shelf": null, "n": 12345678901234567890}'::jsonb""", '{"n": 12345678901234567890, "shelf": null}'),
        ("""'{"b":  1}'::json""", '{"b":  1}'),
        ("ARRAY['a', 'b, c']", '{a,"b, c"}'),
        ("ROW(1, 'a')", "(1,a)"),
        ("'infinity'::timestamp", "infinity"),
        ("'12000-01-01'::date", "12000-01-01"),
        ("1.50::numeric", "1.50"),
        ("true", True),
        ("1::int2", 1),
        ("9223372036854775807", 9223372036854775807),
        ("5e-324::float8", 5e-324),
        ("'-infinity'::float8", -math.inf),
        ("'\\x00ff'::bytea", b"\x00\xff"),
        ("NULL::bytea", None),
        ("repeat('[', 2000) || repeat(']', 2000)", "[" * 2000 + "]" * 2000),
        ("(repeat('[', 2000) || repeat(']', 2000))::jsonb", "[" * 2000 + "]" * 2000),
    ],
)
def test_a_value_is_shown_as_postgresql_writes_it(storage: Storage, expression: str, value: object) -> None:
    assert storage.sql(f"SELECT {expression} AS it", limit=1, seconds=PATIENCE) == (("it",), [(value,)], False)


def test_whoever_waits_for_a_statement_holds_up_nobody_else(storage: Storage, postgres_url: str) -> None:
    """The statement waits for what only another thread of this process can let go of."""
    statement = "SELECT 1 FROM pg_advisory_xact_lock(1)"
    with ThreadPoolExecutor(1) as threads, psycopg.connect(postgres_url) as sql:
        sql.execute("SELECT pg_advisory_xact_lock(1)")
        waiting = threads.submit(storage.sql, statement, limit=1, seconds=PATIENCE)
        wait_until_waiting(postgres_url, statement)
        sql.rollback()
        assert waiting.result(2 * PATIENCE).rows == [(1,)]


def test_a_long_statement_is_sent_as_a_whole(storage: Storage) -> None:
    text = "a" * 20_000_000

    assert storage.sql(f"SELECT length('{text}')", limit=1, seconds=2 * PATIENCE).rows == [(len(text),)]


def test_a_row_that_fails_after_others_fails_the_statement(storage: Storage) -> None:
    with pytest.raises(StorageError, match="division by zero"):
        storage.sql("SELECT 1 / (3 - n) FROM generate_series(1, 3) AS n", limit=10, seconds=PATIENCE)
