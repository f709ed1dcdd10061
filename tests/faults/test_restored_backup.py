"""An older copy of the database is put back while clients live on: they are shown what is true now, at a later timestamp.

`CAMBER_TORTURE_ROUNDS` says how often, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.fleet import Fleet
from tests.faults.load import load_on, only_long, rounds
from tests.postgres.cluster import Cluster

pytestmark = pytest.mark.torture


@pytest.fixture
def database(cluster: Cluster) -> str:
    return cluster.new_database()


def copy(folder: Path, target: Path) -> None:
    """With its owner: PostgreSQL takes no other's."""
    subprocess.run(["cp", "-a", folder, target], check=True)


@pytest.mark.parametrize(
    "before_it",
    [pytest.param(True, id="servers are stopped", marks=only_long), pytest.param(False, id="servers run on")],
)
def test_clients_that_are_ahead_come_back_to_the_truth(cluster: Cluster, fleet: Fleet, before_it: bool) -> None:
    with load_on(fleet) as load:
        for _ in range(rounds(10)):
            backup = cluster.folder / uuid4().hex
            cluster.stop()
            copy(cluster.data, backup)
            cluster.start()
            load.wait_for_writes(30)
            load.stop()
            if before_it:
                fleet.stop()
            cluster.stop()
            shutil.rmtree(cluster.data)
            backup.rename(cluster.data)
            cluster.start()
            if before_it:
                fleet.start()
            load.set_back()
            load.start()
            load.wait_for_writes(30)
            load.stop()
            load.settle()
            load.start()
