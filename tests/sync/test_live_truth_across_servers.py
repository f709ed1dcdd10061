"""What clients hold is true on whatever server they are: several share a PostgreSQL database, and clients move among them.

As in test_live_truth, with each new connection, and each call over HTTP, to any of the servers. One at a time is killed or stopped, in
turns, and started again while the others go on. `CAMBER_TORTURE_ROUNDS` says how often, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.crashes.servers import Server
from tests.faults.fleet import Fleet
from tests.sync.chatter import Chatter, World
from tests.sync.test_live_truth import PATIENCE, SEED, HttpCaller, enough, is_trouble, live, settle
from tests.wire.running_server import REPOSITORY, UNHURRIED

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "3"))
SERVERS = 3
CLIENTS = 6
SECONDS_BETWEEN = 0.8


class Servers(World):
    """A world of several servers."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__("", fleet.admin_key)
        self.fleet = fleet
        self.only: Server | None = None
        """The one that everybody comes to, while it is said."""

    def address(self, random: Random) -> str:
        server = self.only or self.fleet.any(random)
        return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def fleet(postgres_url: str, tmp_path: Path) -> Iterator[Fleet]:
    application = REPOSITORY / "tests/sync/app"
    with Fleet(tmp_path, [postgres_url] * SERVERS, application=application, env=[UNHURRIED] * SERVERS) as fleet:
        yield fleet


@pytest.mark.torture
def test_all_that_clients_hold_is_true_at_its_timestamp_whatever_server_tells_it(fleet: Fleet) -> None:
    world = Servers(fleet)
    try:
        asyncio.run(play(world, Random(SEED)))
    except BaseException:
        print(f"CAMBER_TORTURE_SEED={SEED}; the servers said:\n{fleet.printed}")  # noqa: T201
        raise
    print(f"{world.transitions} transitions, {len(world.history.changes)} changes")  # noqa: T201
    assert not [line for server in fleet.servers for line in server.printed.splitlines() if is_trouble(line)]


async def play(world: Servers, random: Random) -> None:
    clients = [Chatter(world, f"client {number}", Random(random.random())) for number in range(CLIENTS)]
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        caller = HttpCaller(world, http, Random(random.random()))
        for number in range(ROUNDS):
            async with living(clients, caller):
                await asyncio.sleep(random.uniform(0.2, SECONDS_BETWEEN))
                await enough(world, number + 1)
                server = world.fleet.any(random)
                how = signal.SIGTERM if number % 2 else signal.SIGKILL
                assert await asyncio.to_thread(server.end, how) == (0 if how == signal.SIGTERM else -how)
                await asyncio.sleep(random.uniform(0.0, SECONDS_BETWEEN))
                await asyncio.to_thread(world.fleet.restart, server)
                await asyncio.sleep(random.uniform(0.0, SECONDS_BETWEEN))
            await settle(world, clients, caller)
        # Whoever moves is shown nothing older than before, so this begins on each server with what was seen on another.
        for server in world.fleet.servers:
            world.only = server
            for client in clients:
                await client.go(rudely=random.random() < 0.5)
            await settle(world, clients, caller)
    for client in clients:
        await client.go(rudely=False)


@asynccontextmanager
async def living(clients: list[Chatter], caller: HttpCaller) -> AsyncIterator[None]:
    """They do anything, for as long as the block lasts."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as works:
        for client in clients:
            works.create_task(live(client, stop))
        works.create_task(caller.work(stop))
        try:
            yield
        finally:
            stop.set()
