"""PostgreSQL ends under load, in any way, and comes back: the servers live on, refuse what they can't do, and lose nothing.

`CAMBER_TORTURE_ROUNDS` says how often, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import time
from random import Random

import pytest

from tests.faults.fleet import Fleet
from tests.faults.load import SEED, load_on, only_long, rounds
from tests.postgres.cluster import Cluster

SECONDS_TO_GO_ON = 60.0

pytestmark = pytest.mark.torture


@pytest.fixture
def database(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.mark.parametrize("how", ["kill", "immediate", pytest.param("fast", marks=only_long)])
def test_servers_outlive_their_database(cluster: Cluster, fleet: Fleet, how: str) -> None:
    random = Random(SEED)
    with load_on(fleet) as load:
        for _ in range(2 * rounds(20)):
            time.sleep(random.uniform(0.0, 0.7))
            if how == "kill":
                cluster.kill()
            else:
                cluster.stop("immediate" if how == "immediate" else "fast")
            time.sleep(random.choice([0.0, 0.3, 2.0]))
            cluster.start()
            took = load.wait_for_writes(seconds=SECONDS_TO_GO_ON)
            print(f"after {took:.1f} s all answer again")  # noqa: T201
            assert all(server.process is not None and server.process.poll() is None for server in fleet.servers)
