"""Reading request bodies within bounds: their size, the time they take, and the memory that all of them hold together."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from camber.errors import RequestError
from camber.server.asgi import Receive
from camber.server.requests import Request
from camber.settings import Settings

_TICK_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 10.0


class BodyTooLargeError(Exception):
    """The body is larger than the settings allow; the rest of it was not read."""


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


class Bodies:
    """Reads the bodies of all requests of one application.

    Most bodies arrive whole with the headers, and a timer for each would cost more than reading it. So who reads is noted down, and one
    timer looks once a second for those who have read too long.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.request_body_bytes
        self._room = settings.buffered_body_bytes
        self._tick_seconds = min(_TICK_SECONDS, settings.request_body_seconds / 4)
        self._patience = round(settings.request_body_seconds / self._tick_seconds)
        self._reading: dict[asyncio.Task[Any], int] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._ticks = 0
        self._is_ticking = False

    async def read(self, request: Request) -> bytes:
        """The request's whole body. One that came in several messages counts as held until `release`.

        Raises BodyTooLargeError, ClientGoneError, RequestError 408 where it takes too long and 503 where all bodies together hold too
        much memory.
        """
        declared = request.headers.get(b"content-length")
        if declared is not None and not _is_within(declared, self._limit):
            raise BodyTooLargeError
        task = asyncio.current_task()
        assert task is not None  # an ASGI application runs in a task
        self._reading[task] = self._ticks
        if not self._is_ticking:
            self._start_ticking()
        try:
            message = await request.receive()
            if message["type"] != "http.request":
                raise ClientGoneError
            body = message.get("body", b"")
            if message.get("more_body"):
                return await self._collect(request, body)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            raise RequestError(
                408, "RequestTimeout", "The request's body took too long to arrive.", headers={"Connection": "close"}
            ) from None
        finally:
            del self._reading[task]
        if len(body) > self._limit:
            raise BodyTooLargeError
        return body

    def release(self, request: Request) -> None:
        """The request is over, its body no longer needed."""
        self._room += request.held
        request.held = 0

    async def discard(self, receive: Receive) -> None:
        """Read what is left of a refused body, so that a client that sends it all before it listens gets to the answer.

        Stops after a few seconds or a few times the allowed size.
        """
        left = 4 * self._limit
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body"):
                        return
        except TimeoutError:
            return

    async def _collect(self, request: Request, first: bytes) -> bytes:
        parts, more = [first], True
        self._hold(request, len(first))
        while more:
            message = await request.receive()
            if message["type"] != "http.request":
                raise ClientGoneError
            part = message.get("body", b"")
            self._hold(request, len(part))
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _hold(self, request: Request, length: int) -> None:
        if length > self._room:
            raise RequestError(
                503,
                "Overloaded",
                "The server is receiving too many large requests at once. Try again in a moment.",
                headers={"Retry-After": "1", "Connection": "close"},
            )
        self._room -= length
        request.held += length
        if request.held > self._limit:
            raise BodyTooLargeError

    def _start_ticking(self) -> None:
        self._is_ticking = True
        asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)

    def _tick(self) -> None:
        self._ticks += 1
        for task, since in self._reading.items():
            if self._ticks - since > self._patience and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._is_ticking = bool(self._reading)
        if self._is_ticking:
            self._start_ticking()


def _is_within(declared: bytes, limit: int) -> bool:
    # Length first: a number of thousands of digits is not worth reading.
    return len(declared) < 20 and declared.isdigit() and int(declared) <= limit
