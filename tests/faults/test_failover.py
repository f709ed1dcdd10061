"""The leader of a PostgreSQL under Patroni is killed under load: its synchronous standby takes over, and nothing acknowledged is lost.

`CAMBER_TORTURE_ROUNDS` says how often, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.conftest import SERVERS
from tests.faults.fleet import Fleet
from tests.faults.load import SEED, load_on, rounds
from tests.postgres.patroni import PatroniCluster, is_installed, patroni_cluster

SECONDS_TO_GO_ON = 60.0

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not is_installed(), reason="patroni, etcd or PostgreSQL is not installed"),
]


@pytest.fixture(scope="module")
def patroni() -> Iterator[PatroniCluster]:
    with patroni_cluster() as patroni:
        yield patroni


@pytest.fixture
def fleet(patroni: PatroniCluster, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path, [patroni.new_database("ledger")] * SERVERS) as fleet:
        yield fleet


def test_a_standby_takes_over(patroni: PatroniCluster, fleet: Fleet) -> None:
    random = Random(SEED)
    with load_on(fleet) as load:
        for _ in range(rounds(10)):
            time.sleep(random.uniform(0.0, 1.0))
            former = patroni.kill_leader()
            patroni.wait_for_leader(other_than=former)
            took = load.wait_for_writes(seconds=SECONDS_TO_GO_ON)
            print(f"{took:.1f} s after there was a leader all answer again")  # noqa: T201
            patroni.restart(former)
            patroni.wait_for_leader(standbys=1)
            load.wait_for_writes(seconds=SECONDS_TO_GO_ON)
