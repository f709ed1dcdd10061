"""HTTP connections that can't be used against the server: uvicorn's, with bounds on what it reads without end.

uvicorn bounds neither how many connections there are, nor how long or large a request's head may be, nor how long a client may take to
read its answer.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from camber.settings import Settings

_STRAY_BYTES: Final = 1024 * 1024
"""Bytes beyond the largest body that one request may have: sizes of chunks, trailers, a body that nobody reads."""

_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 41\r\nconnection: close\r\n\r\n"
    b"Request line and headers are too large.\r\n"
)


def bounded_connections(settings: Settings) -> type[BoundedConnection]:
    """The class of connections to give to uvicorn as its `http`."""

    class Bounded(BoundedConnection):
        most_connections = settings.connections
        head_bytes = settings.header_bytes
        head_seconds = settings.header_seconds
        stray_bytes = settings.request_body_bytes + _STRAY_BYTES

    return Bounded


class BoundedConnection(HttpToolsProtocol):
    """One connection. For a request that arrives whole, as nearly all do, it does a few comparisons more than uvicorn's."""

    most_connections: int
    head_bytes: int
    head_seconds: float
    stray_bytes: int

    _head_timer: asyncio.TimerHandle | None = None
    _head_length = 0
    _stray = 0
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
        else:
            self._head_timer = self.loop.call_later(self.head_seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        unread = len(before.body) if before else 0
        super().data_received(data)
        # Before the first request there is neither scope nor cycle, whatever uvicorn's annotations say.
        if not self.scope or "method" not in self.scope:
            self._head_goes_on(len(data))
            return
        if self._head_timer is not None:
            self._stop_head_timer()
        cycle = self.cycle
        if cycle and cycle.more_body:
            self._body_goes_on(len(data) - len(cycle.body) + (unread if cycle is before else 0))
        elif self._stray:
            self._stray = 0

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless its client is still reading an answer: then look again later whether it got on."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0:
            super().timeout_keep_alive_handler()
        elif unsent == self._unsent:
            self.transport.abort()
        else:
            self._unsent = unsent
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _head_goes_on(self, length: int) -> None:
        if self.transport.is_closing():
            return
        self._head_length += length
        if self._head_length > self.head_bytes:
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _body_goes_on(self, stray: int) -> None:
        self._stray += stray
        if self._stray > self.stray_bytes:
            self.transport.abort()

    def _stop_head_timer(self) -> None:
        self._head_length = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
