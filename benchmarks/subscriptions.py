"""Does a commit cost more with 1,000,000 subscriptions than with 1,000? In the engine alone, without sockets.

Two processes, one of each size, take turns. Every subscription is a client of its own that watches one backer by name; one of a
thousand backers is written, and its subscriber must be told, and nobody else. What counts is the process's CPU time for each commit,
from the call to the subscriber's new value.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from backers import batches, username
from contenders import BENCH_APPLICATION
from load import SERVER_CORE, use_generator_core
from rounds import ROUNDS, SECONDS, console, print_ratio, print_table, span

from camber.backend import Backend, Content
from camber.functions import load_application
from camber.identity import OPERATOR, Caller
from camber.settings import Settings

SMALL, LARGE = 1_000, int(os.environ.get("BENCH_SUBSCRIPTIONS", "1000000"))
ROWS = 1_000  # those that are written; whoever watches another name waits for a backer who is not on the list
AT_ONCE = 1_000
FIRST_WRITES = 200
SECONDS_TO_BE_TOLD = 120.0
GARBAGE_THRESHOLDS = (10_000, 10, 10)  # the server's
SETTINGS = Settings(query_seconds=60.0)
"""Among the objects of so many subscriptions Python looks for garbage longer than the one second that a query may take."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a process measured."""

    commits: int
    cpu_ms: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """All subscriptions of a process have their first value."""

    seconds: float
    kib_each: float
    longest_pause: float
    """The longest that looking for garbage stopped everything, in seconds."""


class Subscriber:
    """A client that watches one query; it is always ready for a newer value."""

    __slots__ = ("error", "told", "value")

    def __init__(self, told: Callable[[Subscriber], None]) -> None:
        self.told = told
        self.value: bytes | None = None
        self.error: str | None = None

    def may_move(self) -> bool:
        return True

    def moved(self, timestamp: int, changes: Sequence[tuple[int, Content]]) -> None:  # noqa: ARG002
        [(_, content)] = changes
        self.value, self.error = content.value, content.error
        self.told(self)

    def failed(self, error: Exception) -> None:
        self.error = str(error)
        self.told(self)


class Engine:
    """A deployment without doors, and those who watch it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.subscribers: list[Subscriber] = []
        self.told: list[Subscriber] = []
        self._awaited = 0
        self._arrived = asyncio.Event()
        self._random = random.Random(1)

    async def fill(self) -> None:
        """The backers who are written."""
        for rows in batches(ROWS):
            await self._write("backers:insertMany", {"rows": rows})

    async def subscribe(self, count: int) -> Ready:
        """So many clients, each with a query of its own, and its first value."""
        memory, begun = resident_kib(), time.perf_counter()
        with collecting_garbage() as pauses:
            for start in range(0, count, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, count))
                self._await(len(numbers))
                for number in numbers:
                    self._watch(number)
                await self._until_told()
        return Ready(time.perf_counter() - begun, (resident_kib() - memory) / count, max(pauses, default=0.0))

    async def commits(self, seconds: float) -> Turn:
        """Write for a while, and see each time that exactly the right one was told."""
        for _ in range(FIRST_WRITES):
            await self._commit()
        begun, cpu_before, commits = time.perf_counter(), time.process_time(), 0
        while (passed := time.perf_counter() - begun) < seconds:
            await self._commit()
            commits += 1
        return Turn(commits, (time.process_time() - cpu_before) / commits * 1000, passed / commits * 1000)

    async def _commit(self) -> None:
        number = self._random.randrange(ROWS)
        tier = f"Gold {self._random.random()}"
        self._await(1)
        await self._write("backers:setTier", {"username": username(number), "tier": tier})
        await self._until_told()
        [told] = self.told
        if told is not self.subscribers[number] or f'"tier":"{tier}"'.encode() not in (told.value or b""):
            raise RuntimeError(f"somebody else was told of {username(number)}, or something else: {told.value!r}")

    async def _write(self, path: str, args: object) -> None:
        outcome = await self.backend.run(
            path, json.dumps(args).encode(), OPERATOR, kind="mutation", request_id="benchmark"
        )
        if outcome.error is not None:
            raise RuntimeError(outcome.error)

    def _watch(self, number: int) -> None:
        subscriber = Subscriber(self._was_told)
        self.subscribers.append(subscriber)
        view = self.backend.view(subscriber, Caller())
        view.add(0, "backers:byUsername", json.dumps({"username": username(number)}).encode(), None)
        view.advance()

    def _await(self, count: int) -> None:
        self.told.clear()
        self._awaited = count
        self._arrived.clear()

    async def _until_told(self) -> None:
        async with asyncio.timeout(SECONDS_TO_BE_TOLD):
            await self._arrived.wait()
        if errors := {subscriber.error for subscriber in self.told} - {None}:
            raise RuntimeError(f"subscribers were told of errors: {errors}")

    def _was_told(self, subscriber: Subscriber) -> None:
        self.told.append(subscriber)
        if len(self.told) >= self._awaited:
            self._arrived.set()


def main() -> None:
    use_generator_core()
    context = multiprocessing.get_context("spawn")
    turns: dict[int, list[Turn]] = {SMALL: [], LARGE: []}
    ends: dict[int, Connection] = {}
    for count in turns:
        ends[count], theirs = context.Pipe()
        context.Process(target=serve, args=(count, theirs), daemon=True).start()
        theirs.close()  # so that the end of the process is seen
        ready: Ready = ends[count].recv()
        console.print(
            f"{count:,} subscriptions made in {ready.seconds:.0f} s, {ready.kib_each:.2f} KiB each; "
            f"the longest pause for garbage: {ready.longest_pause:.2f} s"
        )
    for _ in range(ROUNDS):
        for count, measured in turns.items():
            ends[count].send("go")
            measured.append(ends[count].recv())
    for end in ends.values():
        end.send("stop")

    rows = {
        f"{count:,} subscriptions": [
            span([each.cpu_ms for each in measured]),
            span([each.milliseconds for each in measured]),
            f"{sum(each.commits for each in measured):,}",
        ]
        for count, measured in turns.items()
    }
    columns = ["CPU ms/commit", "ms until its subscriber is told", "commits"]
    print_table("a commit that one subscriber waits for", columns, rows)
    cpu = {count: [each.cpu_ms for each in measured] for count, measured in turns.items()}
    print_ratio(f"CPU against {SMALL:,} subscriptions", cpu[LARGE], cpu[SMALL], at_most=1.5)


def serve(count: int, parent: Connection) -> None:
    """A process with so many subscriptions, which measures when it is told to."""
    with suppress(OSError):  # a machine with one core
        os.sched_setaffinity(0, {SERVER_CORE})
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_FOLDER")))
    try:
        backend = Backend.open(load_application(BENCH_APPLICATION), folder, settings=SETTINGS, create=True)
        try:
            uvloop.run(measure_when_told(backend, count, parent))
        finally:
            backend.close()
    finally:
        shutil.rmtree(folder)


async def measure_when_told(backend: Backend, count: int, parent: Connection) -> None:
    backend.attach(asyncio.get_running_loop())
    engine = Engine(backend)
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    await engine.fill()
    parent.send(await engine.subscribe(count))
    while await asyncio.to_thread(parent.recv) == "go":
        parent.send(await engine.commits(SECONDS))


@contextmanager
def collecting_garbage() -> Iterator[list[float]]:
    """The seconds that each look for garbage takes meanwhile."""
    pauses: list[float] = []
    begun = 0.0

    def note(phase: str, _info: object) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - begun)

    gc.callbacks.append(note)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(note)


def resident_kib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise KeyError("VmRSS")


if __name__ == "__main__":
    main()
