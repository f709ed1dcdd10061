"""Somebody who looks at live queries through a view, in a test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from camber.backend import Content
from camber.functions.views import View
from camber.identity import ANONYMOUS, Caller
from camber.testing import Backend

SECONDS = 30.0
"""How long to wait for what must come."""


class Watcher:
    """A `Holder` that keeps what it is told, each time with the timestamp. It takes nothing while `is_busy`."""

    def __init__(self, backend: Backend, caller: Caller = ANONYMOUS) -> None:
        self.view: View = backend.engine.view(self, caller)
        self.is_busy = False
        self.held: dict[int, Content] = {}
        self.moves: list[tuple[int, list[int]]] = []
        """The timestamp and the queries of each move."""
        self.errors: list[str] = []
        """What it was told of queries that failed."""
        self.error: Exception | None = None
        self._moved = asyncio.Event()

    # As a Holder

    def may_move(self) -> bool:
        return not self.is_busy

    def moved(self, timestamp: int, changes: Sequence[tuple[int, Content]]) -> None:
        assert not self.is_busy, "it was told while it could not be"
        assert timestamp >= self.timestamp, "time went back"
        self.held.update(changes)
        self.errors += [content.error for _, content in changes if content.error is not None]
        self.moves.append((timestamp, [tag for tag, _ in changes]))
        self._moved.set()

    def failed(self, error: Exception) -> None:
        self.error = error
        self._moved.set()

    # What it does and sees

    def watch(self, tag: int, path: str, args: Mapping[str, Any] | None = None, journal: str | None = None) -> None:
        """Watch a query, and be told of it in any case."""
        self.view.add(tag, path, json.dumps(args or {}).encode(), journal)
        self.ask()

    def become(self, caller: Caller) -> None:
        self.view.become(caller)
        self.ask()

    def ask(self) -> None:
        """Ask to be told of the next moment, whatever has changed."""
        self.view.owe()
        self.view.advance()

    def take(self) -> None:
        """Be ready to be told again."""
        self.is_busy = False
        self.view.advance()

    @property
    def timestamp(self) -> int:
        return self.moves[-1][0] if self.moves else 0

    def value(self, tag: int) -> Any:
        """The value that it was told last, or the text of the error."""
        content = self.held[tag]
        return json.loads(content.value) if content.value is not None else content.error

    async def sees(self, tag: int, value: Any) -> None:
        """Wait until it is told this."""
        await self.until(lambda: tag in self.held and self.value(tag) == value, f"{tag} is {value!r}")

    async def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait until this is so; looked at after each move."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                assert self.error is None, self.error
                self._moved.clear()
                try:
                    await self._moved.wait()
                except asyncio.CancelledError:
                    print(f"never seen: {what}; held: {[(tag, self.value(tag)) for tag in self.held]}")  # noqa: T201
                    raise
