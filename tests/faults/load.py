"""A load on a fleet: writers, readers and live clients at work, until they stop and everything is compared."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from tests.crashes.servers import Server
from tests.faults.callers import Caller, Reader, Writer
from tests.faults.fleet import Fleet
from tests.faults.ledger import Ledger, State
from tests.faults.witness import Sightings, Witness

SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
IS_LONG = "CAMBER_TORTURE" in os.environ
"""Whether this is the long form of the tests."""
only_long = pytest.mark.skipif(not IS_LONG, reason="scripts/torture runs it")
WRITERS, READERS, WITNESSES = 4, 1, 4
PATIENCE = 60.0
"""Seconds in which a fleet that is whole again must have answered everybody and shown the truth to everybody."""


def rounds(most: int) -> int:
    """How often a test does what it does: once with the other tests, and `most` times at most under scripts/torture."""
    return min(most, int(os.environ.get("CAMBER_TORTURE_ROUNDS", "1"))) if IS_LONG else 1


class Load:
    """Callers and live clients. They work from `start` to `stop`; `settle` then compares all that they know with what is there."""

    def __init__(self, fleet: Fleet, random: Random) -> None:
        self.fleet, self.ledger = fleet, Ledger()
        self.writers = [self._caller(Writer, f"writer {number}", random) for number in range(WRITERS)]
        self.readers = [self._caller(Reader, f"reader {number}", random) for number in range(READERS)]
        names = [f"witness {number}" for number in range(WITNESSES)]
        self.witnesses = [
            Witness(fleet, self.ledger, name, [name, self.writers[number % WRITERS].name], Random(random.random()))
            for number, name in enumerate(names)
        ]
        self.transitions = 0
        self._sightings = Sightings(self.ledger)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stop = asyncio.Event()
        self._lives: list[Future[None]] = []

    def _caller(self, kind: type[Caller], name: str, random: Random) -> Caller:
        return kind(self.fleet, self.ledger, name, Random(random.random()))

    @property
    def callers(self) -> list[Caller]:
        return [*self.writers, *self.readers]

    # Working

    def start(self) -> None:
        self._stop = asyncio.Event()
        self._lives = [self._run(witness.live(self._stop)) for witness in self.witnesses]
        for caller in self.callers:
            caller.start()

    def stop(self) -> None:
        """Let everybody end what they do. Their last calls may hang as long as a call may."""
        for caller in self.callers:
            caller.ask_to_stop()
        self._loop.call_soon_threadsafe(self._stop.set)
        for caller in self.callers:
            caller.join()
        for life in self._lives:
            life.result(2 * PATIENCE)
        self._lives = []

    def let_each_writer_stay(self) -> None:
        """Each calls one server only, so that not all of them wait for the same one; returns when the last calls to others have ended.

        One live client comes to the first server and stays too, so that there is always something to be shown there.
        """
        self.witnesses[0].only = self.fleet.servers[0]
        self._run(self.witnesses[0].go(rudely=False)).result(PATIENCE)
        homes = [self.fleet.servers[number % len(self.fleet.servers)] for number in range(len(self.writers))]
        before = [writer.done[home.data.name] for writer, home in zip(self.writers, homes, strict=True)]
        for writer, home in zip(self.writers, homes, strict=True):
            writer.only = home
        deadline = time.monotonic() + PATIENCE
        for writer, home, count in zip(self.writers, homes, before, strict=True):
            while writer.done[home.data.name] == count:
                assert time.monotonic() < deadline, f"{writer.name} gets no answer from {home.data.name}"
                time.sleep(0.02)

    def done_by(self, server: Server) -> int:
        """How many writes over HTTP this server has acknowledged."""
        return sum(writer.done[server.data.name] for writer in self.writers)

    def wait_for_writes(self, count: int = 10, *, of: list[Server] | None = None, seconds: float = PATIENCE) -> float:
        """Wait until each of these servers (all, unless it is said) has acknowledged so many more writes; returns the seconds."""
        servers = self.fleet.servers if of is None else of
        began, before = time.monotonic(), Counter({server.data.name: self.done_by(server) for server in servers})
        while behind := [server for server in servers if self.done_by(server) < before[server.data.name] + count]:
            if time.monotonic() - began > seconds:
                names = [server.data.name for server in behind]
                raise AssertionError(f"{names} acknowledged too little for {seconds:.0f} s\n{self.fleet.printed}")
            self._raise_faults()
            time.sleep(0.02)
        return time.monotonic() - began

    def wait_for_reads(self) -> None:
        """Wait until everybody who reads has been answered."""
        deadline = time.monotonic() + PATIENCE
        while not all(reader.done.total() for reader in self.readers):
            assert time.monotonic() < deadline, f"somebody who reads is never answered\n{self.fleet.printed}"
            self._raise_faults()
            time.sleep(0.02)

    # Comparing

    def settle(self) -> State:
        """Nobody works any more and every server runs: all must agree on what is there, and it must be what they were told."""
        deadline = time.monotonic() + PATIENCE
        self._wait_until(deadline, self._unanswered)
        states = [self.state(server) for server in self.fleet.servers]
        for server, state in zip(self.fleet.servers, states, strict=True):
            self.ledger.expect(state == states[0], f"{server.data.name} shows something else than the first server")
        self.ledger.find(states[0])
        self._wait_until(deadline, lambda: self._stale(states[0]))
        self.transitions += self._sightings.check(self.witnesses)
        self._raise_faults()
        return states[0]

    def set_back(self) -> None:
        """The data was put back to an earlier state, in which nobody has written yet: that counts from here on."""
        self.transitions += self._sightings.check(self.witnesses)
        self._raise_faults()
        self._sightings.forget()
        # Who waits for an answer may get it while this looks: a server that ran on carries it out when it can again.
        ended = self.ledger.ended()
        self.ledger.set_back(ended, self.state(self.fleet.servers[0]))

    def state(self, server: Server) -> State:
        """What fresh queries of this server give."""
        with self.fleet.client(server) as client:

            def ask(path: str, **args: Any) -> Any:
                answer = client.call(f"ledger:{path}", args, query=True)
                assert answer.end == "done", f"{server.data.name} answers {answer}\n{server.printed[-4000:]}"
                return answer.value

            page = ask("page")
            entries = page["entries"]
            while page["next"] is not None:
                page = ask("page", cursor=page["next"])
                entries += page["entries"]
            tallies = {writer: ask("tally", writer=writer) for writer in sorted({entry[0] for entry in entries})}
            return State(entries, ask("balances"), tallies, ask("taken"), ask("latest"), ask("holders"))

    def close(self) -> None:
        """End everything, also in the middle of it."""
        for caller in self.callers:
            caller.ask_to_stop()
        self._run(self._leave()).result(PATIENCE)
        for caller in self.callers:
            caller.join()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _leave(self) -> None:
        lives = asyncio.all_tasks() - {asyncio.current_task()}
        for witness in self.witnesses:
            await witness.go(rudely=True)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        for witness in self.witnesses:
            await witness.go(rudely=True)

    def _unanswered(self) -> str | None:
        waiting = [witness.name for witness in self._all_there() if witness.unanswered]
        return f"{waiting} wait for answers" if waiting else None

    def _stale(self, state: State) -> str | None:
        return next(filter(None, (witness.is_behind(state) for witness in self._all_there())), None)

    def _all_there(self) -> list[Witness]:
        for witness in self.witnesses:
            self._run(witness.be_there()).result(PATIENCE)
        return self.witnesses

    def _wait_until(self, deadline: float, trouble: Callable[[], object]) -> None:
        """Until there is none."""
        while (found := trouble()) is not None:
            if time.monotonic() > deadline:
                self.ledger.faults.append(f"even now: {found}")
                self._raise_faults()
            time.sleep(0.02)

    def _raise_faults(self) -> None:
        if self.ledger.faults:
            faults = "\n".join(self.ledger.faults[:20])
            raise AssertionError(f"{len(self.ledger.faults)} faults:\n{faults}\n{self.fleet.printed}")

    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


@contextmanager
def load_on(fleet: Fleet, seed: int = SEED, *, fresh_connections: bool = False) -> Iterator[Load]:
    """A load that is at work; at the end it is stopped, and everything compared once more. For the last word see `Caller`."""
    load = Load(fleet, Random(seed))
    for caller in load.callers:
        caller.fresh_connections = fresh_connections
        if not IS_LONG:  # the machine has other tests to run, and servers to start
            caller.pauses = [0.005, 0.02, 0.05]
    try:
        load.start()
        load.wait_for_writes(5)
        load.wait_for_reads()
        yield load
        load.stop()
        load.settle()
    finally:
        load.close()
        print(f"CAMBER_TORTURE_SEED={seed}: {load.ledger.summary()}; {load.transitions} transitions")  # noqa: T201
