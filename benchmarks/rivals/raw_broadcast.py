"""The cheapest broadcast in Python: an asyncio protocol on uvloop that makes one frame of what is posted, and writes it to all.

It takes WebSocket handshakes on trust, and any frame that a client sends for a subscription; requests must come whole.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from base64 import b64encode
from hashlib import sha1

import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


subscribers: set[asyncio.Transport] = set()


def text_frame(text: bytes) -> bytes:
    """A server's frame."""
    length = len(text)
    head = struct.pack(">BB", 0x81, length) if length < 126 else struct.pack(">BBH", 0x81, 126, length)
    return head + text


class Connection(asyncio.Protocol):
    """An HTTP connection, or a subscriber's WebSocket."""

    latest = text_frame(b'{"crowdfundingActive":false}')

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.is_websocket = False

    def connection_lost(self, _error: Exception | None) -> None:
        subscribers.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        if self.is_websocket:
            subscribers.add(self.transport)
            self.transport.write(Connection.latest)
            return
        head, _, body = data.partition(b"\r\n\r\n")
        _, is_handshake, key = head.partition(b"Sec-WebSocket-Key: ")
        if is_handshake:
            self.is_websocket = True
            accepted = b64encode(sha1(key.partition(b"\r\n")[0] + GUID).digest())
            self.transport.write(SWITCH % accepted)
        else:
            if body:
                Connection.latest = text_frame(body)
                for subscriber in subscribers:
                    subscriber.write(Connection.latest)
            self.transport.write(DONE)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", int(sys.argv[1]), backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
