"""A well-behaved client beside others that are not: it watches, changes, and notes how long it has to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from tests.wire.raw_client import RawClient, adding, raw_client


class Neighbour:
    """Goes on until it is told to stop; `waits` are the seconds until each of its changes was answered and shown."""

    def __init__(self, client: RawClient) -> None:
        self._client, self._stop = client, threading.Event()
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
                started = time.monotonic()
                client.mutation(number, "board:change", changes=[{"do": "add", "name": name, "by": 1}])
                client.hear_value(0, number)
                self.waits.append(time.monotonic() - started)
                self._stop.wait(0.01)
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        if self.error is not None:
            raise self.error
        assert not self._thread.is_alive()


@contextmanager
def neighbour(url: str) -> Iterator[Neighbour]:
    """Somebody who uses the server meanwhile. What it met is raised when the block is left."""
    with raw_client(url, ping_interval=None) as client:
        living = Neighbour(client)
        try:
            yield living
        finally:
            living.stop()
