"""HTTP connections that can't be used against the server: uvicorn's, with bounds on what it reads without end.

uvicorn bounds neither how many connections there are, nor how long or large a request's head may be, nor how long a client may take to
read its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from camber.settings import Settings

_STRAY_BYTES: Final = 1024 * 1024
"""Bytes beyond the largest body that one request may have: sizes of chunks, trailers, a body that nobody reads."""

_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 41\r\nconnection: close\r\n\r\n"
    b"Request line and headers are too large.\r\n"
)


Respond = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], None]
"""Called with status, headers and body of an answer."""


class QuickApp(Protocol):
    """An application that can answer some requests without the detour through a task and ASGI's messages."""

    def take(self, scope: Any, body: bytes, done: Respond) -> bool:
        """Begin with a request that is all there; False if it must go the usual way."""
        ...

    def cut_short(self, scope: Any) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
        """The answer to a request that is not waited for any longer."""
        ...


def bounded_connections(settings: Settings, app: QuickApp | None) -> type[BoundedConnection]:
    """The class of connections to give to uvicorn as its `http`; what `app` can take goes to it directly."""

    class Bounded(BoundedConnection):
        quick_app = app
        most_connections = settings.connections
        head_bytes = settings.header_bytes
        head_seconds = settings.header_seconds
        stray_bytes = settings.request_body_bytes + _STRAY_BYTES

    return Bounded


class BoundedConnection(HttpToolsProtocol):
    """One connection. For a request that arrives whole, as nearly all do, it does a few comparisons more than uvicorn's."""

    quick_app: QuickApp | None
    most_connections: int
    head_bytes: int
    head_seconds: float
    stray_bytes: int

    _head_timer: asyncio.TimerHandle | None = None
    _head_length = 0
    _stray = 0
    _unsent = 0
    _is_parsing = False
    _held_back: RequestResponseCycle | None = None

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
        self._is_parsing = True
        super().data_received(data)
        self._is_parsing = False
        if (cycle := self._held_back) is not None:  # the rest of the body comes later
            self._held_back = None
            super()._start_asgi_task(cycle, self._app)
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

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if (cycle := self._held_back) is not None:
            self._held_back = None
            self._take(cycle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Called when the head of a request is there, or when it is its turn among several that came at once.
        if self.quick_app is None or cycle.waiting_for_100_continue or self.flow.write_paused:
            super()._start_asgi_task(cycle, app)
        elif not cycle.more_body:
            self._take(cycle)
        elif self._is_parsing:  # most bodies come together with the head
            self._held_back = cycle
        else:
            super()._start_asgi_task(cycle, app)

    def _take(self, cycle: RequestResponseCycle) -> None:
        """Begin with a request that is all there, on the short way if it can go there."""
        assert self.quick_app is not None
        answer = _QuickAnswer(self, cycle)
        if not self.quick_app.take(cycle.scope, bytes(cycle.body), answer.send):
            super()._start_asgi_task(cycle, self._app)
        elif not cycle.response_complete:
            answer.wait(self.quick_app)

    @property
    def _app(self) -> Any:
        return self.app  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

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


class _QuickAnswer:
    """The answer to one request on the short way, as uvicorn's cycle would write it."""

    __slots__ = ("_connection", "_cycle", "_waiting")

    def __init__(self, connection: BoundedConnection, cycle: RequestResponseCycle) -> None:
        self._connection, self._cycle = connection, cycle
        self._waiting: asyncio.Future[None] | None = None

    def send(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Write the answer, and let the connection go on with its next request."""
        connection, cycle = self._connection, self._cycle
        if self._waiting is not None:
            connection.tasks.discard(self._waiting)  # pyright: ignore[reportArgumentType]
        if cycle.response_complete or cycle.disconnected:
            return
        lines = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            if name == b"connection":
                cycle.keep_alive = False  # the only thing that our answers say of it
            else:
                lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", body)
        connection.transport.write(b"".join(lines))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            connection.transport.close()
        cycle.on_response()
        cycle.on_response = _nothing  # as uvicorn does: cycle and connection must not hold each other

    def wait(self, app: QuickApp) -> None:
        """The answer comes later. A server that stops waits for it, and cancels it when it has waited long enough."""
        self._waiting = self._connection.loop.create_future()
        self._connection.tasks.add(self._waiting)  # pyright: ignore[reportArgumentType]
        self._waiting.add_done_callback(lambda _: self.send(*app.cut_short(self._cycle.scope)))


def _nothing() -> None:
    """What there is left to do once a response is complete."""
