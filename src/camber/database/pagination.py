"""Pages of a query: cursors, where a page ends, and what it says of itself (protocol 3.5)."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from camber.database.catalog import IndexInfo, TableInfo
from camber.database.ranges import KeyRange
from camber.database.transaction import Transaction
from camber.errors import DatabaseUsageError, InvalidCursorError
from camber.values import v

T = TypeVar("T")

LARGE_PAGE = 6144
MAX_PAGE = 32_000
MAX_CURSOR = 8192


class Page(TypedDict, Generic[T]):
    """One page of a query, as the clients' pagination helpers expect it."""

    page: list[T]
    isDone: bool
    continueCursor: str
    splitCursor: str | None
    pageStatus: str | None


class PaginationOptions(TypedDict):
    """What `usePaginatedQuery` and its like send as `paginationOpts`; as an annotation it checks that."""

    numItems: float
    cursor: str | None
    endCursor: NotRequired[str | None]
    id: NotRequired[float]
    maximumRowsRead: NotRequired[float]
    maximumBytesRead: NotRequired[float]


pagination_options_validator = v.object(
    {
        "numItems": v.number(),
        "cursor": v.union(v.string(), v.null()),
        "endCursor": v.optional(v.union(v.string(), v.null())),
        "id": v.optional(v.number()),
        "maximumRowsRead": v.optional(v.number()),
        "maximumBytesRead": v.optional(v.number()),
    }
)
"""The same as a validator, for `args={"paginationOpts": …}`."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: `cursor` and `end_cursor` as the client holds them; the maximums bound what is read for it."""

    num_items: int
    cursor: str | None = None
    end_cursor: str | None = None
    maximum_rows_read: int | None = None
    maximum_bytes_read: int | None = None

    @classmethod
    def of(cls, options: dict[str, Any]) -> PageRequest:
        """From `paginationOpts`. Raises DatabaseUsageError where a number can't be right."""
        count: Any = options.get("numItems")
        if type(count) not in (int, float) or not math.isfinite(count) or count < 0 or count != int(count):
            raise DatabaseUsageError(f"`options.numItems` must be a positive number. Received `{count}`.")
        if count == 0:
            raise DatabaseUsageError("Must request at least 1 document while paginating")
        if count > MAX_PAGE:
            raise DatabaseUsageError(f"Requested too many items: {int(count)}")
        cursor, end_cursor = options.get("cursor"), options.get("endCursor")
        for given in (cursor, end_cursor):
            if not (given is None or isinstance(given, str)):
                raise DatabaseUsageError(
                    "A pagination cursor is text that an earlier page gave as `continueCursor`, or None."
                )
        return cls(
            int(count), cursor, end_cursor, _whole(options, "maximumRowsRead"), _whole(options, "maximumBytesRead")
        )


class Cursors:
    """Makes positions in an index opaque to clients: they hold values of indexed fields, which are not theirs to read.

    Encryption is deterministic (AES-SIV, RFC 5297), so that equal pages have equal cursors, and bound to the query by its fingerprint.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def seal(self, position: bytes | None, fingerprint: bytes) -> str:
        """The cursor for a position (None: the end)."""
        plain = b"e" if position is None else b"p" + position
        return base64.urlsafe_b64encode(self._cipher.encrypt(plain, [fingerprint])).decode()

    def open(self, cursor: str, fingerprint: bytes) -> bytes | None:
        """The position, None for the end. Raises InvalidCursorError for any other text and for cursors of other queries."""
        try:
            if len(cursor) > MAX_CURSOR:
                raise ValueError
            plain = self._cipher.decrypt(base64.b64decode(cursor, b"-_", validate=True), [fingerprint])
        except (ValueError, binascii.Error, InvalidTag):
            raise InvalidCursorError(
                "Tried to run a query starting from a cursor, but it looks like this cursor is from a different query."
            ) from None
        return None if plain == b"e" else plain[1:]


def read_page(
    transaction: Transaction,
    table: TableInfo,
    index: IndexInfo,
    keys: KeyRange,
    request: PageRequest,
    *,
    descending: bool,
    keep: Callable[[dict[str, Any]], bool] | None,
    cursors: Cursors,
    fingerprint: bytes,
    journal: str | None,
) -> tuple[Page[dict[str, Any]], str]:
    """The page, and the journal with which a re-run ends it at the same place."""
    end_cursor = request.end_cursor if request.end_cursor is not None else journal
    begin = None if request.cursor is None else cursors.open(request.cursor, fingerprint)
    if request.cursor is not None and begin is None:
        return _page([], None, None, None, cursors, fingerprint), cursors.seal(None, fingerprint)
    fixed_end = end_cursor is not None
    end = None if end_cursor is None else cursors.open(end_cursor, fingerprint)
    part = _part(keys, begin, end, descending=descending)
    if part.upper is not None and part.lower >= part.upper:
        return _page([], end, None, None, cursors, fingerprint), end_cursor or cursors.seal(end, fingerprint)

    rows: list[tuple[bytes, dict[str, Any]]] = []
    last, reached_end, cut_short = begin, True, False
    meter = _Meter(transaction, request, fixed_end=fixed_end)
    scan = transaction.scan(table, index, part, descending=descending, steady=False)
    for key, document in scan:
        last = key
        if keep is None or keep(document):
            rows.append((key, document))
        if not fixed_end and len(rows) == request.num_items:
            reached_end = False
            break
        if meter.is_full():
            reached_end, cut_short = False, True
            break
    scan.close()
    position = end if reached_end and fixed_end else (None if reached_end else last)
    status = (
        "SplitRequired" if cut_short else ("SplitRecommended" if meter.is_high() or len(rows) > LARGE_PAGE else None)
    )
    page = _page(rows, position, status, _middle(rows), cursors, fingerprint)
    return page, page["continueCursor"]


class _Meter:
    """How much a page has read, against its own maximums and the transaction's limits."""

    def __init__(self, transaction: Transaction, request: PageRequest, *, fixed_end: bool) -> None:
        self._usage, self._request, self._limits = transaction.usage, request, transaction.limits
        self._fixed_end = fixed_end
        self._rows, self._bytes = transaction.usage.documents_read, transaction.usage.bytes_read

    def is_full(self) -> bool:
        rows, size = self._usage.documents_read - self._rows, self._usage.bytes_read - self._bytes
        wanted = self._request
        over_wanted = not self._fixed_end and (
            (wanted.maximum_rows_read is not None and rows >= wanted.maximum_rows_read)
            or (wanted.maximum_bytes_read is not None and size >= wanted.maximum_bytes_read)
        )
        return over_wanted or (
            self._usage.documents_read >= self._limits.documents_read
            or self._usage.bytes_read > self._limits.bytes_read * 7 // 8
        )

    def is_high(self) -> bool:
        usage, limits = self._usage, self._limits
        return usage.documents_read * 4 > limits.documents_read * 3 or usage.bytes_read * 4 > limits.bytes_read * 3


def _page(
    rows: list[tuple[bytes, dict[str, Any]]],
    position: bytes | None,
    status: str | None,
    middle: bytes | None,
    cursors: Cursors,
    fingerprint: bytes,
) -> Page[dict[str, Any]]:
    return {
        "page": [document for _, document in rows],
        "isDone": position is None,
        "continueCursor": cursors.seal(position, fingerprint),
        "splitCursor": None if middle is None else cursors.seal(middle, fingerprint),
        "pageStatus": status,
    }


def _middle(rows: list[tuple[bytes, dict[str, Any]]]) -> bytes | None:
    return rows[(len(rows) - 1) // 2][0] if len(rows) > 2 else None


def _part(keys: KeyRange, begin: bytes | None, end: bytes | None, *, descending: bool) -> KeyRange:
    """The keys behind `begin` up to and with `end`, in the direction of the query. Full keys are exact, so the next key is key + NUL."""
    lower, upper, prefix = keys
    if descending:
        upper = upper if begin is None else begin
        lower = lower if end is None else max(lower, end)
    else:
        lower = lower if begin is None else max(lower, begin + b"\x00")
        if end is not None:
            upper = end + b"\x00" if upper is None else min(upper, end + b"\x00")
    return KeyRange(lower, upper, prefix)


def _whole(options: dict[str, Any], name: str) -> int | None:
    given: Any = options.get(name)
    if given is None:
        return None
    if type(given) not in (int, float) or not math.isfinite(given) or given != int(given) or given < 1:
        raise DatabaseUsageError(f"`options.{name}` must be a positive number. Received `{given}`.")
    return int(given)
