"""Reading from one state of the file: by id, by index range, counting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import apsw

from camber.errors import StorageError
from camber.storage.interface import BY_ID, Row, Timestamp
from camber.storage.sqlite.connections import Reader
from camber.storage.sqlite.failures import storage_error
from camber.storage.sqlite.tables import OrderSql, TableSql

_FIRST_BATCH = 32
_LARGEST_BATCH = 512
_BATCH_CHARACTERS = 256 * 1024

# Builds rows without a Python frame each, which `Row._make` would be.
_row = cast("Callable[[tuple[Any, ...]], Row]", partial(tuple.__new__, Row))  # pyright: ignore[reportUnknownMemberType]


class SqliteSnapshot:
    """A read transaction on a connection that is this snapshot's own until it is closed.

    A lock is held around each statement, so that another thread can close the snapshot at any moment and the connection is not
    used by two. No statement stays open between calls: longer scans read batch after batch.
    """

    def __init__(
        self,
        reader: Reader,
        timestamp: Timestamp,
        tables: Mapping[int, TableSql],
        path: Path,
        when_closed: Callable[[Self], None],
    ) -> None:
        self.timestamp = timestamp
        self._reader, self._cursor = reader, reader.cursor
        self._tables, self._path, self._when_closed = tables, path, when_closed
        self._lock = threading.Lock()
        self._is_closed = self._has_ended = False
        self._failure: StorageError | None = None
        """Why a read failed, once one did."""

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
            self._when_closed(self)

    @property
    def reader(self) -> Reader:
        """The connection, to be taken back when the snapshot is closed."""
        return self._reader

    def _interrupt(self) -> None:
        """Make the statement that another thread runs right now fail."""
        self._reader.connection.interrupt()

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise StorageError("the snapshot is closed")

    def _fetch(self, sql: str, bindings: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            self._refuse_when_closed()
            try:
                return self._cursor.execute(sql, bindings).fetchall()
            except apsw.Error as error:
                self._failure = storage_error(error, self._path)
                raise self._failure from error

    def _span(
        self, table: int, index: int, lower: bytes, upper: bytes | None
    ) -> tuple[OrderSql, bytes, bytes | None] | None:
        """The statements and bounds of a range as SQL has them; None if nothing can be in it."""
        sql = self._tables.get(table)
        if sql is None:
            return None
        order = sql.order(index)
        if index != BY_ID:
            return order, lower, upper
        first = id_bound(lower)
        return None if first is None else (order, first, None if upper is None else id_bound(upper))

    def _batch(
        self, order: OrderSql, lower: bytes, upper: bytes | None, size: int, *, descending: bool
    ) -> list[tuple[Any, ...]]:
        if upper is None:
            return self._fetch(order.descending_to_end if descending else order.ascending_to_end, (lower, size))
        return self._fetch(order.descending if descending else order.ascending, (lower, upper, size))

    def _batches(
        self, order: OrderSql, lower: bytes, upper: bytes | None, limit: int | None, *, descending: bool, by_id: bool
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
            reached: bytes = rows[-1][0].encode() if by_id else rows[-1][3]
            if descending:
                upper = reached
            else:
                lower = reached + b"\x00"
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
