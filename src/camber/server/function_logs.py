"""The operator's stream of how runs of functions ended: `GET /api/stream_function_logs`, a long poll (protocol 6.5)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from camber.backend import NewerRecords, RunRecord, RunRecords
from camber.errors import RequestError
from camber.server.answers import JSON, Answer
from camber.server.asgi import Receive
from camber.server.bodies import ClientGoneError

LONG_POLL_SECONDS: Final = 50.0
"""Somewhat less than the minute after which proxies give up on an answer."""

MOST_WAITING: Final = 32

_GATHERING_SECONDS: Final = 0.02
"""Runs that end together are told together; a busy server is not asked for each of them."""

_MUCH: Final = 128 * 1024
_TRUNCATED: Final = " (truncated due to length)"
_LINE: Final = re.compile(r"\[(LOG|DEBUG|INFO|WARN|ERROR)\] (.*)", re.DOTALL)
_UDF_TYPES: Final = {"query": "Query", "mutation": "Mutation", "action": "Action"}


class FunctionLogs:
    """Those who wait for runs to end, and what they are told. Everything here happens on the event loop, except `_heard`."""

    def __init__(self, records: RunRecords) -> None:
        self._records = records
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._called = False
        self._stopping = False

    async def newer(self, cursor: float, receive: Receive) -> NewerRecords:
        """What is newer than the cursor; where nothing is, what comes next, or nothing when the time is over.

        Raises RequestError 503 where too many wait already, ClientGoneError where who waits has hung up.
        """
        found = self._records.newer(cursor)
        if found.records or cursor == 0.0 or self._stopping:
            return found
        if len(self._waiting) >= MOST_WAITING:
            raise RequestError(
                503,
                "TooManyConcurrentRequests",
                f"{MOST_WAITING} clients read the log of functions already, as many as can at once.",
                headers={"Retry-After": "5"},
            )
        gone = asyncio.ensure_future(_hangs_up(receive))
        try:
            if await self._until_heard(cursor, gone):
                await asyncio.wait([gone], timeout=_GATHERING_SECONDS)
            if gone.done():
                raise ClientGoneError
        finally:
            gone.cancel()
        return self._records.newer(cursor)

    def stop(self) -> None:
        """The server stops: answer all who wait, and have nobody wait any more."""
        self._stopping = True
        self._wake()

    async def _until_heard(self, cursor: float, gone: asyncio.Future[None]) -> bool:
        """Wait for something newer; False if the time was over before, or the client was gone."""
        loop = self._loop = asyncio.get_running_loop()
        deadline = loop.time() + LONG_POLL_SECONDS
        while not (gone.done() or self._stopping) and (left := deadline - loop.time()) > 0:
            heard: asyncio.Future[None] = loop.create_future()
            self._waiting.add(heard)
            self._records.listen(self._heard)
            try:
                if self._records.newer(cursor).records:  # it came before anybody listened
                    return True
                await asyncio.wait([heard, gone], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._waiting.discard(heard)
                if not self._waiting:
                    self._records.unlisten(self._heard)
        return False

    def _heard(self) -> None:
        """A run has ended; told on its thread. Many take one wake-up."""
        if not self._called and self._loop is not None:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop is closed; nobody waits any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._called = False
        for heard in self._waiting:
            if not heard.done():
                heard.set_result(None)


def read_cursor(query_string: bytes) -> float:
    """The cursor in a query string: ms since the epoch, 0 where it has none. Raises RequestError 400."""
    try:
        given = dict(parse_qsl(query_string.decode("ascii"), max_num_fields=10))
        cursor = float(given.get("cursor", "0"))
    except ValueError:
        cursor = math.nan
    if not 0.0 <= cursor < math.inf:
        raise RequestError(
            400, "BadQueryString", "cursor is a number of milliseconds, the newCursor of the last answer, or 0."
        )
    return cursor


async def newer_answer(newer: NewerRecords) -> Answer:
    """The answer in the form of protocol 6.5; with `missed`, which is ours: some of what was asked for is not kept any more."""
    encode: Callable[[NewerRecords], bytes] = _encoded
    much = sum(record.size for record in newer.records) > _MUCH
    return Answer(200, await asyncio.to_thread(encode, newer) if much else encode(newer), JSON)


def _encoded(newer: NewerRecords) -> bytes:
    entries = [_entry(record) for record in newer.records]
    return msgspec.json.encode({"entries": entries, "newCursor": newer.cursor, "missed": newer.missed})


def _entry(record: RunRecord) -> dict[str, Any]:
    ended = record.cursor / 1_000
    return {
        "kind": "Completion",
        "udfType": _UDF_TYPES[record.kind],
        "componentPath": None,
        "identifier": record.path,
        "logLines": [_line(line, int(record.cursor)) for line in record.lines],
        "timestamp": ended,
        "cachedResult": False,
        "caller": record.origin,
        "parentExecutionId": None,
        "executionTime": record.seconds,
        "userExecutionTime": None,
        "success": None,
        "error": record.error,
        "requestId": record.request_id,
        "executionId": f"{int(record.cursor * 4_096):x}",  # all its digits: no two have the same
        "usageStats": {},
        "returnBytes": None,
        "occInfo": None,
        "willRetry": False,
        "executionTimestamp": ended - record.seconds,
        "identityType": record.identity,
        "environment": "isolate",
    }


def _line(line: str, timestamp: int) -> dict[str, Any]:
    match = _LINE.fullmatch(line)
    level, text = (match[1], match[2]) if match else ("LOG", line)
    is_truncated = text.endswith(_TRUNCATED)
    return {
        "messages": [text.removesuffix(_TRUNCATED)],
        "level": level,
        "timestamp": timestamp,
        "isTruncated": is_truncated,
    }


async def _hangs_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
