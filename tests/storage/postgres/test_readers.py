"""The connections that read: as many as there may be, taken again by whoever comes next, and none left in a transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from camber.errors import DatabaseUnreachableError
from camber.storage.postgres import connections
from camber.storage.postgres.connections import Patience, ReaderPool
from camber.storage.postgres.statements import last_value
from camber.storage.postgres.storage import PostgresStorage, open_storage
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Proxy

PATIENCE = 30.0


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def storage(proxy: Proxy, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStorage]:
    """With two readers."""
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.3)
    storage = open_storage(proxy.url(postgres_url), create=True, readers=2, patience=3.0)
    yield storage
    proxy.resume()
    storage.close()


def in_transactions(url: str) -> tuple[int, int]:
    """How many connections of the storage there are, and how many of them are in a transaction."""
    with psycopg.connect(url, autocommit=True) as onlooker:
        found = onlooker.execute(
            "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in %') FROM pg_stat_activity"
            " WHERE application_name = 'camber' AND datname = current_database()"
        ).fetchone()
    assert found is not None
    return found


def test_many_who_open_snapshots_share_the_readers(storage: PostgresStorage, postgres_url: str) -> None:
    def look(_: int) -> None:
        storage.snapshot().close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(look, range(400)))

    there, _ = in_transactions(postgres_url)
    assert there <= 2


def test_a_snapshot_that_is_closed_ends_its_transaction_though_nobody_takes_the_connection(
    storage: PostgresStorage, postgres_url: str
) -> None:
    snapshots = storage.snapshots(2)
    assert in_transactions(postgres_url) == (2, 2)
    for snapshot in snapshots:
        snapshot.close()

    deadline = time.monotonic() + PATIENCE
    while in_transactions(postgres_url) != (2, 0):
        assert time.monotonic() < deadline


def test_closing_waits_for_nothing_and_a_silent_reader_is_replaced(
    storage: PostgresStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = storage.snapshots(2)
    for connection in proxy.connections:
        connection.stall()
    with monkeypatch.context() as answers_come_late:
        answers_come_late.setattr(connections, "ANSWER_SECONDS", 2.0)
        began = time.monotonic()
        first.close()
        second.close()
        assert time.monotonic() - began < 1.0

    for snapshot in storage.snapshots(2):
        snapshot.close()


def test_who_meets_silence_everywhere_is_told_in_time(storage: PostgresStorage, proxy: Proxy) -> None:
    storage.snapshot().close()
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(DatabaseUnreachableError):
        storage.snapshot()
    assert time.monotonic() - began < 3 * 3.0

    proxy.resume()
    storage.snapshot().close()


def test_who_waits_for_a_connection_gets_one_that_is_given_back(postgres: Cluster, postgres_url: str) -> None:
    """Where PostgreSQL gives fewer connections than there may be, nobody is passed over by those who come later."""
    postgres.sql("CREATE ROLE few LOGIN CONNECTION LIMIT 2")
    words = connections.connection_words(postgres_url.replace("postgres@", "few@"))
    guard = Patience()
    pool = ReaderPool(words, guard, limit=3, patience=20.0)
    try:
        taken = [pool.take(begin)[0] for _ in range(2)]
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(pool.take, begin)
            time.sleep(0.5)
            assert not waiting.done()
            pool.give_back(taken.pop())
            taken.append(waiting.result(5.0)[0])
        for connection in taken:
            pool.give_back(connection)
    finally:
        pool.close()
        guard.close()
        postgres.sql("DROP ROLE few")


def begin(connection: connections.Connection) -> object:
    return last_value(connection, "BEGIN; SELECT 1")
