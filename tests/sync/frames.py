"""WebSocket frames as bytes, right and wrong ones, on a bare connection to a server."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any

SECONDS = 60.0


class Opcode(IntEnum):
    """What a frame is."""

    CONT = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, is_masked: bool = True) -> bytes:
    """One frame as a client sends it."""
    length = len(payload)
    first = bytes([fin << 7 | reserved << 4 | opcode])
    masked = is_masked << 7
    if length < 126:
        head = bytes([masked | length])
    elif length < 65536:
        head = bytes([masked | 126]) + struct.pack("!H", length)
    else:
        head = bytes([masked | 127]) + struct.pack("!Q", length)
    # A mask of zeros is a mask, and leaves what is sent easy to read.
    return first + head + (b"\0\0\0\0" if is_masked else b"") + payload


def text(message: Any) -> bytes:
    """A message in one frame."""
    return frame(Opcode.TEXT, json.dumps(message).encode())


@contextmanager
def bare_connection(port: int, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection on which the handshake is done; the rest is up to the test."""
    with socket.socket() as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /api/sync HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield connection


def drain(connection: socket.socket, seconds: float) -> bytes:
    """What comes until nothing more does for so long, or the connection ends."""
    connection.settimeout(seconds)
    found = b""
    with suppress(TimeoutError, ConnectionError):
        while part := connection.recv(65536):
            found += part
    return found
