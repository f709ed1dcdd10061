"""The load that the tests with several servers use, on SQLite: it finds nothing where all is well, and what is wrong elsewhere.

`CAMBER_TORTURE_ROUNDS` says how often the server is killed, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from random import Random

import pytest

from tests.faults.fleet import Fleet
from tests.faults.load import SEED, load_on, rounds

pytestmark = pytest.mark.torture


def test_a_killed_server_keeps_its_word(tmp_path: Path) -> None:
    random = Random(SEED)
    with Fleet(tmp_path, [None]) as fleet, load_on(fleet) as load:
        for number in range(rounds(20) * 2):
            time.sleep(random.uniform(0.2, 1.0))
            how = signal.SIGTERM if number % 2 else signal.SIGKILL
            assert fleet.servers[0].end(how) == (0 if how == signal.SIGTERM else -how), fleet.printed
            fleet.restart(fleet.servers[0])
            load.wait_for_writes()


def test_servers_that_share_nothing_are_found_out(tmp_path: Path) -> None:
    with (
        Fleet(tmp_path, [None, None]) as fleet,
        pytest.raises(AssertionError, match="were acknowledged and are not there"),
        load_on(fleet) as load,
    ):
        load.wait_for_writes(1_000_000)  # so many there can't be before it is found out


def test_a_server_that_forgets_is_found_out(tmp_path: Path) -> None:
    with Fleet(tmp_path, [None]) as fleet, pytest.raises(AssertionError, match="are not there|are gone|is lost"):
        forget_some(fleet)


def forget_some(fleet: Fleet) -> None:
    """The server goes on from older data, at later timestamps."""
    (server,) = fleet.servers
    older = server.data.with_name("older")
    with load_on(fleet) as load:
        load.stop()
        server.end()
        shutil.copytree(server.data, older)
        fleet.restart(server)
        load.start()
        load.wait_for_writes(30)
        server.end()
        shutil.rmtree(server.data)
        shutil.copytree(older, server.data)
        fleet.restart(server)
        load.wait_for_writes(30)
