"""One read-only SQL statement for an operator: on a connection of its own, bounded in time, rows and size.

It runs in a transaction that can't write. What the database's role may do besides, reading files of the server for instance, is not
held back here: give the role no more rights than Camber needs (docs/how-to/read-the-data-with-sql.md). Of one row libpq holds all
before anybody can count it.
"""

from __future__ import annotations

import re
import select
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.errors import error_from_result
from psycopg.pq import Escaping, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from camber.errors import StorageError
from camber.storage.interface import MAX_SQL_BYTES, SQL_CELL_BYTES, SqlResult
from camber.storage.postgres.connections import SCHEMA, Patience, execute

_ONLY_READING = "only statements that read can be run here"
# Each part is taken as it is found, once: what is read again in another way takes time without end.
_NOTHING = re.compile(r"(?>\s+|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*+", re.DOTALL)

# What is no text in the result, by PostgreSQL's numbers of types. All else is as PostgreSQL writes it.
_BOOL, _BYTEA = 16, 17
_READ: dict[int, Callable[[bytes], object]] = {
    _BOOL: lambda text: text == b"t",
    _BYTEA: lambda text: bytes(Escaping().unescape_bytea(text)),
    **dict.fromkeys((20, 21, 23), int),
    **dict.fromkeys((700, 701), float),
}


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
        f"SET TRANSACTION READ ONLY; SET LOCAL search_path = {SCHEMA}; SET LOCAL statement_timeout = {int(seconds * 1000)};"
        " SET LOCAL extra_float_digits = 1",
    )
    columns = _columns(connection, statement)
    rows: list[tuple[object, ...]] = []
    size = 0
    for row in _rows(connection.pgconn):
        texts = [row.get_value(0, place) for place in range(row.nfields)]
        size += sum(SQL_CELL_BYTES + len(text or b"") for text in texts)
        if size > MAX_SQL_BYTES:
            raise StorageError(f"the result has more than {MAX_SQL_BYTES >> 20} MiB: select less")
        rows.append(tuple(_value(row.ftype(place), text) for place, text in enumerate(texts)))
        if len(rows) > limit:
            break
    return SqlResult(columns, rows[:limit], len(rows) > limit)


def _rows(link: PGconn) -> Iterator[PGresult]:
    """Run what `_columns` has prepared: row by row as they come, so that what is not wanted is never held."""
    link.send_query_prepared(b"", [])
    link.set_single_row_mode()
    while (result := _next_result(link)) is not None:
        if result.status == ExecStatus.SINGLE_TUPLE:
            yield result
        elif result.status != ExecStatus.TUPLES_OK:
            raise error_from_result(result)


def _next_result(link: PGconn) -> PGresult | None:
    """As `get_result`, which would let no other thread of this process go on until there is one."""
    is_sent = False
    while link.is_busy():
        is_sent = is_sent or not link.flush()
        waiting = select.poll()
        waiting.register(link.socket, select.POLLIN if is_sent else select.POLLIN | select.POLLOUT)
        waiting.poll()
        link.consume_input()
    return link.get_result()


def _only_result(link: PGconn) -> PGresult:
    """What was sent gives one result."""
    first = _next_result(link)
    while _next_result(link) is not None:
        pass
    if first is None or first.status != ExecStatus.COMMAND_OK:
        raise psycopg.OperationalError("the connection was lost") if first is None else error_from_result(first)
    return first


def _value(of_type: int, text: bytes | None) -> object:
    if text is None:
        return None
    read = _READ.get(of_type)
    return text.decode() if read is None else read(text)


def _columns(connection: psycopg.Connection[Any], statement: str) -> tuple[str, ...]:
    """The columns that the statement gives. One that gives none is none that reads."""
    link = connection.pgconn
    link.send_prepare(b"", statement.encode())
    _only_result(link)
    link.send_describe_prepared(b"")
    described = _only_result(link)
    if not described.nfields:
        raise StorageError(_ONLY_READING)
    return tuple((described.fname(place) or b"").decode() for place in range(described.nfields))


def _said(error: Exception) -> str:
    if isinstance(error, psycopg.Error) and (said := error.diag.message_primary):
        if "multiple commands" in said:
            return "one statement at a time: there is another after the first"
        return said if error.diag.message_hint is None else f"{said} ({error.diag.message_hint})"
    return str(error).strip() or type(error).__name__
