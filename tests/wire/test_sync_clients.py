"""The unmodified WebSocket clients of npm and PyPI, several versions of each, against a real server."""

from __future__ import annotations

import json
import re
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from tests.clients.sync_driver import NPM_PACKAGES, SECONDS, Event, SyncClient, of_subscription
from tests.wire.loose_wire import LooseWire, loose_wire
from tests.wire.raw_client import raw_client
from tests.wire.running_server import REPOSITORY, RunningServer, running_server
from tests.wire.test_http_clients import EVERY_KIND, NAN, int64, raw

CONVEX_ERROR_DATA = [
    "a sentence",
    None,
    7,
    ["a", "list"],
    {"code": "Refused", "count": int64(3), "raw": raw(b"\x00\xff"), "not a number": NAN},
]


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return uuid4().hex[:12]


def call_over_http(server: RunningServer, kind: str, path: str, args: dict[str, object]) -> Any:
    """Call a function as somebody else would, beside the client that is looked at."""
    body = json.dumps({"path": path, "args": args, "format": "convex_encoded_json"}).encode()
    request = Request(f"{server.url}/api/{kind}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=SECONDS) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["value"]


# What a client shows.


def test_a_subscription_shows_what_is_there_and_what_comes(
    sync_client: SyncClient, sync_server: RunningServer, name: str
) -> None:
    sync_client.subscribe("counters:get", {"name": name})
    sync_client.wait_for("counters:get", 0)
    sync_client.mutation("counters:add", {"name": name, "by": 2})
    sync_client.wait_for("counters:get", 2)
    call_over_http(sync_server, "mutation", "counters:add", {"name": name, "by": 3})
    shown = sync_client.wait_for("counters:get", 5)

    assert [event["value"] for event in shown] == [0, 2, 5]


def test_an_ended_subscription_shows_nothing_more(sync_client: SyncClient, name: str) -> None:
    sync_client.subscribe("counters:get", {"name": name})
    sync_client.subscribe("counters:isLarge", {"name": name})
    sync_client.wait_for("counters:get", 0)
    sync_client.unsubscribe("counters:get")
    sync_client.mutation("counters:add", {"name": name, "by": 2_000})
    sync_client.wait_for("counters:isLarge", True)

    assert [event.get("value") for event in sync_client.seen("counters:get")] == [0]


def test_calls_give_their_results(sync_client: SyncClient, name: str) -> None:
    assert sync_client.mutation("counters:add", {"name": name, "by": 2}).value == 2
    assert sync_client.query("counters:get", {"name": name}).value == 2
    assert sync_client.action("counters:addInAction", {"name": name}).value == 4


def test_a_mutation_that_is_done_is_seen_by_the_next_query(sync_client: SyncClient, name: str) -> None:
    for expected in range(1, 6):
        sync_client.mutation("counters:add", {"name": name, "by": 1})

        assert sync_client.query("counters:get", {"name": name}).value == expected


def test_mutations_that_are_sent_together_run_in_their_order(npm_sync_client: SyncClient, name: str) -> None:
    for number in range(10):
        npm_sync_client.start("mutation", "counters:add", {"name": name, "by": 10**number}, name=f"mutation {number}")

    sums = [npm_sync_client.finish(f"mutation {number}").value for number in range(10)]

    assert sums == [int("1" * (number + 1)) for number in range(10)]


def test_every_kind_of_value_goes_there_and_back(sync_client: SyncClient, name: str) -> None:
    sync_client.subscribe("keeping:last", {"name": name})
    sync_client.wait_for("keeping:last", None)

    kept = sync_client.mutation("keeping:keep", {"name": name, "value": EVERY_KIND})
    echoed = sync_client.action("keeping:echo", {"value": EVERY_KIND})

    assert (kept.error, echoed.error) == (None, None)
    assert kept.value == echoed.value == EVERY_KIND
    sync_client.wait_for("keeping:last", EVERY_KIND)


def test_a_large_result_arrives_whole(sync_client: SyncClient, name: str) -> None:
    """Newer npm clients get it in parts, the others as one message (protocol 5.8)."""
    sync_client.mutation("keeping:keep", {"name": name, "value": "first"})
    sync_client.subscribe("keeping:large", {"name": name, "letters": 3_500_000})
    sync_client.wait_for("keeping:large", ["first", "ä" * 3_500_000])
    sync_client.mutation("keeping:keep", {"name": name, "value": "second"})
    shown = sync_client.wait_for("keeping:large", ["second", "ä" * 3_500_000])

    assert len(shown) == 2


# What goes wrong.


@pytest.mark.parametrize("data", CONVEX_ERROR_DATA, ids=["text", "null", "number", "list", "object"])
def test_a_refusal_brings_its_data_and_leaves_nothing_behind(sync_client: SyncClient, name: str, data: object) -> None:
    refused = sync_client.mutation("counters:addAndFail", {"name": name, "data": data})
    in_action = sync_client.action("counters:refuseInAction", {"data": data})

    assert refused.has_data
    assert in_action.has_data
    assert refused.data == in_action.data == data
    assert sync_client.query("counters:get", {"name": name}).value == 0


def test_broken_code_is_an_error_without_data(sync_client: SyncClient, name: str) -> None:
    mutation = sync_client.mutation("counters:addAndBreak", {"name": name})
    action = sync_client.action("counters:breakInAction")
    missing = sync_client.query("counters:nothing")

    for outcome in (mutation, action):
        assert re.search(r"\[Request ID: [0-9a-f]{16}\] Server Error\n", outcome.error or "")
        assert "the cupboard is bare" in (outcome.error or "")
        assert not outcome.has_data
    assert "Could not find public function for 'counters:nothing'" in (missing.error or "")
    assert not missing.has_data
    assert sync_client.query("counters:get", {"name": name}).value == 0


def test_wrong_arguments_are_refused_by_name(sync_client: SyncClient, name: str) -> None:
    outcome = sync_client.mutation("counters:add", {"name": name, "by": "seven"})

    assert "ArgumentValidationError" in (outcome.error or "")
    assert ".by" in (outcome.error or "")


def test_a_query_that_fails_recovers(sync_client: SyncClient, name: str) -> None:
    sync_client.subscribe("counters:get", {"name": name})
    sync_client.wait_for("counters:get", 0)

    sync_client.mutation("counters:setFailure", {"name": name, "failure": {"data": {"code": "Closed"}}})
    refused = sync_client.wait_for_error("counters:get")
    sync_client.mutation("counters:setFailure", {"name": name, "failure": "plainly"})
    sync_client.until(lambda events: "broken" in _last_error(events))
    sync_client.mutation("counters:setFailure", {"name": name, "failure": None})
    shown = sync_client.wait_for("counters:get", 0)

    assert [event["kind"] for event in shown] == ["value", "error", "error", "value"]
    assert refused["data"] == {"code": "Closed"}
    assert "data" not in shown[2]["error"]


def _last_error(events: list[Event]) -> str:
    failures = [event["error"]["message"] for event in events if event["kind"] == "error"]
    return failures[-1] if failures else ""


def test_what_a_function_logs_reaches_the_client(sync_client: SyncClient, name: str) -> None:
    outcome = sync_client.mutation("counters:add", {"name": name, "by": 1})

    assert any("adding" in line for line in outcome.logs)


# Who is calling.


def test_the_admin_key_changes_what_is_shown(sync_client: SyncClient, sync_server: RunningServer) -> None:
    anonymous, operator = {"claims": None, "isOperator": False}, {"claims": None, "isOperator": True}
    sync_client.subscribe("callers:me")
    sync_client.wait_for("callers:me", anonymous)
    refused = sync_client.query("callers:secret")

    sync_client.tell("setAdminAuth", token=sync_server.admin_key)
    sync_client.wait_for("callers:me", operator)
    called = [
        sync_client.query("callers:secret").value,
        sync_client.mutation("callers:meInMutation").value,
        sync_client.action("callers:meInAction").value,
    ]
    sync_client.tell("clearAuth")
    sync_client.wait_for("callers:me", anonymous)

    assert "Could not find public function" in (refused.error or "")
    assert called == ["for the operator", operator, operator]
    assert "Could not find public function" in (sync_client.query("callers:secret").error or "")


def test_the_operator_can_act_as_somebody(npm_sync_client: SyncClient, sync_server: RunningServer) -> None:
    ada = {"issuer": "https://idp.test", "subject": "ada", "tokenIdentifier": "https://idp.test|ada", "name": "Ada"}
    npm_sync_client.tell("setAdminAuth", token=sync_server.admin_key, identity=ada)
    npm_sync_client.subscribe("callers:me")

    events = npm_sync_client.until(lambda events: of_subscription(events, "callers:me"))
    [answer] = [event["value"] for event in of_subscription(events, "callers:me")]

    assert answer["isOperator"] is False
    assert answer["claims"].items() >= ada.items()


def test_a_wrong_admin_key_is_answered_with_an_auth_error(
    npm_sync_client: SyncClient, sync_server: RunningServer
) -> None:
    npm_sync_client.tell("setAdminAuth", token=f"{sync_server.admin_key.split('|')[0]}|0123456789abcdef")

    events = npm_sync_client.until(lambda events: any(event["kind"] == "closed" for event in events))

    [error] = [message for message in _received(events) if message["type"] == "AuthError"]
    assert error["baseVersion"] == 0
    assert error["authUpdateAttempted"] is True
    npm_sync_client.tell("close")


# The order on the wire.


def test_an_optimistic_value_settles_without_a_flicker(
    npm_sync_client: SyncClient, sync_server: RunningServer, name: str
) -> None:
    client, counter = npm_sync_client, {"name": name}
    shows = {"path": "counters:get", "args": counter, "by": 1}
    client.subscribe("counters:get", counter)
    client.wait_for("counters:get", 0)

    with raw_client(sync_server.url) as somebody:
        somebody.connect()
        for number in range(300):
            somebody.mutation(number, "counters:add", name=name, by=100)
        for number in range(40):
            client.start("mutation", "counters:add", {**counter, "by": 1}, name=f"mutation {number}", shows=shows)
        assert all(client.finish(f"mutation {number}").error is None for number in range(40))
        client.wait_for("counters:get", 30_040)

    values = [event["value"] for event in client.seen("counters:get")]
    assert values == sorted(values), "an optimistic value was followed by an older one"
    assert len(values) > 40
    assert_responses_come_first(client.events(), count=40)


def assert_responses_come_first(events: list[Event], *, count: int) -> None:
    """Each mutation's response stands before the first transition that holds its effect, and one such follows it."""
    messages = _received(events)
    responses = [(place, m) for place, m in enumerate(messages) if m["type"] == "MutationResponse"]
    assert len(responses) == count
    for place, response in responses:
        at = _number(response["ts"])
        ends = [(i, _number(m["endVersion"]["ts"])) for i, m in enumerate(messages) if m["type"] == "Transition"]
        assert all(end < at for i, end in ends if i < place), "a transition with its effect came before the response"
        assert any(end >= at for i, end in ends if i > place), "no transition with its effect followed the response"


def _received(events: list[Event]) -> list[Event]:
    return [event["message"] for event in events if event["kind"] == "received"]


def _number(encoded: str) -> int:
    return int.from_bytes(b64decode(encoded), "little")


def test_an_optimistic_value_of_a_refused_mutation_is_taken_back(npm_sync_client: SyncClient, name: str) -> None:
    client, counter = npm_sync_client, {"name": name}
    client.subscribe("counters:get", counter)
    client.wait_for("counters:get", 0)

    client.start("mutation", "counters:addAndFail", counter, name="refused", shows=_one_more(counter))
    outcome = client.finish("refused")
    client.mutation("counters:add", {**counter, "by": 7})
    shown = client.wait_for("counters:get", 7)

    assert outcome.has_data
    assert [event["value"] for event in shown] == [0, 1, 0, 7]


def _one_more(counter: dict[str, str]) -> dict[str, object]:
    return {"path": "counters:get", "args": counter, "by": 1}


# After the connection is lost.


def test_what_changed_while_the_connection_was_lost_is_shown(
    npm_sync_client: SyncClient, sync_server: RunningServer, name: str
) -> None:
    client = npm_sync_client
    client.subscribe("counters:get", {"name": name})
    client.wait_for("counters:get", 0)

    client.tell("dropConnection")
    call_over_http(sync_server, "mutation", "counters:add", {"name": name, "by": 1})
    shown = client.wait_for("counters:get", 1)

    assert [event["value"] for event in shown] == [0, 1]
    assert client.mutation("counters:add", {"name": name, "by": 1}).value == 2


def _killed(server: RunningServer) -> None:
    server.process.kill()
    server.process.wait()


def test_a_mutation_in_flight_when_the_server_dies_is_done_in_the_end(
    start_sync_client: Callable[[str], SyncClient], tmp_path: Path, database_url: str
) -> None:
    """Exactly once where the client keeps its session id (npm); at least once where each connection is a new one (PyPI)."""
    clients = {name: start_sync_client(name) for name in [*NPM_PACKAGES, "pypi newest", "pypi 0.7"]}
    application, data = REPOSITORY / "tests/wire/sync_app", tmp_path / "data"
    env = {"CAMBER_DEV": "1", "CAMBER_DATABASE_URL": database_url}

    with running_server(application, data, env=env) as first, loose_wire(first.port) as wire:
        for name, client in clients.items():
            client.open(wire.url)
            client.subscribe("counters:get", {"name": name})
            client.wait_for("counters:get", 0)
        _commit_unheard(wire, first, clients)
        # The next one is still at work in the server, or has not reached it. PyPI's client takes one call at a time.
        for name in NPM_PACKAGES:
            slowly = {"name": name, "by": 10, "seconds": 0.2}
            clients[name].start("mutation", "counters:addSlowly", slowly, name="second")
        _killed(first)
        wire.cut()

        with running_server(application, data, env=env) as second:
            wire.leads_to = second.port
            outcomes = {name: client.finish("first") for name, client in clients.items()}
            seconds = [clients[name].finish("second") for name in NPM_PACKAGES]
            counts = {name: call_over_http(second, "query", "counters:get", {"name": name}) for name in clients}
            for name, client in clients.items():
                client.wait_for("counters:get", counts[name])
                client.tell("close")

    assert not any(outcome.error for outcome in [*outcomes.values(), *seconds])
    assert [outcomes[name].value for name in NPM_PACKAGES] == [1, 1, 1]
    assert [counts[name] for name in NPM_PACKAGES] == [11, 11, 11]
    # It was stored before the server died, and is done again: nothing tells the server that it is the same.
    assert [counts["pypi newest"], counts["pypi 0.7"]] == [2, 2]


def _commit_unheard(wire: LooseWire, server: RunningServer, clients: dict[str, SyncClient]) -> None:
    """Let each client's first mutation be stored without any of them hearing of it."""
    wire.hold_answers()
    for name, client in clients.items():
        client.start("mutation", "counters:add", {"name": name, "by": 1}, name="first")
    waiting, deadline = set(clients), time.monotonic() + SECONDS
    while waiting := {n for n in waiting if call_over_http(server, "query", "counters:get", {"name": n}) != 1}:
        assert time.monotonic() < deadline, f"these mutations did not arrive: {waiting}"
        time.sleep(0.01)
