"""Reading from one state of the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import psycopg

from camber.storage.interface import Row, Timestamp
from camber.storage.postgres.connections import READ_SECONDS, Connection, Patience, cut
from camber.storage.postgres.failures import storage_error
from camber.storage.postgres.statements import last_value
from camber.storage.postgres.tables import TableSql
from camber.storage.sql_snapshot import SqlSnapshot, id_bound

_LAST = "SELECT timestamp FROM commits ORDER BY timestamp DESC LIMIT 1"
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; " + _LAST
_BEGIN_TO_WRITE = "BEGIN ISOLATION LEVEL REPEATABLE READ; " + _LAST
_BEGIN_SHARED = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'; " + _LAST


class PostgresSnapshot(SqlSnapshot):
    """A read transaction on a connection."""

    def __init__(
        self,
        connection: Connection,
        timestamp: Timestamp,
        tables: Mapping[int, TableSql],
        patience: Patience,
        when_closed: Callable[[Self], None],
    ) -> None:
        super().__init__(timestamp, tables)
        self.connection = connection
        """To be taken back when the snapshot is closed."""
        self._patience, self._when_closed = patience, when_closed

    def first_of_each(
        self, table: int, index: int, ranges: Sequence[tuple[bytes, bytes]], *, limit: int
    ) -> Sequence[Sequence[Row]]:
        sql = cast("TableSql | None", self._tables.get(table))
        if sql is None or not ranges:
            return [()] * len(ranges)
        lower, upper = map(list, zip(*ranges, strict=True))
        found: list[list[Row]] = [[] for _ in ranges]
        for row in self._fetch(sql.each(index), (lower, upper, limit)):
            place: int = row[0]
            found[place - 1].append(Row(*row[1:]))
        return found

    def _run(self, sql: str, bindings: tuple[object, ...]) -> list[tuple[Any, ...]]:
        self._patience.begin(self.connection, READ_SECONDS + 5)
        try:
            return self.connection.statements.rows(sql, bindings)
        except psycopg.Error as error:
            raise storage_error(error) from error
        finally:
            self._patience.end(self.connection)

    def _interrupt(self) -> None:
        cut(self.connection)

    def _end(self) -> None:
        self._when_closed(self)

    @staticmethod
    def _id_bound(bound: bytes) -> object | None:
        return text_bound(bound)


def begin(connection: Connection, *, to_write: bool = False, shared: str = "") -> Timestamp:
    """Open a transaction and return the timestamp it sees: of a new state, or of one that another transaction has exported."""
    statement = _BEGIN_SHARED.format(shared) if shared else _BEGIN_TO_WRITE if to_write else _BEGIN
    return Timestamp(int(last_value(connection, statement) or 0))


def text_bound(bound: bytes) -> str | None:
    """The same as `id_bound` says in bytes, as text that PostgreSQL takes, for ids of ASCII letters and digits."""
    text = id_bound(bound)
    if text is None:
        return None
    for place, byte in enumerate(text):
        if byte == 0:  # no id has a NUL: what is not below this one is not below the next character
            return text[:place].decode() + "\x01"
        if byte >= 0x7F:
            return text[:place].decode() + "\x7f"
    return text.decode()
