"""How a call ended, as a client is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """A result or a failure of a function."""

    value: bytes | None
    """The result as encoded JSON (protocol 1.1); None for a failure."""
    error: str | None = None
    """What the client is told of a failure."""
    error_data: bytes | None = None
    """Of a ConvexError: its data as encoded JSON."""
    log_lines: list[str] = field(default_factory=list[str])
    timestamp: int = 0
    """Of the snapshot a query ran on, or of a mutation's commit."""
    exception: Exception | None = None
    """The error itself, for callers in the same process."""

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.error is None


Done = Callable[[Outcome | Exception], None]
"""Told once how a call ended: an outcome, or the error that is no function's (a RequestError, a StorageError)."""
