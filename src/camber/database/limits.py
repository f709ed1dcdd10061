"""How much one transaction may read and write, and how much it has (protocol 3.11)."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from camber.errors import LimitError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one transaction may do at the most; the defaults are Convex's. Sizes in bytes, `max_key` is this engine's own."""

    documents_read: int = 32_000
    bytes_read: int = 16 * MIB
    ranges_read: int = 4096
    documents_written: int = 16_000
    bytes_written: int = 16 * MIB
    max_key: int = 2000


@dataclass(slots=True)
class Usage:
    """What one transaction has read and written so far.

    `database_seconds` is time spent waiting for the database, without the call that goes on since `waiting_since` (0: none does).
    """

    documents_read: int = 0
    bytes_read: int = 0
    ranges_read: int = 0
    documents_written: int = 0
    bytes_written: int = 0
    database_seconds: float = 0.0
    waiting_since: float = 0.0

    def waited(self) -> None:
        """The call of the database that began at `waiting_since` has ended."""
        self.database_seconds += perf_counter() - self.waiting_since
        self.waiting_since = 0.0


_ADVICE = (
    " Consider using smaller limits in your queries, paginating your queries, "
    "or using indexed queries with a selective index range expressions."
)


def too_many_documents_read(limits: Limits) -> LimitError:
    """Reading one more document would be too much."""
    return LimitError(
        f"Too many documents read in a single function execution (limit: {limits.documents_read}).{_ADVICE}",
        limit="documents_read",
    )


def too_many_bytes_read(limits: Limits) -> LimitError:
    """The documents read are too large together."""
    return LimitError(
        f"Too many bytes read in a single function execution (limit: {limits.bytes_read} bytes).{_ADVICE}",
        limit="bytes_read",
    )


def too_many_ranges_read(limits: Limits) -> LimitError:
    """Looking up one more index range would be too much."""
    return LimitError(
        f"Too many reads in a single function execution (limit: {limits.ranges_read}).{_ADVICE}", limit="ranges_read"
    )


def too_many_documents_written(limits: Limits) -> LimitError:
    """Writing one more document would be too much."""
    return LimitError(
        f"Too many writes in a single function execution (limit: {limits.documents_written})", limit="documents_written"
    )


def too_many_bytes_written(limits: Limits) -> LimitError:
    """The documents written are too large together."""
    return LimitError(
        f"Too many bytes written in a single function execution (limit: {limits.bytes_written} bytes)",
        limit="bytes_written",
    )
