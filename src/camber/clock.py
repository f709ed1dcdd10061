"""Time and randomness as things one is handed, so that a test can hold them still."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Where the server's time comes from."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()


class HeldClock:
    """A clock that moves only when told to; for tests."""

    def __init__(self, now_ms: float = 1_767_225_600_000.0) -> None:
        self._now_ns = int(now_ms * 1_000_000)

    def now_ns(self) -> int:
        return self._now_ns

    @property
    def now_ms(self) -> float:
        """Milliseconds since the epoch."""
        return self._now_ns / 1_000_000

    def advance(self, milliseconds: float) -> None:
        """Move forward by so many milliseconds (see `camber.minutes` and its siblings)."""
        self._now_ns += int(milliseconds * 1_000_000)


class Entropy(Protocol):
    """Where the server's random bytes come from."""

    def random_bytes(self, count: int) -> bytes: ...


class SystemEntropy:
    """The operating system's source, asked for a few kilobytes at a time because ids need fourteen bytes each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool = b""
        self._next = 0

    def random_bytes(self, count: int) -> bytes:
        with self._lock:
            start, end = self._next, self._next + count
            if end > len(self._pool):
                self._pool, start, end = os.urandom(max(4096, count)), 0, count
            self._next = end
            return self._pool[start:end]
