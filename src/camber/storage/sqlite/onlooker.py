"""Reading a data folder that another process may hold: no lock is taken, and no document or table is touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apsw

from camber.errors import DataFolderError
from camber.storage.interface import Snapshot, TableLayout
from camber.storage.sqlite.connections import open_reader
from camber.storage.sqlite.failures import storage_error
from camber.storage.sqlite.folder import data_file
from camber.storage.sqlite.reading import SqliteSnapshot
from camber.storage.sqlite.tables import TableSql
from camber.storage.sqlite.writing import last_timestamp


def open_onlooker(location: Path) -> SqliteOnlooker:
    """For a process that does not hold this folder itself. Raises as `camber.storage.open_onlooker` does."""
    return SqliteOnlooker(data_file(location))


class SqliteOnlooker:
    """See `camber.storage.Onlooker`. Each snapshot has a connection of its own."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tables: dict[int, TableSql] = {}

    def use_layouts(self, layouts: Sequence[TableLayout]) -> None:
        self._tables.clear()  # in place: an open snapshot goes on with them
        self._tables.update({layout.number: TableSql(layout) for layout in layouts})

    def snapshot(self) -> Snapshot:
        try:
            reader = open_reader(self._file, vfs=None)
            try:
                reader.cursor.execute("BEGIN")
                timestamp = last_timestamp(reader.cursor)
            except BaseException:
                reader.connection.close(True)
                raise
        except apsw.Error as error:
            raise DataFolderError(f"{self._file} can't be read: {storage_error(error, self._file)}") from error
        return SqliteSnapshot(reader, timestamp, self._tables, self._file, _close)


def _close(snapshot: SqliteSnapshot) -> None:
    snapshot.reader.connection.close(True)
