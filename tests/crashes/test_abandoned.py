"""Functions that sleep for ever: the server gives up their threads, and after three of them starts anew, having lost nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crashes.campaign import LOST
from tests.crashes.consistency import contents_of
from tests.crashes.ledger import Answer
from tests.crashes.servers import Server, serving

APP = Path(__file__).parent / "app"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    env = {"CAMBER_DEV": "1", "CAMBER_MUTATION_SECONDS": "0.5", "CAMBER_QUERY_SECONDS": "0.5"}
    with serving(APP, tmp_path / "data", env=env) as server:
        yield server


def call(server: Server, path: str, name: str, *, query: bool = False) -> Answer:
    with server.client() as client:
        return client.call(path, {"name": name}, query=query)


def wait_until(server: Server, starts: int) -> None:
    """Wait until the process has begun to serve so often."""
    deadline = time.monotonic() + 60
    while server.printed.count('"serving"') < starts:
        assert time.monotonic() < deadline, server.printed
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["stuck:writeAndSleep", "stuck:sleep"])
def test_after_three_the_process_is_replaced_under_its_ports_and_number(server: Server, path: str) -> None:
    assert server.process is not None
    pid = server.process.pid
    assert call(server, "counters:increment", "kept").value == 1

    for number in range(3):
        ended = call(server, path, f"never {number}", query=path == "stuck:sleep")
        assert ended.end == "refused"
        assert "Function execution timed out (maximum duration: 0.5s)" in ended.reason
        if number < 2:
            assert server.readiness() == (200, "ready")
            assert call(server, "counters:increment", "kept").value == number + 2

    wait_until(server, starts=2)
    assert "3 functions did not stop when their time was over; restarting" in server.printed
    server.wait_until_ready()
    assert (server.process.pid, server.process.poll()) == (pid, None)
    assert call(server, "counters:increment", "kept").value == 4
    assert server.end() == 0
    assert [counter["name"] for counter in contents_of(server.data)["counters"]] == ["kept"]


def test_others_who_call_meanwhile_lose_nothing(server: Server) -> None:
    """Five go on counting while three sleepers bring the server down; what they were told is what is there."""
    stop, lock = threading.Event(), threading.Lock()
    told: list[int] = []

    def count() -> int:
        """How many calls it is not known of whether they counted."""
        unknown = 0
        with server.client() as client:
            while not stop.is_set():
                answer = client.call("counters:increment", {"name": "busy"})
                if answer.end == "done":
                    with lock:
                        told.append(answer.value)
                elif answer.end == "unknown":
                    unknown += 1
                else:
                    assert answer.reason in LOST
                    time.sleep(0.01)
        return unknown

    with ThreadPoolExecutor(5) as threads:
        counting = [threads.submit(count) for _ in range(5)]
        try:
            for number in range(3):
                call(server, "stuck:writeAndSleep", f"never {number}")
            wait_until(server, starts=2)
            server.wait_until_ready()
            time.sleep(0.3)
        finally:
            stop.set()
        unknown = sum(future.result() for future in counting)

    assert len(set(told)) == len(told)
    value = call(server, "counters:value", "busy", query=True).value
    assert max(told) <= value <= len(told) + unknown
    assert server.end() == 0
    assert [counter["name"] for counter in contents_of(server.data)["counters"]] == ["busy"]
