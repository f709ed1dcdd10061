"""A server of the board, and what can be seen of it from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.wire.running_server import REPOSITORY, RunningServer, running_server


@pytest.fixture(scope="module")
def board_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of tests/sync/app. When the tests of a module are over, it must have had no trouble."""
    application = REPOSITORY / "tests/sync/app"
    with running_server(application, tmp_path_factory.mktemp("board") / "data", env={"CAMBER_DEV": "1"}) as running:
        yield running
        assert running.process.poll() is None
    assert troubles(running.log) == []


EXPECTED = {"a function failed", "a client has seen a timestamp that this server does not know"}
"""What clients can bring about that say odd things."""


def troubles(log: Path) -> list[str]:
    """Lines of a server's log that tell of more than functions that failed."""
    return [line for line in log.read_text(errors="replace").splitlines() if line and _is_trouble(line)]


def _is_trouble(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return True
    return event["level"] in {"warning", "error", "critical"} and event["event"] not in EXPECTED


def open_sockets(server: RunningServer) -> int:
    """How many sockets the server has open."""
    found = 0
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            found += descriptor.readlink().name.startswith("socket:")
    return found


def resident_bytes(server: RunningServer) -> int:
    """How much memory the server has."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def comes_down_to(server: RunningServer, sockets: int, seconds: float = 60.0) -> bool:
    """Whether the server closes all sockets but so many."""
    deadline = time.monotonic() + seconds
    while open_sockets(server) > sockets:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
