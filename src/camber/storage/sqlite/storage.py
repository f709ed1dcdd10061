"""The storage as a whole: the file, its writer, its readers, and which tables it has been told of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from camber.errors import DataFolderError
from camber.storage.interface import CommitLog, CommitRow, IndexBuilder, Snapshot, SqlResult, TableLayout, Timestamp
from camber.storage.sqlite.connections import Cursor, Reader, ReaderPool, open_reader, open_writer
from camber.storage.sqlite.console import run_statement
from camber.storage.sqlite.failures import storage_error
from camber.storage.sqlite.folder import DataFolder
from camber.storage.sqlite.reading import SqliteSnapshot
from camber.storage.sqlite.tables import TableSql
from camber.storage.sqlite.writing import SqliteWriteGroup, Writer, last_timestamp

CHECKPOINT_PAGES = 4000
"""At how many pages of WAL, 4 KiB each, a checkpoint is due; so many still fit into the first block of its index."""
_PATIENCE_SECONDS = 10.0

_COMMITS_AFTER = "SELECT timestamp, touched, token FROM commits WHERE timestamp > ? ORDER BY timestamp"
_FORGET_COMMITS = "DELETE FROM commits WHERE timestamp < (SELECT max(timestamp) FROM commits WHERE timestamp < ?)"


def open_storage(
    location: Path,
    *,
    create: bool,
    durable: bool = True,
    vfs: str | None = None,
    readers: int = 32,
    checkpoint_pages: int = CHECKPOINT_PAGES,
    patience: float = _PATIENCE_SECONDS,
) -> SqliteStorage:
    """Hold the data folder at this path and open the file in it.

    `vfs` names the SQLite VFS to go through (tests break disks with one), `patience` is how many seconds to wait for a free
    reader or the writer. Raises as `camber.storage.open_storage` does.
    """
    folder = DataFolder.hold(location, create=create)
    try:
        reader = open_writer(folder.file, vfs=vfs, durable=durable)
        try:
            last_timestamp(reader.cursor)
            writer = Writer(folder.file, reader, checkpoint_pages=checkpoint_pages, patience=patience)
        except BaseException:
            reader.connection.close(True)
            raise
    except BaseException as error:
        folder.leave_as_found()
        folder.release()
        if isinstance(error, apsw.Error):
            raise _unusable(error, folder.file) from error
        raise

    def open_one() -> Reader:
        writer.refuse_when_moved()
        return open_reader(folder.file, vfs=vfs)

    pool = ReaderPool(folder.file, open_one, limit=readers, patience=patience)
    return SqliteStorage(folder, writer, pool, open_one)


def _unusable(error: apsw.Error, file: Path) -> DataFolderError:
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.SQLError):
        return DataFolderError(f"{file} is damaged ({error}): restore it from a backup, or move it away to start anew")
    if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError):
        advice = "give this user the right to write the file and its folder"
        return DataFolderError(f"{file} can't be opened for writing ({error}): {advice}")
    return DataFolderError(f"{file} can't be opened: {storage_error(error, file)}")


class SqliteStorage:
    """See `camber.storage.Storage`. Safe for several threads."""

    is_far = False
    ends_in_doubt = True

    def __init__(self, folder: DataFolder, writer: Writer, pool: ReaderPool, open_one: Callable[[], Reader]) -> None:
        self._folder, self._writer, self._pool, self._open_reader = folder, writer, pool, open_one
        self._eras: list[tuple[Timestamp, dict[int, TableSql]]] = [(Timestamp(0), {})]
        """From which timestamp on which tables are there: a snapshot reads with those of its own time."""
        self._open: set[SqliteSnapshot] = set()
        self._closing = threading.Lock()

    def use_layouts(self, layouts: Sequence[TableLayout]) -> None:
        told = {layout.number: TableSql(layout) for layout in layouts}
        # In place, so that a snapshot in which the layouts were looked up can go on reading with them.
        tables = self._eras[-1][1]
        tables.update(told)
        for number in tables.keys() - told.keys():
            del tables[number]

    def snapshot(self) -> Snapshot:
        # One alone needs no gate: its timestamp is part of the state it reads, and a COMMIT shows only once it is on disk.
        return self._begin(self._take(1)[0])

    def snapshots(self, count: int) -> list[Snapshot]:
        readers = self._take(count)
        opened: list[Snapshot] = []
        try:
            with self._writer.gate:
                while readers:
                    opened.append(self._begin(readers.pop()))
        except BaseException:
            for reader in readers:
                self._pool.give_back(reader)
            for snapshot in opened:
                snapshot.close()
            raise
        return opened

    def index_builder(self) -> IndexBuilder | None:
        return None

    def open_log(self) -> CommitLog | None:
        return None

    def write_group(self, *, locked: bool = False) -> SqliteWriteGroup:  # noqa: ARG002  there is one writer, so each is
        timestamp = self._writer.begin()
        tables = self._tables_at(timestamp)
        group = SqliteWriteGroup(self._writer, timestamp, tables, self._folder.file, self._end_group, self._new_era)
        self._open.add(group)
        return group

    def commits_after(self, after: Timestamp) -> list[CommitRow]:
        reader = self._take(1)[0]
        try:
            return [CommitRow(*row) for row in reader.cursor.execute(_COMMITS_AFTER, (after,)).fetchall()]
        except apsw.Error as error:
            raise storage_error(error, self._folder.file) from error
        finally:
            self._pool.give_back(reader)

    def forget_commits(self, before: Timestamp) -> None:
        def forget(cursor: Cursor) -> None:
            cursor.execute(_FORGET_COMMITS, (before,))

        last = self._writer.begin(quiet=True)
        try:
            self._writer.commit(forget, None, after=last)
        finally:
            self._writer.end()

    def raise_timestamp(self, to: Timestamp) -> Timestamp:
        group = self.write_group()
        try:
            if group.timestamp >= to:
                return group.timestamp
            group.commit([], CommitRow(to, b"", b""))
        finally:
            group.close()
        return to

    def sql(self, statement: str, *, limit: int, seconds: float) -> SqlResult:
        self._writer.refuse_when_broken()
        return run_statement(self._open_reader, statement, limit=limit, seconds=seconds)

    def trouble(self) -> str | None:
        return self._writer.trouble()

    def close(self) -> None:
        with self._closing:
            self._pool.close()
            for snapshot in list(self._open):
                snapshot.close()
            # The last connection to close brings the WAL into the file and removes it; if that fails, the next start does it.
            with suppress(apsw.Error):
                self._writer.close()
            self._folder.release()

    def _take(self, count: int) -> list[Reader]:
        self._writer.refuse_when_broken()
        return self._pool.take(count)

    def _begin(self, reader: Reader) -> SqliteSnapshot:
        try:
            reader.cursor.execute("BEGIN")
            timestamp = last_timestamp(reader.cursor)
        except BaseException as error:
            self._pool.give_back(reader)
            if isinstance(error, apsw.Error):
                raise storage_error(error, self._folder.file) from error
            raise
        snapshot = SqliteSnapshot(reader, timestamp, self._tables_at(timestamp), self._folder.file, self._end_snapshot)
        self._open.add(snapshot)
        return snapshot

    @contextmanager
    def _new_era(self, since: Timestamp, tables: Mapping[int, TableSql]) -> Generator[None]:
        """From this timestamp on these tables are there, if the block, the commit that makes them, succeeds."""
        self._eras.append((since, dict(tables)))
        try:
            yield
        except BaseException:
            self._eras.pop()
            raise
        self._forget_eras()

    def _forget_eras(self) -> None:
        """Drop what only snapshots could need that are closed by now; the last but one stays for a snapshot that is just being opened."""
        oldest = min([snapshot.timestamp for snapshot in list(self._open)], default=self._eras[-1][0])
        needed = sum(since <= oldest for since, _ in self._eras) - 1
        self._eras = self._eras[min(needed, len(self._eras) - 2) :]  # a new list: other threads look through this one

    def _tables_at(self, timestamp: Timestamp) -> dict[int, TableSql]:
        return next(tables for since, tables in reversed(self._eras) if since <= timestamp)

    def _end_snapshot(self, snapshot: SqliteSnapshot) -> None:
        self._open.discard(snapshot)
        self._pool.give_back(snapshot.reader)

    def _end_group(self, group: SqliteSnapshot) -> None:
        self._open.discard(group)
        self._writer.end()
