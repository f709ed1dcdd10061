"""The lock of the one server that changes the schema: it has it for as long as it is heard of, and whoever waits for it says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from camber.storage import IndexBuilder
from camber.storage.postgres import building
from camber.storage.postgres.building import SCHEMA_LOCK, PostgresIndexBuilder
from camber.storage.postgres.connections import connection_words

PATIENCE = 30.0


@pytest.fixture
def builder(postgres_url: str) -> IndexBuilder:
    return PostgresIndexBuilder(connection_words(postgres_url))


@pytest.fixture
def other(postgres_url: str) -> IndexBuilder:
    """Another server's."""
    return PostgresIndexBuilder(connection_words(postgres_url))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def patch(monkeypatch: pytest.MonkeyPatch, *, silent: float = 30.0, word: float = 5.0, complaint: float = 5.0) -> None:
    """After how long of silence the lock is lost, how often who has it says a word, and after how long who waits says so."""
    monkeypatch.setattr(building, "SILENT_SECONDS", silent)
    monkeypatch.setattr(building, "_WORD_SECONDS", word)
    monkeypatch.setattr(building, "_COMPLAINT_SECONDS", complaint)


def had_at(builder: IndexBuilder) -> float:
    """Wait for the lock and let go of it; the moment at which it was had."""
    with builder.alone(wait=True) as is_alone:
        assert is_alone
        return time.monotonic()


def is_free(builder: IndexBuilder) -> bool:
    with builder.alone(wait=False) as is_alone:
        return is_alone


def wait_until_free(builder: IndexBuilder) -> None:
    """PostgreSQL takes the lock back when it comes to notice that whoever had it has left."""
    deadline = time.monotonic() + PATIENCE
    while not is_free(builder):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def holder(url: str) -> list[tuple[object, ...]]:
    """Who has the lock, and since when it has said nothing."""
    with psycopg.connect(url) as sql:
        return sql.execute(
            "SELECT pid, state_change FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (classid::bigint << 32) + objid::bigint = %s",
            (SCHEMA_LOCK,),
        ).fetchall()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "waiting until" in record.message]


def test_whoever_waits_gets_it_when_the_one_that_has_it_lets_go(
    builder: IndexBuilder, other: IndexBuilder, threads: ThreadPoolExecutor
) -> None:
    with builder.alone(wait=True) as is_alone:
        assert is_alone
        assert not is_free(other)
        waiting = threads.submit(had_at, other)
        time.sleep(0.5)
        let_go = time.monotonic()

    assert waiting.result(PATIENCE) > let_go
    wait_until_free(builder)


def test_whoever_has_it_and_says_nothing_loses_it(
    builder: IndexBuilder, other: IndexBuilder, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, silent=1.0, word=100.0)
    since = time.monotonic()
    with builder.alone(wait=True):
        assert threads.submit(had_at, other).result(PATIENCE) - since >= 1.0
        wait_until_free(other)  # for good


def test_whoever_has_it_and_is_heard_of_keeps_it(
    builder: IndexBuilder, other: IndexBuilder, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heard of is the very session whose silence PostgreSQL measures."""
    patch(monkeypatch, word=0.2)
    with builder.alone(wait=True):
        heard, deadline = set[tuple[object, ...]](), time.monotonic() + PATIENCE
        while len(heard) < 8:
            assert time.monotonic() < deadline, f"{len(heard)} words"
            assert not is_free(other)
            heard.update(holder(postgres_url))
            time.sleep(0.05)
        assert len({pid for pid, _ in heard}) == 1

    wait_until_free(other)


def test_one_whose_session_has_ended_lets_go_without_an_error(
    builder: IndexBuilder, other: IndexBuilder, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, word=0.1)
    with builder.alone(wait=True):
        with psycopg.connect(postgres_url, autocommit=True) as sql:
            sql.execute(
                "SELECT pg_terminate_backend(pid, 20000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND (classid::bigint << 32) + objid::bigint = %s",
                (SCHEMA_LOCK,),
            )
        assert is_free(other)
        time.sleep(0.5)  # it says its next word, and is not heard


def test_whoever_waits_for_it_says_so_once(
    builder: IndexBuilder,
    other: IndexBuilder,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "camber.storage")
    patch(monkeypatch, complaint=0.3)
    with builder.alone(wait=True):
        assert not is_free(other)
        assert not complaints(caplog)
        waiting = threads.submit(had_at, other)
        deadline = time.monotonic() + PATIENCE
        while not complaints(caplog):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(1.0)
        assert len(complaints(caplog)) == 1
    waiting.result(PATIENCE)

    assert complaints(caplog) == [
        "another server changes the schema or makes an index: waiting until it has done so",
    ]
