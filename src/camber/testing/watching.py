"""Live queries in tests: what somebody who watches one has seen, and the event loop on which it is kept up to date."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from camber import backend as engine
from camber.backend import Content, Timestamp, View
from camber.errors import ConvexError, FunctionError
from camber.identity import Caller
from camber.values import decode_value, parse_json

T = TypeVar("T")

_SECONDS = 60.0
"""How long a test is held up at most. The runs that it waits for have limits of their own, which are shorter."""


class WatchedQuery(Generic[T]):
    """What somebody who watches a query has seen: its first result, and each that was pushed after it.

    When a call through the backend or one of its people has ended, what it changed has been seen.
    """

    def __init__(self, record: Record, read: Callable[[bytes], T]) -> None:
        self._record, self._read = record, read

    @property
    def value(self) -> T:
        """The newest result. Raises the query's error where that is the newest: ConvexError with its data, else FunctionError."""
        return self._value_of(self._record.results[-1])

    @property
    def values(self) -> list[T]:
        """All results in their order, the first one included. Where the query failed, it had none."""
        return [self._value_of(result) for result in self._record.results if _error_of(result) is None]

    @property
    def error(self) -> Exception | None:
        """The query's error, where its newest result is one: ConvexError with its data, else FunctionError."""
        return _error_of(self._record.results[-1])

    def wait_for(self, condition: Callable[[T], object], *, seconds: float = 5.0) -> T:
        """The newest result if this holds for it, else the next one for which it does: for what other threads change.

        Raises TimeoutError if none comes in time.
        """
        deadline = time.monotonic() + seconds
        number = len(self._record.results) - 1
        while (result := self._record.result(number, deadline)) is not None:
            if _error_of(result) is None and condition(value := self._value_of(result)):
                return value
            number += 1
        newest = self._record.results[-1]
        shown = repr(_error_of(newest) or self._value_of(newest))
        raise TimeoutError(f"no such result came in {seconds:g} s; the newest is {shown}")

    def _value_of(self, result: Content | Exception) -> T:
        if (error := _error_of(result)) is not None:
            raise error
        assert isinstance(result, Content)
        return self._read(result.value or b"null")


class Record:
    """What was told of one query, and of which moment that is; the holder of a view. The loop's thread adds to it."""

    def __init__(self) -> None:
        self.results: list[Content | Exception] = []
        self._timestamp = Timestamp(0)
        self._moved = threading.Condition()

    def may_move(self) -> bool:
        """Whatever is new is taken in."""
        return True

    def moved(self, timestamp: Timestamp, changes: Sequence[tuple[int, Content]]) -> None:
        """The query was brought to this moment, with another result or the same."""
        with self._moved:
            self._timestamp = timestamp
            self.results += [content for _, content in changes]
            self._moved.notify_all()

    def failed(self, error: Exception) -> None:
        """It can't be brought any further."""
        with self._moved:
            self._timestamp = Timestamp(2**63)
            self.results.append(error)
            self._moved.notify_all()

    def wait_until(self, timestamp: Timestamp) -> None:
        """Return once the query has been brought to this moment. Raises TimeoutError."""
        with self._moved:
            if not self._moved.wait_for(lambda: self._timestamp >= timestamp, _SECONDS):
                raise TimeoutError(f"a live query was not brought up to date in {_SECONDS:g} s")

    def result(self, number: int, deadline: float) -> Content | Exception | None:
        """The result with this number, when it is there; None if it is not by then (of the monotonic clock)."""
        with self._moved:
            self._moved.wait_for(lambda: len(self.results) > number, max(0.0, deadline - time.monotonic()))
            return self.results[number] if len(self.results) > number else None


class Watching:
    """All that a test watches on one backend, and the event loop, in a thread of its own, that live queries need."""

    def __init__(self, backend: engine.Backend) -> None:
        self._backend = backend
        self._views: dict[Record, View] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="camber-watching", daemon=True)
        self._thread.start()
        backend.attach(self._loop)

    @contextmanager
    def watch(self, path: str, args: bytes, caller: Caller) -> Generator[Record]:
        """A record of this query's results, from the first one until the block is left."""
        record = Record()

        def begin() -> None:
            view = self._views[record] = self._backend.view(record, caller)
            view.add(0, path, args, None)
            view.advance()

        self._do(begin)
        try:
            record.wait_until(Timestamp(1))
            yield record
        finally:
            if not self._loop.is_closed():
                self._do(lambda: self._views.pop(record).close())

    def catch_up(self) -> None:
        """Return once every commit so far has been seen."""
        timestamp = self._backend.marked
        views = list(self._views.items())

        def go_on() -> None:
            for _, view in views:
                view.owe(timestamp)
                view.advance()

        if views:
            self._do(go_on)
        for record, _ in views:
            record.wait_until(timestamp)

    def close(self) -> None:
        """Bring nothing any further."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, step: Callable[[], None]) -> None:
        """Do this on the loop, and wait for it."""
        future: Future[None] = Future()

        def run() -> None:
            try:
                future.set_result(step())
            except Exception as error:  # noqa: BLE001  raised where it is waited for
                future.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        future.result(_SECONDS)


def _error_of(result: Content | Exception) -> Exception | None:
    if isinstance(result, Exception):
        return result
    if result.error is None:
        return None
    if result.error_data is None:
        return FunctionError(result.error)
    return ConvexError(decode_value(parse_json(result.error_data)))
