"""A server that is told to stop: what runs is finished and told, nothing more begins, and live clients come back at once."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from camber.client import Client
from camber.server.app import Api
from tests.client.telling import tell, until
from tests.clients.sync_driver import NAMES, NPM_PACKAGES, running_sync_client
from tests.server.conftest import Opening
from tests.wire.gate import Gate
from tests.wire.loose_wire import LooseWire, loose_wire
from tests.wire.raw_client import Message, RawClient, adding, raw_client
from tests.wire.running_server import REPOSITORY, RunningServer, running_server

APPLICATION = REPOSITORY / "tests/wire/sync_app"
PATIENCE = 30.0


class Restarts:
    """A server that is told to stop and started again on the same data; clients reach it through a wire that stays."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        self._data, self._stack = data, stack
        self.first = self.server = self._start()
        self.wire: LooseWire = stack.enter_context(loose_wire(self.server.port))

    def stop_with_somebody_at(self, gate: Gate) -> None:
        """Tell it to stop while a function waits at the gate, let that go on, and wait for the end."""
        gate.wait_until_reached()
        tell_to_stop(self.server)
        gate.open()
        self.wait()

    def wait(self) -> None:
        assert self.server.process.wait(PATIENCE) == 0

    def start(self) -> None:
        self.server = self._start()
        self.wire.leads_to = self.server.port

    def _start(self) -> RunningServer:
        return self._stack.enter_context(start(self._data))


def start(data: Path, **settings: object) -> Any:
    """A server that waits for what runs longer than any of these tests takes, unless the settings say otherwise."""
    own = {f"CAMBER_{name.upper()}": str(value) for name, value in {"shutdown_seconds": 60, **settings}.items()}
    return running_server(APPLICATION, data, env={"CAMBER_DEV": "1", **own})


@pytest.fixture
def restarts(tmp_path: Path) -> Iterator[Restarts]:
    with ExitStack() as stack:
        yield Restarts(tmp_path / "data", stack)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with start(tmp_path / "data") as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Holds up what a test calls at it."""
    return Gate(tmp_path / "gate")


def begin(connection: http.client.HTTPConnection, kind: str, path: str, **args: object) -> None:
    """Send a call, whose answer comes later."""
    connection.request("POST", f"/api/{kind}", json.dumps({"path": path, "args": args}))


def tell_to_stop(server: RunningServer) -> None:
    """Returns when it has begun to: somebody for whom nothing runs has been sent away."""
    with raw_client(server.url) as bystander:
        server.process.send_signal(signal.SIGTERM)
        assert goodbye_of(bystander)[0] == 1001


def refuses_connections(port: int) -> bool:
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return False
    return True


def goodbye_of(client: RawClient) -> tuple[int, str]:
    """Code and reason of the end of the connection, whatever is said before it."""
    closed = end_of(client, [])
    return closed.code, closed.reason


def everything(client: RawClient) -> tuple[list[Message], int]:
    """All that is said until the end of the connection, and its code."""
    heard: list[Message] = []
    closed = end_of(client, heard)
    return heard, closed.code


def end_of(client: RawClient, heard: list[Message]) -> Close:
    try:
        while True:
            heard.append(client.hear())
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            pytest.fail("the connection was dropped without a word")
        return closed.rcvd


# Requests over HTTP.


def test_whoever_had_connected_before_it_was_told_is_answered(server: RunningServer) -> None:
    """The system takes connections for a server that has no time to: none of them may be reset."""
    server.process.send_signal(signal.SIGSTOP)
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(30)]
    for connection in connections:
        body = json.dumps({"path": "counters:add", "args": {"name": "waiting", "by": 1}})
        connection.request("POST", "/api/mutation", body)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    answers: list[Any] = []
    for connection in connections:
        answers.append(json.loads(connection.getresponse().read()))
        connection.close()

    assert sorted(answer["value"] for answer in answers) == list(range(1, 31))
    assert server.process.wait(PATIENCE) == 0


def test_it_takes_no_connection_while_it_finishes_what_runs(server: RunningServer, gate: Gate) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    begin(connection, "action", "gates:waitAt", gate=gate.path)
    gate.wait_until_reached()
    tell_to_stop(server)
    refused = refuses_connections(server.port), refuses_connections(server.site_port)
    was_running = server.process.poll() is None
    gate.open()
    answered = connection.getresponse()
    body = json.loads(answered.read())

    assert (refused, was_running) == ((True, True), True)
    assert (answered.status, body["status"]) == (200, "success")
    assert answered.headers["connection"] == "close"
    assert server.process.wait(PATIENCE) == 0


def test_a_mutation_that_runs_is_stored_and_its_caller_told(restarts: Restarts, gate: Gate) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", restarts.server.port, timeout=PATIENCE)
    begin(connection, "mutation", "gates:addAt", gate=gate.path, name="x", by=1)
    restarts.stop_with_somebody_at(gate)
    answer = json.loads(connection.getresponse().read())
    restarts.start()

    assert (answer["status"], answer["value"]) == ("success", 1)
    with raw_client(restarts.server.url) as client:
        client.connect()
        client.modify(adding(0, "counters:get", name="x"))
        client.hear_value(0, 1)


def test_it_says_that_it_is_not_ready(opened: Opening) -> None:
    client = opened()
    before = client.get("/readyz")
    cast(Api, client.app).stop()
    after, alive = client.get("/readyz"), client.get("/healthz")

    assert (before.status, before.body) == (200, b"ready")
    assert (after.status, after.body) == (503, b"shutting down")
    assert alive.status == 200


# Live clients.


def test_clients_for_whom_nothing_runs_are_sent_away_at_once(server: RunningServer, gate: Gate) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with raw_client(server.url) as client, raw_client(server.url) as speechless:
        client.connect()
        client.modify(adding(0, "counters:get", name="x"))
        client.hear_value(0, 0)
        begin(connection, "action", "gates:waitAt", gate=gate.path)
        gate.wait_until_reached()
        server.process.send_signal(signal.SIGTERM)
        ends = [goodbye_of(each) for each in (client, speechless)]
        still_runs = server.process.poll() is None
        gate.open()

    assert ends == [(1001, "ServerRestarting")] * 2
    assert still_runs
    assert json.loads(connection.getresponse().read())["status"] == "success"


def test_a_client_is_told_how_its_mutation_ended_and_shown_what_it_wrote_before_it_is_sent_away(
    server: RunningServer, gate: Gate
) -> None:
    with raw_client(server.url) as client:
        client.connect()
        client.modify(adding(0, "counters:get", name="x"))
        client.hear_value(0, 0)
        client.mutation(0, "gates:addAt", gate=gate.path, name="x", by=2)
        gate.wait_until_reached()
        tell_to_stop(server)
        gate.open()
        response = client.hear_response()
        client.hear_value(0, 2)
        end = goodbye_of(client)

    assert (response["success"], response["result"]) == (True, 2)
    assert end == (1001, "ServerRestarting")
    assert server.process.wait(PATIENCE) == 0


def test_a_client_is_told_how_its_action_ended_before_it_is_sent_away(server: RunningServer, gate: Gate) -> None:
    with raw_client(server.url) as client:
        client.connect()
        client.action(0, "gates:waitAt", gate=gate.path)
        gate.wait_until_reached()
        tell_to_stop(server)
        gate.open()
        response = client.hear_response()
        end = goodbye_of(client)

    assert (response["type"], response["success"]) == ("ActionResponse", True)
    assert end == (1001, "ServerRestarting")


def test_what_has_not_begun_is_left_to_the_next_server_and_nothing_is_done_twice(
    restarts: Restarts, gate: Gate
) -> None:
    with raw_client(restarts.server.url) as client:
        client.connect()
        client.mutation(0, "gates:addAt", gate=gate.path, name="x", by=1)
        client.mutation(1, "counters:add", name="x", by=10)
        gate.wait_until_reached()
        tell_to_stop(restarts.server)
        client.mutation(2, "counters:add", name="x", by=100)
        gate.open()
        heard, code = everything(client)
    restarts.wait()
    restarts.start()
    with raw_client(restarts.server.url) as again:
        again.connect(client.session_id)
        again.mutation(0, "gates:addAt", gate=gate.path, name="x", by=1)
        again.mutation(1, "counters:add", name="x", by=10)
        again.mutation(2, "counters:add", name="x", by=100)
        answers: list[Any] = []
        while len(answers) < 3:
            message = again.hear()
            answers += [message] if message["type"] == "MutationResponse" else []

    responses = [message for message in heard if message["type"] == "MutationResponse"]
    assert [(response["requestId"], response["result"]) for response in responses] == [(0, 1)]
    assert code == 1001
    assert [answer["result"] for answer in answers] == [1, 11, 111]


def test_what_takes_too_long_is_not_waited_for_and_the_client_told_to_come_back(tmp_path: Path, gate: Gate) -> None:
    with start(tmp_path / "data", shutdown_seconds=1) as server, raw_client(server.url) as client:
        client.connect()
        client.action(0, "gates:waitAt", gate=gate.path)
        gate.wait_until_reached()
        server.process.send_signal(signal.SIGTERM)
        end = goodbye_of(client)
        code = server.process.wait(PATIENCE)

    assert (end, code) == ((1001, "ServerRestarting"), 0)


def test_told_twice_it_waits_for_nobody(tmp_path: Path, gate: Gate) -> None:
    with start(tmp_path / "data", shutdown_seconds=120) as server, raw_client(server.url) as client:
        client.connect()
        client.action(0, "gates:waitAt", gate=gate.path)
        gate.wait_until_reached()
        tell_to_stop(server)
        with pytest.raises(TimeoutError):
            client.hear(1)
        server.process.send_signal(signal.SIGTERM)
        end = goodbye_of(client)
        code = server.process.wait(PATIENCE)

    assert (end, code) == ((1001, "ServerRestarting"), 0)


# The real clients.


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_costs_a_client_nothing(restarts: Restarts, gate: Gate, name: str) -> None:
    with running_sync_client(name) as client:
        client.open(restarts.wire.url)
        client.subscribe("counters:get", {"name": "x"})
        client.wait_for("counters:get", 0)
        client.start("mutation", "gates:addAt", {"gate": gate.path, "name": "x", "by": 1}, name="in flight")
        restarts.stop_with_somebody_at(gate)
        restarts.start()
        in_flight = client.finish("in flight")
        with raw_client(restarts.server.url) as other:
            other.connect()
            other.mutation(0, "counters:add", name="x", by=10)
            other.hear_response()
        shown = client.wait_for("counters:get", 11)
        after = client.mutation("counters:add", {"name": "x", "by": 100})
        client.wait_for("counters:get", 111)

    assert (in_flight.error, in_flight.value) == (None, 1)
    assert after.value == 111
    assert [event["value"] for event in shown if event["value"] not in (0, 1, 11)] == []


@pytest.mark.parametrize("name", NPM_PACKAGES)
def test_the_javascript_client_comes_back_at_its_first_attempt_and_warns_of_nothing(
    restarts: Restarts, gate: Gate, name: str
) -> None:
    with running_sync_client(name) as client:
        client.open(restarts.wire.url)
        client.subscribe("counters:get", {"name": "x"})
        client.wait_for("counters:get", 0)
        client.start("mutation", "gates:addAt", {"gate": gate.path, "name": "x", "by": 1}, name="in flight")
        restarts.stop_with_somebody_at(gate)
        assert client.finish("in flight").value == 1
        restarts.start()
        events = client.until(lambda events: [event["kind"] for event in events].count("opened") == 2)
        printed = "\n".join(client.printed)

    kinds = [event["message"]["type"] if event["kind"] == "received" else event["kind"] for event in events]
    assert kinds.index("MutationResponse") < kinds.index("closed")
    assert kinds.count("closed") == 1
    pauses = [float(found) for found in re.findall(r"Attempting reconnect in ([\d.]+)ms", printed)]
    assert len(pauses) == 1, printed
    assert pauses[0] <= 1_500
    assert "WebSocket closed with code" not in printed


def test_our_own_client_comes_back_at_its_first_attempt(
    restarts: Restarts, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(client: Client) -> None:
        values = client.subscribe("counters:get", {"name": "x"})
        assert await anext(values) == 0
        in_flight = asyncio.create_task(client.mutation("gates:addAt", {"gate": gate.path, "name": "x", "by": 1}))
        await asyncio.to_thread(restarts.stop_with_somebody_at, gate)
        await asyncio.to_thread(restarts.start)
        assert await in_flight == 1
        async with Client(restarts.server.url) as other:
            await other.mutation("counters:add", {"name": "x", "by": 10})
        await until(values, 11)

    caplog.set_level("DEBUG", "camber.client")
    tell(restarts.wire.url, story)

    broken = [record.getMessage() for record in caplog.records if "trying again" in record.msg]
    assert broken == [f"no connection to {restarts.wire.url} (ServerRestarting); trying again"]
