"""Writing: rows in as few statements as their kinds allow, and the one connection that commits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

import apsw

from camber.errors import StorageError
from camber.storage.interface import CommitRow, IndexLayout, RowWrite, SchemaStep, Timestamp
from camber.storage.row_writes import changed_positions, rows_by_table
from camber.storage.sqlite.changes import carry_out, fill_rows
from camber.storage.sqlite.connections import BUSY_MILLISECONDS, Cursor, Reader
from camber.storage.sqlite.failures import commit_in_doubt, refused_write, storage_error
from camber.storage.sqlite.reading import SqliteSnapshot
from camber.storage.sqlite.tables import TableSql

_LAST_COMMIT = "SELECT timestamp FROM commits ORDER BY timestamp DESC LIMIT 1"
_ADD_COMMIT = "INSERT INTO commits (timestamp, touched, token) VALUES (?, ?, ?)"

_CHECKPOINT_MILLISECONDS = 250
_OVERGROWN = 4  # times the pages at which a checkpoint is due: then it waits for readers


def last_timestamp(cursor: Cursor) -> Timestamp:
    """The timestamp of the state that the cursor's connection sees; 0 before the first commit."""
    found = cursor.execute(_LAST_COMMIT).fetchall()
    return Timestamp(found[0][0] if found else 0)


def write_rows(cursor: Cursor, tables: Mapping[int, TableSql], writes: Iterable[RowWrite]) -> None:
    """Carry out the writes: per table deletes first, then updates, then inserts, so that a unique key may move between rows."""
    connection = cursor.connection
    before = connection.total_changes()
    expected = 0
    for table, rows in rows_by_table(writes).items():
        sql = tables.get(table)
        if sql is None:
            raise StorageError(f"a write to table {table}, which does not exist")
        deletes: list[tuple[str]] = []
        inserts: list[tuple[object, ...]] = []
        updates: list[RowWrite] = []
        for write in rows:
            if write.document is None:
                deletes.append((write.id,))
            elif write.is_new:
                inserts.append((write.id, write.creation_time, write.document, *write.keys, *write.unique_keys))
            else:
                updates.append(write)
        if deletes:
            cursor.executemany(sql.delete, deletes)
        if updates:
            expected += _update(cursor, sql, updates)
        if inserts:
            cursor.executemany(sql.insert, inserts)
        expected += len(deletes) + len(inserts)
    if connection.total_changes() - before != expected:
        raise StorageError("a row that was to be updated or deleted is not there")


def _update(cursor: Cursor, sql: TableSql, rows: Sequence[RowWrite]) -> int:
    """Update rows, setting only what changes; returns how many row changes SQLite counts."""
    statements: dict[tuple[int, ...], list[tuple[object, ...]]] = {}
    giving_up: dict[int, list[tuple[str]]] = {}
    for row in rows:
        changed = changed_positions(row)
        values: list[object] = [row.document]
        if changed:
            if changed[0] == 0:  # the key by creation time
                values.append(row.creation_time)
            values += [row.keys[position] for position in changed]
            for position in changed:
                unique = sql.unique_positions[position]
                if unique is not None:
                    values.append(row.unique_keys[unique])
                    giving_up.setdefault(position, []).append((row.id,))
        values.append(row.id)
        statements.setdefault(changed, []).append(tuple(values))
    cleared = 0
    for position, ids in giving_up.items():
        # Rows that change a unique key together may hand it to each other, so all let go of it first.
        if len(ids) > 1:
            cursor.executemany(sql.clear_unique(position), ids)
            cleared += len(ids)
    for changed, bindings in statements.items():
        cursor.executemany(sql.update(changed), bindings)
    return cleared + len(rows)


class Writer:
    """The one connection that writes, for one transaction at a time, and the gate between its COMMITs.

    While the gate is held nothing is committed, so snapshots opened behind it have one timestamp.
    """

    def __init__(self, path: Path, reader: Reader, *, checkpoint_pages: int, patience: float) -> None:
        self.reader = reader
        self.gate = threading.Lock()
        self._path, self._patience = path, patience
        self._busy = threading.Lock()
        self._broken: str | None = None
        self._checkpoint_pages = checkpoint_pages
        self._pages, self._checkpoint_at, self._wait_at = 0, checkpoint_pages, _OVERGROWN * checkpoint_pages
        self._names = (str(path), str(path.with_name(f"{path.name}-wal")))
        self._files = [_identity(name) for name in self._names]
        reader.connection.set_wal_hook(self._committed)

    def begin(self, *, quiet: bool = False) -> Timestamp:
        """Open the writer's transaction and return the timestamp that it sees. `end` must follow, in any thread.

        `quiet` says that nobody waits for this transaction, a good moment for a checkpoint.
        """
        self.refuse_when_broken()
        if not self._busy.acquire(timeout=self._patience):
            raise StorageError(f"another transaction has held the writer for {self._patience:g} s")
        try:
            self.refuse_when_broken()
            self.checkpoint_when_due(quiet=quiet)
            # At once for writing: a transaction that has read can't wait any more for another program that writes.
            self.reader.cursor.execute("BEGIN IMMEDIATE")
            return last_timestamp(self.reader.cursor)
        except BaseException as error:
            self.end()
            if isinstance(error, apsw.Error):
                raise storage_error(error, self._path) from error
            raise

    def commit(self, work: Callable[[Cursor], None], record: CommitRow | None, *, after: Timestamp) -> None:
        """Do the work in the open transaction, add the log row, and commit. `after` is the timestamp that `begin` returned."""
        if record is not None and record.timestamp <= after:
            raise StorageError(f"a commit at {record.timestamp} can't follow the one at {after}")
        cursor = self.reader.cursor
        try:
            work(cursor)
            if record is not None:
                cursor.execute(_ADD_COMMIT, record)
            self.refuse_when_moved()
        except BaseException as error:
            self._roll_back()
            if isinstance(error, apsw.Error):
                raise refused_write(error, self._path) from error
            raise
        with self.gate:
            self._commit(cursor)

    def end(self) -> None:
        """Give up what was not committed, and let the next transaction begin."""
        self._roll_back()
        self._busy.release()

    def refuse_when_broken(self) -> None:
        """After a failure that left the state of the file unknown nothing more is done with it."""
        if self._broken is not None:
            raise StorageError(self._broken)

    def refuse_when_moved(self) -> None:
        """A file that was removed or replaced still takes writes, which then are nowhere: one look per commit prevents that."""
        if [_identity(name) for name in self._names] != self._files:
            raise StorageError(
                f"{self._path} or its -wal file was removed or replaced while it was in use: nothing is written any more,"
                " stop the server and put the files back"
            )

    def trouble(self) -> str | None:
        """Why nothing more can be written, if that is so."""
        try:
            self.refuse_when_broken()
            self.refuse_when_moved()
        except StorageError as error:
            return str(error)
        return None

    def close(self) -> None:
        """Close the connection, once no transaction is open; a later `begin` raises StorageError."""
        self._busy.acquire()
        try:
            self._broken = self._broken or "the storage is closed"
            self.reader.connection.close(True)
        finally:
            self._busy.release()

    def _commit(self, cursor: Cursor) -> None:
        try:
            cursor.execute("COMMIT")
        except apsw.FullError as error:
            # The write that did not fit was part of the last frame at the latest, and without that one nothing is committed.
            self._roll_back()
            raise storage_error(error, self._path) from error
        except apsw.Error as error:
            if not isinstance(error, apsw.IOError) and self.reader.connection.in_transaction:
                self._roll_back()
                raise storage_error(error, self._path) from error
            doubt = commit_in_doubt(error, self._path)
            self._broken = str(doubt)
            raise doubt from error

    def _roll_back(self) -> None:
        try:
            if self.reader.connection.in_transaction:
                self.reader.cursor.execute("ROLLBACK")
        except apsw.ConnectionClosedError:
            pass
        except apsw.Error as error:
            self._broken = f"a transaction on {self._path} could not be rolled back ({error})"

    # Checkpoints: between transactions and outside of the gate, so that neither an answer nor a reader waits for one.

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        if pages < self._pages:  # the WAL was started over
            self._checkpoint_at = self._checkpoint_pages
            self._wait_at = _OVERGROWN * self._checkpoint_pages
        self._pages = pages
        return apsw.SQLITE_OK

    def checkpoint_when_due(self, *, quiet: bool = False) -> None:
        """Bring the WAL's pages into the file, so that it can be started over; for who has the writer, outside a transaction.

        Snapshots that overlap each other without end would keep it from that for ever: from some size on, wait a moment for them.
        One that stays open longer costs such a wait only each time that the WAL has doubled.
        """
        if self._pages < (self._checkpoint_at // 4 if quiet else self._checkpoint_at):
            return
        connection, mode = self.reader.connection, apsw.SQLITE_CHECKPOINT_PASSIVE
        if self._pages >= self._wait_at:
            self._wait_at, mode = 2 * self._pages, apsw.SQLITE_CHECKPOINT_RESTART
        connection.set_busy_timeout(_CHECKPOINT_MILLISECONDS)
        # What a failed checkpoint did not bring over stays in the WAL, and a disk that fails shows at the next COMMIT.
        with suppress(apsw.Error):
            connection.wal_checkpoint(mode=mode)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        self._checkpoint_at = self._pages + self._checkpoint_pages


def _identity(name: str) -> tuple[int, int] | None:
    """Which file lies under this name."""
    try:
        status = os.stat(name)  # noqa: PTH116  at each commit, and a Path takes twice the time
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class SqliteWriteGroup(SqliteSnapshot):
    """The writer's transaction as a snapshot, until it becomes the commit."""

    def __init__(
        self,
        writer: Writer,
        timestamp: Timestamp,
        tables: Mapping[int, TableSql],
        path: Path,
        when_closed: Callable[[SqliteSnapshot], None],
        new_era: Callable[[Timestamp, Mapping[int, TableSql]], AbstractContextManager[None]],
    ) -> None:
        super().__init__(writer.reader, timestamp, tables, path, when_closed)
        self._writer, self._new_era = writer, new_era
        self._rows_of = tables
        self._is_committing = self._has_new_tables = False

    def lock(self, after: Timestamp | None = None) -> list[CommitRow]:  # noqa: ARG002
        """Nobody else commits to this file: nothing to wait for, nothing new."""
        return []

    def apply(self, steps: Sequence[SchemaStep], progress: Callable[[int, int], None] | None = None) -> None:
        with self._lock:
            self._refuse_when_closed()
            self._has_new_tables = True
            self._tables = self._rows_of = tables = dict(self._rows_of)
            try:
                carry_out(self._cursor, steps, tables, progress)
            except apsw.Error as error:
                raise refused_write(error, self._path) from error

    def fill(self, table: int, index: IndexLayout, keys: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        with self._lock:
            self._refuse_when_closed()
            try:
                fill_rows(self._cursor, table, index, keys)
            except apsw.Error as error:
                raise refused_write(error, self._path) from error

    def commit(self, writes: Sequence[RowWrite], record: CommitRow) -> None:
        try:
            with self._lock:
                self._refuse_when_closed()
                if self.failure is not None:
                    raise self.failure
                self._is_committing = True
                work = partial(write_rows, tables=self._rows_of, writes=writes)
                # Known before it is committed: a snapshot may see the commit before this thread has returned from it.
                with self._new_era(record.timestamp, self._rows_of) if self._has_new_tables else nullcontext():
                    self._writer.commit(work, record, after=self.timestamp)
                if self._has_new_tables:
                    self._writer.checkpoint_when_due()
        finally:
            self.close()

    def _interrupt(self) -> None:
        if not self._is_committing:
            super()._interrupt()
