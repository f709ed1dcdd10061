"""The results of one query as somebody iterates over them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from camber.client.outcomes import Outcome, one_more, result_of
from camber.errors import ClientError


class Subscription:
    """The values of a query, from the present one on: an asynchronous iterator, made by `Client.subscribe`.

    Each step waits for a value that has not been given yet, and gives the newest; whoever is slow skips those in between. A step
    raises what the query raises: ConvexError with its data, else FunctionError. The next step goes on from there. When the client is
    closed the iteration ends; when the client can't go on, it raises ClientError.

    It ends when nobody holds it any more, as behind the loop of `async for value in client.subscribe(...)`, or with `aclose()`;
    it is a context manager too, for those who want to be exact.
    """

    def __init__(self, query_id: int, latest: Outcome | None, leave: Callable[[int], None]) -> None:
        self._query_id = query_id
        self._loop = asyncio.get_running_loop()
        self._newest = latest
        self._has_had_one = latest is not None
        self._leave = leave
        self._something = asyncio.Event()
        self._end: ClientError | None = None
        self._is_closed = False
        if latest is not None:
            self._something.set()

    def offer(self, outcome: Outcome, *, is_news: bool) -> None:
        """The query's result is this now. For the client."""
        if is_news or not self._has_had_one:
            self._newest, self._has_had_one = outcome, True
            self._something.set()

    def end(self, error: ClientError | None) -> None:
        """There will be no more; with an error, everybody who asks is told. For the client."""
        self._is_closed, self._end, self._newest = True, error, None
        self._something.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while self._newest is None:
            if self._is_closed:
                if self._end is not None:
                    raise one_more(self._end)
                raise StopAsyncIteration
            self._something.clear()
            await self._something.wait()
        newest, self._newest = self._newest, None
        return result_of(newest)

    async def aclose(self) -> None:
        """Watch the query no longer. A second time does nothing."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __del__(self) -> None:
        # Whichever thread collects garbage; and behind the end of the loop there is nothing to leave.
        if not self._is_closed:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._leave, self._query_id)

    def _close(self) -> None:
        if not self._is_closed:
            self.end(None)
            self._leave(self._query_id)
