"""The commits of the last while as this server has seen them, and which results they made stale.

The order that holds everywhere: a commit is on disk, then the results it touches are marked stale, then `marked` moves up to its
timestamp, and only then may anything of that timestamp leave the server.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from camber.database.reads import Read, ReadIndex, Touched
from camber.storage import Timestamp

REMEMBERED_COMMITS = 10_000
REMEMBERED_BYTES = 16 * 1024 * 1024


class Result(Protocol):
    """Something computed from the database that can become stale: it is told so once, on the thread that commits."""

    reads: Sequence[Read]

    def became_stale(self, timestamp: Timestamp) -> None:
        """The commit of this timestamp touched what it was computed from."""
        ...

    def __hash__(self) -> int: ...


class CommitFeed:
    """Remembers recent commits and the results that are good so far. Safe for several threads."""

    def __init__(self, timestamp: Timestamp) -> None:
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._recent: deque[tuple[Timestamp, Touched]] = deque()
        self._bytes = 0
        self._known_after = timestamp
        self._readers: ReadIndex[Result] = ReadIndex()
        self._listeners: list[Callable[[Timestamp], None]] = []
        self.hurry: Callable[[], None] = lambda: None
        """Have marks made up to now, where they are not made anyway."""
        self.marked: Timestamp = timestamp
        """Results are marked up to this timestamp."""

    def __len__(self) -> int:
        return len(self._recent)

    def on_commit(self, listener: Callable[[Timestamp], None]) -> None:
        """Call this after each commit's marks, on the thread that commits; it must be quick and must not raise."""
        self._listeners.append(listener)

    def publish(self, timestamp: Timestamp, touched: Touched) -> None:
        """Take in a commit: mark what it touches, then move `marked`."""
        with self._lock:
            self._remember(timestamp, touched.brief())
            for result in self._readers.touched_by(touched):
                self._readers.remove(result, result.reads)
                result.became_stale(timestamp)
            self.marked = timestamp
            self._moved.notify_all()
        for listener in self._listeners:
            listener(timestamp)

    def start_over(self, timestamp: Timestamp) -> None:
        """Nothing is known of the commits up to this one: everything that is watched may be stale."""
        with self._lock:
            self._recent.clear()
            self._bytes, self._known_after = 0, timestamp
            for result in self._readers.all():
                self._readers.remove(result, result.reads)
                result.became_stale(timestamp)
            self.marked = timestamp
            self._moved.notify_all()
        for listener in self._listeners:
            listener(timestamp)

    def watch(self, result: Result, timestamp: Timestamp) -> bool:
        """From now on tell this result when it becomes stale; False if a commit after its timestamp touched it already.

        False too where the commits since then are no longer all remembered.
        """
        with self._lock:
            if timestamp < self._known_after or self._touched_since(timestamp, result.reads):
                return False
            self._readers.add(result, result.reads)
            return True

    def forget(self, result: Result) -> None:
        """Stop watching; once more does no harm."""
        with self._lock:
            self._readers.remove(result, result.reads)

    def wait_until_marked(self, timestamp: Timestamp) -> None:
        """Return once results are marked up to this timestamp. A snapshot may see a commit moments before its marks are made.

        Raises StorageError where the marks of another server's commit can't be made.
        """
        if self.marked >= timestamp:
            return
        self.hurry()
        with self._moved:
            self._moved.wait_for(lambda: self.marked >= timestamp)

    def _remember(self, timestamp: Timestamp, touched: Touched) -> None:
        self._recent.append((timestamp, touched))
        self._bytes += touched.size
        while len(self._recent) > REMEMBERED_COMMITS or self._bytes > REMEMBERED_BYTES:
            self._known_after, forgotten = self._recent.popleft()
            self._bytes -= forgotten.size

    def _touched_since(self, timestamp: Timestamp, reads: Sequence[Read]) -> bool:
        for committed, touched in reversed(self._recent):
            if committed <= timestamp:
                return False
            if touched.meets(reads):
                return True
        return False
