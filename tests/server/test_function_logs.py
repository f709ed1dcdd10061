"""The stream of how runs of functions ended, from a real server: its form, its waiting, its end."""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from camber.server import rotate_admin_key
from camber.server.function_logs import MOST_WAITING
from tests.wire.raw_client import adding, raw_client
from tests.wire.running_server import REPOSITORY, RunningServer, running_server

PATH = "/api/stream_function_logs"
PATIENCE = 30.0
"""Less than a poll lasts, so that one which is not woken fails."""


@pytest.fixture(scope="module", params=["1", "0"], ids=["development", "production"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("logs") / "data"
    with running_server(REPOSITORY / "tests/wire/app", data, env={"CAMBER_DEV": request.param}) as running:
        yield running


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def ask(server: RunningServer, method: str, path: str, content: object = None, *, key: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        headers = {"Authorization": f"Convex {key or server.admin_key}"}
        connection.request(method, path, None if content is None else json.dumps(content), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def poll(server: RunningServer, cursor: float | str) -> dict[str, Any]:
    status, answered = ask(server, "GET", f"{PATH}?cursor={cursor}")
    assert status == 200, answered
    return answered


def run(server: RunningServer, path: str, args: object = None) -> None:
    assert ask(server, "POST", "/api/function", {"path": path, "args": args or {}})[0] == 200


def latest(server: RunningServer) -> float:
    """A cursor behind all that has ended."""
    return poll(server, 0)["newCursor"]


def test_an_entry_has_the_form_that_convexs_command_line_reads(server: RunningServer) -> None:
    before = latest(server)
    run(server, "echo:logged", {"text": "hello"})

    answered = poll(server, before)

    (entry,) = answered["entries"]
    (line,) = entry["logLines"]
    assert line == {
        "messages": ["'hello'"],
        "level": "INFO",
        "timestamp": int(answered["newCursor"]),
        "isTruncated": False,
    }
    assert entry["timestamp"] == pytest.approx(time.time(), abs=60)
    assert entry["timestamp"] == answered["newCursor"] / 1_000 > entry["executionTimestamp"]
    assert 0 < entry["executionTime"] < PATIENCE
    assert len(entry["requestId"]) == 16
    assert entry["executionId"]
    rest = {
        name: value for name, value in entry.items() if not name.startswith(("execution", "timestamp", "requestId"))
    }
    assert rest == {
        "kind": "Completion",
        "udfType": "Query",
        "componentPath": None,
        "identifier": "echo:logged",
        "logLines": [line],
        "cachedResult": False,
        "caller": "HttpApi",
        "parentExecutionId": None,
        "userExecutionTime": None,
        "success": None,
        "error": None,
        "usageStats": {},
        "returnBytes": None,
        "occInfo": None,
        "willRetry": False,
        "identityType": "instance_admin",
        "environment": "isolate",
    }


def test_failures_and_runs_for_an_action_are_told(server: RunningServer) -> None:
    before = latest(server)
    run(server, "failures:plainly")
    run(server, "notes:addTwice", {"title": f"of {before}"})

    failed, *toured = poll(server, before)["entries"]

    assert failed["error"].startswith("Uncaught ValueError: the cupboard is bare\n    at plainly (")
    assert [(entry["udfType"], entry["identifier"], entry["caller"]) for entry in toured] == [
        ("Mutation", "notes:add", "Action"),
        ("Mutation", "notes:add", "Action"),
        ("Query", "notes:byTitle", "Action"),
        ("Action", "notes:addTwice", "HttpApi"),
    ]
    assert len({entry["executionId"] for entry in toured}) == 4
    assert len({entry["requestId"] for entry in toured}) == 1


def test_runs_over_the_socket_are_told_and_a_repeated_mutation_is_none(server: RunningServer) -> None:
    before = latest(server)
    title = f"over the socket {before}"
    with raw_client(server.url) as client:
        client.connect()
        client.modify(adding(0, "notes:byTitle", title=title))
        client.hear_value(0, [])
        client.mutation(0, "notes:add", title=title, value="a")
        client.hear_response()
        client.hear_value(0, ["a"])
        client.action(1, "echo:fromAction", value=1)
        client.hear_response()
        session = client.session_id
    with raw_client(server.url) as again:
        again.connect(session)
        again.mutation(0, "notes:add", title=title, value="a")
        again.hear_response()

    entries = poll(server, before)["entries"]

    assert [(entry["identifier"], entry["caller"]) for entry in entries] == [
        ("notes:byTitle", "SyncWorker"),
        ("notes:add", "SyncWorker"),
        ("notes:byTitle", "SyncWorker"),
        ("echo:fromAction", "SyncWorker"),
    ]
    assert {entry["identityType"] for entry in entries} == {"unknown"}
    assert title not in json.dumps(entries)


def test_a_line_that_was_cut_says_so_apart(server: RunningServer) -> None:
    before = latest(server)
    run(server, "echo:logged", {"text": "x" * 40_000})

    (line,) = poll(server, before)["entries"][0]["logLines"]

    assert line["isTruncated"]
    assert line["messages"][0].endswith("xx")


def test_no_argument_result_or_variable_is_told(server: RunningServer) -> None:
    secret = f"hunter2-{time.time_ns()}"
    before = latest(server)
    changes = {"changes": [{"name": "TOKEN", "value": secret}]}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request(
        "POST",
        "/api/update_environment_variables",
        json.dumps(changes),
        {"Authorization": f"Convex {server.admin_key}"},
    )
    assert connection.getresponse().status == 200
    connection.close()
    run(server, "echo:fromQuery", {"value": secret})
    run(server, "echo:fromMutation", {"value": secret})
    run(server, "echo:fromAction", {"value": secret})
    run(server, "notes:add", {"title": [secret], "value": 1})

    answered = poll(server, before)

    assert len(answered["entries"]) == 4
    assert secret not in json.dumps(answered)


def test_a_poll_waits_for_what_ends_next(server: RunningServer, threads: ThreadPoolExecutor) -> None:
    before = latest(server)
    waiting = threads.submit(poll, server, before)
    time.sleep(0.5)
    assert not waiting.done()

    run(server, "echo:logged", {"text": f"after {before}"})
    answered = waiting.result(PATIENCE)

    assert [entry["identifier"] for entry in answered["entries"]] == ["echo:logged"]
    assert answered["newCursor"] > before


def test_nothing_is_told_twice_and_nothing_left_out(server: RunningServer, threads: ThreadPoolExecutor) -> None:
    cursor = latest(server)
    marks = [f"{cursor} {number}" for number in range(200)]
    running = threads.submit(lambda: [run(server, "echo:logged", {"text": mark}) for mark in marks])
    told: list[str] = []
    while len(told) < len(marks):
        answered = poll(server, cursor)
        assert answered["newCursor"] > cursor
        assert not answered["missed"]
        cursor = answered["newCursor"]
        told += [entry["logLines"][0]["messages"][0].strip("'") for entry in answered["entries"]]
    running.result(PATIENCE)

    assert told == marks


def test_only_the_operator_may_read_it(server: RunningServer) -> None:
    for headers in ({}, {"Authorization": "Convex camber|0123"}):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        connection.request("GET", f"{PATH}?cursor=0", headers=headers)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == (403, "BadDeployKey")
        connection.close()


@pytest.mark.parametrize("cursor", ["abc", "-1", "nan", "inf", "%ff", ""])
def test_a_cursor_that_is_none_is_refused(server: RunningServer, cursor: str) -> None:
    status, answered = ask(server, "GET", f"{PATH}?cursor={cursor}&x={'y' * 10}")
    if cursor == "":  # as if there were none
        assert status == 200
    else:
        assert (status, answered["code"]) == (400, "BadQueryString")


def test_who_waits_takes_a_place_and_frees_it_by_going_away(server: RunningServer) -> None:
    cursor = latest(server)
    connections = [hanging(server, cursor) for _ in range(MOST_WAITING + 3)]
    try:
        wait_until(lambda: len(answered_of(connections)) == 3)
        for refused in answered_of(connections):
            assert status_of(refused) == 503
            connections.remove(refused)
            refused.close()

        connections.pop().close()
        wait_until(lambda: has_a_place(server, cursor, connections))
        run(server, "echo:logged", {"text": f"for all {cursor}"})

        assert {status_of(connection) for connection in connections} == {200}
        assert len(connections) == MOST_WAITING
    finally:
        for connection in connections:
            connection.close()


def test_a_replaced_key_reads_nothing_any_more(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    with running_server(REPOSITORY / "tests/wire/app", tmp_path / "data") as server:
        cursor = latest(server)
        waiting: Future[tuple[int, Any]] = threads.submit(ask, server, "GET", f"{PATH}?cursor={cursor}")
        time.sleep(0.5)
        new_key = rotate_admin_key(server.data)
        time.sleep(1.5)
        assert (
            ask(server, "POST", "/api/function", {"path": "echo:logged", "args": {"text": "a"}}, key=new_key)[0] == 200
        )

        assert waiting.result(PATIENCE)[0] == 403


def test_who_waits_is_answered_when_the_server_stops(tmp_path: Path) -> None:
    with running_server(REPOSITORY / "tests/wire/app", tmp_path / "data") as server:
        cursor = latest(server)
        waiting = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        waiting.request("GET", f"{PATH}?cursor={cursor}", headers={"Authorization": f"Convex {server.admin_key}"})
        take_turns(server)
        server.process.terminate()
        response = waiting.getresponse()
        answered = json.loads(response.read())
        waiting.close()
        server.process.wait(PATIENCE)

        assert response.status == 200, answered
        assert (answered["entries"], answered["newCursor"]) == ([], cursor)
        assert server.process.returncode == 0


def hanging(server: RunningServer, cursor: float) -> socket.socket:
    """A connection whose poll waits."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    head = f"GET {PATH}?cursor={cursor} HTTP/1.1\r\nHost: x\r\nAuthorization: Convex {server.admin_key}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def answered_of(connections: list[socket.socket]) -> list[socket.socket]:
    """Those that have an answer."""
    return select.select(connections, [], [], 0)[0]


def take_turns(server: RunningServer) -> None:
    """Return when the server has come to all that it was asked before: it has come to what was asked later, more than once."""
    for _ in range(5):
        latest(server)


def status_of(connection: socket.socket) -> int:
    head = connection.recv(12)
    assert head.startswith(b"HTTP/1.1 "), head
    return int(head[9:])


def has_a_place(server: RunningServer, cursor: float, connections: list[socket.socket]) -> bool:
    """Whether one more poll may wait; then it is one of the connections."""
    one_more = hanging(server, cursor)
    take_turns(server)
    if answered_of([one_more]):
        one_more.close()
        return False
    connections.append(one_more)
    return True


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
