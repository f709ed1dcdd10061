"""One HTTP request, as the endpoints see it."""

from __future__ import annotations

import itertools
import os
import re
from typing import Final

from camber.errors import RequestError
from camber.server.asgi import Receive, Scope

_GIVEN_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_SINGLE: Final = (b"authorization", b"content-length", b"convex-client", b"convex-request-id", b"origin")

_ID_BITS: Final = (1 << 64) - 1
_ID_STEP: Final = 0x9E3779B97F4A7C15
_ids: Final = itertools.count(int.from_bytes(os.urandom(8), "big"))


class Request:
    """What came in, without its body. `path` is the part behind the place where the application is mounted."""

    __slots__ = ("_id", "headers", "held", "method", "path", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, path: str) -> None:
        self.scope = scope
        self.receive = receive
        self.path = path
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.held = 0
        self._id: str | None = None

    @property
    def id(self) -> str:
        """The client's `Convex-Request-Id` if it sent a sound one, else 16 hex digits of our own."""
        if self._id is None:
            given = self.headers.get(b"convex-request-id")
            self._id = given.decode() if given is not None and _GIVEN_ID.fullmatch(given) else _new_id()
        return self._id

    def check_headers(self, most: int) -> None:
        """Raise RequestError 431 for too many headers, 400 for two of one that decides something."""
        headers = self.scope["headers"]
        if len(headers) > most:
            raise RequestError(
                431, "TooManyHeaders", f"A request has {most} headers at most.", headers={"Connection": "close"}
            )
        if len(self.headers) != len(headers):
            names = [name for name, _ in headers]
            for name in _SINGLE:
                if names.count(name) > 1:
                    raise RequestError(400, "DoubledHeader", f"The request has two {name.decode()} headers.")

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a header that may be there more than once, in order."""
        return [value for given, value in self.scope["headers"] if given == name]


def _new_id() -> str:
    # A step through all 64-bit numbers from a random start: never twice, and no system call.
    return f"{next(_ids) * _ID_STEP & _ID_BITS:016x}"
