"""A commit that a standby must have and none has: PostgreSQL may stop waiting for it, who asked for it is not told that it is done."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from camber import MutationCtx, define_schema, define_table, mutation, v
from camber.backend import Backend
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from tests.postgres.cluster import Cluster

PATIENCE = 30.0
WAITS = "wait_event = 'SyncRep'"
NOTES = define_table("notes", {"text": v.string()})


@mutation
def add(ctx: MutationCtx) -> float:
    ctx.db.insert(NOTES, {"text": "a"})
    return float(ctx.db.query(NOTES).count())


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def backend(cluster: Cluster, tmp_path: Path) -> Iterator[Backend]:
    application = application_of("replicated", define_schema(NOTES), {"notes:add": add})
    url = cluster.new_database()
    name = conninfo_to_dict(url)["dbname"]
    cluster.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")  # which Camber does not go by
    settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE)
    with closing(Backend.open(application, tmp_path, settings=settings, create=True)) as backend:
        yield backend


def demand_standby(cluster: Cluster, name: str) -> None:
    cluster.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    cluster.sql("SELECT pg_reload_conf()")


def wait_until_commits_wait(cluster: Cluster, threads: ThreadPoolExecutor) -> None:
    """PostgreSQL is only sent a signal when it is to read its settings again: by and by its processes do."""
    deadline = time.monotonic() + PATIENCE
    for number in itertools.count():
        probe = threads.submit(cluster.sql, f"CREATE TABLE probe{number} ()")
        while not probe.done():
            assert time.monotonic() < deadline, "no commit waits for a standby"
            if cluster.sql(f"SELECT 1 FROM pg_stat_activity WHERE {WAITS} AND query LIKE 'CREATE TABLE probe%'"):
                stop_waiting(cluster)
                probe.result(PATIENCE)
                return
            time.sleep(0.02)


def stop_waiting(cluster: Cluster) -> int:
    """As an operator does who wants an end of it; returns how many waited."""
    return len(cluster.sql(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {WAITS}"))


def test_whoever_stops_waiting_for_a_standby_acknowledges_nothing(cluster: Cluster, backend: Backend) -> None:
    def ask() -> bytes | None:
        return backend.run_sync("notes:add", b"{}", OPERATOR).value

    assert ask() == b"1.0"
    demand_standby(cluster, "nobody")
    with ThreadPoolExecutor(1) as threads:
        try:
            wait_until_commits_wait(cluster, threads)
            asked = threads.submit(ask)
            stopped, deadline = 0, time.monotonic() + PATIENCE
            while stopped <= 5:
                assert time.monotonic() < deadline, f"only {stopped} commits have waited for a standby"
                stopped += stop_waiting(cluster)
                assert not asked.done()
                time.sleep(0.02)
        finally:
            demand_standby(cluster, "")
        assert asked.result(PATIENCE) == b"2.0"
