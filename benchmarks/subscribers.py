"""Thousands of subscribers to one server, each on a WebSocket of its own: how long until all of them have what was written?

One thread over epoll, as in load.py. It knows just enough of WebSockets for what servers send here: text in one frame, pings and
a close. Every message is looked at: one that is wrong, or that comes to somebody who waits for none, is an error. Linux only.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import struct
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from time import perf_counter
from typing import Any, Self

from contenders import Server
from load import is_whole, request

SUBSCRIBERS = int(os.environ.get("BENCH_SUBSCRIBERS", "5000"))
SECONDS_TO_ARRIVE = 120.0
HANDSHAKES_AT_ONCE = 1_000
"""Fewer than every server's backlog: a connection that finds no place there is tried again a second later, which tells nothing."""
SPARE_FILES = 512
SPARE_SOCKETS = 8  # of writers, and of connections that rest

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
CAMBER_PING = b'{"type":"Ping"}'
MASK = bytes.fromhex("37fa213d")
UPGRADE = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]
RESET_AT_CLOSE = struct.pack("ii", 1, 0)

Opening = Callable[[int], bytes]
"""The frames with which a subscriber begins, by its number."""


def allow_sockets(count: int = SUBSCRIBERS) -> None:
    """Let this process, and the servers that it starts from now on, have so many sockets open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * count + 2 * SPARE_FILES, hard), hard))


def camber_settings(count: int = SUBSCRIBERS) -> dict[str, str]:
    """What Camber must be told to take so many subscribers."""
    return {"CAMBER_CONNECTIONS": str(count + SPARE_FILES)}


def camber_opening(path: str, arguments: Callable[[int], Mapping[str, Any]] = lambda _: {}) -> Opening:
    """A Convex client that subscribes to one query; `arguments` by the subscriber's number."""

    def frames(number: int) -> bytes:
        connect = {
            "type": "Connect",
            "sessionId": str(uuid.uuid4()),
            "connectionCount": 0,
            "lastCloseReason": "InitialConnect",
            "clientTs": 0,
        }
        add = {"type": "Add", "queryId": 0, "udfPath": path, "args": [arguments(number)]}
        modify = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add]}
        return frame(TEXT, json.dumps(connect).encode()) + frame(TEXT, json.dumps(modify).encode())

    return frames


def topic_opening(topic: str) -> Opening:
    """A client of a server with topics: it names one."""
    subscribe = frame(TEXT, json.dumps({"subscribe": topic}).encode())
    return lambda _: subscribe


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame; these are masked."""
    length = len(payload)
    head = bytes([0x80 | opcode, 0x80 | length]) if length < 126 else struct.pack(">BBH", 0x80 | opcode, 0xFE, length)
    mask = (MASK * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return head + MASK + masked.to_bytes(length, "big")


class Writer:
    """The connection of the one who writes, which waits for its answer."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS_TO_ARRIVE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, change: bytes) -> None:
        self._socket.sendall(change)

    def answer(self) -> bytes:
        """Wait for the answer; raises unless it is a success."""
        answer = b""
        while not is_whole(answer):
            if not (part := self._socket.recv(1 << 16)):
                raise ConnectionError("the server closed the writer's connection")
            answer += part
        if answer[9:12] != b"200" or b'"status":"error"' in answer:
            raise RuntimeError(f"a write failed: {answer!r}")
        return answer

    def write(self, change: bytes) -> bytes:
        """Send it and wait for the answer."""
        self.send(change)
        return self.answer()


class Audience:
    """Subscribers of one server, all of whom have their first value."""

    def __init__(self, server: Server, path: str, opening: Opening, first: bytes, *, count: int = SUBSCRIBERS) -> None:
        self.latest = b""
        """The last text that any of them got."""
        self._server = server
        self._sockets_before = server.open_sockets()
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._handles: list[int] = []
        self._partial: dict[int, bytes] = {}
        upgrade = request("GET", path, headers=UPGRADE)
        frames = [opening(number) for number in range(count)]
        begun = perf_counter()
        self._open(upgrade, frames, first)
        self.seconds_to_first_values = perf_counter() - begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, and wait until the server has noticed, so that it does not do so during what is measured next."""
        self._epoll.close()
        for connection in self._sockets.values():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)  # leaves no port in TIME_WAIT
            connection.close()
        deadline = perf_counter() + SECONDS_TO_ARRIVE
        while self._server.open_sockets() > self._sockets_before + SPARE_SOCKETS:
            if perf_counter() > deadline:
                raise TimeoutError(f"{self._server.name} keeps the sockets of subscribers who have gone")
            time.sleep(0.1)

    def wait_until_all_have(self, expected: bytes, numbers: Collection[int] | None = None) -> None:
        """Read until each of them (those of these numbers) has got one text that contains this; nobody else may get any."""
        handles = self._handles
        waiting = set(handles) if numbers is None else {handles[number] for number in numbers}
        deadline = perf_counter() + SECONDS_TO_ARRIVE
        while waiting:
            for handle in self._readable(deadline, expected):
                self._receive(handle, expected, waiting)

    def rest(self, seconds: float) -> None:
        """Do no more than a client that is idle: answer pings. Raises if anybody is sent a text."""
        until = perf_counter() + seconds
        while (left := until - perf_counter()) > 0:
            for handle, _ in self._epoll.poll(left):
                self._receive(handle, b"", set())

    def _open(self, upgrade: bytes, frames: list[bytes], first: bytes) -> None:
        """Connect, upgrade, send the frames, and wait for the first values: each connection goes on as soon as it can."""
        numbers = iter(range(len(frames)))
        under_way: dict[int, int] = {}
        waiting: set[int] = set()
        deadline = perf_counter() + SECONDS_TO_ARRIVE
        while len(self._handles) < len(frames) or under_way or waiting:
            for number in islice(numbers, HANDSHAKES_AT_ONCE - len(under_way)):
                under_way[self._connect(upgrade)] = number
            for handle in self._readable(deadline, first):
                if (number := under_way.get(handle)) is None:
                    self._receive(handle, first, waiting)
                elif self._is_upgraded(handle):
                    del under_way[handle]
                    waiting.add(handle)
                    self._sockets[handle].send(frames[number])

    def _connect(self, upgrade: bytes) -> int:
        connection = socket.create_connection(("127.0.0.1", self._server.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        connection.send(upgrade)
        handle = connection.fileno()
        self._sockets[handle] = connection
        self._handles.append(handle)
        self._epoll.register(handle, select.EPOLLIN)
        return handle

    def _is_upgraded(self, handle: int) -> bool:
        answer = self._partial.pop(handle, b"") + self._sockets[handle].recv(4096)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"{self._server.name} did not take a subscriber: {answer!r}")
        if answer.endswith(b"\r\n\r\n"):
            return True
        self._partial[handle] = answer
        return False

    def _readable(self, deadline: float, expected: bytes) -> Iterator[int]:
        if perf_counter() > deadline:
            raise TimeoutError(f"subscribers of {self._server.name} wait in vain for {expected!r}")
        return map(itemgetter(0), self._epoll.poll(1.0))

    def _receive(self, handle: int, expected: bytes, waiting: set[int]) -> None:
        """Read what a subscriber was sent. If it is what is expected, this one no longer waits."""
        data = self._sockets[handle].recv(1 << 16)
        if not data:
            raise ConnectionError(f"{self._server.name} closed a subscriber's connection")
        if handle in self._partial:
            data = self._partial.pop(handle) + data
        received, rest = frames_in(data)
        if rest:
            self._partial[handle] = rest
        for opcode, payload in received:
            if opcode != TEXT:
                self._control(handle, opcode, payload)
            elif payload != CAMBER_PING:
                if handle not in waiting or expected not in payload:
                    raise RuntimeError(f"{self._server.name} sent a stray or wrong message: {payload!r}")
                waiting.remove(handle)
                self.latest = payload

    def _control(self, handle: int, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            with suppress(BlockingIOError):
                self._sockets[handle].send(frame(PONG, payload))
        elif opcode != PONG:
            raise ConnectionError(f"{self._server.name} closed a subscriber's connection: {payload!r}")


Frames = tuple[tuple[int, bytes], ...]


@lru_cache(maxsize=64)  # subscribers to one query mostly get the same bytes
def frames_in(data: bytes) -> tuple[Frames, bytes]:
    """The whole frames in what a server sent, as opcode and payload, and the beginning of the next one."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(data) >= at + 2:
        start, length = at + 2, data[at + 1]
        if length == 126:
            start, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
        elif length == 127:
            start, length = at + 10, int.from_bytes(data[at + 2 : at + 10], "big")
        if len(data) < start + length:
            break
        if data[at] & 0xF0 != 0x80:
            raise ValueError(f"part of a message, or compressed: {data[at:][:100]!r}")
        found.append((data[at] & 0x0F, data[start : start + length]))
        at = start + length
    return tuple(found), data[at:]
