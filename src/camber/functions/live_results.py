"""What live queries are made of: a query that is watched, its result, and what watchers are told of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from camber.database import Read
from camber.functions.calls import Function
from camber.functions.outcomes import Outcome
from camber.storage import Timestamp

if TYPE_CHECKING:
    from camber.functions.ticks import Tick
    from camber.functions.views import Watched

LiveKey = tuple[str, bytes, str | None, bytes]
"""Path, arguments in canonical form, journal, and the caller for a function that looks at who asks (empty otherwise)."""


class Content:
    """What watchers are told of a result, shared by all of them: equal contents are one object."""

    __slots__ = ("encoded", "error", "error_data", "journal", "log_lines", "value")

    def __init__(
        self,
        value: bytes | None,
        error: str | None = None,
        error_data: bytes | None = None,
        log_lines: Sequence[str] = (),
        journal: str | None = None,
    ) -> None:
        self.value, self.error, self.error_data = value, error, error_data
        self.log_lines, self.journal = log_lines, journal
        self.encoded: bytes | None = None
        """Room for who sends it: its form on the wire, made once for all."""

    @property
    def size(self) -> int:
        """In bytes, about."""
        return len(self.value or b"")

    def tells_the_same_as(self, other: Content) -> bool:
        """Whether a watcher need not be told of it after the other."""
        return (
            self.value == other.value
            and self.error == other.error
            and self.error_data == other.error_data
            and self.log_lines == other.log_lines
        )


def content_of(outcome: Outcome, journal: str | None) -> Content:
    """What watchers are told of how a query ended."""
    return Content(outcome.value, outcome.error, outcome.error_data, outcome.log_lines, journal)


class Staleness(Protocol):
    """Who is told of results that have become stale."""

    def note_stale(self, result: LiveResult) -> None:
        """On the thread that commits: it must be quick."""
        ...


class LiveResult:
    """A result, valid from its timestamp until a commit touches what it read; a `feed.Result`."""

    __slots__ = ("_live", "content", "expires_ns", "query", "reads", "stale_at", "timestamp")

    def __init__(
        self,
        live: Staleness,
        query: LiveQuery,
        content: Content,
        timestamp: Timestamp,
        reads: Sequence[Read],
        expires_ns: int | None,
    ) -> None:
        self._live, self.query, self.content, self.timestamp, self.reads = live, query, content, timestamp, reads
        self.expires_ns = expires_ns
        self.stale_at: Timestamp | None = None

    def became_stale(self, timestamp: Timestamp) -> None:
        """On the thread that commits, before anything of this timestamp leaves the server."""
        self.stale_at = timestamp
        self._live.note_stale(self)

    def holds_at(self, timestamp: Timestamp) -> bool:
        """Whether it is the query's result in that state."""
        return self.timestamp <= timestamp and (self.stale_at is None or self.stale_at > timestamp)


class LiveQuery:
    """One query that somebody watches, with the result that all who watch it share."""

    __slots__ = ("args", "arguments", "function", "journal", "key", "path", "result", "running", "watched")

    def __init__(self, key: LiveKey, function: Function, arguments: Mapping[str, Any]) -> None:
        self.key = key
        self.path, self.args, self.journal, _ = key
        self.function, self.arguments = function, arguments
        self.result: LiveResult | None = None
        self.running: Tick | None = None
        self.watched: dict[Watched, None] = {}

    def request_id(self) -> str:
        """The same for every run: an error that is raised again is no news."""
        return hashlib.sha256(b"|".join((self.path.encode(), self.args, self.key[3]))).hexdigest()[:16]
