"""Making indexes while servers write: finding rows without keys, and building beside them (CREATE INDEX CONCURRENTLY)."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg

from camber.errors import StorageError
from camber.storage.interface import IndexLayout
from camber.storage.postgres.connections import Connection, connect, execute
from camber.storage.postgres.failures import refused_write, storage_error
from camber.storage.postgres.tables import build_indexes, empty_rows

SCHEMA_LOCK = 0x736368656D61
"""The key of the advisory lock that the one server has which changes the schema."""

_TRY_LOCK = f"SELECT pg_try_advisory_lock({SCHEMA_LOCK})"
# Building waits for everybody who reads what is older; no reader reads longer than a minute.
_UNHURRIED = "SET statement_timeout = 0; SET lock_timeout = 0"
_PAUSE_SECONDS = 0.1
_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"


class PostgresIndexBuilder:
    """See `camber.storage.IndexBuilder`."""

    def __init__(self, words: dict[str, Any]) -> None:
        self._words = words

    @contextmanager
    def alone(self, *, wait: bool) -> Generator[bool]:
        connection = self._connected()
        try:
            # Asked again and again: a statement that waits for the lock is a reader whom building an index would wait for, and who
            # would wait for that himself.
            while not (is_alone := _is_locked(connection)) and wait:
                time.sleep(_PAUSE_SECONDS)
            yield is_alone
        finally:
            connection.close()

    def empty_rows(self, table: int, index: IndexLayout, after: str, limit: int) -> list[tuple[str, float, str]]:
        connection = self._connected()
        try:
            return execute(connection, empty_rows(table, index), (after, limit), binary=True).fetchall()
        except psycopg.Error as error:
            raise storage_error(error) from error
        finally:
            connection.close()

    def build(self, table: int, index: IndexLayout) -> None:
        connection = self._connected()
        try:
            for name, statement in build_indexes(table, index):
                if not _is_valid(connection, name):
                    execute(connection, f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')
                    _build(connection, name, statement)
        except psycopg.Error as error:
            raise refused_write(error) from error
        finally:
            connection.close()

    def _connected(self) -> Connection:
        try:
            connection = connect(self._words)
            execute(connection, _UNHURRIED)
        except psycopg.Error as error:
            raise storage_error(error) from error
        return connection


def _is_locked(connection: Connection) -> bool:
    try:
        found = execute(connection, _TRY_LOCK).fetchone()
    except psycopg.Error as error:
        raise storage_error(error) from error
    return bool(found and found[0])


def _build(connection: Connection, name: str, statement: str) -> None:
    try:
        execute(connection, statement)
    except psycopg.Error:
        if not connection.closed:
            execute(connection, f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')
        raise
    if not _is_valid(connection, name):
        raise StorageError(f'the index "{name}" was built and is not valid')


def _is_valid(connection: Connection, name: str) -> bool:
    found = execute(connection, _IS_VALID, (f'"{name}"',)).fetchone()
    return bool(found and found[0])
