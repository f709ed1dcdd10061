"""Making indexes while servers write: finding rows without keys, and building beside them (CREATE INDEX CONCURRENTLY)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors as pg

from camber.errors import StorageError
from camber.storage.interface import IndexLayout
from camber.storage.postgres.connections import Connection, connect, cut, execute
from camber.storage.postgres.failures import refused_write, storage_error
from camber.storage.postgres.tables import build_indexes, empty_rows

SCHEMA_LOCK = 0x736368656D61
"""The key of the advisory lock that the one server has which changes the schema."""

_TRY_LOCK = f"SELECT pg_try_advisory_lock({SCHEMA_LOCK})"
# Building waits for everybody who reads what is older; no reader reads longer than a minute.
_UNHURRIED = "SET statement_timeout = 0; SET lock_timeout = 0"
# A statement whose server is killed ends with it. Only PostgreSQL on Linux and its like can tell.
_END_WITH_US = "SET client_connection_check_interval = 500"
# Who has the schema lock says a word now and then. One that is frozen or cut off does not, and loses it.
SILENT_SECONDS = 30.0
_WORD_SECONDS = 5.0
_FREE_IF_SILENT = "SELECT set_config('idle_session_timeout', %s, false)"
_PAUSE_SECONDS = 0.1
_COMPLAINT_SECONDS = 5.0
_TRIES = 5
_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"

_log = logging.getLogger("camber.storage")


class PostgresIndexBuilder:
    """See `camber.storage.IndexBuilder`."""

    def __init__(self, words: dict[str, Any]) -> None:
        self._words = words

    @contextmanager
    def alone(self, *, wait: bool) -> Generator[bool]:
        connection = self._connected()
        try:
            if is_alone := _is_locked(connection) or (wait and _wait_for_lock(connection)):
                with _kept_awake(connection):
                    yield is_alone
            else:
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
                _build_if_missing(connection, name, statement)
        except pg.UniqueViolation as error:
            raise refused_write(error) from error
        except psycopg.Error as error:
            raise storage_error(error) from error
        finally:
            connection.close()

    def _connected(self) -> Connection:
        try:
            connection = connect(self._words)
            execute(connection, _UNHURRIED)
            with suppress(pg.InvalidParameterValue):
                execute(connection, _END_WITH_US)
        except psycopg.Error as error:
            raise storage_error(error) from error
        return connection


def _wait_for_lock(connection: Connection) -> bool:
    """Until we have it: True."""
    # Asked again and again: a statement that waits for the lock is a reader whom building an index would wait for, and who would
    # wait for that himself.
    complaint = time.monotonic() + _COMPLAINT_SECONDS
    while not _is_locked(connection):
        if time.monotonic() > complaint:
            complaint = float("inf")
            _log.info("another server changes the schema or makes an index: waiting until it has done so")
        time.sleep(_PAUSE_SECONDS)
    return True


@contextmanager
def _kept_awake(connection: Connection) -> Generator[None]:
    """For the block we say a word on the connection now and then, and PostgreSQL ends it when we don't."""
    over = threading.Event()

    def talk() -> None:
        with suppress(psycopg.Error):  # who is refused what he does then learns of it
            while not over.wait(_WORD_SECONDS):
                execute(connection, "SELECT 1")

    try:
        execute(connection, _FREE_IF_SILENT, (f"{SILENT_SECONDS * 1000:.0f}",))
    except psycopg.Error as error:
        raise storage_error(error) from error
    talker = threading.Thread(target=talk, name="camber-schema-lock", daemon=True)
    try:
        talker.start()
    except RuntimeError as error:
        raise StorageError(f"the schema can't be changed for now: {error}") from error
    try:
        yield
    finally:
        over.set()
        talker.join(_WORD_SECONDS)
        if talker.is_alive():
            cut(connection)
            talker.join()


def _is_locked(connection: Connection) -> bool:
    try:
        found = execute(connection, _TRY_LOCK).fetchone()
    except psycopg.Error as error:
        raise storage_error(error) from error
    return bool(found and found[0])


def _build_if_missing(connection: Connection, name: str, statement: str) -> None:
    """Build it, unless it is there and whole.

    The statement of a server that was killed may go on for a while. It and ours then wait for each other, until PostgreSQL ends one,
    or both change the index's row of the catalog, which PostgreSQL calls an internal error ("tuple concurrently updated").
    """
    tries = 0
    while not _is_valid(connection, name):
        try:
            execute(connection, f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')
            _build(connection, name, statement)
        except (pg.DeadlockDetected, pg.InternalError_):
            tries += 1
            if tries == _TRIES:
                raise
            time.sleep(_PAUSE_SECONDS)


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
