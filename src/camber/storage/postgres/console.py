"""One read-only SQL statement for an operator: on a connection of its own, bounded in time, rows and size.

It runs in a transaction that can't write. What the database's role may do besides, reading files of the server for instance, is not
held back here: give the role no more rights than Camber needs (docs/how-to/read-the-data-with-sql.md).
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import errors as pg

from camber.errors import StorageError
from camber.storage.interface import SqlResult
from camber.storage.postgres.connections import SCHEMA, Patience, execute

_MAX_BYTES = 64 * 1024 * 1024
"""The most that all values of a result take together."""
_ONLY_READING = "only statements that read can be run here"
_NOTHING = re.compile(r"(\s|;|--[^\n]*(\n|$)|/\*.*?\*/)*", re.DOTALL)
_PLAIN = (type(None), bool, int, float, str, bytes)


def run_statement(
    words: dict[str, Any], patience: Patience, statement: str, *, limit: int, seconds: float
) -> SqlResult:
    """Run the statement on the latest state; see `Storage.sql`."""
    if _NOTHING.fullmatch(statement):
        raise StorageError("there is no SQL statement in this")
    try:
        with_transactions: dict[str, Any] = {**words, "autocommit": False}
        connection = psycopg.connect(**with_transactions)
        try:
            with patience.at_most(connection, seconds + 5):
                return _run(connection, statement, limit=limit, seconds=seconds)
        finally:
            connection.close()
    except (pg.ReadOnlySqlTransaction, pg.InsufficientPrivilege) as error:
        raise StorageError(_ONLY_READING) from error
    except pg.QueryCanceled as error:
        raise StorageError(f"the statement took longer than {seconds:g} s") from error
    except (psycopg.Error, UnicodeError) as error:
        raise StorageError(_said(error)) from error


def _run(connection: psycopg.Connection[Any], statement: str, *, limit: int, seconds: float) -> SqlResult:
    execute(
        connection,
        f"SET TRANSACTION READ ONLY; SET LOCAL search_path = {SCHEMA}; SET LOCAL statement_timeout = {int(seconds * 1000)}",
    )
    cursor = connection.cursor()
    columns = _columns(connection, statement)
    rows: list[tuple[object, ...]] = []
    size = 0
    # Row by row as they come, so that what is not wanted is never held.
    stream = cursor.stream(statement.encode())
    for row in stream:
        rows.append(tuple(value if isinstance(value, _PLAIN) else str(value) for value in row))
        size += sum(len(value) for value in rows[-1] if isinstance(value, str | bytes))
        if size > _MAX_BYTES:
            raise StorageError(f"the result has more than {_MAX_BYTES >> 20} MiB: select less")
        if len(rows) > limit:
            break
    return SqlResult(columns, rows[:limit], len(rows) > limit)


def _columns(connection: psycopg.Connection[Any], statement: str) -> tuple[str, ...]:
    """The columns that the statement gives. One that gives none is none that reads."""
    link = connection.pgconn
    prepared = link.prepare(b"", statement.encode())
    if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(prepared)
    described = link.describe_prepared(b"")
    if not described.nfields:
        raise StorageError(_ONLY_READING)
    return tuple((described.fname(place) or b"").decode() for place in range(described.nfields))


def _said(error: Exception) -> str:
    if isinstance(error, psycopg.Error) and (said := error.diag.message_primary):
        if "multiple commands" in said:
            return "one statement at a time: there is another after the first"
        return said if error.diag.message_hint is None else f"{said} ({error.diag.message_hint})"
    return str(error).strip() or type(error).__name__
