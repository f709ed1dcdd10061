"""Connections to the data file, set up as this driver needs them, and the bounded pool of those that read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import apsw

from camber.errors import StorageError
from camber.storage.sqlite.failures import storage_error

BUSY_MILLISECONDS = 5000
"""How long to wait for another program that has the file locked, an `sqlite3` shell for instance."""

_WRITER_CACHE_KIB = 32 * 1024
_READER_CACHE_KIB = 2 * 1024
_STATEMENTS = 256  # prepared statements kept per connection: a few tables with a dozen statements each
_WAL_BYTES_KEPT = 64 * 1024 * 1024  # what a WAL that had to grow is cut back to when it is started over

# Of every connection: how many KiB of pages it keeps; and no mapped pages, where an I/O error would be a signal and no error.
_SETTINGS = """
PRAGMA cache_size = -{cache_kib};
PRAGMA mmap_size = 0;
"""

# Of the one that writes: when a commit counts as written. On macOS a plain fsync leaves the data in the drive's cache.
_WRITER_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = {synchronous};
PRAGMA fullfsync = ON;
PRAGMA checkpoint_fullfsync = ON;
PRAGMA journal_size_limit = {wal_bytes};
"""


class Cursor(Protocol):
    """What is used of apsw's cursor, with types: its own stubs leave those of bindings and rows open before Python 3.12."""

    @property
    def connection(self) -> apsw.Connection: ...
    def execute(self, statements: str, bindings: Sequence[object] | None = None, /) -> Cursor: ...
    def executemany(self, statements: str, bindings: Iterable[Sequence[object]], /) -> Cursor: ...
    def fetchall(self) -> list[tuple[Any, ...]]: ...
    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...


def cursor_on(connection: apsw.Connection) -> Cursor:
    """A new cursor on the connection."""
    return cast("Cursor", connection.cursor())


class Reader(NamedTuple):
    """A connection and the one cursor that is used on it. Statements are always run to their end, so one is enough."""

    connection: apsw.Connection
    cursor: Cursor


def open_writer(path: Path, *, vfs: str | None, durable: bool) -> Reader:
    """The connection that writes. Checkpoints are left to the caller; without `durable` nothing waits for the disk."""
    reader = _open(path, apsw.SQLITE_OPEN_READWRITE, vfs, cache_kib=_WRITER_CACHE_KIB)
    synchronous = "FULL" if durable else "OFF"
    reader.cursor.execute(_WRITER_SETTINGS.format(synchronous=synchronous, wal_bytes=_WAL_BYTES_KEPT)).fetchall()
    reader.connection.wal_autocheckpoint(0)
    return reader


def open_reader(path: Path, *, vfs: str | None) -> Reader:
    """A connection that can only read."""
    return _open(path, apsw.SQLITE_OPEN_READONLY, vfs, cache_kib=_READER_CACHE_KIB)


def _open(path: Path, flags: int, vfs: str | None, *, cache_kib: int) -> Reader:
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs, statementcachesize=_STATEMENTS)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    # A plan must not depend on bound values: with LIMIT ? SQLite otherwise prepares the statement again at every use.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    cursor = cursor_on(connection)
    cursor.execute(_SETTINGS.format(cache_kib=cache_kib)).fetchall()
    return Reader(connection, cursor)


class ReaderPool:
    """At most `limit` readers at once; who wants more than are free waits `patience` seconds, then gets StorageError."""

    def __init__(self, path: Path, open_reader: Callable[[], Reader], *, limit: int, patience: float) -> None:
        self._path, self._open, self._limit, self._patience = path, open_reader, limit, patience
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[Reader] = []  # the last one used is taken first: its caches are warm
        self._lent = 0
        self._closed = False

    def take(self, count: int) -> list[Reader]:
        """So many readers, all or none, outside a transaction."""
        if count > self._limit:
            raise StorageError(f"{count} readers at once are more than the {self._limit} there are")
        with self._changed:
            free = self._changed.wait_for(lambda: self._closed or self._lent + count <= self._limit, self._patience)
            if self._closed:
                raise StorageError("the storage is closed")
            if not free:
                raise StorageError(
                    f"{self._lent} of {self._limit} readers are in use, {count} did not become free in {self._patience:g} s"
                )
            self._lent += count
            taken = [self._idle.pop() for _ in range(min(count, len(self._idle)))]
        try:
            while len(taken) < count:
                taken.append(self._open())
        except BaseException as error:
            self._return(taken, count)
            if isinstance(error, apsw.Error):
                raise storage_error(error, self._path) from error
            raise
        return taken

    def give_back(self, reader: Reader) -> None:
        """End the reader's transaction and take it back."""
        try:
            if reader.connection.in_transaction:
                reader.cursor.execute("ROLLBACK")
        except apsw.Error:
            reader.connection.close(True)
            self._return([], 1)
        else:
            self._return([reader], 1)

    def close(self) -> None:
        """Close the idle readers now and the others when they come back."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for reader in idle:
            reader.connection.close(True)

    def _return(self, readers: list[Reader], count: int) -> None:
        with self._changed:
            self._lent -= count
            if not self._closed:
                self._idle += readers
                readers = []
            self._changed.notify_all()
        for reader in readers:
            reader.connection.close(True)
