"""The connections that read: as many as there may be, taken again by whoever comes next, and none left in a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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


@contextmanager
def opened(proxy: Proxy, postgres_url: str, patience: float) -> Iterator[PostgresStorage]:
    """With two readers."""
    storage = open_storage(proxy.url(postgres_url), create=True, readers=2, patience=patience)
    yield storage
    proxy.resume()
    storage.close()


@pytest.fixture
def storage(proxy: Proxy, postgres_url: str) -> Iterator[PostgresStorage]:
    with opened(proxy, postgres_url, PATIENCE) as storage:
        yield storage


@pytest.fixture
def impatient(proxy: Proxy, postgres_url: str) -> Iterator[PostgresStorage]:
    """Waits for a reader for a second only."""
    with opened(proxy, postgres_url, 1.0) as storage:
        yield storage


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

    wait_until(lambda: in_transactions(postgres_url)[0] <= 2)  # also the one that made the tables leaves


def test_a_snapshot_that_is_closed_ends_its_transaction_though_nobody_takes_the_connection(
    storage: PostgresStorage, postgres_url: str
) -> None:
    snapshots = storage.snapshots(2)
    wait_until(lambda: in_transactions(postgres_url) == (2, 2))
    for snapshot in snapshots:
        snapshot.close()

    wait_until(lambda: in_transactions(postgres_url) == (2, 0))


def test_closing_waits_for_nothing_and_a_silent_reader_is_replaced(
    storage: PostgresStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = storage.snapshots(2)
    for connection in proxy.connections:
        connection.stall()
    with monkeypatch.context() as answers_come_late:
        answers_come_late.setattr(connections, "ANSWER_SECONDS", 2 * PATIENCE)
        began = time.monotonic()
        first.close()
        second.close()
        assert time.monotonic() - began < PATIENCE

    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.3)
    for snapshot in storage.snapshots(2):
        snapshot.close()


def test_who_meets_silence_everywhere_is_told_in_time(
    impatient: PostgresStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: can_be_read(impatient))
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.3)
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(DatabaseUnreachableError):
        impatient.snapshot()
    assert time.monotonic() - began < PATIENCE

    proxy.resume()
    wait_until(lambda: can_be_read(impatient))


def can_be_read(storage: PostgresStorage) -> bool:
    try:
        storage.snapshot().close()
    except DatabaseUnreachableError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def test_who_waits_for_a_connection_gets_one_that_is_given_back(postgres: Cluster, postgres_url: str) -> None:
    """Where PostgreSQL gives fewer connections than there may be, nobody is passed over by those who come later."""
    postgres.sql("CREATE ROLE few LOGIN CONNECTION LIMIT 2")
    words = connections.connection_words(postgres_url.replace("postgres@", "few@"))
    guard = Patience()
    pool = ReaderPool(words, guard, limit=3, patience=2 * PATIENCE)
    try:
        taken = [pool.take(begin)[0] for _ in range(2)]
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(pool.take, begin)
            time.sleep(0.5)
            assert not waiting.done()
            pool.give_back(taken.pop())
            taken.append(waiting.result(PATIENCE)[0])
        for connection in taken:
            pool.give_back(connection)
    finally:
        pool.close()
        guard.close()
        postgres.sql("DROP ROLE few")


def begin(connection: connections.Connection) -> object:
    return last_value(connection, "BEGIN; SELECT 1")
