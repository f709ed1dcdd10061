"""Writing: one group at a time under the commit lock, and what is done where a COMMIT's outcome is not known."""

# ruff: noqa: S608 - of our own names and numbers

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from camber.errors import CommitUnknownError, ConfigurationError, StorageError
from camber.storage.interface import CommitConflict, CommitRow, IndexLayout, RowWrite, SchemaStep, Timestamp
from camber.storage.postgres.changes import fill_rows
from camber.storage.postgres.connections import Connection, Patience, connect, cut, execute, make_durable
from camber.storage.postgres.failures import is_lost, refused_change, refused_write, storage_error
from camber.storage.postgres.reading import PostgresSnapshot, begin
from camber.storage.postgres.statements import last_value, told
from camber.storage.postgres.tables import TableSql
from camber.storage.row_writes import changed_positions, rows_by_table

COMMIT_LOCK = 0x63616D626572
"""The key of the advisory lock under which all servers of a database commit."""

LOCK_WAIT_SECONDS = 40
"""How long to wait for the commit lock: longer than any server can hold it."""
LOCKED_SECONDS = 5
"""How long a transaction may be idle while it holds the lock; a server that has gone without a word holds up the others so long."""
STEP_SECONDS = 15
SETTLE_SECONDS = 30.0
"""How long to try to learn whether a COMMIT whose answer was lost took effect."""
_PAUSE_SECONDS = 0.25

_LOCK = f"SET LOCAL idle_in_transaction_session_timeout = {LOCKED_SECONDS * 1000}; SELECT pg_advisory_xact_lock({COMMIT_LOCK})"
# Outside of a transaction the lock is held for moments only; whoever has gone in such a moment must not keep it.
_LOCK_SESSION = f"SET idle_session_timeout = {LOCKED_SECONDS * 1000}; SELECT pg_advisory_lock({COMMIT_LOCK})"
_UNLOCK_SESSION = f"SELECT pg_advisory_unlock({COMMIT_LOCK}); SET idle_session_timeout = 0"
# Who has the lock, and for so many seconds has waited for its server to go on, in whatever state.
_END_SILENT_HOLDER = f"""
SELECT pg_terminate_backend(holder.pid)
FROM pg_locks AS lock JOIN pg_stat_activity AS holder USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
  AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND lock.classid = {COMMIT_LOCK >> 32} AND lock.objid = {COMMIT_LOCK & 0xFFFFFFFF}
  AND holder.wait_event = 'ClientRead' AND holder.state_change < clock_timestamp() - make_interval(secs => %s)
"""
_COMMITS_AFTER = "SELECT timestamp, touched, token FROM commits WHERE timestamp > %b::int8 ORDER BY timestamp"
_ADD_COMMIT = "INSERT INTO commits (timestamp, touched, token) VALUES (%b, %b, %b)"
_HAS_COMMIT = "SELECT token FROM commits WHERE timestamp = %b::int8"
_FIRST_COMMIT = "SELECT min(timestamp) FROM commits"
_LAST_COMMIT = "SELECT coalesce(max(timestamp), 0) FROM commits"

_log = logging.getLogger("camber.storage")


class Writer:
    """The connections that write: `main` for the group's transaction, `side` for the commit log, which it can't see itself."""

    def __init__(
        self, words: dict[str, Any], patience: Patience, *, durable: bool, wait_seconds: float, handler_seconds: float
    ) -> None:
        self._words, self._patience, self._durable, self._wait = words, patience, durable, wait_seconds
        self._hold_seconds = LOCKED_SECONDS + handler_seconds
        self.changes_tried = 0
        """How often a change of tables was refused since the last one that was not."""
        self._busy = threading.Lock()
        self._main: Connection | None = None
        self._side: Connection | None = None
        self._is_closed = False

    @property
    def patience(self) -> Patience:
        """Who cuts what hangs."""
        return self._patience

    def begin(self, *, locked: bool) -> tuple[Connection, Timestamp]:
        """Open the writer's transaction, with the commit lock where `locked`. `end` must follow, in any thread."""
        patience = self._wait + LOCK_WAIT_SECONDS  # so long may the one before us wait for its connection and the lock
        if not self._busy.acquire(timeout=patience):
            raise StorageError(f"another transaction has held the writer for {patience:g} s")
        deadline = time.monotonic() + self._wait
        try:
            while True:
                if self._is_closed:
                    raise StorageError("the storage is closed")
                connection: Connection | None = None
                try:
                    connection = self._main_connection()
                    with self._patience.at_most(connection, STEP_SECONDS + (2 * LOCK_WAIT_SECONDS if locked else 0)):
                        if locked:
                            with self.waiting_for_lock():
                                take_lock(connection)
                        return connection, begin(connection, to_write=True)
                except psycopg.Error as error:
                    # Nothing was begun: a connection that has died since it was used last is simply replaced.
                    self.drop(connection)
                    if isinstance(error, psycopg.errors.LockNotAvailable) or time.monotonic() > deadline:
                        raise storage_error(error) from error
                    time.sleep(_PAUSE_SECONDS if connection is None else 0)
        except BaseException:
            self._busy.release()
            raise

    def end(self, connection: Connection, *, locked: bool) -> None:
        """Give up what was not committed, and the lock, and let the next transaction begin."""
        try:
            if not connection.closed:
                with self._patience.at_most(connection, STEP_SECONDS):
                    status = connection.info.transaction_status
                    if status == psycopg.pq.TransactionStatus.INERROR:
                        # psycopg may take for prepared what was not, as the error came before it: nothing tells it so for certain.
                        self.drop(connection)
                        return
                    if status != psycopg.pq.TransactionStatus.IDLE:
                        last_value(connection, "ROLLBACK")
                    if locked:
                        execute(connection, _UNLOCK_SESSION)
        except psycopg.Error:
            self.drop(connection)
        finally:
            self._busy.release()

    @contextmanager
    def waiting_for_lock(self) -> Generator[None]:
        """Whoever waits in this block for longer than a server can need the lock has its holder ended, if that has fallen silent."""
        give_up = self._patience.now_and_then(self._hold_seconds, self._end_silent_holder)
        try:
            yield
        finally:
            give_up()

    def _end_silent_holder(self) -> None:
        try:
            connection = self._connect()
            try:
                with self._patience.at_most(connection, STEP_SECONDS):
                    if execute(connection, _END_SILENT_HOLDER, (self._hold_seconds,)).fetchone():
                        _log.warning("a server that had the commit lock had fallen silent; its connection was ended")
            finally:
                connection.close()
        except (psycopg.Error, StorageError, ConfigurationError) as error:
            _log.info("who holds the commit lock could not be found out: %s", error)

    def news(self, after: Timestamp) -> list[CommitRow]:
        """The commits after this timestamp, read outside of the group's transaction. Raises StorageError."""
        for attempt in (1, 2):
            connection: Connection | None = None
            try:
                connection = self._side_connection()
                with self._patience.at_most(connection, STEP_SECONDS):
                    return commits_after(connection, after)
            except psycopg.Error as error:
                is_dead = connection is not None and connection.closed
                self.drop(connection)
                if attempt == 2 or not is_dead:
                    raise storage_error(error) from error
        raise AssertionError

    def settle(self, record: CommitRow) -> bool:
        """Whether the commit of this log row took effect, after its connection was lost in the middle of COMMIT.

        The dying transaction holds the commit lock until it has ended, so whoever gets the lock sees what became of it. A row that is
        there was perhaps not sent to a synchronous standby yet: an empty commit behind it is, once it is acknowledged, and all that
        comes before it. Raises CommitUnknownError where PostgreSQL can't be asked for too long.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                return self._look_for(record)
            except CommitUnknownError:
                raise
            except (psycopg.Error, StorageError, ConfigurationError) as error:
                if time.monotonic() > deadline or self._is_closed:
                    raise CommitUnknownError(
                        f"the connection to PostgreSQL was lost during a commit, and for {SETTLE_SECONDS:g} s nobody could say"
                        " whether it is stored"
                    ) from error
                time.sleep(_PAUSE_SECONDS)

    def _look_for(self, record: CommitRow) -> bool:
        connection = self._connect()
        try:
            with self._patience.at_most(connection, STEP_SECONDS + 2 * LOCK_WAIT_SECONDS):
                with self.waiting_for_lock():
                    take_lock(connection)
                found = execute(connection, _HAS_COMMIT, (record.timestamp,), binary=True).fetchone()
                if found is None:
                    self._check_reaches_back(connection, record)
                if found is None or found[0] != record.token:
                    return False
                last = execute(connection, _LAST_COMMIT).fetchone()
                assert last is not None
                with _warnings_of(connection) as warnings:
                    execute(connection, _ADD_COMMIT, (last[0] + 1, b"", secrets.token_bytes(16)), binary=True)
                if warnings:  # this one was not waited for either
                    raise StorageError(warnings[0])
                return True
        finally:
            connection.close()

    def _check_reaches_back(self, connection: Connection, record: CommitRow) -> None:
        """That a row is not there proves something only where the log still goes back to before it."""
        first = execute(connection, _FIRST_COMMIT).fetchone()
        if first is None or first[0] is None or first[0] >= record.timestamp:
            raise CommitUnknownError(
                "the connection to PostgreSQL was lost during a commit, and by the time it could be asked its log began later"
            )

    def raise_timestamp(self, to: Timestamp) -> Timestamp:
        """See `Storage.raise_timestamp`. It does not wait for a group of ours that is open."""
        try:
            connection = self._connect()
            try:
                with self._patience.at_most(connection, STEP_SECONDS + 2 * LOCK_WAIT_SECONDS):
                    with self.waiting_for_lock():
                        take_lock(connection)
                    found = execute(connection, _LAST_COMMIT).fetchone()
                    last = Timestamp(found[0] if found else 0)
                    if last < to:
                        execute(connection, _ADD_COMMIT, (to, b"", secrets.token_bytes(16)), binary=True)
                    return max(last, to)
            finally:
                connection.close()
        except psycopg.Error as error:
            raise storage_error(error) from error

    def drop(self, connection: Connection | None) -> None:
        """Use this connection no more."""
        if connection is None:
            return
        connection.close()
        if connection is self._main:
            self._main = None
        if connection is self._side:
            self._side = None

    def close(self) -> None:
        """Close the connections, once no transaction is open."""
        self._is_closed = True
        with self._busy:
            for connection in (self._main, self._side):
                self.drop(connection)

    def _main_connection(self) -> Connection:
        if self._main is None or self._main.closed:
            self._main = self._connect()
            self._main.prepare_threshold = 2  # what it writes is prepared by psycopg
            # Of a group: how long its handlers may take without reading, with or without the lock.
            seconds = int(self._hold_seconds * 1000)
            with self._patience.at_most(self._main, STEP_SECONDS):
                execute(self._main, f"SET idle_in_transaction_session_timeout = {seconds}")
        return self._main

    def _side_connection(self) -> Connection:
        if self._side is None or self._side.closed:
            self._side = self._connect()
        return self._side

    def _connect(self) -> Connection:
        connection = connect(self._words)
        try:
            with self._patience.at_most(connection, STEP_SECONDS):
                make_durable(connection, durable=self._durable)
                execute(connection, f"SET lock_timeout = {LOCK_WAIT_SECONDS * 1000}; SET statement_timeout = 0")
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def _warnings_of(connection: Connection) -> Generator[list[str]]:
    """What PostgreSQL warns of meanwhile: of a commit, that a synchronous standby was not waited for."""
    warnings: list[str] = []

    def warned(said: psycopg.errors.Diagnostic) -> None:
        if said.severity_nonlocalized == "WARNING":
            warnings.append(said.message_primary or "")

    connection.add_notice_handler(warned)
    try:
        yield warnings
    finally:
        with suppress(ValueError):
            connection.remove_notice_handler(warned)


def take_lock(connection: Connection) -> None:
    """Take the commit lock outside of a transaction, until it is given back or the connection ends."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            execute(connection, _LOCK_SESSION)
            return
        except psycopg.errors.DeadlockDetected:
            # Others waited for each other for a moment, see `PostgresWriteGroup.lock`. PostgreSQL may end any who wait with them.
            if time.monotonic() > deadline:
                raise


def commits_after(connection: Connection, after: Timestamp) -> list[CommitRow]:
    """The log after this timestamp, oldest first."""
    return [CommitRow(*row) for row in connection.statements.rows(_COMMITS_AFTER, (after,))]


def write_rows(connection: Connection, tables: Mapping[int, TableSql], writes: Iterable[RowWrite]) -> None:
    """Carry out the writes: per table deletes first, then updates, then inserts, so that a unique key may move between rows."""
    statements: list[tuple[str, tuple[object, ...], int]] = []
    for table, rows in rows_by_table(writes).items():
        sql = tables.get(table)
        if sql is None:
            raise StorageError(f"a write to table {table}, which does not exist")
        deletes = [write.id for write in rows if write.document is None]
        if deletes:
            statements.append((sql.delete, (deletes,), len(deletes)))
        statements += _updates(sql, [write for write in rows if write.document is not None and not write.is_new])
        inserts = [write for write in rows if write.document is not None and write.is_new]
        if inserts:
            columns = zip(*((w.id, w.creation_time, w.document, *w.keys, *w.unique_keys) for w in inserts), strict=True)
            statements.append((sql.insert, tuple(map(list, columns)), len(inserts)))
    _execute(connection, statements)


def _updates(sql: TableSql, rows: Sequence[RowWrite]) -> list[tuple[str, tuple[object, ...], int]]:
    """Update rows, setting only what changes."""
    changes: dict[tuple[int, ...], list[tuple[object, ...]]] = {}
    giving_up: dict[int, list[str]] = {}
    for row in rows:
        changed = changed_positions(row)
        values: list[object] = [row.id, row.document]
        if changed and changed[0] == 0:  # the key by creation time
            values.append(row.creation_time)
        values += [row.keys[position] for position in changed]
        for position in changed:
            unique = sql.unique_positions[position]
            if unique is not None:
                values.append(row.unique_keys[unique])
                giving_up.setdefault(position, []).append(row.id)
        changes.setdefault(changed, []).append(tuple(values))
    statements: list[tuple[str, tuple[object, ...], int]] = [
        # Rows that change a unique key together may hand it to each other, so all let go of it first.
        (sql.clear_unique(position), (ids,), len(ids))
        for position, ids in giving_up.items()
        if len(ids) > 1
    ]
    for changed, of_rows in changes.items():
        columns = zip(*of_rows, strict=True)
        statements.append((sql.update(changed), tuple(map(list, columns)), len(of_rows)))
    return statements


def _execute(connection: Connection, statements: Sequence[tuple[str, tuple[object, ...], int]]) -> None:
    """Send all of them, then see that each did what it was to do."""
    if len(statements) <= 1:
        are_done = all(
            connection.statements.change(sql, bindings) == expected for sql, bindings, expected in statements
        )
    else:
        done: list[tuple[psycopg.Cursor[Any], int]] = []
        with connection.pipeline():
            for sql, bindings, expected in statements:
                done.append((execute(connection, sql, bindings, binary=True), expected))
        are_done = all(cursor.rowcount == expected for cursor, expected in done)
    if not are_done:
        raise StorageError("a row that was to be updated or deleted is not there")


class PostgresWriteGroup(PostgresSnapshot):
    """The writer's transaction as a snapshot, until it becomes the commit."""

    def __init__(
        self,
        writer: Writer,
        connection: Connection,
        timestamp: Timestamp,
        tables: Mapping[int, TableSql],
        *,
        locked: bool,
        when_closed: Callable[[PostgresWriteGroup], None],
        when_changed: Callable[[Mapping[int, TableSql]], None],
        apply: Callable[
            [Connection, Sequence[SchemaStep], dict[int, TableSql], Callable[[int, int], None] | None, int], None
        ],
    ) -> None:
        super().__init__(connection, timestamp, tables, writer.patience, when_closed)
        self._writer, self._rows_of, self._apply, self._when_changed = writer, tables, apply, when_changed
        self._last: Timestamp | None = timestamp if locked else None
        """Of the latest commit, once we hold the lock."""
        self.is_locked = locked
        self._is_committing = self._has_new_tables = False

    def lock(self, after: Timestamp | None = None) -> list[CommitRow]:
        # Who holds the lock may want to change a table that we have read, and waits for us for a moment (changes.py). PostgreSQL looks for
        # such circles when somebody has waited for a second, and if it meets one in that moment it ends one of all who wait.
        since = self.timestamp if after is None else min(after, self.timestamp)
        with self._lock:
            self._refuse_when_closed()
            if self._last is None:
                try:
                    patience = self._patience.at_most(self.connection, STEP_SECONDS + LOCK_WAIT_SECONDS)
                    with patience, self._writer.waiting_for_lock():
                        last_value(self.connection, _LOCK)
                except psycopg.Error as error:
                    raise refused_write(error) from error
            elif since >= self._last:
                return []
            news = self._writer.news(since)
            self._last = news[-1].timestamp if news else self.timestamp
        return news

    def apply(self, steps: Sequence[SchemaStep], progress: Callable[[int, int], None] | None = None) -> None:
        with self._lock:
            self._refuse_when_closed()
            self._has_new_tables = True
            self._tables = self._rows_of = tables = dict(self._rows_of)
            self._writer.changes_tried += 1
            try:
                self._apply(self.connection, steps, tables, progress, self._writer.changes_tried - 1)
            except psycopg.Error as error:
                raise refused_change(error) from error
            else:
                self._writer.changes_tried = 0
            finally:
                self.connection.statements.forget()

    def fill(self, table: int, index: IndexLayout, keys: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        with self._lock:
            self._refuse_when_closed()
            try:
                fill_rows(self.connection, table, index, keys)
            except psycopg.Error as error:
                raise refused_write(error) from error

    def commit(self, writes: Sequence[RowWrite], record: CommitRow) -> None:
        try:
            if self._last is None:
                self.lock()
            with self._lock:
                self._refuse_when_closed()
                if self.failure is not None:
                    raise self.failure
                assert self._last is not None
                if record.timestamp <= self._last:
                    raise StorageError(f"a commit at {record.timestamp} can't follow the one at {self._last}")
                self._is_committing = True
                self._write(writes, record)
                self._commit(record)
                if self._has_new_tables:
                    self._when_changed(self._rows_of)
        finally:
            self.close()

    def _write(self, writes: Sequence[RowWrite], record: CommitRow) -> None:
        try:
            with self._patience.at_most(self.connection, STEP_SECONDS + len(writes) / 1000):
                write_rows(self.connection, self._rows_of, writes)
                self.connection.statements.change(_ADD_COMMIT, record)
        except psycopg.Error as error:
            raise refused_write(error) from error

    def _commit(self, record: CommitRow) -> None:
        connection = self.connection
        try:
            with self._patience.at_most(connection, STEP_SECONDS), _warnings_of(connection) as warnings:
                ended = told(connection, "COMMIT")
        except psycopg.Error as error:
            if not is_lost(connection):
                raise refused_write(error) from error
            self._settle(record, str(error))
            return
        if ended != "COMMIT":
            raise CommitConflict("the transaction had failed")
        if warnings:
            # Told that a synchronous standby was not waited for: it is committed here, and perhaps nowhere else.
            self._settle(record, warnings[0])

    def _settle(self, record: CommitRow, why: str) -> None:
        _log.info("the outcome of a commit is looked up: %s", why.strip().splitlines()[0] if why.strip() else "lost")
        self._writer.drop(self.connection)  # it may hold the lock
        if not self._writer.settle(record):
            raise StorageError("the connection to PostgreSQL was lost during a commit, which took no effect: try again")

    def _interrupt(self) -> None:
        if not self._is_committing:
            cut(self.connection)
