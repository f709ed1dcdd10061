"""The cluster under Patroni that other tests rely on: an acknowledged row outlives the leader that acknowledged it.

`CAMBER_TORTURE=1` with `CAMBER_TORTURE_ROUNDS` says how often the leader is killed; otherwise once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres.patroni import PatroniCluster, is_installed, patroni_cluster

ROUNDS = min(5, int(os.environ.get("CAMBER_TORTURE_ROUNDS", "1"))) if "CAMBER_TORTURE" in os.environ else 1

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not is_installed(), reason="patroni, etcd or PostgreSQL is not installed"),
    # Its short form is the failover of tests/faults.
    pytest.mark.skipif("CAMBER_TORTURE" not in os.environ, reason="scripts/torture runs it"),
]


@pytest.fixture
def cluster() -> Iterator[PatroniCluster]:
    with patroni_cluster() as cluster:
        yield cluster


def test_what_was_acknowledged_outlives_the_leader(cluster: PatroniCluster) -> None:
    url = cluster.new_database("kept")
    acknowledged: list[int] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE numbers (number bigint PRIMARY KEY)")
    for _ in range(ROUNDS):
        write_some(url, acknowledged)
        former = cluster.kill_leader()
        began = time.monotonic()

        leader = cluster.wait_for_leader(other_than=former)
        print(f"{leader.name} leads after {time.monotonic() - began:.1f} s")  # noqa: T201

        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT number FROM numbers ORDER BY number").fetchall()
        assert [row[0] for row in rows] == acknowledged
        write_some(url, acknowledged)
        cluster.restart(former)
        cluster.wait_for_leader(standbys=1)
        assert former in cluster.synchronous_standbys()


def write_some(url: str, acknowledged: list[int]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(len(acknowledged), len(acknowledged) + 50):
            connection.execute("INSERT INTO numbers VALUES (%s)", [number])
            acknowledged.append(number)
