"""PostgreSQL ends somebody who waits in a circle with others: whoever that is, nobody is refused for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber import MutationCtx, define_schema, define_table, mutation, v
from camber.backend import Backend
from camber.functions import application_of
from camber.identity import ANONYMOUS
from camber.settings import Settings
from camber.storage import Storage, Timestamp, open_storage
from camber.storage.postgres.writing import COMMIT_LOCK
from tests.postgres.cluster import Cluster, wait_until_waiting

PATIENCE = 60.0
READ = threading.Event()
GOES_ON = threading.Event()

NOTES = define_table("notes", {"text": v.string()})


@mutation
def add(ctx: MutationCtx) -> int:
    """How many there were before; where somebody wants to come between, it waits for that."""
    before = len(ctx.db.query(NOTES).collect())
    READ.set()
    GOES_ON.wait(PATIENCE)
    ctx.db.insert(NOTES, {"text": "a"})
    return before


@pytest.fixture
def impatient(postgres: Cluster, postgres_url: str) -> str:
    """A database whose servers look for circles; others do as they are told."""
    name = postgres_url.rpartition("/")[2]
    postgres.sql(f"ALTER DATABASE {name} SET deadlock_timeout = '2s'")
    return postgres_url


@contextmanager
def somebody(url: str) -> Iterator[psycopg.Connection[Any]]:
    """In a transaction of theirs, never the one that finds a circle."""
    with psycopg.connect(url) as connection:
        connection.execute("SET deadlock_timeout = '1h'; SET lock_timeout = '50s'; SET search_path = camber")
        connection.commit()
        yield connection
        connection.rollback()


def take_the_commit_lock(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (COMMIT_LOCK,))


def test_a_mutation_that_the_holder_of_the_commit_lock_waited_for_runs_again(impatient: str, tmp_path: Path) -> None:
    READ.clear()
    GOES_ON.clear()
    data = tmp_path / "data"
    storage = open_storage(data, create=True, database_url=impatient, handler_seconds=PATIENCE)
    application = application_of("notes", define_schema(NOTES), {"it:add": add})
    settings = Settings(dev=True, database_url=impatient, mutation_seconds=PATIENCE)
    with (
        closing(Backend(application, storage, data=data, settings=settings)) as backend,
        somebody(impatient) as other,
        ThreadPoolExecutor(2) as threads,
    ):
        ((table,),) = tables_of(impatient)
        adding = threads.submit(backend.run_sync, "it:add", b"{}", ANONYMOUS, kind="mutation")
        assert READ.wait(PATIENCE)
        take_the_commit_lock(other)
        changing = threads.submit(other.execute, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        wait_until_waiting(impatient, "LOCK TABLE")
        GOES_ON.set()
        changing.result(PATIENCE)
        other.rollback()

        outcome = adding.result(PATIENCE)

        assert (outcome.error, outcome.value) == (None, b"0.0")
        assert backend.run_sync("it:add", b"{}", ANONYMOUS, kind="mutation").value == b"1.0"


def test_the_timestamp_is_raised_where_others_have_waited_for_each_other(
    postgres: Cluster, impatient: str, tmp_path: Path
) -> None:
    with closing(
        open_storage(tmp_path / "data", create=True, database_url=impatient, handler_seconds=PATIENCE)
    ) as storage:
        deadline = time.monotonic() + PATIENCE
        while not is_raised_beside_a_circle(storage, postgres, impatient):
            assert time.monotonic() < deadline, "PostgreSQL has never found the circle"


def is_raised_beside_a_circle(storage: Storage, postgres: Cluster, impatient: str) -> bool:
    """Raise the timestamp; whether PostgreSQL has found a circle meanwhile, for which it looks but once: it may not be there by then."""
    found_before = circles_found(postgres, impatient)
    with (
        somebody(impatient) as holder,
        somebody(impatient) as reader,
        ThreadPoolExecutor(3) as threads,
    ):
        reader.execute("SELECT count(*) FROM commits")
        take_the_commit_lock(holder)
        to = Timestamp(time.time_ns() + 1_000_000_000)
        raising = threads.submit(storage.raise_timestamp, to)
        wait_until_waiting(impatient, "SET idle_session_timeout")
        waiting = threads.submit(take_the_commit_lock, reader)
        wait_until_waiting(impatient, "SELECT pg_advisory_xact_lock")
        changing = threads.submit(holder.execute, "LOCK TABLE commits IN ACCESS EXCLUSIVE MODE")
        wait_until_waiting(impatient, "LOCK TABLE")
        until = time.monotonic() + 3.0
        while not (is_found := circles_found(postgres, impatient) > found_before) and time.monotonic() < until:
            time.sleep(0.05)
        reader.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiting.result(PATIENCE)
        reader.rollback()
        changing.result(PATIENCE)
        holder.rollback()

        assert raising.result(PATIENCE) == to
    return is_found


def circles_found(postgres: Cluster, url: str) -> int:
    """In how many circles of this database PostgreSQL has ended somebody."""
    name = url.rpartition("/")[2]
    return sum("deadlock detected" in line and name in line for line in postgres.log.read_text().splitlines())


def test_tables_are_changed_also_where_somebody_always_waits_for_the_commit_lock_who_has_read_them(
    impatient: str, tmp_path: Path
) -> None:
    """As groups of busy servers do: they have read, and hold that up which has the lock, until they are ended."""
    data, stop = tmp_path / "data", threading.Event()
    storage = open_storage(data, create=True, database_url=impatient, handler_seconds=PATIENCE)
    settings = Settings(dev=True, database_url=impatient, mutation_seconds=PATIENCE)
    ended = 0

    def work(table: str) -> None:
        nonlocal ended
        with psycopg.connect(impatient) as connection:
            while not stop.is_set():
                try:
                    connection.execute(f"SELECT count(*) FROM camber.{table}".encode())
                    take_the_commit_lock(connection)
                    connection.commit()
                except psycopg.errors.DeadlockDetected:
                    ended += 1
                    connection.rollback()

    with (
        closing(
            Backend(application_of("notes", define_schema(NOTES), {}), storage, data=data, settings=settings)
        ) as backend,
        ThreadPoolExecutor(3) as threads,
    ):
        ((table,),) = tables_of(impatient)
        working = [threads.submit(work, table) for _ in range(3)]
        try:
            backend.reload_sync(application_of("notes", define_schema(NOTES.index("by_text", ["text"])), {}))
        finally:
            stop.set()
        for each in working:
            each.result(PATIENCE)

    assert ended > 0


def tables_of(url: str) -> list[Any]:
    """The names of the application's tables."""
    with psycopg.connect(url) as connection:
        asked = "SELECT tablename FROM pg_tables WHERE schemaname = 'camber' AND tablename LIKE 't1____'"
        return connection.execute(asked).fetchall()
