"""The messages of the sync protocol in their JSON: what is read, and what is written byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from camber.backend import Content
from camber.sync.messages import (
    MAX_CHUNK,
    ActionResponse,
    Authenticate,
    AuthError,
    Connect,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    Ping,
    ProtocolError,
    ServerMessage,
    Transition,
    Version,
    chunks,
    encode,
    read_message,
    read_timestamp,
)


def written(message: ServerMessage) -> Any:
    return json.loads(encode(message).payload)


# Reading


def test_the_messages_of_clients_are_read_as_they_are_sent() -> None:
    connect = read_message(
        b'{"connectionCount":0,"lastCloseReason":"InitialConnect","clientTs":1795355489125,"type":"Connect","sessionId":"ea0a"}'
    )
    modify = read_message(
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{"type":"Add","queryId":0,"udfPath":"a:b",'
        b'"args":[{"n": 1.0}],"journal":null},{"type":"Remove","queryId":3}]}'
    )
    mutation = read_message(b'{"type":"Mutation","requestId":4,"udfPath":"a:b","args":[{}],"componentPath":""}')
    claim = read_message(
        b'{"type":"Authenticate","baseVersion":1,"tokenType":"Admin","value":"k","impersonating":{"subject":"s"}}'
    )

    assert isinstance(connect, Connect)
    assert (connect.session_id, connect.observed) == ("ea0a", 0)
    assert isinstance(modify, ModifyQuerySet)
    assert [(m.type, m.query_id, bytes(m.args)) for m in modify.modifications] == [
        ("Add", 0, b'[{"n": 1.0}]'),
        ("Remove", 3, b"[{}]"),
    ]
    assert isinstance(mutation, Mutation)
    assert mutation.request_id == 4
    assert isinstance(claim, Authenticate)
    assert claim.impersonating is not None
    assert bytes(claim.impersonating) == b'{"subject":"s"}'


@pytest.mark.parametrize("text", [b'{"type":"Event","eventType":"x","event":[]}', b'{"type":"FromTheFuture"}'])
def test_what_needs_no_answer_is_passed_over(text: bytes) -> None:
    assert read_message(text) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"type":5}',
        b'{"requestId":0}',
        b"\xff",
        b"[" * 100_000,
        b'{"type":"Mutation","udfPath":"a:b"}',
        b'{"type":"Mutation","requestId":-1,"udfPath":"a:b"}',
        b'{"type":"Mutation","requestId":1.5,"udfPath":"a:b"}',
        b'{"type":"Mutation","requestId":4294967296,"udfPath":"a:b"}',
        b'{"type":"Connect","sessionId":""}',
        b'{"type":"Connect","sessionId":"' + b"x" * 101 + b'"}',
    ],
)
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="A message can't be read"):
        read_message(text)


@pytest.mark.parametrize(
    ("text", "number"), [("AAAAAAAAAAA=", 0), ("ZAAAAAAAAAA=", 100), ("AAAqNv6clxc=", 1_700_000_000_000_000_000)]
)
def test_timestamps_are_read_and_written_in_the_same_form(text: str, number: int) -> None:
    assert read_timestamp(text) == number
    assert written(Transition(Version(0, 0, number), Version(0, 0, number)))["endVersion"]["ts"] == text


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "AAAAAAAAAAAAAAA=", "ä"])
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="is no timestamp"):
        read_timestamp(text)


# Writing


def test_a_transition() -> None:
    updates = (
        (0, Content(b'["a"]', log_lines=["[INFO] 'ä'"], journal="j")),
        (1, Content(None, "no", b'{"code":1.0}')),
        (2, Content(None, 'a "plain" one')),
    )

    assert written(Transition(Version(0, 0, 0), Version(1, 2, 100), updates, (7,), 12)) == {
        "type": "Transition",
        "startVersion": {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="},
        "endVersion": {"querySet": 1, "identity": 2, "ts": "ZAAAAAAAAAA="},
        "modifications": [
            {"type": "QueryUpdated", "queryId": 0, "value": ["a"], "logLines": ["[INFO] 'ä'"], "journal": "j"},
            {
                "type": "QueryFailed",
                "queryId": 1,
                "errorMessage": "no",
                "logLines": [],
                "journal": None,
                "errorData": {"code": 1.0},
            },
            {"type": "QueryFailed", "queryId": 2, "errorMessage": 'a "plain" one', "logLines": [], "journal": None},
            {"type": "QueryRemoved", "queryId": 7},
        ],
        "clientClockSkew": 12,
    }


def test_one_content_is_written_for_many_under_their_own_numbers() -> None:
    shared = Content(b"5.0")

    for query_id in (3, 44):
        (update,) = written(Transition(Version(0, 0, 0), Version(1, 0, 1), ((query_id, shared),)))["modifications"]
        assert (update["queryId"], update["value"]) == (query_id, 5.0)


def test_answers() -> None:
    assert written(MutationResponse(1, 100, b'{"a":1.0}', log_lines=["[LOG] 1"])) == {
        "type": "MutationResponse",
        "requestId": 1,
        "success": True,
        "result": {"a": 1.0},
        "logLines": ["[LOG] 1"],
        "ts": "ZAAAAAAAAAA=",
    }
    assert written(MutationResponse(1, None, None, "no", b"null")) == {
        "type": "MutationResponse",
        "requestId": 1,
        "success": False,
        "result": "no",
        "errorData": None,
        "logLines": [],
        "ts": None,
    }
    refused = written(ActionResponse(2, None, "no"))
    assert refused == {"type": "ActionResponse", "requestId": 2, "success": False, "result": "no", "logLines": []}


def test_the_other_messages() -> None:
    assert written(Ping()) == {"type": "Ping"}
    assert written(FatalError("so")) == {"type": "FatalError", "error": "so"}
    assert written(AuthError("so", 3, update_attempted=True)) == {
        "type": "AuthError",
        "error": "so",
        "baseVersion": 3,
        "authUpdateAttempted": True,
    }


def test_half_a_surrogate_pair_in_an_error_can_still_be_sent() -> None:
    assert written(FatalError("\ud800!")) == {"type": "FatalError", "error": "?!"}


def test_the_parts_of_a_long_transition_are_the_transition() -> None:
    content = Content(json.dumps("ä😀" * MAX_CHUNK, ensure_ascii=False).encode())
    whole = encode(Transition(Version(0, 0, 0), Version(1, 0, 1), ((0, content),))).payload

    parts = [json.loads(part.payload) for part in chunks(whole, "17")]

    assert "".join(part["chunk"] for part in parts).encode() == whole
    assert [part["partNumber"] for part in parts] == list(range(len(parts)))
    assert {(p["type"], p["totalParts"], p["transitionId"]) for p in parts} == {("TransitionChunk", len(parts), "17")}
    assert len(parts) > 1
