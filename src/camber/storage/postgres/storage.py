"""The storage as a whole: the database, its writer, its readers, and which tables it has been told of."""

# ruff: noqa: S608 - of our own names and numbers

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from camber.errors import ConfigurationError, StorageError
from camber.storage.interface import CommitLog, CommitRow, IndexBuilder, Snapshot, SqlResult, TableLayout, Timestamp
from camber.storage.postgres.building import PostgresIndexBuilder
from camber.storage.postgres.changes import carry_out
from camber.storage.postgres.connections import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    SCHEMA,
    Connection,
    Patience,
    ReaderPool,
    connect,
    connection_words,
    execute,
)
from camber.storage.postgres.console import run_statement
from camber.storage.postgres.failures import is_lost, storage_error
from camber.storage.postgres.log import PostgresLog
from camber.storage.postgres.reading import PostgresSnapshot, begin
from camber.storage.postgres.tables import TableSql
from camber.storage.postgres.views import VIEW_FUNCTIONS
from camber.storage.postgres.writing import PostgresWriteGroup, Writer, commits_after, take_lock

FORMAT_VERSION = 1
"""The version of the layout of tables, in `camber.format`."""
START_SECONDS = 20.0
"""How long a server that starts waits for PostgreSQL to start too."""
_PATIENCE_SECONDS = 10.0
_HANDLER_SECONDS = 1.0
_LOG_SECONDS = 15.0
"""How long reading or clearing the commit log may take, for which a server has one thread, that of its writer."""

_NEW_SCHEMA = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE {SCHEMA}.format (version int NOT NULL);
INSERT INTO {SCHEMA}.format VALUES ({FORMAT_VERSION});
CREATE TABLE {SCHEMA}.commits (timestamp int8 PRIMARY KEY, touched bytea NOT NULL, token bytea NOT NULL);
"""
_WHAT_IS_THERE = f"""
SELECT count(*) FILTER (WHERE (relname, attname) IN (('format', 'version'), ('commits', 'token'))), count(*)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid
WHERE nspname = '{SCHEMA}' AND relkind IN ('r', 'p', 'v', 'm', 'f') AND attnum > 0 AND NOT attisdropped
"""
_COLUMNS_OF_OURS = 2
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "connection is bad: invalid",
)
"""Words in errors that say that waiting does not help."""
_FORGET_COMMITS = (
    "DELETE FROM commits WHERE timestamp < (SELECT max(timestamp) FROM commits WHERE timestamp < %b::int8)"
)

_log = logging.getLogger("camber.storage")


def open_storage(
    url: str,
    *,
    create: bool,
    durable: bool = True,
    readers: int = 32,
    patience: float = _PATIENCE_SECONDS,
    handler_seconds: float = _HANDLER_SECONDS,
) -> PostgresStorage:
    """Connect to the database of this URL and make what Camber keeps in it, where `create` says so and nothing is there.

    `patience` is how many seconds to wait for a free reader or the writer, `handler_seconds` how long a handler may go on without
    looking anything up. Raises ConfigurationError.
    """
    words = connection_words(url)
    _set_up(words, create=create)
    guard = Patience()
    writer = Writer(words, guard, durable=durable, wait_seconds=patience, handler_seconds=handler_seconds)
    return PostgresStorage(words, guard, writer, ReaderPool(words, guard, limit=readers, patience=patience))


def open_onlooker(url: str) -> PostgresOnlooker:
    """For a process that only reads. Raises ConfigurationError."""
    words = connection_words(url)
    _set_up(words, create=False)
    return PostgresOnlooker(words)


def _set_up(words: dict[str, Any], *, create: bool) -> None:
    deadline = time.monotonic() + (START_SECONDS if create else 0)
    while True:
        connection = _first_connection(words, patience=max(0.0, deadline - time.monotonic()))
        try:
            _make_what_is_missing(connection, create=create)
            return
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"the role {connection.info.user} can't use the database {_name(connection)}: {storage_error(error)}. It needs the right"
                f" to make the schema {SCHEMA} there, or to own it"
            ) from error
        except psycopg.Error as error:
            # Each step is done or it is not; who has waited for one too long, or was stopped between two, looks again.
            if not is_lost(connection) or time.monotonic() > deadline:
                raise ConfigurationError(
                    f"the database {_name(connection)} can't be used: {storage_error(error)}"
                ) from error
            time.sleep(0.5)
        finally:
            connection.close()


def _make_what_is_missing(connection: Connection, *, create: bool) -> None:
    if create:  # and another server may be about to do the same
        take_lock(connection)
    if not _is_ours(connection):
        if not create:
            raise ConfigurationError(
                f"there is no data of Camber's in the database {_name(connection)}: start the server on it once, or name the right one"
            )
        execute(connection, "BEGIN;" + _NEW_SCHEMA + "COMMIT")
    stored = execute(connection, f"SELECT max(version) FROM {SCHEMA}.format").fetchone()
    version = stored[0] if stored and stored[0] is not None else 0
    if version > FORMAT_VERSION:
        raise ConfigurationError(
            f"the database {_name(connection)} was written by a newer Camber"
            f" (format {version}, this one knows up to {FORMAT_VERSION}): upgrade Camber"
        )
    if create:
        execute(connection, VIEW_FUNCTIONS)


def _is_ours(connection: Connection) -> bool:
    """Whether there is data of ours; False where there is nothing. Raises ConfigurationError where somebody else's things are there."""
    ours, all_there = execute(connection, _WHAT_IS_THERE).fetchone() or (0, 0)
    if all_there and ours < _COLUMNS_OF_OURS:
        raise ConfigurationError(
            f"the database {_name(connection)} has a schema {SCHEMA} with tables that are not Camber's: name another database, or give"
            " that schema another name"
        )
    return bool(ours)


def _first_connection(words: dict[str, Any], *, patience: float) -> Connection:
    deadline = time.monotonic() + patience
    has_told = False
    while True:
        try:
            return connect(words)
        except psycopg.OperationalError as error:
            # 28: a wrong password or role; 3D: no such database. Waiting helps with neither.
            if (error.sqlstate or "")[:2] in {"28", "3D"} or _is_refused(error) or time.monotonic() > deadline:
                raise ConfigurationError(f"PostgreSQL can't be used (CAMBER_DATABASE_URL): {_said(error)}") from error
            if not has_told:
                _log.warning("PostgreSQL can't be used yet, waiting for up to %.0f s: %s", patience, _said(error))
                has_told = True
            time.sleep(0.5)
        except (psycopg.Error, StorageError) as error:
            raise ConfigurationError(f"PostgreSQL can't be used (CAMBER_DATABASE_URL): {error}") from error


def _is_refused(error: psycopg.OperationalError) -> bool:
    # While connecting libpq tells the server's words only.
    text = str(error)
    return any(words in text for words in _REFUSALS)


def _said(error: psycopg.OperationalError) -> str:
    # What else there is are hints, and where there are several hosts the last one once more. The password is in none of it.
    lines = str(error).strip().splitlines()
    of_each_host = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return "; ".join(of_each_host or lines[:1])


def _name(connection: Connection) -> str:
    info = connection.info
    return f"{info.dbname} at {info.host}:{info.port}" if not connection.closed else "of CAMBER_DATABASE_URL"


class PostgresStorage:
    """See `camber.storage.Storage`. Safe for several threads."""

    is_far = True
    ends_in_doubt = False

    def __init__(self, words: dict[str, Any], patience: Patience, writer: Writer, pool: ReaderPool) -> None:
        self._words, self._patience, self._writer, self._pool = words, patience, writer, pool
        self._tables: dict[int, TableSql] = {}
        self._open: set[PostgresSnapshot] = set()
        self._logs: list[PostgresLog] = []
        self._closing = threading.Lock()

    def use_layouts(self, layouts: Sequence[TableLayout]) -> None:
        self._changed_tables({layout.number: self._statements(layout) for layout in layouts})

    def index_builder(self) -> IndexBuilder | None:
        return PostgresIndexBuilder(self._words)

    def open_log(self) -> CommitLog | None:
        log = PostgresLog(self._words, self._patience)
        self._logs.append(log)
        return log

    def snapshot(self) -> Snapshot:
        connection, timestamp = self._pool.take(begin)
        return self._snapshot(connection, timestamp)

    def snapshots(self, count: int) -> list[Snapshot]:
        with self._pool.several(count):
            opened = [self.snapshot()]
            try:
                if count > 1:
                    self._open_more(opened, count - 1)
            except BaseException:
                for snapshot in opened:
                    snapshot.close()
                raise
        return opened

    def write_group(self, *, locked: bool = False) -> PostgresWriteGroup:
        connection, timestamp = self._writer.begin(locked=locked)
        group = PostgresWriteGroup(
            self._writer,
            connection,
            timestamp,
            self._tables,
            locked=locked,
            when_closed=self._end_group,
            when_changed=self._changed_tables,
            apply=carry_out,
        )
        self._open.add(group)
        return group

    def commits_after(self, after: Timestamp) -> list[CommitRow]:
        connection, rows = self._pool.take(lambda connection: commits_after(connection, after), seconds=_LOG_SECONDS)
        self._pool.give_back(connection)
        return rows

    def forget_commits(self, before: Timestamp) -> None:
        connection, _ = self._pool.take(
            lambda connection: connection.statements.change(_FORGET_COMMITS, (before,)), seconds=_LOG_SECONDS
        )
        self._pool.give_back(connection)

    def raise_timestamp(self, to: Timestamp) -> Timestamp:
        return self._writer.raise_timestamp(to)

    def sql(self, statement: str, *, limit: int, seconds: float) -> SqlResult:
        return run_statement(self._words, self._patience, statement, limit=limit, seconds=seconds)

    def trouble(self) -> str | None:
        return None

    def close(self) -> None:
        with self._closing:
            for snapshot in list(self._open):
                snapshot.close()
            for log in self._logs:
                log.close()
            self._pool.close()
            self._writer.close()
            self._patience.close()

    def _snapshot(self, connection: Connection, timestamp: Timestamp) -> PostgresSnapshot:
        snapshot = PostgresSnapshot(connection, timestamp, self._tables, self._patience, self._end_snapshot)
        self._open.add(snapshot)
        return snapshot

    def _open_more(self, opened: list[Snapshot], count: int) -> None:
        """Open others of the same state as the first."""
        first = opened[0]
        assert isinstance(first, PostgresSnapshot)
        try:
            with self._patience.at_most(first.connection, ANSWER_SECONDS):
                exported = execute(first.connection, "SELECT pg_export_snapshot()").fetchone()
        except psycopg.Error as error:
            raise storage_error(error) from error
        assert exported is not None
        for _ in range(count):
            connection, timestamp = self._pool.take(lambda connection: begin(connection, shared=exported[0]))
            opened.append(self._snapshot(connection, timestamp))

    def _statements(self, layout: TableLayout) -> TableSql:
        known = self._tables.get(layout.number)
        return known if known is not None and known.layout == layout else TableSql(layout)

    def _changed_tables(self, tables: Mapping[int, TableSql]) -> None:
        # In place, so that a snapshot with which the layouts were found out can go on reading with them.
        self._tables.update(tables)
        for number in self._tables.keys() - tables.keys():
            del self._tables[number]

    def _end_snapshot(self, snapshot: PostgresSnapshot) -> None:
        self._open.discard(snapshot)
        self._pool.give_back(snapshot.connection)

    def _end_group(self, group: PostgresWriteGroup) -> None:
        self._open.discard(group)
        self._writer.end(group.connection, locked=group.is_locked)


class PostgresOnlooker:
    """See `camber.storage.Onlooker`. Each snapshot has a connection of its own."""

    def __init__(self, words: dict[str, Any]) -> None:
        self._words = words
        self._tables: dict[int, TableSql] = {}
        self._patience = Patience()

    def use_layouts(self, layouts: Sequence[TableLayout]) -> None:
        self._tables.clear()  # in place: an open snapshot goes on with them
        self._tables.update({layout.number: TableSql(layout) for layout in layouts})

    def snapshot(self) -> Snapshot:
        try:
            connection = connect({**self._words, "connect_timeout": CONNECT_SECONDS})
        except psycopg.Error as error:
            raise storage_error(error) from error
        try:
            with self._patience.at_most(connection, ANSWER_SECONDS):
                timestamp = begin(connection)
        except psycopg.Error as error:
            connection.close()
            raise storage_error(error) from error
        return PostgresSnapshot(connection, timestamp, self._tables, self._patience, _close)


def _close(snapshot: PostgresSnapshot) -> None:
    with suppress(psycopg.Error):
        snapshot.connection.close()
