"""The commit log as one server follows it: on a connection of its own, which hears the bell of the others."""

from __future__ import annotations

import os
import secrets
import select
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg

from camber.errors import StorageError
from camber.storage.interface import CommitRow, Timestamp
from camber.storage.postgres.connections import Connection, Patience, connect, execute
from camber.storage.postgres.failures import storage_error
from camber.storage.postgres.statements import told

_CHANNEL = "camber"
_LOOK_SECONDS = 5
_ROWS_FROM = "SELECT timestamp, touched, token FROM commits WHERE timestamp >= %b::int8 ORDER BY timestamp"


class PostgresLog:
    """See `camber.storage.CommitLog`. A connection that is lost is made anew at the next call."""

    def __init__(self, words: dict[str, Any], patience: Patience) -> None:
        self._words, self._patience = words, patience
        self._connection: Connection | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._name = secrets.token_hex(4)
        self._is_to_ring = False
        self._is_awake = False
        self._closing = threading.Lock()
        self._is_closed = False

    def rows_from(self, at: Timestamp) -> list[CommitRow]:
        try:
            connection = self._connected()
            with self._patience.at_most(connection, _LOOK_SECONDS):
                return [CommitRow(*row) for row in connection.statements.rows(_ROWS_FROM, (at,))]
        except psycopg.Error as error:
            self._drop()
            raise storage_error(error) from error

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            connection = self._connected()
            while True:
                if self._is_to_ring:
                    self._is_to_ring = False
                    with self._patience.at_most(connection, _LOOK_SECONDS):
                        # Not by psycopg, which would take what others have rung meanwhile for itself, and keep it.
                        told(connection, f"NOTIFY {_CHANNEL}, '{self._name}'")
                if self._has_heard(connection) or (left := until - time.monotonic()) <= 0:
                    return
                # Not select(): a server with many clients has file numbers above what that can take.
                poll = select.poll()
                poll.register(self._reader, select.POLLIN)
                poll.register(connection.fileno(), select.POLLIN)
                if any(number == self._reader for number, _ in poll.poll(left * 1000)):
                    self._empty()
                    if self._is_awake:
                        self._is_awake = False
                        return
        except (psycopg.Error, OSError, ValueError) as error:
            self._drop()
            if isinstance(error, psycopg.Error):
                raise storage_error(error) from error
            raise StorageError(f"the connection to PostgreSQL was lost ({error})") from error

    def wake(self) -> None:
        self._is_awake = True
        self._poke()

    def ring(self) -> None:
        self._is_to_ring = True
        self._poke()

    def close(self) -> None:
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            self._drop()
            os.close(self._reader)
            os.close(self._writer)

    def _poke(self) -> None:
        with self._closing:
            if not self._is_closed:
                with suppress(BlockingIOError):  # it is full of pokes
                    os.write(self._writer, b"x")

    def _empty(self) -> None:
        while True:
            try:
                if len(os.read(self._reader, 4096)) < 4096:
                    return
            except BlockingIOError:
                return

    def _has_heard(self, connection: Connection) -> bool:
        """Whether another server has rung since the last look; rings of our own are no news."""
        connection.pgconn.consume_input()
        heard = False
        while (notify := connection.pgconn.notifies()) is not None:
            heard = heard or notify.extra != self._name.encode()
        return heard

    def _connected(self) -> Connection:
        if self._is_closed:
            raise StorageError("the storage is closed")
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._words)
            with self._patience.at_most(self._connection, _LOOK_SECONDS):
                execute(self._connection, f"LISTEN {_CHANNEL}")
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
