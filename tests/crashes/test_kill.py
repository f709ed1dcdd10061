"""A server killed while it works: what it acknowledged is there when it starts again, what it refused is not, nothing is there by half.

`CAMBER_TORTURE_ROUNDS` says how often it is killed, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.crashes.campaign import Campaign
from tests.crashes.consistency import Contents, contents_of
from tests.crashes.servers import CROWDFUNDING, Server

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "5"))
SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
CALLERS = 6


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the crowdfunding application that has not been started yet."""
    server = Server(CROWDFUNDING, tmp_path / "data")
    yield server
    if server.process is not None:
        server.end(signal.SIGKILL)


@pytest.mark.torture
def test_a_killed_server_keeps_what_it_acknowledged(server: Server) -> None:
    random = Random(SEED)
    campaign = Campaign(CALLERS, random)
    for number in range(ROUNDS):
        if number % 5 == 0:  # the first time while it makes the folder
            kill_while_it_starts(server, random.uniform(0.2, 1.5))
        how = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
        work_until(how, server, campaign, random.uniform(0.0, 0.7))
        campaign.check(contents_of_copy(server.data))
        assert not campaign.surprises
    assert campaign.done

    server.start()
    server.wait_until_ready()
    assert server.end() == 0
    assert sorted(path.name for path in server.data.iterdir()) == ["camber.sqlite3", "lock", "secret"]
    campaign.check(contents_of(server.data))


def work_until(signal_number: signal.Signals, server: Server, campaign: Campaign, seconds: float) -> None:
    """Let the callers work for so long, then send the server this; a killed one leaves it to the next to find what is there."""
    server.start()
    server.wait_until_ready()
    clients = [server.client() for _ in campaign.workers]
    threads = campaign.start(clients, threading.Event())
    time.sleep(seconds)
    assert server.end(signal_number) == (0 if signal_number == signal.SIGTERM else -signal_number)
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()


def kill_while_it_starts(server: Server, seconds: float) -> None:
    server.start()
    time.sleep(seconds)
    server.end(signal.SIGKILL)


def contents_of_copy(folder: Path) -> Contents:
    """What a data folder holds, which is left as it is: opening it would bring what is in the WAL into the file."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    try:
        return contents_of(copy)
    finally:
        shutil.rmtree(copy)
