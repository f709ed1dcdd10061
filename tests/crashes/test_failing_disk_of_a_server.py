"""`camber serve` on a disk that fails: what callers are told, what becomes of the process, and what is there afterwards."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Client
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.crashes.campaign import Campaign
from tests.crashes.consistency import contents_of
from tests.crashes.engines import opened
from tests.crashes.servers import CROWDFUNDING, PATIENCE, Server, serving
from tests.wire.running_server import REPOSITORY

CALLERS = 24


class Orders:
    """What the disk under a server is told to do."""

    def __init__(self, place: Path) -> None:
        self._connection = Client(str(place), "AF_UNIX")

    def __call__(self, order: str, *arguments: Any) -> None:
        self._connection.send((order, *arguments))
        assert self._connection.recv() == "done"

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def survived(tmp_path: Path) -> Path:
    """The data folder as a crash of the machine leaves it, once the server has ended."""
    return tmp_path / "survived"


@pytest.fixture
def server(tmp_path: Path, survived: Path) -> Iterator[Server]:
    """A server on such a disk, with a campaign that has not begun."""
    opened(tmp_path / "data").close()
    env = {
        "CAMBER_TEST_ORDERS": str(tmp_path / "orders"),
        "CAMBER_TEST_SURVIVED": str(survived),
        "PYTHONPATH": str(REPOSITORY),
    }
    program = (sys.executable, REPOSITORY / "tests/crashes/on_faulty_disk.py")
    with serving(CROWDFUNDING, tmp_path / "data", env=env, program=program) as server:
        yield server


@pytest.fixture
def disk(server: Server, tmp_path: Path) -> Iterator[Orders]:
    orders = Orders(tmp_path / "orders")
    yield orders
    orders.close()


def backer(username: str) -> dict[str, object]:
    return {"username": username, "accessCode": "A1", "tier": "Gold"}


def test_a_full_disk_is_a_refusal_and_the_server_goes_on(server: Server, disk: Orders, survived: Path) -> None:
    with server.client() as client:
        assert client.call("crowdfundingBackers:addBacker", backer("ada")).end == "done"
        disk("capacity", "as it is")

        refused = client.call("crowdfundingBackers:addBacker", backer("bob"))

        assert (refused.end, refused.reason) == ("refused", "503 DiskFull")
        assert client.call("appState:get", {}, query=True).value == {"crowdfundingActive": False}
        assert server.readiness() == (200, "ready")
        disk("capacity", "endless")
        assert client.call("crowdfundingBackers:addBacker", backer("eve")).end == "done"
    assert server.end(signal.SIGTERM) == 0
    assert [backer["username"] for backer in contents_of(survived)["crowdfunding_backers"]] == ["ada", "eve"]


def test_an_error_in_commit_ends_the_process_and_nobody_is_told_that_it_failed(
    server: Server, disk: Orders, survived: Path, tmp_path: Path
) -> None:
    campaign = Campaign(CALLERS, Random(1))
    clients = [server.client() for _ in campaign.workers]
    threads = campaign.start(clients, threading.Event())
    time.sleep(0.5)
    disk("fail_next_sync")
    for thread in threads:
        thread.join(PATIENCE)
    code = server.wait()
    for client in clients:
        client.close()

    assert code == 1
    assert "whether it is stored is not known" in server.printed
    assert "503 CommitUnknown" in [worker.last.reason for worker in campaign.workers]
    assert not campaign.surprises
    campaign.check(contents_of(survived))
    shutil.copyfile(server.data / "secret", survived / "secret")
    with serving(CROWDFUNDING, survived) as again, again.client() as client:
        assert client.call("crowdfundingBackers:addBacker", backer("ada")).end == "done"
