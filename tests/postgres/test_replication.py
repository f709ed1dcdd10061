"""A commit that a standby must have and none has: PostgreSQL may stop waiting for it, who asked for it is not told that it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from camber import MutationCtx, define_schema, define_table, mutation, v
from camber.backend import Backend
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from tests.postgres.cluster import Cluster

PATIENCE = 30.0
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
    settings = Settings(dev=True, database_url=cluster.new_database())
    with closing(Backend.open(application, tmp_path, settings=settings, create=True)) as backend:
        yield backend


def demand_standby(cluster: Cluster, name: str) -> None:
    cluster.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    cluster.sql("SELECT pg_reload_conf()")


def stop_waiting(cluster: Cluster) -> int:
    """As an operator does who wants an end of it; returns how many waited."""
    return len(cluster.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))


def test_whoever_stops_waiting_for_a_standby_acknowledges_nothing(cluster: Cluster, backend: Backend) -> None:
    def ask() -> bytes | None:
        return backend.run_sync("notes:add", b"{}", OPERATOR).value

    assert ask() == b"1.0"
    demand_standby(cluster, "nobody")
    with ThreadPoolExecutor(1) as threads:
        try:
            asked = threads.submit(ask)
            stopped, until = 0, time.monotonic() + 3.0
            while time.monotonic() < until:
                stopped += stop_waiting(cluster)
                assert not asked.done()
                time.sleep(0.02)
            assert stopped > 3
        finally:
            demand_standby(cluster, "")
        assert asked.result(PATIENCE) == b"2.0"
