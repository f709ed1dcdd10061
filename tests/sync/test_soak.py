"""Clients that come and go, never read, ask for too much or never say anything: others wait only a little, and nothing of them stays."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from tests.sync.conftest import comes_down_to, open_sockets, resident_bytes
from tests.sync.frames import Opcode, bare_connection, frame, text
from tests.sync.neighbour import neighbour
from tests.wire.raw_client import RawClient, adding, raw_client
from tests.wire.running_server import RunningServer

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "5"))
SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
PATIENCE = 3.0
"""Seconds of the server's work for which a well-behaved client may have to wait beside all this."""
MIB = 1024 * 1024
GROWTH = 128 * MIB
"""Memory by which the server may have grown when everybody has left: caches of SQLite's readers, and what Python keeps for itself.

However long it goes on, it stays at about half of this.
"""
SILENCE_SECONDS = 15.0
"""After which a socket on which nothing was said at all is closed (and a look around a second or two later)."""

FLOOD = {"queries": 4_000, "mutations": 400, "nonsense": 4_000, "fragments": 4_000}
"""How much of it comes, for each round."""

pytestmark = pytest.mark.torture


@pytest.fixture(scope="module", autouse=True)
def before_and_after(board_server: RunningServer) -> Iterator[None]:
    """When all tests are over, the server is as small as it was after its first few clients."""
    come_and_go(board_server, 20, Random(0))
    memory, sockets = resident_bytes(board_server), open_sockets(board_server)
    with ExitStack() as silent:
        connections = [
            silent.enter_context(socket.create_connection(("127.0.0.1", board_server.port))) for _ in range(20)
        ]
        for connection in connections[:10]:
            connection.sendall(b"GET /api/sync HTTP/1.1\r\nHost: me\r\nUpgrade: websocket\r\n")
        mute = [silent.enter_context(bare_connection(board_server.port)) for _ in range(10)]
        yield
        for connection in mute:  # those that never said Connect are sent away
            connection.settimeout(2 * SILENCE_SECONDS + 5)
            with suppress(ConnectionError):
                while connection.recv(1000):
                    pass
    assert comes_down_to(board_server, sockets)
    assert resident_bytes(board_server) < memory + GROWTH


@pytest.fixture(autouse=True)
def others_wait_little(board_server: RunningServer) -> Iterator[None]:
    """Somebody uses the server beside each of these tests."""
    with neighbour(board_server) as living:
        yield
        assert living.goes_on()
    assert max(living.waits) < PATIENCE


def come_and_go(server: RunningServer, count: int, random: Random) -> None:
    """Clients that watch something, change something, and leave in any way."""
    for number in range(count):
        rude = random.random() < 0.5
        with bare_connection(server.port) if rude else raw_client(server.url) as connection:
            if isinstance(connection, RawClient):
                connection.connect()
                connection.modify(adding(0, "board:room", room="attic"), adding(1, "board:me"))
                connection.hear_transition()
                connection.mutation(0, "board:change", changes=[{"do": "add", "name": "soak", "by": 1}])
                continue
            connection.sendall(
                text({"type": "Connect", "sessionId": str(number)}) + watching("board:room", room="attic")
            )
            if random.random() < 0.5:
                connection.sendall(changing(0, put("attic", "z")) + changing(1, put("attic", "y")))


def watching(path: str, **args: Any) -> bytes:
    modification = {"type": "Add", "queryId": 0, "udfPath": path, "args": [args]}
    return text({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [modification]})


def changing(request: int, *changes: dict[str, Any]) -> bytes:
    return text(
        {"type": "Mutation", "requestId": request, "udfPath": "board:change", "args": [{"changes": list(changes)}]}
    )


def put(room: str, content: str, key: str = "soak") -> dict[str, Any]:
    return {"do": "put", "key": key, "room": room, "place": 1, "text": content}


def test_clients_come_and_go(board_server: RunningServer) -> None:
    with ThreadPoolExecutor(4) as threads:
        works = [threads.submit(come_and_go, board_server, 12 * ROUNDS, Random(SEED + number)) for number in range(4)]
        for work in works:
            work.result()


def test_clients_that_never_read_get_no_backlog(board_server: RunningServer) -> None:
    room = uuid4().hex
    before = resident_bytes(board_server)
    most = 0
    with ExitStack() as stuck, raw_client(board_server.url) as writer:
        for number in range(20):
            connection = stuck.enter_context(bare_connection(board_server.port, receive_buffer=4096))
            connection.sendall(
                text({"type": "Connect", "sessionId": f"stuck {number}"}) + watching("board:room", room=room)
            )
        writer.connect()
        writer.modify(adding(0, "board:last", room=room))
        writer.hear_transition()
        for number in range(10 * ROUNDS):
            content = f"{number} " + "x" * 200_000
            writer.mutation(number, "board:change", changes=[put(room, content)])
            writer.hear_value(0, ["soak", 1, content, None])
            most = max(most, resident_bytes(board_server))

        # All that was written is 20 times so much; each of them may be sent one or two of these values.
        assert most < before + 160 * MIB


def test_who_does_not_read_answers_gets_no_more_of_them(board_server: RunningServer) -> None:
    before = resident_bytes(board_server)
    with bare_connection(board_server.port, receive_buffer=4096) as connection:
        connection.sendall(text({"type": "Connect", "sessionId": uuid4().hex}))
        for request in range(300):
            mutation = {"requestId": request, "udfPath": "board:long", "args": [{"letters": 1_000_000}]}
            connection.sendall(text({"type": "Mutation", **mutation}))
        deadline, most = time.monotonic() + 2.0, 0
        while time.monotonic() < deadline:
            most = max(most, resident_bytes(board_server))
            time.sleep(0.05)

    assert most < before + 100 * MIB


@pytest.mark.parametrize("kind", ["queries", "mutations", "nonsense", "fragments"])
def test_a_flood_holds_nobody_up(board_server: RunningServer, kind: str) -> None:
    count = FLOOD[kind] * min(ROUNDS, 20)
    with bare_connection(board_server.port) as connection, ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read_until_the_end, connection)
        connection.sendall(text({"type": "Connect", "sessionId": uuid4().hex}))
        with suppress(ConnectionError):
            for start in range(0, count, 100):
                connection.sendall(b"".join(flood(kind, number) for number in range(start, start + 100)))
                time.sleep(0.002)
            connection.sendall(frame(Opcode.CONT, b"}") if kind == "fragments" else frame(Opcode.TEXT, b"that is all"))
        assert b"FatalError" in reading.result() or kind == "mutations"


def read_until_the_end(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    found = b""
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
            if found.endswith((b"\x88\x02\x03\xe8", b"TooManyConcurrentMutations")):
                break
    return found


def flood(kind: str, number: int) -> bytes:
    match kind:
        case "queries":
            modification: dict[str, Any] = {"type": "Remove", "queryId": number // 2}
            if number % 2 == 0:
                args = [{"room": f"room {number}"}]
                modification = {"type": "Add", "queryId": number // 2, "udfPath": "board:room", "args": args}
            versions = {"baseVersion": number, "newVersion": number + 1}
            return text({"type": "ModifyQuerySet", **versions, "modifications": [modification]})
        case "mutations":
            return changing(number, {"do": "add", "name": "flood", "by": 1})
        case "nonsense":
            return text({"type": "Event", "eventType": "x" * 1000, "event": [number] * 50})
        case _:
            return frame(Opcode.CONT if number else Opcode.TEXT, b"{ " if number == 0 else b"  ", fin=False)


def test_a_query_set_of_a_hundred_thousand_is_refused(board_server: RunningServer) -> None:
    modifications = [adding(number, "board:room", room=f"many {number}") for number in range(100_000)]
    with raw_client(board_server.url) as client:
        client.connect()
        client.modify(*modifications)

        assert "10000" in client.hear_fatal_error().replace(",", "")


def test_a_query_set_of_some_thousands_is_served(board_server: RunningServer) -> None:
    count = 2_000 * min(ROUNDS, 5)
    with raw_client(board_server.url) as client:
        client.connect()
        names = [f"{client.session_id} {number}" for number in range(count)]
        client.modify(*(adding(number, "board:total", names=[name]) for number, name in enumerate(names)))
        client.hear_transition()
        client.mutation(0, "board:change", changes=[{"do": "add", "name": names[7], "by": 1}])
        client.hear_value(7, 1)

        assert sum(client.values.values()) == 1


def test_who_asks_for_many_mutations_at_once_is_answered_one_by_one_or_sent_away(board_server: RunningServer) -> None:
    count = 160 * min(ROUNDS, 20)
    with bare_connection(board_server.port) as connection, ThreadPoolExecutor(1) as thread:
        connection.sendall(text({"type": "Connect", "sessionId": uuid4().hex}))
        sending = thread.submit(connection.sendall, b"".join(changing(number) for number in range(count)))
        heard = b""
        while heard.count(b'"MutationResponse"') < count and not heard.endswith(b"TooManyConcurrentMutations"):
            part = connection.recv(65536)
            assert part
            heard += part
        sending.result()
