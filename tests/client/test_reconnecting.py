"""What a client does when the connection breaks: nothing is done twice, nothing is missed, nobody waits for nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from camber.client import Client, ConnectionLostError, connection
from camber.client import client as client_module
from camber.client.connection import Backoff
from tests.client.telling import UNHURRIED, a_name, a_token, soon, tell, until
from tests.wire.loose_wire import LooseWire, loose_wire
from tests.wire.running_server import RunningServer, free_ports, running_server


class Restarts:
    """A server that a test kills and starts again, on the same data; clients reach it through a wire that stays."""

    def __init__(self, application: Path, data: Path, database_url: str, stack: ExitStack) -> None:
        self._application, self._data, self._stack = application, data, stack
        self._env = UNHURRIED | {"CAMBER_DATABASE_URL": database_url}
        self.server = self._start()
        self.wire: LooseWire = stack.enter_context(loose_wire(self.server.port))

    async def kill(self) -> None:
        """As `kill -9` does."""
        self.server.process.kill()
        await asyncio.to_thread(self.server.process.wait)
        # Nothing listens there until a new one has begun.
        self.wire.leads_to = free_ports(1)[0]

    async def start(self) -> None:
        self.server = await asyncio.to_thread(self._start)
        self.wire.leads_to = self.server.port

    def _start(self) -> RunningServer:
        return self._stack.enter_context(running_server(self._application, self._data, env=self._env))


@pytest.fixture
def restarts(application: Path, tmp_path: Path, database_url: str) -> Iterator[Restarts]:
    with ExitStack() as stack:
        yield Restarts(application, tmp_path / "data", database_url, stack)


def test_a_mutation_in_flight_while_the_server_is_killed_is_done_once(restarts: Restarts) -> None:
    async def story(client: Client) -> None:
        values = client.subscribe("counters:get", {"name": "hits"})
        assert await anext(values) == 0
        for round in range(3):
            adding = [
                asyncio.create_task(client.mutation("counters:add", {"name": "hits", "by": 1})) for _ in range(50)
            ]
            await asyncio.sleep(0.005 * round)
            await restarts.kill()
            await restarts.start()
            sums = await asyncio.gather(*adding)
            assert sums == [50 * round + number for number in range(1, 51)]
            await until(values, 50 * (round + 1))

    tell(restarts.wire.url, story)


def test_an_answer_that_was_lost_on_the_way_is_asked_for_again(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        values = client.subscribe("counters:get", {"name": name})
        await anext(values)
        wire.hold_answers()
        adding = asyncio.create_task(client.mutation("counters:add", {"name": name, "by": 1}))
        async with Client(server.url) as other:
            await until(other.subscribe("counters:get", {"name": name}), 1)
        assert not adding.done()
        wire.cut()
        assert await adding == 1
        assert await anext(values) == 1

    with loose_wire(server.port) as wire:
        tell(wire.url, story)


def test_a_subscription_goes_on_after_a_restart_and_misses_nothing(restarts: Restarts) -> None:
    async def story(client: Client) -> None:
        values, steady = (client.subscribe("counters:get", {"name": name}) for name in ("moving", "steady"))
        assert await anext(values) == await anext(steady) == 0
        await restarts.kill()
        later = asyncio.create_task(anext(client.subscribe("counters:get", {"name": "steady"})))
        await restarts.start()
        async with Client(restarts.server.url) as other:
            await other.mutation("counters:add", {"name": "moving", "by": 7})
        await until(values, 7)
        assert await later == 0  # who came while there was no connection gets a value of the new one
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(steady)  # what is as it was is not given again

    tell(restarts.wire.url, story)


def test_who_the_client_is_survives_a_restart(restarts: Restarts) -> None:
    async def story(client: Client) -> None:
        await client.set_auth(a_token("ada"))
        me = client.subscribe("callers:me")
        assert (await anext(me))["claims"]["subject"] == "ada"
        await restarts.kill()
        await restarts.start()
        assert (await client.query("callers:me"))["claims"]["subject"] == "ada"
        assert (await client.mutation("callers:meInMutation"))["claims"]["subject"] == "ada"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(me)  # at no time it was anybody else

    tell(restarts.wire.url, story)


def test_calls_wait_for_a_server_that_is_not_there_yet(restarts: Restarts) -> None:
    async def story(client: Client) -> None:
        calls = [
            asyncio.create_task(client.query("counters:get", {"name": "early"})),
            asyncio.create_task(client.mutation("counters:add", {"name": "early", "by": 1})),
            asyncio.create_task(client.action("keeping:echo", {"value": "early"})),
        ]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.query("counters:get", {"name": "impatient"})
        given_up = asyncio.create_task(client.mutation("counters:add", {"name": "early", "by": 100}))
        await asyncio.sleep(0)
        given_up.cancel()
        await restarts.start()
        _, added, echoed = await asyncio.gather(*calls)
        assert (added, echoed) == (1, "early")
        assert await client.query("counters:get", {"name": "early"}) == 1

    asyncio.run(restarts.kill())
    tell(restarts.wire.url, story)


def test_requests_given_up_while_there_is_no_connection_leave_room_for_others(restarts: Restarts) -> None:
    async def story(client: Client) -> None:
        adding = [asyncio.create_task(client.mutation("counters:add", {"name": "x", "by": 1})) for _ in range(520)]
        await asyncio.sleep(0.1)
        for task in adding:
            task.cancel()
        await asyncio.gather(*adding, return_exceptions=True)
        await restarts.start()
        assert await client.mutation("counters:add", {"name": "x", "by": 1}) == 1

    asyncio.run(restarts.kill())
    tell(restarts.wire.url, story)


def test_an_action_in_flight_when_the_connection_breaks_is_an_error(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_REQUESTS", 1)  # the next one has its place

    name = a_name()

    async def story(client: Client) -> None:
        wire.hold_answers()
        acting = asyncio.create_task(client.action("counters:addInAction", {"name": name}))
        async with Client(server.url) as other:
            await until(other.subscribe("counters:get", {"name": name}), 2)
        wire.cut()
        with pytest.raises(ConnectionLostError, match="the connection was lost while the action was in flight"):
            await acting
        assert await client.action("keeping:echo", {"value": 2}) == 2

    async def connected_story(client: Client) -> None:
        await client.query("callers:me")
        await story(client)

    with loose_wire(server.port) as wire:
        tell(wire.url, connected_story)


def test_a_server_that_says_nothing_for_long_is_left(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "SILENCE_SECONDS", 1.0)

    async def story(client: Client) -> None:
        await client.query("callers:me")
        wire.hold_answers()
        waiting = asyncio.create_task(client.query("callers:me"))
        await soon(lambda: "InactiveServer" in caplog.text)
        wire.cut()
        assert (await waiting)["claims"] is None

    with caplog.at_level(logging.INFO, "camber.client"), loose_wire(server.port) as wire:
        tell(wire.url, story)
    assert "again" in caplog.text


def test_trouble_is_logged_once_for_each_time_that_the_connection_breaks(
    restarts: Restarts, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(client: Client) -> None:
        await client.query("callers:me")
        await restarts.kill()
        await asyncio.sleep(3)
        await restarts.start()
        await client.query("callers:me")

    with caplog.at_level(logging.INFO, "camber.client"):
        tell(restarts.wire.url, story)
    of_the_client = [record.levelname for record in caplog.records if record.name == "camber.client"]
    assert of_the_client == ["WARNING", "INFO"], caplog.text


def test_an_address_where_no_deployment_is_is_tried_again(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(client: Client) -> None:
        asking = asyncio.create_task(client.query("callers:me"))
        await soon(lambda: caplog.text.count("the server answers with status 404") == 2)
        assert not asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    with caplog.at_level(logging.DEBUG, "camber.client"):
        tell(f"{server.url}/not/here", story)
    assert "WARNING" in caplog.text


def test_closing_while_nothing_answers_is_quick_and_leaves_nothing_behind() -> None:
    async def story(client: Client) -> None:
        await asyncio.sleep(0.2)

    tell(f"http://127.0.0.1:{free_ports(1)[0]}", story)


def test_waiting_times_grow_to_sixteen_seconds() -> None:
    backoff = Backoff()
    delays = [backoff.delay() for _ in range(2_000)]

    assert 0.5 <= delays[0] <= 1.5
    assert 1.0 <= delays[1] <= 3.0
    assert 5.3 < min(delays[5:]) < 6 < 15 < max(delays) <= 16.0
    backoff.reset()
    assert 0.05 <= backoff.delay(0.1) <= 0.15
