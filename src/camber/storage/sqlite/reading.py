"""Reading from one state of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import apsw

from camber.storage.interface import Timestamp
from camber.storage.sql_snapshot import SqlSnapshot, id_bound
from camber.storage.sqlite.connections import Reader
from camber.storage.sqlite.failures import storage_error
from camber.storage.sqlite.tables import TableSql


class SqliteSnapshot(SqlSnapshot):
    """A read transaction on a connection to the file."""

    def __init__(
        self,
        reader: Reader,
        timestamp: Timestamp,
        tables: Mapping[int, TableSql],
        path: Path,
        when_closed: Callable[[Self], None],
    ) -> None:
        super().__init__(timestamp, tables)
        self.reader = reader
        """The connection, to be taken back when the snapshot is closed."""
        self._cursor, self._path, self._when_closed = reader.cursor, path, when_closed

    def _run(self, sql: str, bindings: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._cursor.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise storage_error(error, self._path) from error

    def _interrupt(self) -> None:
        self.reader.connection.interrupt()

    def _end(self) -> None:
        self._when_closed(self)

    @staticmethod
    def _id_bound(bound: bytes) -> object | None:
        return id_bound(bound)
