"""A well-behaved client beside others that are not: it watches, changes, and notes for how much work of others it has to wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.wire.raw_client import RawClient, adding, raw_client
from tests.wire.running_server import RunningServer

PATIENCE = 25.0
"""Seconds that a change may take at most: a machine that others use too stands still for several."""
TICKS = os.sysconf("SC_CLK_TCK")


class Neighbour:
    """Goes on until it is told to stop.

    `waits` are the seconds that the server was at work until each of its changes was answered and shown, on whatever: a machine
    that stands still does not count, who keeps the server busy does.
    """

    def __init__(self, client: RawClient, server: RunningServer) -> None:
        self._client, self._server, self._stop = client, server, threading.Event()
        self.waits: list[float] = []
        self.error: BaseException | None = None
        self._name = uuid4().hex[:8]
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        client, name = self._client, self._name
        try:
            client.connect()
            client.modify(adding(0, "board:total", names=[name]))
            client.hear_value(0, 0)
            while not self._stop.is_set():
                number = len(self.waits) + 1
                started, worked = time.monotonic(), seconds_of_work(self._server)
                client.mutation(number, "board:change", changes=[{"do": "add", "name": name, "by": 1}])
                client.hear_value(0, number)
                self.waits.append(seconds_of_work(self._server) - worked)
                assert time.monotonic() - started < PATIENCE
                self._stop.wait(0.01)
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def goes_on(self) -> bool:
        """Whether another of its changes is answered."""
        before, deadline = len(self.waits), time.monotonic() + PATIENCE
        while len(self.waits) == before and self.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(self.waits) > before

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        if self.error is not None:
            raise self.error
        assert not self._thread.is_alive()


def seconds_of_work(server: RunningServer) -> float:
    """The processor's time that the server has had so far."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def neighbour(server: RunningServer) -> Iterator[Neighbour]:
    """Somebody who uses the server meanwhile, and does so by now. What it met is raised when the block is left."""
    with raw_client(server.url, ping_interval=None) as client:
        living = Neighbour(client, server)
        try:
            assert living.goes_on()
            yield living
        finally:
            living.stop()
