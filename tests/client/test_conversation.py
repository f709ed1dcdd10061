"""The conversation alone, by its messages: what is said on a new socket, what is resent, what the application is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from camber.client.conversation import (
    ANONYMOUS,
    Answered,
    Authenticated,
    AuthRefused,
    Changed,
    Conversation,
    Credential,
    Ended,
    Event,
    Logged,
    Lost,
)
from camber.client.messages import MessageError, from_ts, to_ts
from camber.client.outcomes import Failure, Success

ADA = Credential("User", "ada's token")


class Server:
    """The other end: takes down what the client says, and says what it is told to."""

    def __init__(self, *, connected: bool = True) -> None:
        self.client = Conversation("session 1")
        self.version: dict[str, Any] = {}
        if connected:
            self.connect()

    def connect(self) -> list[dict[str, Any]]:
        self.version = {"querySet": 0, "identity": 0, "ts": to_ts(0)}
        self.client.connected(now_ms=1_000)
        return self.heard()

    def heard(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        while (text := self.client.next_message()) is not None:
            messages.append(json.loads(text))
        return messages

    def says(self, kind: str, **fields: object) -> list[Event]:
        return self.client.receive(json.dumps({"type": kind, **fields}))

    def moves(self, ts: int, *modifications: dict[str, object], **version: int) -> list[Event]:
        start, self.version = self.version, {**self.version, **version, "ts": to_ts(ts)}
        return self.says("Transition", startVersion=start, endVersion=self.version, modifications=modifications)

    def answers(self, request_id: int, result: object = None, **fields: object) -> list[Event]:
        return self.says("MutationResponse", requestId=request_id, success=True, result=result, logLines=[], **fields)


def updated(query_id: int, value: object, **fields: object) -> dict[str, object]:
    return {"type": "QueryUpdated", "queryId": query_id, "value": value, "logLines": [], "journal": None, **fields}


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def test_a_first_socket_begins_with_who_and_what() -> None:
    server = Server(connected=False)
    server.client.watch("m:q", b'{"a":1}')
    server.client.authenticate(ADA)
    server.client.mutate("m:f", b"{}")

    assert server.connect() == [
        {
            "type": "Connect",
            "sessionId": "session 1",
            "connectionCount": 0,
            "lastCloseReason": "InitialConnect",
            "clientTs": 1_000,
        },
        {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": "ada's token"},
        {
            "type": "ModifyQuerySet",
            "baseVersion": 0,
            "newVersion": 1,
            "modifications": [{"type": "Add", "queryId": 0, "udfPath": "m:q", "args": [{"a": 1}], "journal": None}],
        },
        {"type": "Mutation", "requestId": 0, "udfPath": "m:f", "args": [{}]},
    ]


def test_the_query_set_is_sent_also_if_it_is_empty() -> None:
    assert kinds(Server(connected=False).connect()) == ["Connect", "ModifyQuerySet"]


def test_equal_subscriptions_are_one_query_until_the_last_one_leaves() -> None:
    server = Server()
    first, second = server.client.watch("m:q", b"{}"), server.client.watch("m:q", b"{}")
    other = server.client.watch("m:q", b'{"a":1}')
    (change,) = server.heard()
    server.client.unwatch(first)

    assert first == second != other
    assert [add["queryId"] for add in change["modifications"]] == [first, other]
    assert server.heard() == []
    server.client.unwatch(second)
    assert server.heard() == [
        {
            "type": "ModifyQuerySet",
            "baseVersion": 2,
            "newVersion": 3,
            "modifications": [{"type": "Remove", "queryId": first}],
        }
    ]


def test_a_query_that_is_left_before_it_was_sent_is_never_sent() -> None:
    server = Server()
    server.client.unwatch(server.client.watch("m:q", b"{}"))

    assert [message["modifications"] for message in server.heard()] == [[]]


def test_changes_of_the_query_set_stay_in_their_place_among_other_messages() -> None:
    server = Server()
    server.client.watch("m:a", b"{}")
    server.client.authenticate(ADA)
    server.client.watch("m:b", b"{}")
    server.client.authenticate(ANONYMOUS)

    messages = server.heard()

    assert kinds(messages) == ["ModifyQuerySet", "Authenticate", "ModifyQuerySet", "Authenticate"]
    assert [message["baseVersion"] for message in messages] == [1, 0, 2, 1]
    assert messages[3] == {"type": "Authenticate", "baseVersion": 1, "tokenType": "None"}


def test_no_message_about_queries_grows_without_bound() -> None:
    server = Server(connected=False)
    for number in range(8):
        server.client.watch("m:q", json.dumps({"n": number, "text": "x" * 400_000}).encode())

    messages = server.connect()[1:]

    assert len(messages) > 2
    assert [message["newVersion"] for message in messages] == list(range(1, len(messages) + 1))
    assert [add["queryId"] for message in messages for add in message["modifications"]] == list(range(8))


def test_results_are_told_and_late_ones_of_queries_that_were_left_are_not() -> None:
    server = Server()
    kept, left = server.client.watch("m:a", b"{}"), server.client.watch("m:b", b"{}")
    server.client.unwatch(left)

    told = server.moves(
        10,
        updated(kept, {"b": 1}, logLines=["[INFO] 'hello'"]),
        updated(left, 2),
        {"type": "QueryRemoved", "queryId": 99},
        querySet=2,
    )

    assert told == [Logged("m:a", ["[INFO] 'hello'"]), Changed(kept, Success(b'{"b": 1}'), is_news=True)]
    assert server.client.latest(kept) == Success(b'{"b": 1}')


def test_a_failure_is_told_with_its_data_also_if_that_is_null() -> None:
    server = Server()
    query_id = server.client.watch("m:q", b"{}")
    failed = {"type": "QueryFailed", "queryId": query_id, "errorMessage": "No", "logLines": [], "journal": None}

    assert server.moves(1, failed) == [Changed(query_id, Failure("No"), is_news=True)]
    assert server.moves(2, {**failed, "errorData": None}) == [Changed(query_id, Failure("No", b"null"), is_news=True)]


def test_a_mutation_ends_with_the_first_transition_that_shows_it() -> None:
    server = Server()
    query_id = server.client.watch("m:q", b"{}")
    request_id = server.client.mutate("m:f", b"{}")

    assert server.answers(request_id, 5, ts=to_ts(200)) == []
    assert server.moves(199) == []
    assert server.moves(200, updated(query_id, 7)) == [
        Changed(query_id, Success(b"7"), is_news=True),
        Answered(request_id, Success(b"5")),
    ]


def test_failed_mutations_and_actions_end_at_once() -> None:
    server = Server()
    mutation, action = server.client.mutate("m:f", b"{}"), server.client.act("m:a", b"{}")
    failure = {"success": False, "result": "No", "logLines": []}

    assert server.says("MutationResponse", requestId=mutation, ts=None, errorData=[1], **failure) == [
        Answered(mutation, Failure("No", b"[1]"))
    ]
    assert server.says("ActionResponse", requestId=action, **failure) == [Answered(action, Failure("No"))]


def test_a_new_socket_is_told_everything_again() -> None:
    server = Server()
    query_id = server.client.watch("m:q", b"{}")
    unfinished, unreflected = server.client.mutate("m:f", b"{}"), server.client.mutate("m:g", b"{}")
    server.client.authenticate(ADA)
    server.heard()
    server.moves(100, updated(query_id, 1, journal="place"), querySet=1, identity=1)
    server.answers(unreflected, 5, ts=to_ts(300))

    assert server.client.disconnected("gone") == []
    assert server.client.latest(query_id) is None
    messages = server.connect()

    assert messages[0] == {
        "type": "Connect",
        "sessionId": "session 1",
        "connectionCount": 1,
        "lastCloseReason": "gone",
        "clientTs": 1_000,
        "maxObservedTimestamp": to_ts(300),
    }
    assert messages[1]["baseVersion"] == 0
    assert messages[2]["modifications"][0]["journal"] == "place"
    assert [message.get("requestId") for message in messages[3:]] == [unfinished, unreflected]
    # The answer that it had counts, and any state from then on shows what it wrote.
    assert server.answers(unreflected, "another", ts=to_ts(400)) == []
    assert server.moves(301, querySet=1, identity=1) == [Answered(unreflected, Success(b"5"))]


def test_a_mutation_that_is_seen_to_be_done_before_it_could_be_sent_again_is_not_sent() -> None:
    server = Server()
    first, second = server.client.mutate("m:f", b"{}"), server.client.mutate("m:f", b"{}")
    server.heard()
    server.answers(first, 5, ts=to_ts(300))
    server.client.disconnected("gone")
    server.version = {"querySet": 0, "identity": 0, "ts": to_ts(0)}
    server.client.connected(now_ms=1_000)  # on a slow way: nothing of what it has to say has left yet

    assert server.moves(301, querySet=1) == [Answered(first, Success(b"5"))]
    assert [message["requestId"] for message in server.heard() if message["type"] == "Mutation"] == [second]
    server.answers(second, 6, ts=to_ts(302))
    assert server.moves(302) == [Answered(second, Success(b"6"))]
    assert server.client.is_settled


def test_results_that_are_as_before_are_no_news_after_a_reconnect() -> None:
    server = Server()
    same, other = server.client.watch("m:a", b"{}"), server.client.watch("m:b", b"{}")
    server.moves(1, updated(same, 1), updated(other, 1), querySet=1)
    server.client.disconnected("gone")
    server.connect()

    assert server.moves(2, updated(same, 1), updated(other, 2), querySet=1) == [
        Changed(same, Success(b"1"), is_news=False),
        Changed(other, Success(b"2"), is_news=True),
    ]


def test_an_action_that_was_sent_is_lost_and_one_that_was_not_is_sent_later() -> None:
    server = Server()
    sent = server.client.act("m:a", b"{}")
    server.heard()
    unsent = server.client.act("m:b", b"{}")

    assert server.client.disconnected("gone") == [Lost(sent)]
    assert [message["requestId"] for message in server.connect()[2:]] == [unsent]
    assert server.says("ActionResponse", requestId=sent, success=True, result=1, logLines=[]) == []


def test_a_request_that_nobody_waits_for_is_not_sent_and_not_sent_again() -> None:
    server = Server()
    sent = server.client.mutate("m:f", b"{}")
    server.heard()
    unsent = server.client.mutate("m:g", b"{}")

    assert not server.client.abandon(sent)  # it runs, and its place is taken until it has ended
    assert server.client.abandon(unsent)
    assert server.heard() == []
    assert server.client.disconnected("gone") == [Lost(sent)]
    assert kinds(server.connect()) == ["Connect", "ModifyQuerySet"]


def test_who_the_client_is_is_confirmed_by_a_transition() -> None:
    server = Server()
    server.client.authenticate(ADA)
    server.client.authenticate(Credential("Admin", "key", {"subject": "bob"}))

    assert server.heard()[1] == {
        "type": "Authenticate",
        "baseVersion": 1,
        "tokenType": "Admin",
        "value": "key",
        "impersonating": {"subject": "bob"},
    }
    assert server.moves(1, identity=1) == []
    assert server.moves(2, identity=2) == [Authenticated()]


def test_a_refusal_counts_unless_it_is_about_an_earlier_token() -> None:
    server = Server()
    server.client.authenticate(ADA)
    server.client.authenticate(Credential("User", "a newer token"))

    assert server.says("AuthError", error="old", baseVersion=0, authUpdateAttempted=True) == []
    assert server.says("AuthError", error="expired", baseVersion=1, authUpdateAttempted=False) == []
    assert server.says("AuthError", error="bad", baseVersion=1, authUpdateAttempted=True) == [AuthRefused("bad")]


def test_a_token_that_expires_in_use_is_refused() -> None:
    server = Server()
    server.client.authenticate(ADA)
    server.moves(1, identity=1)

    assert server.says("AuthError", error="expired", baseVersion=1, authUpdateAttempted=False) == [
        AuthRefused("expired")
    ]


def test_a_fatal_error_ends_it_and_what_is_unknown_is_ignored() -> None:
    server = Server()

    assert server.says("FatalError", error="bad base version") == [Ended("bad base version")]
    assert server.says("Ping") == []
    assert server.says("OfALaterServer", anything=[1]) == []
    assert server.answers(77, ts=to_ts(1)) == []


def test_a_transition_can_come_in_parts() -> None:
    server = Server()
    query_id = server.client.watch("m:q", b"{}")
    end = {"querySet": 1, "identity": 0, "ts": to_ts(9)}
    whole = {"type": "Transition", "startVersion": server.version, "endVersion": end}
    text = json.dumps({**whole, "modifications": [updated(query_id, "☃" * 10)]}, ensure_ascii=False)
    parts = [text[start : start + 50] for start in range(0, len(text), 50)]

    told = [
        server.says("TransitionChunk", chunk=part, partNumber=number, totalParts=len(parts), transitionId="1")
        for number, part in enumerate(parts)
    ]

    assert told[:-1] == [[]] * (len(parts) - 1)
    assert told[-1] == [Changed(query_id, Success(('"' + "☃" * 10 + '"').encode()), is_news=True)]


@pytest.mark.parametrize(
    ("part", "of", "name"),
    [(1, 3, "1"), (3, 3, "1"), (1, 3, "2"), (-1, 3, "1")],
    ids=["again", "beyond", "other", "odd"],
)
def test_parts_that_do_not_follow_each_other_make_no_sense(part: int, of: int, name: str) -> None:
    server = Server()
    server.says("TransitionChunk", chunk="{", partNumber=0, totalParts=3, transitionId="1")
    server.says("TransitionChunk", chunk="{", partNumber=1, totalParts=3, transitionId="1")

    with pytest.raises(MessageError):
        server.says("TransitionChunk", chunk="{", partNumber=part, totalParts=of, transitionId=name)


def test_a_transition_from_elsewhere_makes_no_sense() -> None:
    server = Server()
    server.moves(5)
    server.version = {**server.version, "ts": to_ts(4)}

    with pytest.raises(MessageError, match="a transition begins at"):
        server.moves(6)


@pytest.mark.parametrize("text", ["", "[]", "5", "{", '{"type":"Transition"}', '{"type":"FatalError"}', "\ud800"])
def test_what_is_no_message_makes_no_sense(text: str) -> None:
    with pytest.raises(MessageError):
        Server().client.receive(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(("number", "text"), [(0, "AAAAAAAAAAA="), (100, "ZAAAAAAAAAA="), (2**64 - 1, "//////////8=")])
def test_times_are_eight_bytes_in_base64(number: int, text: str) -> None:
    assert to_ts(number) == text
    assert from_ts(text) == number


@pytest.mark.parametrize("text", ["", "AAAA", "AAAAAAAAAAAA", "?AAAAAAAAAA=", "é"])
def test_another_text_is_no_time(text: str) -> None:
    with pytest.raises(MessageError):
        from_ts(text)


def test_it_is_settled_when_the_server_has_confirmed_all_that_the_socket_began_with() -> None:
    server = Server()
    server.client.watch("m:q", b"{}")
    request_id = server.client.mutate("m:f", b"{}")
    server.client.authenticate(ADA)
    server.client.disconnected("gone")
    server.connect()

    assert not server.client.is_settled
    server.moves(1, querySet=1, identity=1)
    assert not server.client.is_settled
    server.answers(request_id, ts=to_ts(2))
    assert server.client.is_settled
    server.client.mutate("m:f", b"{}")
    assert server.client.is_settled
    server.client.disconnected("gone")
    assert not server.client.is_settled
