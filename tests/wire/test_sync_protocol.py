"""The sync protocol as a client sees it that says what it wants: message by message (protocol 5)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.wire.gate import Gate
from tests.wire.raw_client import START, Message, RawClient, adding, number, raw_client, removing, timestamp
from tests.wire.running_server import RunningServer

Join = Callable[..., RawClient]


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return uuid4().hex[:12]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Holds up what a test calls at it."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def join(sync_server: RunningServer) -> Iterator[Join]:
    """Gives clients that have said Connect, with what is given besides."""
    with ExitStack() as connections:

        def connected(session_id: str | None = None, **fields: object) -> RawClient:
            client = connections.enter_context(raw_client(sync_server.url))
            client.connect(session_id, **fields)
            return client

        yield connected


@pytest.fixture
def client(join: Join) -> RawClient:
    """A client that watches nothing yet."""
    return join()


@pytest.fixture(scope="module", autouse=True)
def quiet_client(sync_server: RunningServer) -> Iterator[tuple[RawClient, float]]:
    """A client that is connected while the other tests run, and to which nothing has to be said; with the time of its last question."""
    with raw_client(sync_server.url) as client:
        client.connect()
        since = time.monotonic()
        client.modify(adding(0, "counters:get", name="quiet"))
        client.hear_transition()
        yield client, since


# The course of a conversation.


def test_a_minimal_session_message_by_message(client: RawClient, name: str) -> None:
    client.modify(adding(0, "lists:full", listName=name))
    first = client.hear_transition()
    client.mutation(0, "lists:change", listName=name, add=[7], remove=[])
    response, second = client.hear(), client.hear()
    client.modify(removing(0))
    third = client.hear_transition()

    one = {"querySet": 1, "identity": 0}
    assert first["startVersion"] == START
    assert first["endVersion"] == one | {"ts": first["endVersion"]["ts"]}
    assert [plain(m) for m in first["modifications"]] == [{"type": "QueryUpdated", "queryId": 0, "value": []}]
    assert plain(response) == {
        "type": "MutationResponse",
        "requestId": 0,
        "success": True,
        "result": None,
        "ts": response["ts"],
    }
    assert second["endVersion"].items() >= one.items()
    assert number(second["endVersion"]["ts"]) >= number(response["ts"]) > number(first["endVersion"]["ts"])
    assert [plain(m) for m in second["modifications"]] == [{"type": "QueryUpdated", "queryId": 0, "value": [7]}]
    assert third["endVersion"]["querySet"] == 2
    assert third["modifications"] == [{"type": "QueryRemoved", "queryId": 0}]


def plain(message: Message) -> Message:
    """What is said, without log lines and journal."""
    return {name: value for name, value in message.items() if name not in {"logLines", "journal"}}


@pytest.mark.parametrize("path", ["/api/sync", "/api/1.48.0/sync", "/api/1.17.4/sync", "/api/0.0.0-alpha.1/sync"])
def test_both_forms_of_the_address_work(sync_server: RunningServer, path: str) -> None:
    with raw_client(sync_server.url, path) as client:
        client.connect()
        client.modify(adding(0, "counters:get", name="nobody's"))

        assert client.hear_transition()["modifications"][0]["value"] == 0


@pytest.mark.parametrize("path", ["/api/query", "/sync", "/api/sync/more", "/"])
def test_there_is_no_socket_at_other_addresses(sync_server: RunningServer, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, raw_client(sync_server.url, path):
        pass

    assert 400 <= refused.value.response.status_code < 500


@pytest.mark.parametrize("origin", ["http://localhost:5173", "https://app.example.com", "null"])
def test_a_browser_may_come_from_anywhere(sync_server: RunningServer, origin: str) -> None:
    with raw_client(sync_server.url, origin=origin) as client:
        client.connect()
        client.modify()

        assert client.hear_transition()["endVersion"]["querySet"] == 1


def test_a_change_of_nothing_is_answered(client: RawClient) -> None:
    for version in range(1, 4):
        client.modify()
        transition = client.hear_transition()

        assert transition["endVersion"]["querySet"] == version
        assert transition["modifications"] == []


def test_who_says_who_it_is_is_answered(client: RawClient, sync_server: RunningServer) -> None:
    client.modify(adding(0, "callers:me"), adding(1, "counters:get", name="of nobody in particular"))
    client.hear_transition()

    client.say("Authenticate", baseVersion=0, tokenType="Admin", value=sync_server.admin_key)
    as_operator = client.hear_transition()
    client.say("Authenticate", baseVersion=1, tokenType="None")
    as_nobody = client.hear_transition()
    client.say("Authenticate", baseVersion=2, tokenType="None")
    once_more = client.hear_transition()

    assert [t["endVersion"]["identity"] for t in (as_operator, as_nobody, once_more)] == [1, 2, 3]
    assert updated(as_operator) == {0: {"claims": None, "isOperator": True}}
    assert updated(as_nobody) == {0: {"claims": None, "isOperator": False}}
    assert once_more["modifications"] == []


def updated(transition: Message) -> dict[int, Any]:
    """The values that a transition brings, by query."""
    return {m["queryId"]: m["value"] for m in transition["modifications"] if m["type"] == "QueryUpdated"}


def test_a_wrong_key_is_an_auth_error_and_the_end(client: RawClient) -> None:
    client.say("Authenticate", baseVersion=0, tokenType="Admin", value="camber|00")
    error = client.hear()

    assert error["type"] == "AuthError"
    assert error["baseVersion"] == 0
    assert error["authUpdateAttempted"] is True
    assert client.hear_goodbye() == 1000


@pytest.mark.parametrize("path", ["counters:add", "counters:addAndFail", "counters:addAndBreak", "counters:nothing"])
def test_every_mutation_is_answered_and_followed_by_a_transition(client: RawClient, name: str, path: str) -> None:
    """Without anything watched too: only then does npm's client call the mutation done, and PyPI's a refusal."""
    args = {"name": name, "by": 1} if path == "counters:add" else {"name": name}
    client.modify()
    client.hear_transition()

    client.mutation(0, path, **args)
    response, transition = client.hear_response(), client.hear_transition()

    assert response["success"] is (path == "counters:add")
    if response["success"]:
        assert number(transition["endVersion"]["ts"]) >= number(response["ts"])


@pytest.mark.parametrize("path", ["counters:addInAction", "counters:refuseInAction", "counters:breakInAction"])
def test_every_action_is_answered_and_followed_by_a_transition(client: RawClient, name: str, path: str) -> None:
    client.modify()
    client.hear_transition()

    client.action(3, path, **({"name": name} if path == "counters:addInAction" else {}))
    # An action's mutations may be told of before it ends.
    while (response := client.hear())["type"] == "Transition":
        pass

    assert response["type"] == "ActionResponse"
    assert response["requestId"] == 3
    assert response["success"] is (path == "counters:addInAction")
    client.hear_transition()


def test_mutations_run_in_the_order_in_which_they_came(client: RawClient, name: str) -> None:
    for request_id in range(20):
        client.mutation(request_id, "counters:add", name=name, by=1)
    responses: list[Message] = []
    while len(responses) < 20:
        message = client.hear()
        if message["type"] == "MutationResponse":
            responses.append(message)

    assert [response["requestId"] for response in responses] == list(range(20))
    assert [response["result"] for response in responses] == list(range(1, 21))
    timestamps = [number(response["ts"]) for response in responses]
    assert timestamps == sorted(set(timestamps))


def test_a_slow_action_holds_up_nothing(client: RawClient, name: str, gate: Gate) -> None:
    client.action(0, "gates:waitAt", gate=gate.path)
    client.mutation(1, "counters:add", name=name, by=1)

    assert client.hear_response()["requestId"] == 1
    client.hear_transition()
    gate.open()
    assert client.hear_response()["requestId"] == 0


def test_a_mutation_is_confirmed_while_an_older_moment_is_still_being_computed(join: Join, name: str) -> None:
    """The transition of that moment is too old for it; the client's promise waits for the next one, whatever is watched."""
    watcher, writer = join(), join()
    watcher.modify(adding(0, "counters:getSlowly", name=name, seconds=0.5))
    watcher.hear_transition()
    writer.mutation(0, "counters:add", name=name, by=1)
    writer.hear_response()

    time.sleep(0.2)  # the slow query is at work now
    watcher.mutation(0, "counters:add", name=f"not {name}", by=1)
    while (response := watcher.hear())["type"] != "MutationResponse":
        pass
    while number(watcher.version["ts"]) < number(response["ts"]):
        watcher.hear_transition()

    assert watcher.values == {0: 1}


# What is pushed, and what is not.


def test_a_result_that_changed_is_pushed_to_all_who_watch_it(join: Join, name: str) -> None:
    watchers = [join() for _ in range(3)]
    for watcher in watchers:
        watcher.modify(adding(0, "counters:get", name=name))
        watcher.hear_value(0, 0)

    watchers[0].mutation(0, "counters:add", name=name, by=4)

    for watcher in watchers:
        watcher.hear_value(0, 4)


def test_a_result_that_did_not_change_is_not_pushed(join: Join, name: str) -> None:
    watcher, writer = join(), join()
    watcher.modify(adding(0, "counters:isLarge", name=name), adding(1, "counters:get", name=f"not {name}"))
    watcher.hear_transition()

    for request_id, by in enumerate([1, 2, 3]):
        writer.mutation(request_id, "counters:add", name=name, by=by)
        writer.hear_response()
        writer.hear_transition()
    watcher.modify()
    while (transition := watcher.hear_transition())["endVersion"]["querySet"] != 2:
        assert transition["modifications"] == []
    assert transition["modifications"] == []

    writer.mutation(3, "counters:add", name=name, by=2_000)
    assert updated(watcher.hear_transition()) == {0: True}


def test_a_query_that_was_removed_is_pushed_no_more(join: Join, name: str) -> None:
    watcher, writer = join(), join()
    watcher.modify(adding(0, "counters:get", name=name), adding(1, "counters:get", name=name))
    assert updated(watcher.hear_transition()) == {0: 0, 1: 0}

    watcher.modify(removing(0))
    assert watcher.hear_transition()["modifications"] == [{"type": "QueryRemoved", "queryId": 0}]
    writer.mutation(0, "counters:add", name=name, by=1)

    assert updated(watcher.hear_transition()) == {1: 1}


def test_added_and_removed_in_one_change(client: RawClient, name: str) -> None:
    client.modify(adding(0, "counters:get", name=name))
    client.hear_transition()
    client.modify(removing(0), adding(1, "counters:get", name=name))

    transition = client.hear_transition()

    assert {(m["type"], m["queryId"]) for m in transition["modifications"]} == {
        ("QueryRemoved", 0),
        ("QueryUpdated", 1),
    }


def test_all_values_of_a_client_are_of_one_moment(join: Join, name: str) -> None:
    first, second = f"{name} 1", f"{name} 2"
    watcher, writer = join(), join()
    watcher.modify(
        adding(0, "counters:get", name=first),
        adding(1, "counters:both", names=[first, second]),
        adding(2, "counters:get", name=second),
    )
    watcher.hear_transition()

    def write() -> None:
        for request_id in range(150):
            writer.mutation(request_id, "counters:move", source=first, target=second, by=1)

    thread = threading.Thread(target=write)
    thread.start()
    while watcher.values[2] != 150:
        watcher.hear_transition()
        assert watcher.values[0] == -watcher.values[2]
        assert watcher.values[1] == [watcher.values[0], watcher.values[2]]
    thread.join()


def test_ten_thousand_queries_are_watched(client: RawClient, name: str) -> None:
    client.modify(*(adding(number, "counters:get", name=name) for number in range(10_000)))
    assert len(updated(client.hear_transition())) == 10_000

    client.mutation(0, "counters:add", name=name, by=1)
    client.hear_response()

    assert updated(client.hear_transition()) == dict.fromkeys(range(10_000), 1)


# Errors and log lines.


def test_log_lines_are_where_clients_need_them(client: RawClient, name: str) -> None:
    client.modify(adding(0, "counters:logged", name=name), adding(1, "counters:get", name=name))
    logged, silent = client.hear_transition()["modifications"]
    client.mutation(0, "counters:add", name=name, by=1)
    mutation = client.hear_response()
    client.hear_transition()
    client.action(1, "counters:addInAction", name=name)
    while (action := client.hear())["type"] != "ActionResponse":
        pass

    assert logged["logLines"] == ["[INFO] 'counting'"]
    assert silent["logLines"] == []
    assert mutation["logLines"] == ["[INFO] 'adding'"]
    assert "[INFO] 'acting'" in action["logLines"]


def test_only_a_convex_error_has_data(client: RawClient, name: str) -> None:
    client.mutation(0, "counters:addAndFail", name=name, data={"code": "Closed"})
    refused = client.hear_response()
    client.hear_transition()
    client.mutation(1, "counters:addAndFail", name=name, data=None)
    with_null = client.hear_response()
    client.hear_transition()
    client.mutation(2, "counters:addAndBreak", name=name)
    broken = client.hear_response()
    client.hear_transition()

    assert refused["errorData"] == {"code": "Closed"}
    assert with_null["errorData"] is None
    assert "errorData" not in broken


def test_a_failed_query_has_data_only_if_it_was_refused(client: RawClient, name: str) -> None:
    failed: dict[str, Message] = {}
    client.modify(adding(0, "counters:get", name=name))
    client.hear_transition()
    for request_id, (how, failure) in enumerate({"refused": {"data": ["d"]}, "broken": "plainly"}.items()):
        client.mutation(request_id, "counters:setFailure", name=name, failure=failure)
        client.hear_response()
        [failed[how]] = client.hear_transition()["modifications"]

    assert [modification["type"] for modification in failed.values()] == ["QueryFailed"] * 2
    assert failed["refused"]["errorData"] == ["d"]
    assert "errorData" not in failed["broken"]


def test_a_query_that_can_not_be_run_fails_and_the_others_go_on(client: RawClient, name: str) -> None:
    client.modify(
        adding(0, "counters:nothing"),
        adding(1, "not a path"),
        adding(2, "counters:get", nme=name),
        adding(3, "counters:add", name=name, by=1),
        adding(4, "callers:secret"),
        adding(5, "_system/cli/tables:default", paginationOpts={"cursor": None, "numItems": 10}),
        adding(6, "counters:get", name=name),
    )

    modifications = client.hear_transition()["modifications"]

    assert {m["queryId"]: m["type"] for m in modifications} == dict.fromkeys(range(6), "QueryFailed") | {
        6: "QueryUpdated"
    }
    assert not any("errorData" in modification for modification in modifications)


# Coming back.


def test_the_first_transition_is_not_older_than_what_was_seen(join: Join, name: str) -> None:
    before = join()
    before.mutation(0, "counters:add", name=name, by=1)
    seen = before.hear_response()["ts"]

    again = join(before.session_id, connectionCount=1, maxObservedTimestamp=seen)
    again.modify(adding(0, "counters:get", name=name))
    first = again.hear_transition()

    assert number(first["endVersion"]["ts"]) >= number(seen)
    assert updated(first) == {0: 1}


def test_a_client_from_the_future_gets_nothing_older(join: Join) -> None:
    client = join(maxObservedTimestamp=timestamp(2**63))
    client.modify()

    assert client.hear_goodbye() == 1011


def test_a_mutation_that_is_sent_again_is_done_once(join: Join, name: str) -> None:
    first = join()
    first.mutation(5, "counters:add", name=name, by=3)
    answered = first.hear_response()

    again = join(first.session_id, connectionCount=1, maxObservedTimestamp=answered["ts"])
    again.modify(adding(0, "counters:get", name=name))
    again.mutation(5, "counters:add", name=name, by=3)
    again.mutation(6, "counters:add", name=name, by=10)
    responses = [message for message in heard_until(again, value=13) if message["type"] == "MutationResponse"]

    assert [(r["requestId"], r["success"], r["result"]) for r in responses] == [(5, True, 3), (6, True, 13)]
    assert responses[0]["logLines"] == answered["logLines"]


def heard_until(client: RawClient, *, value: object) -> list[Message]:
    """What a client hears until its query 0 shows this."""
    messages: list[Message] = []
    while client.values.get(0, ...) != value:
        messages.append(client.hear())
    return messages


def test_a_mutation_that_is_sent_again_while_it_runs_is_done_once(join: Join, name: str) -> None:
    first = join()
    first.mutation(0, "counters:addSlowly", name=name, by=1, seconds=0.3)
    first.modify()
    first.socket.close()

    again = join(first.session_id, connectionCount=1)
    again.modify(adding(0, "counters:get", name=name))
    again.mutation(0, "counters:addSlowly", name=name, by=1, seconds=0.3)
    messages = heard_until(again, value=1)
    again.mutation(1, "counters:add", name=name, by=0)
    # The value may be shown before the request that was sent again is answered.
    while sum(message["type"] == "MutationResponse" for message in messages) < 2:
        messages.append(again.hear())

    assert [m["result"] for m in messages if m["type"] == "MutationResponse"] == [1, 1]
    assert again.values[0] == 1


def test_a_request_that_asks_for_something_else_under_the_same_number_is_refused(join: Join, name: str) -> None:
    first = join()
    first.mutation(0, "counters:add", name=name, by=3)
    first.hear_response()

    again = join(first.session_id, connectionCount=1)
    again.mutation(0, "counters:add", name=name, by=4)
    response = again.hear_response()
    again.hear_transition()
    again.modify(adding(0, "counters:get", name=name))

    assert response["success"] is False
    assert "errorData" not in response
    again.hear_value(0, 3)


def test_two_sessions_may_use_the_same_numbers(join: Join, name: str) -> None:
    for client, expected in ((join(), 1), (join(), 2)):
        client.mutation(0, "counters:add", name=name, by=1)

        assert client.hear_response()["result"] == expected


def test_a_page_keeps_its_end_while_it_is_watched_and_after_a_reconnect(join: Join, name: str) -> None:
    watcher, writer = join(), join()
    page = {"listName": name, "paginationOpts": {"cursor": None, "numItems": 3, "id": 1}}
    change(writer, 0, name, add=[1, 2, 3, 4, 5])

    watcher.modify(adding(0, "lists:page", **page))
    [first] = watcher.hear_transition()["modifications"]
    change(writer, 1, name, add=[2.5])
    [grown] = watcher.hear_transition()["modifications"]
    change(writer, 2, name, add=[2.7])
    again, without = join(watcher.session_id, connectionCount=1), join()
    again.modify(adding(0, "lists:page", journal=grown["journal"], **page))
    without.modify(adding(0, "lists:page", **page))
    [returned], [anew] = again.hear_transition()["modifications"], without.hear_transition()["modifications"]

    assert places(first) == [1, 2, 3]
    assert places(grown) == [1, 2, 2.5, 3]
    assert places(returned) == [1, 2, 2.5, 2.7, 3]
    assert places(anew) == [1, 2, 2.5]
    assert first["value"]["continueCursor"] == grown["value"]["continueCursor"] == returned["value"]["continueCursor"]


def change(client: RawClient, request_id: int, name: str, *, add: list[float]) -> None:
    client.mutation(request_id, "lists:change", listName=name, add=add, remove=[])
    assert client.hear_response()["success"]
    client.hear_transition()


def places(modification: Message) -> list[float]:
    return [item["seq"] for item in modification["value"]["page"]]


# What breaks the rules ends the conversation, and nobody else's.


@contextmanager
def undisturbed(join: Join, name: str) -> Iterator[None]:
    """Another client, before and after, to whom nothing may happen."""
    other = join()
    other.modify(adding(0, "counters:get", name=name))
    other.hear_value(0, 0)
    yield
    other.mutation(0, "counters:add", name=name, by=1)
    other.hear_value(0, 1)


ADD = adding(0, "counters:get", name="x")
QUERY_SET = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": []}
MUTATION = {"type": "Mutation", "requestId": 0, "udfPath": "counters:add", "args": [{"name": "x", "by": 1}]}
NO_NUMBERS = ["0", 0.5, -1, None, True, [0], 2**64, 1e300]

BROKEN: dict[str, object] = {
    "a base version of the future": QUERY_SET | {"baseVersion": 1, "newVersion": 2},
    "a version that does not grow": QUERY_SET | {"newVersion": 0},
    "an identity of the future": {"type": "Authenticate", "baseVersion": 1, "tokenType": "None"},
    "no base version": {"type": "ModifyQuerySet", "newVersion": 1, "modifications": []},
    "no modifications": {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1},
    "a query twice": QUERY_SET | {"modifications": [ADD, ADD]},
    "an unknown modification": QUERY_SET | {"modifications": [ADD | {"type": "Replace"}]},
    "no type": {"requestId": 0},
    "a number as type": {"type": 5},
    "a list": [MUTATION],
    "a number": 5,
    "null": None,
    "a second Connect": {"type": "Connect", "sessionId": str(uuid4()), "connectionCount": 0, "lastCloseReason": ""},
    **{f"a base version {n!r}": QUERY_SET | {"baseVersion": n} for n in NO_NUMBERS},
    **{f"a query id {n!r}": QUERY_SET | {"modifications": [ADD | {"queryId": n}]} for n in NO_NUMBERS},
    **{f"a request id {n!r}": MUTATION | {"requestId": n} for n in NO_NUMBERS},
}


def test_what_breaks_the_rules_is_a_fatal_error_and_the_end(join: Join, name: str) -> None:
    with undisturbed(join, name):
        for what, message in BROKEN.items():
            client = join()
            client.socket.send(json.dumps(message))

            assert client.hear_fatal_error(), what


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (QUERY_SET | {"baseVersion": 3}, "Base version 3 passed up doesn't match the current version 0"),
        (QUERY_SET | {"modifications": [ADD, ADD]}, "Duplicate query ID: 0"),
    ],
)
def test_the_error_says_what_was_wrong(client: RawClient, broken: Message, text: str) -> None:
    client.socket.send(json.dumps(broken))

    assert client.hear_fatal_error() == text


def test_nothing_comes_before_connect(sync_server: RunningServer) -> None:
    with raw_client(sync_server.url) as client:
        client.modify()

        assert "Connect" in client.hear_fatal_error()


@pytest.mark.parametrize("session_id", ["", "x" * 10_000, 5, None])
def test_a_session_id_is_a_short_text(sync_server: RunningServer, session_id: object) -> None:
    with raw_client(sync_server.url) as client:
        client.say("Connect", sessionId=session_id, connectionCount=0, lastCloseReason=None)

        assert client.hear_fatal_error()


@pytest.mark.parametrize("text", ["", "{", "nonsense", "NaN", '{"type":"Mutation",}', "[" * 100_000, '{"a":' * 100_000])
def test_what_is_no_json_is_the_end(join: Join, name: str, text: str) -> None:
    with undisturbed(join, name):
        client = join()
        client.socket.send(text)

        assert client.hear_fatal_error()


def test_binary_frames_are_the_end(join: Join, name: str) -> None:
    with undisturbed(join, name):
        client = join()
        client.socket.send(json.dumps(MUTATION).encode())

        assert client.hear_fatal_error()


@pytest.mark.parametrize(
    "begin", ['{"type":"', '{"type":"Mutation","requestId":0,"udfPath":"', '{"type":"Connect","sessionId":"']
)
def test_text_that_is_not_utf_8_is_the_end(join: Join, name: str, begin: str) -> None:
    with undisturbed(join, name):
        client = join()
        client.socket.send(begin.encode() + b'\xff\xfe"}', text=True)

        assert client.hear_fatal_error()


def test_a_huge_message_is_the_end(join: Join, name: str) -> None:
    with undisturbed(join, name):
        client = join()
        # The server may hang up before it has read it all.
        with suppress(ConnectionClosed):
            client.socket.send(json.dumps(MUTATION | {"args": [{"name": "x" * 40_000_000}]}))

        assert client.hear_goodbye() == 1009


def test_too_many_queries_are_the_end(join: Join, name: str) -> None:
    with undisturbed(join, name):
        client = join()
        client.modify(*(adding(number, "counters:get", name=name) for number in range(100_000)))

        assert "10000" in client.hear_fatal_error()


def test_arguments_that_are_no_values_fail_by_themselves(join: Join, name: str) -> None:
    no_values: list[object] = [[{"name": {"$integer": "x"}}], [1], [], [{}, {}], "text", {"name": {"$float": "AAA="}}]
    with undisturbed(join, name):
        for args in no_values:
            client = join()
            client.say("Mutation", requestId=0, udfPath="counters:add", args=args)
            response = client.hear_response()

            assert response["success"] is False, args
            assert "errorData" not in response


def test_what_is_not_known_is_ignored(client: RawClient, name: str) -> None:
    client.say("Event", eventType="ClientConnect", event={"marks": []})
    client.say("FromTheFuture", requestId="not even a number")
    client.say("Mutation", requestId=0, udfPath="counters:add", args=[{"name": name, "by": 1}], more={"a": 1})
    assert client.hear_response()["result"] == 1

    client.say("ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[{**ADD, "more": 1}], more=[])
    client.hear_value(0, 0)


def test_versions_may_jump_forward(client: RawClient) -> None:
    client.say("ModifyQuerySet", baseVersion=0, newVersion=7, modifications=[])

    assert client.hear_transition()["endVersion"]["querySet"] == 7


def test_a_client_that_vanishes_disturbs_nobody(join: Join, sync_server: RunningServer, name: str) -> None:
    with undisturbed(join, name):
        for _ in range(20):
            client = join()
            client.modify(adding(0, "counters:get", name=name))
            client.mutation(0, "counters:addSlowly", name=f"not {name}", by=1, seconds=0.01)
            client.socket.socket.close()


# Signs of life; last, since by now it has been quiet long enough.


def test_after_15_s_of_quiet_there_is_a_sign_of_life(quiet_client: tuple[RawClient, float]) -> None:
    client, since = quiet_client

    message = client.hear()

    assert message == {"type": "Ping"}
    assert time.monotonic() - since > 10
    client.mutation(0, "counters:add", name="quiet", by=1)
    client.hear_value(0, 1)
