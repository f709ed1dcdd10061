"""What PostgreSQL's errors mean here: each as the error of ours that says what can be done about it."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import errors as pg

from camber.errors import DatabaseUnreachableError, DiskFullError, StorageError
from camber.storage.interface import CommitConflict, UniqueKeyTaken

_TAKEN = re.compile(r"t(\d+)\.u(\d+)$")
_ENDED = {"25P03", "25P04"}


def storage_error(error: psycopg.Error) -> StorageError:
    """A failure after which nothing is half done: of a read, or of a transaction that was rolled back."""
    said = _first_line(error)
    if isinstance(error, pg.DiskFull):
        return DiskFullError("PostgreSQL's disk is full, nothing was written: free some space there and try again")
    if isinstance(error, pg.LockNotAvailable):
        return StorageError(f"another server has held the commit lock for too long, nothing was written ({said})")
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return DatabaseUnreachableError(
            f"this PostgreSQL server can't be written to any more, it may be a replica now ({said})"
        )
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return DatabaseUnreachableError(f"the connection to PostgreSQL was lost or can't be made ({said})")
    # It is being shut down; or the transaction was idle, or open, for longer than somebody allows.
    state = error.sqlstate or ""
    if state in _ENDED or (state[:2] in {"57", "08"} and not isinstance(error, pg.QueryCanceled)):
        return DatabaseUnreachableError(f"PostgreSQL ended the connection ({said})")
    return StorageError(f"PostgreSQL: {said}")


def refused_write(error: psycopg.Error) -> StorageError | CommitConflict:
    """A write that failed before COMMIT; its transaction is rolled back."""
    if isinstance(error, pg.UniqueViolation):
        taken = _TAKEN.search(error.diag.constraint_name or "")
        if taken:
            return UniqueKeyTaken(int(taken[1]), int(taken[2]))
        return StorageError(
            f"a row or commit that was to be new is already there, nothing was written ({_first_line(error)})"
        )
    if isinstance(error, pg.SerializationFailure | pg.DeadlockDetected):
        return CommitConflict(_first_line(error))
    return storage_error(error)


def refused_change(error: psycopg.Error) -> StorageError | CommitConflict:
    """A schema step that failed; its transaction is to be rolled back."""
    if isinstance(error, pg.LockNotAvailable):
        return CommitConflict("a table that is to be changed is being read")
    return refused_write(error)


def is_lost(connection: psycopg.Connection[Any]) -> bool:
    """Whether the connection itself has ended, so that nobody knows what became of its last statement."""
    return connection.closed


def _first_line(error: psycopg.Error) -> str:
    # Of a connection that can't be made the lines name each host that was tried; none of them has the password.
    text = error.diag.message_primary or str(error) or type(error).__name__
    return text.strip().splitlines()[0]
