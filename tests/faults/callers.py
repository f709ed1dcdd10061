"""Callers over HTTP: those who write and remember what they were told, and those who look whether it is there."""

from __future__ import annotations

import threading
import time
from collections import Counter
from random import Random

from tests.crashes.servers import HttpClient, Server
from tests.faults.fleet import Fleet
from tests.faults.ledger import Ledger

LONGEST_SECONDS = 50.0
"""After which a call that is not answered counts as hanging."""


class Caller:
    """Calls one server after another with hardly a pause, in a thread of its own, until told to stop.

    With `fresh_connections` each call has its own, so that none is lost on a connection that the server is about to close.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, name: str, random: Random) -> None:
        self.fleet, self.ledger, self.name, self.random = fleet, ledger, name, random
        self.fresh_connections = False
        self.pauses = [0.0, 0.0, 0.002, 0.01]
        """For how many seconds it waits after a call: one of these."""
        self.only: Server | None = None
        """The one server that it calls, if it shall call no other."""
        self.done: Counter[str] = Counter()
        """How many of its calls each server, by the name of its folder, has answered with a result."""
        self.longest = 0.0
        self._clients: dict[Server, HttpClient] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(2 * LONGEST_SECONDS)
            self.ledger.expect(not self._thread.is_alive(), f"{self.name} hangs")

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                server = self.only or self.fleet.any(self.random)
                if server not in self._clients:
                    self._clients[server] = self.fleet.client(server)
                client = self._clients[server]
                began = time.monotonic()
                if self._call(client, server):
                    self.done[server.data.name] += 1
                else:
                    time.sleep(0.02)
                if self.fresh_connections:
                    client.close()
                self.longest = max(self.longest, time.monotonic() - began)
                time.sleep(self.random.choice(self.pauses))
        except Exception as error:  # noqa: BLE001
            self.ledger.faults.append(f"{self.name} met {error!r}")
        finally:
            self.ledger.expect(self.longest < LONGEST_SECONDS, f"{self.name} waited for {self.longest:.0f} s")
            for client in self._clients.values():
                client.close()

    def _call(self, client: HttpClient, server: Server) -> bool:
        """Make one call; returns whether it was answered with a result."""
        raise NotImplementedError


class Writer(Caller):
    """Writes under its own name."""

    def _call(self, client: HttpClient, server: Server) -> bool:
        write = self.ledger.new_write(self.name, self.random)
        answer = client.call("ledger:write", write.args)
        write.reason = f"{server.data.name}: {answer.reason}" if answer.reason else ""
        if write.refuse:
            self.ledger.expect(answer.end != "done", f"{write.key} was not refused")
        else:
            is_down = answer.reason == "unreachable" or answer.reason[:2] == "50"
            expected = answer.end != "refused" or is_down or self.ledger.may_be_for_silence(answer.reason)
            self.ledger.expect(expected, f"{write.key} was refused by {server.data.name}: {answer.reason}")
        write.end = answer.end
        return answer.end == "done"


class Reader(Caller):
    """Asks any server for the numbers of any writer: all that was acknowledged before must be there."""

    def _call(self, client: HttpClient, server: Server) -> bool:
        writer = self.random.choice(list(self.ledger.writes) or ["nobody"])
        must = self.ledger.acknowledged(writer)
        answer = client.call("ledger:numbers", {"writer": writer}, query=True)
        if answer.end == "done":
            self.ledger.check_numbers(writer, answer.value, must, f"{self.name} asked {server.data.name}")
        return answer.end == "done"
