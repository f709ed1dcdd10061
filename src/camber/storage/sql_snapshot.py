"""Reading from one state with SQL statements, as all drivers do it: by id, by index range, counting; batch after batch.

A driver brings the statements of each table (`TableStatements`) and runs them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from camber.errors import StorageError
from camber.storage.interface import BY_ID, Row, Timestamp

_FIRST_BATCH = 32
_LARGEST_BATCH = 512
_BATCH_CHARACTERS = 256 * 1024

# Builds rows without a Python frame each, which `Row._make` would be.
_row = cast("Callable[[tuple[Any, ...]], Row]", partial(tuple.__new__, Row))  # pyright: ignore[reportUnknownMemberType]


class OrderSql(NamedTuple):
    """The statements that read a range in one order. Those `_to_end` have no upper bound."""

    ascending: str
    ascending_to_end: str
    descending: str
    descending_to_end: str
    counting: str
    counting_to_end: str


class TableStatements(Protocol):
    """The statements that read one table."""

    get: str
    """Binds the id; gives id, creation time, document, and an empty key."""
    highest: str
    """One row and column for each unique index: the highest key. Empty where there is none."""

    def order(self, index: int) -> OrderSql:
        """How to read in the order of this index; StorageError if the table has no such index."""
        ...

    def holders(self, places: tuple[int, ...]) -> str:
        """Who has one of these unique keys; binds the keys at these places. Gives place and id."""
        ...


class SqlSnapshot(ABC):
    """A read transaction on a connection that is this snapshot's own until it is closed.

    A lock is held around each statement, so that another thread can close the snapshot at any moment and the connection is not
    used by two. No statement stays open between calls: longer scans read batch after batch.
    """

    def __init__(self, timestamp: Timestamp, tables: Mapping[int, TableStatements]) -> None:
        self.timestamp = timestamp
        self._tables = tables
        self._lock = threading.Lock()
        self._is_closed = self._has_ended = False
        self.failure: StorageError | None = None

    @abstractmethod
    def _run(self, sql: str, bindings: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Run one statement; StorageError where that fails. The lock is held."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Make the statement that another thread runs right now fail."""

    @abstractmethod
    def _end(self) -> None:
        """Give the connection back; called once."""

    @staticmethod
    @abstractmethod
    def _id_bound(bound: bytes) -> object | None:
        """What a bound on the keys by id is as a bound on the ids; None if no id is as high."""

    def get(self, table: int, id: str) -> Row | None:
        sql = self._tables.get(table)
        if sql is None:
            return None
        rows = self._fetch(sql.get, (id,))
        return _row(rows[0]) if rows else None

    def scan(
        self,
        table: int,
        index: int,
        lower: bytes,
        upper: bytes | None,
        *,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[Row]:
        span = self._span(table, index, lower, upper)
        if span is None:
            return iter(())
        order, lower, upper = span
        return self._batches(order, lower, upper, limit, descending=descending, by_id=index == BY_ID)

    def first(
        self, table: int, index: int, lower: bytes, upper: bytes | None, *, descending: bool = False, limit: int
    ) -> Sequence[Row]:
        sql = self._tables.get(table)
        if sql is None:
            return ()
        if index == BY_ID:
            return list(self.scan(table, index, lower, upper, descending=descending, limit=limit))
        order = sql.order(index)
        if upper is None:
            statement, bindings = order.descending_to_end if descending else order.ascending_to_end, (lower, limit)
        else:
            statement, bindings = order.descending if descending else order.ascending, (lower, upper, limit)
        return [_row(row) for row in self._fetch(statement, bindings)]

    def first_of_each(
        self, table: int, index: int, ranges: Sequence[tuple[bytes, bytes]], *, limit: int
    ) -> Sequence[Sequence[Row]]:
        return [self.first(table, index, lower, upper, limit=limit) for lower, upper in ranges]

    def holders(self, table: int, unique_keys: Sequence[bytes | None]) -> Sequence[tuple[int, str]]:
        sql = self._tables.get(table)
        if sql is None or not unique_keys:
            return ()
        places = tuple([place for place, key in enumerate(unique_keys) if key is not None])
        return self._fetch(sql.holders(places), tuple([unique_keys[place] for place in places])) if places else ()

    def highest_keys(self, table: int) -> Sequence[bytes]:
        sql = self._tables.get(table)
        return [row[0] or b"" for row in self._fetch(sql.highest, ())] if sql is not None and sql.highest else ()

    def count(self, table: int, index: int, lower: bytes, upper: bytes | None) -> int:
        span = self._span(table, index, lower, upper)
        if span is None:
            return 0
        order, lower, upper = span
        if upper is None:
            return self._fetch(order.counting_to_end, (lower,))[0][0]
        return self._fetch(order.counting, (lower, upper))[0][0]

    def close(self) -> None:
        self._is_closed = True
        if not self._lock.acquire(blocking=False):
            self._interrupt()
            self._lock.acquire()
        has_ended, self._has_ended = self._has_ended, True
        self._lock.release()
        if not has_ended:
            self._end()

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise StorageError("the snapshot is closed")

    def _fetch(self, sql: str, bindings: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            self._refuse_when_closed()
            try:
                return self._run(sql, bindings)
            except StorageError as error:
                self.failure = error
                raise

    def _span(self, table: int, index: int, lower: bytes, upper: bytes | None) -> tuple[OrderSql, Any, Any] | None:
        """The statements and bounds of a range as SQL has them; None if nothing can be in it."""
        sql = self._tables.get(table)
        if sql is None:
            return None
        order = sql.order(index)
        if index != BY_ID:
            return order, lower, upper
        first = self._id_bound(lower)
        return None if first is None else (order, first, None if upper is None else self._id_bound(upper))

    def _batch(self, order: OrderSql, lower: Any, upper: Any, size: int, *, descending: bool) -> list[tuple[Any, ...]]:
        if upper is None:
            return self._fetch(order.descending_to_end if descending else order.ascending_to_end, (lower, size))
        return self._fetch(order.descending if descending else order.ascending, (lower, upper, size))

    def _batches(
        self, order: OrderSql, lower: Any, upper: Any, limit: int | None, *, descending: bool, by_id: bool
    ) -> Iterator[Row]:
        size = _FIRST_BATCH
        while limit is None or limit > 0:
            wanted = size if limit is None else min(size, limit)
            rows = self._batch(order, lower, upper, wanted, descending=descending)
            yield from map(_row, rows)
            if len(rows) < wanted:
                return
            if limit is not None:
                limit -= wanted
            if by_id:
                reached: object = self._id_bound(
                    b"\x07" + rows[-1][0].encode() + (b"\x00" if descending else b"\x00\x00")
                )
            else:
                reached = rows[-1][3] if descending else rows[-1][3] + b"\x00"
            if descending:
                upper = reached
            else:
                lower = reached
            characters = sum(len(row[2]) for row in rows)
            size = max(1, min(_LARGEST_BATCH, len(rows) * _BATCH_CHARACTERS // max(1, characters)))


def id_bound(bound: bytes) -> bytes | None:
    """The text b for which `id >= b` says the same as `07 id 00 >= bound`, for ids without NUL; None if no id fulfils it.

    As an upper bound it is right too: `id < b` says the same as `07 id 00 < bound`, and None is no bound at all.
    """
    if not bound or bound[0] < 0x07:
        return b""
    if bound[0] > 0x07:
        return None
    text = bound[1:]
    end = text.find(b"\x00")
    if end == -1:
        return text
    # `07 id 00` equals the bound up to here only for the id before the NUL; with more bytes behind, it is below the bound.
    return text[:end] if end == len(text) - 1 else text[: end + 1]
