"""One read-only SQL statement for an operator: on a connection of its own, bounded in time, rows and size."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import apsw

from camber.errors import StorageError
from camber.storage.interface import MAX_SQL_BYTES, SQL_CELL_BYTES, SqlResult
from camber.storage.sqlite.connections import Reader, cursor_on

_STEPS_BETWEEN_LOOKS = 10_000  # steps of SQLite's machine between two looks at the clock: about a millisecond

_ALLOWED = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_RECURSIVE}
_ALLOWED_PRAGMAS = {
    "compile_options",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "table_info",
    "table_list",
    "table_xinfo",
}
_REFUSED_FUNCTIONS = {"load_extension", "fts3_tokenizer"}


def run_statement(open_one: Callable[[], Reader], statement: str, *, limit: int, seconds: float) -> SqlResult:
    """Run the statement on the latest state; see `Storage.sql`."""
    with _connection(open_one, seconds) as connection:
        columns: list[tuple[str, ...]] = []

        def before_each(cursor: apsw.Cursor, _statement: str, _bindings: object) -> bool:
            names = tuple(name for name, *_ in cursor.get_description())
            if not names:  # a comment, or nothing after the last semicolon
                return True
            if columns:
                raise StorageError("one statement at a time: there is another after the first")
            columns.append(names)
            return True

        connection.exec_trace = before_each
        rows: list[tuple[object, ...]] = []
        size = 0
        for row in cursor_on(connection).execute(statement):
            rows.append(row)
            size += SQL_CELL_BYTES * len(row) + sum(len(value) for value in row if isinstance(value, str | bytes))
            if size > MAX_SQL_BYTES:
                raise StorageError(f"the result has more than {MAX_SQL_BYTES >> 20} MiB: select less")
            if len(rows) > limit:
                break
        if not columns:
            raise StorageError("there is no SQL statement in this")
        return SqlResult(columns[0], rows[:limit], len(rows) > limit)


@contextmanager
def _connection(open_one: Callable[[], Reader], seconds: float) -> Generator[apsw.Connection]:
    """A connection on which nothing but reading is possible; what goes wrong on it becomes a StorageError."""
    try:
        connection = open_one().connection
        try:
            _restrict(connection, seconds)
            yield connection
        finally:
            connection.close(True)
    except apsw.AuthError as error:
        raise StorageError("only statements that read can be run here") from error
    except apsw.InterruptError as error:
        raise StorageError(f"the statement took longer than {seconds:g} s") from error
    except (apsw.Error, UnicodeDecodeError) as error:
        raise StorageError(str(error)) from error


def _restrict(connection: apsw.Connection, seconds: float) -> None:
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_LOOKS)
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_SQL_BYTES)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)  # "nmae" is a wrong column, not a text
    connection.authorizer = _permission


def _permission(action: int, first: str | None, second: str | None, _database: str | None, _inside: str | None) -> int:
    allowed = action in _ALLOWED
    if action == apsw.SQLITE_FUNCTION:
        allowed = second not in _REFUSED_FUNCTIONS
    elif action == apsw.SQLITE_PRAGMA:
        allowed = (first or "").lower() in _ALLOWED_PRAGMAS
    return apsw.SQLITE_OK if allowed else apsw.SQLITE_DENY
