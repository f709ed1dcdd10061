"""Clients that say anything in any order: they are refused, they get no traceback out of the server, and they disturb nobody."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sync.conftest import comes_down_to, open_sockets, troubles
from tests.sync.frames import Opcode, bare_connection, drain, frame, text
from tests.sync.neighbour import Neighbour, neighbour
from tests.wire.running_server import REPOSITORY, RunningServer, running_server

EXAMPLES = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "5")) * 40
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
PATIENCE = 5.0
"""Seconds of the server's work for which a well-behaved client may have to wait beside all this."""

pytestmark = pytest.mark.torture


@pytest.fixture(scope="module", autouse=True)
def living(board_server: RunningServer) -> Iterator[Neighbour]:
    """Somebody who uses the server while the others misbehave."""
    with neighbour(board_server) as living:
        before = open_sockets(board_server)
        yield living
        while len(living.waits) <= 10:
            assert living.goes_on()
        assert comes_down_to(board_server, before), "sockets of clients that are gone are still open"
    assert max(living.waits) < PATIENCE


# What is said

NUMBERS = st.one_of(st.integers(-1, 4), st.sampled_from([2**31, 2**32, 2**53, 2**64, -(2**63), 1.5, 1e308, -0.0]))
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "board:room", "board:nothing", "x" * 100_000, "\0", "a:b:c", "../../etc", "_system/cli/tables", "AAAA="]),
)  # fmt: skip
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS.filter(lambda t: len(t) < 100), inner, max_size=4)),
    max_leaves=6,
)  # fmt: skip


def mostly(plausible: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(plausible, plausible, plausible, plausible, plausible, JUNK)


def some_of(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A message of this type in which fields are wrong, are missing and are too many."""
    known = {field: mostly(strategy) for field, strategy in fields.items()}
    whole = st.fixed_dictionaries({"type": st.just(name), **known})
    partial = st.fixed_dictionaries({"type": st.just(name)}, optional={**known, "more": JUNK})
    return st.one_of(whole, whole, whole, partial)


PATHS = st.sampled_from(
    ["board:room", "board:me", "board:strict", "board:page", "board:change", "board:gone", "board.js:serial", "_system/cli/tables"]
)  # fmt: skip
ARGS = st.one_of(
    st.just([{}]),
    st.just([{"room": "attic"}]),
    st.just([{"name": "a"}]),
    st.just([{"changes": [{"do": "add", "name": "fuzz", "by": 50}]}]),
    st.just([{"room": "attic", "paginationOpts": {"numItems": 3, "cursor": "wrong"}}]),
    st.just({"room": {"$integer": "AAAAAAAAAAA="}}),
    st.just([{"room": {"$bytes": "no"}}]),
    st.just([{}, {}]),
)
SMALL = st.integers(0, 4)
TIMESTAMPS = st.sampled_from(["AAAAAAAAAAA=", "//////////8=", "AQAAAAAAAAA=", "AAA", "é"])
MODIFICATIONS = st.lists(
    st.one_of(
        some_of("Add", queryId=SMALL, udfPath=PATHS, args=ARGS, journal=st.none()),
        some_of("Remove", queryId=SMALL),
        some_of("Change", queryId=SMALL),
    ),
    max_size=4,
)
MESSAGES = st.one_of(
    some_of("Connect", sessionId=st.uuids().map(str), connectionCount=SMALL, clientTs=NUMBERS, maxObservedTimestamp=TIMESTAMPS),
    some_of("Authenticate", baseVersion=SMALL, tokenType=st.sampled_from(["None", "Admin", "User"]), value=TEXTS, impersonating=JUNK),
    some_of("ModifyQuerySet", baseVersion=SMALL, newVersion=SMALL, modifications=MODIFICATIONS),
    some_of("Mutation", requestId=SMALL, udfPath=PATHS, args=ARGS, componentPath=st.just("")),
    some_of("Action", requestId=SMALL, udfPath=PATHS, args=ARGS),
    some_of("Event", eventType=TEXTS, event=JUNK),
    some_of("Transition"),
    JUNK,
)  # fmt: skip

RAW_TEXTS = st.sampled_from(
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"type":"Connect","sessionId":"\\ud800"}',
        b'{"type":"Connect","sessionId":"s","clientTs":1e999}',
        b'{"type":"Connect","sessionId":"s","clientTs":1e308}',
        b'{"type":"Connect","sessionId":"s","clientTs":-1e308}',
        b'{"type":"Connect","sessionId":"s","clientTs":NaN}',
        b'{"type":"Connect","type":"Mutation","sessionId":"s"}',
        b'{"type":"Mutation","requestId":0,"udfPath":"board:change","args":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"type":"Mutation","requestId":0,"udfPath":"board:change","args":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"type":"Mutation","requestId":1,"udfPath":"board:change","args":[{"changes":' + b"9" * 5000 + b"}]}",
        b'{"type":"Mutation","requestId":1,"udfPath":"board:change","args":[{"changes":"\\udc00"}]}',
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":' + b"[" * 100_000,
        b"[" * 200_000,
        b'{"type":"Authenticate","baseVersion":0,"tokenType":"Admin","value":"\xc3\xa9","impersonating":' + b"[" * 999 + b"]" * 999 + b"}",
        b" " * 100_000,
    ]
)  # fmt: skip


@st.composite
def fragments(draw: st.DrawFn) -> bytes:
    """A message in several frames, with others in between."""
    payload = json.dumps(draw(MESSAGES)).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames = b""
    for number, part in enumerate(parts):
        opcode = Opcode.CONT if number else draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
        frames += frame(opcode, part, fin=number == len(parts) - 1)
        frames += draw(
            st.sampled_from([b"", b"", frame(Opcode.PING, b"?"), frame(Opcode.PONG), frame(Opcode.TEXT, b"{}")])
        )
    return frames


@st.composite
def odd_frames(draw: st.DrawFn) -> bytes:
    """A frame that is most likely against the rules."""
    return frame(
        draw(st.integers(0, 15)),
        draw(st.binary(max_size=200)),
        fin=draw(st.booleans()),
        reserved=draw(st.integers(0, 7)),
        is_masked=draw(st.booleans()),
    )


CLOSES = st.sampled_from(
    [frame(Opcode.CLOSE), frame(Opcode.CLOSE, b"\x03\xe8bye"), frame(Opcode.CLOSE, b"\x00"), frame(Opcode.CLOSE, b"\xff\xff")]
)  # fmt: skip
PIECES = st.one_of(
    MESSAGES.map(text),
    MESSAGES.map(text),
    MESSAGES.map(text),
    RAW_TEXTS.map(lambda payload: frame(Opcode.TEXT, payload)),
    st.binary(max_size=50).map(lambda payload: frame(Opcode.BINARY, payload)),
    fragments(),
    odd_frames(),
    CLOSES,
)

CONNECT = text({"type": "Connect", "sessionId": "a session", "connectionCount": 0, "clientTs": 0})
WATCH = text(
    {
        "type": "ModifyQuerySet",
        "baseVersion": 0,
        "newVersion": 1,
        "modifications": [{"type": "Add", "queryId": 0, "udfPath": "board:room", "args": [{"room": "attic"}]}],
    }
)
CHANGE = text({"type": "Mutation", "requestId": 0, "udfPath": "board:change", "args": [{"changes": []}]})
NOBODY = text({"type": "Authenticate", "baseVersion": 0, "tokenType": "None"})
CONVERSATION = CONNECT + NOBODY + WATCH + CHANGE


def say(server: RunningServer, pieces: list[bytes], *, half_close: bool = False) -> bytes:
    """Send this to the server, listen for a moment, and leave."""
    with bare_connection(server.port) as connection, suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return drain(connection, 0.01)
    return b""


@FUZZ
@given(pieces=st.lists(PIECES, max_size=8), connects=st.booleans(), half_close=st.booleans())
def test_whatever_is_said_is_answered_or_refused(
    board_server: RunningServer, pieces: list[bytes], connects: bool, half_close: bool
) -> None:
    say(board_server, [CONNECT, *pieces] if connects else pieces, half_close=half_close)

    assert board_server.process.poll() is None


@FUZZ
@given(
    changes=st.lists(st.tuples(st.integers(0, len(CONVERSATION) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, len(CONVERSATION))),
)
def test_damaged_bytes_are_refused(
    board_server: RunningServer, changes: list[tuple[int, int]], cut: int | None
) -> None:
    damaged = bytearray(CONVERSATION)
    for position, byte in changes:
        damaged[position] = byte
    say(board_server, [bytes(damaged[:cut])])

    assert board_server.process.poll() is None


@FUZZ
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=400))
def test_it_makes_no_difference_in_which_parts_bytes_arrive(board_server: RunningServer, sizes: list[int]) -> None:
    position, pieces = 0, []
    for size in sizes:
        pieces.append(CONVERSATION[position : position + size])
        position += size
    with bare_connection(board_server.port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [*pieces, CONVERSATION[position:]]:
            connection.sendall(piece)
        heard = b""
        while heard.count(b'"Transition"') < 1 or b"MutationResponse" not in heard:
            part = connection.recv(65536)
            assert part, heard
            heard += part


def test_a_client_that_is_sent_away_may_go_on_talking(tmp_path: Path) -> None:
    """It does not know yet, and nothing that it says has an effect any more."""
    with running_server(REPOSITORY / "tests/sync/app", tmp_path / "data") as server:
        with bare_connection(server.port) as connection:
            connection.sendall(CONVERSATION)
            drain(connection, 0.2)
            server.process.terminate()
            drain(connection, 0.2)
            remove = {"baseVersion": 1, "newVersion": 2, "modifications": [{"type": "Remove", "queryId": 0}]}
            with suppress(ConnectionError):
                connection.sendall(text({"type": "ModifyQuerySet", **remove}) + CHANGE + frame(Opcode.BINARY, b"?"))
                drain(connection, 0.2)
        assert server.process.wait(30) == 0
    assert troubles(server.log) == []
