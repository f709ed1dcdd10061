"""Servers that end under load, killed or asked to: the others go on, and no answer that was given proves to be wrong.

`CAMBER_TORTURE_ROUNDS` says how often, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from tests.crashes.consistency import contents_of
from tests.crashes.servers import Server
from tests.faults.fleet import Fleet
from tests.faults.load import SEED, load_on, only_long, rounds

SECONDS_TO_GO_ON = 30.0
"""Also after silence: a lock whose holder is silent is given up after some seconds."""

pytestmark = pytest.mark.torture


def test_a_killed_server_takes_nothing_with_it(fleet: Fleet) -> None:
    random = Random(SEED)
    with load_on(fleet) as load:
        for _ in range(2 * rounds(30)):
            killed = random.choice(fleet.servers)
            time.sleep(random.uniform(0.0, 0.5))
            killed.end(signal.SIGKILL)
            others = [server for server in fleet.servers if server is not killed]
            load.wait_for_writes(of=others, seconds=SECONDS_TO_GO_ON)
            fleet.restart(killed)
            load.wait_for_writes()


@only_long
def test_all_are_killed_at_once(fleet: Fleet, database: str) -> None:
    """What they leave behind agrees with itself: every document, key and time."""
    random = Random(SEED)
    with load_on(fleet) as load:
        for _ in range(rounds(20)):
            time.sleep(random.uniform(0.0, 0.5))
            for server in fleet.servers:
                server.end(signal.SIGKILL)
            fleet.start()
            load.wait_for_writes()
    fleet.stop()
    contents = contents_of(fleet.servers[0].data, database_url=database)
    assert len(contents["entries"]) == sum(tally["entries"] for tally in contents["tallies"])


def test_of_a_server_that_is_asked_to_stop_every_answer_is_known(fleet: Fleet) -> None:
    """It refuses connections, or answers: nothing that it took is left without an answer."""
    random = Random(SEED)
    with load_on(fleet, fresh_connections=True) as load:
        for _ in range(2 * rounds(30)):
            stopped = random.choice(fleet.servers)
            time.sleep(random.uniform(0.2, 0.7))
            assert stopped.end(signal.SIGTERM) == 0, stopped.printed[-4000:]
            load.wait_for_writes(of=[server for server in fleet.servers if server is not stopped])
            fleet.restart(stopped)
            load.wait_for_writes(of=[stopped])
        load.stop()
        unknown = [write for writes in load.ledger.writes.values() for write in writes if write.end == "unknown"]
        assert not unknown, [(write.key, write.reason) for write in unknown]
        load.start()


def test_a_server_that_freezes_holds_nobody_up(fleet: Fleet) -> None:
    """As where a machine is paused: its connections stay open, and when it goes on it believes that no time has passed."""
    random = Random(SEED)
    with load_on(fleet) as load:
        load.let_each_writer_stay()
        for _ in range(rounds(20)):
            frozen = random.choice(fleet.servers)
            time.sleep(random.uniform(0.2, 0.7))
            with frozen_process(frozen):
                others = [server for server in fleet.servers if server is not frozen]
                load.wait_for_writes(10, of=others, seconds=SECONDS_TO_GO_ON)
                time.sleep(random.choice([0.0, 3.0, 10.0]))
            load.wait_for_writes(of=[frozen])


@contextmanager
def frozen_process(server: Server) -> Iterator[None]:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)
