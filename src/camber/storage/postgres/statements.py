"""Statements that are run again and again, given to libpq as they are: what psycopg does around each takes longer than the statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

MOST_KEPT = 500
"""Statements that a connection keeps prepared; beyond these, each is sent whole."""

_array_head, _length = Struct("!iiIii").pack, Struct("!i").pack
_NULL = _length(-1)
_FLOAT = Struct("!id").pack


def _array(items: Sequence[Any]) -> bytes:
    """An array of one dimension, which has at least one item; of which type is seen by the first that is not None."""
    first = next((item for item in items if item is not None), b"")
    kind = _ELEMENTS[type(first)]
    parts = [_array_head(1, int(None in items), kind, len(items), 1)]
    for item in items:
        if item is None:
            parts.append(_NULL)
        elif isinstance(item, float):
            parts.append(_FLOAT(8, item))
        else:
            content = item.encode() if isinstance(item, str) else item
            parts += (_length(len(content)), content)
    return b"".join(parts)


_ELEMENTS = {bytes: 17, str: 25, float: 701}
"""PostgreSQL's numbers of bytea, text and float8."""

# PostgreSQL finds out the types of parameters by itself; where it is to be a number, it is one of 64 bits.
_IN_BINARY: dict[type, Callable[[Any], bytes]] = {bytes: bytes, str: str.encode, int: Struct("!q").pack, list: _array}


class Statements:
    """The statements of one connection, which nobody else uses meanwhile."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._known: dict[str, _Statement] = {}
        self._prepared = 0

    def rows(self, sql: str, bindings: Sequence[object]) -> list[tuple[Any, ...]]:
        """What this gives, with a `%b` for each binding. Raises psycopg.Error.

        A binding is bytes, a text, a whole number, or a list of bytes (or None), of texts or of floats.
        """
        statement, result = self._run(sql, bindings, ExecStatus.TUPLES_OK)
        return statement.rows_of(result)

    def change(self, sql: str, bindings: Sequence[object]) -> int:
        """Run what gives nothing; returns how many rows it changed. Raises psycopg.Error."""
        _, result = self._run(sql, bindings, ExecStatus.COMMAND_OK)
        return result.command_tuples or 0

    def _run(self, sql: str, bindings: Sequence[object], wanted: ExecStatus) -> tuple[_Statement, PGresult]:
        statement = self._known.get(sql)
        if statement is None:
            statement = _Statement(self._connection, sql, len(bindings))
            if len(self._known) < MOST_KEPT:
                self._known[sql] = statement
        elif not statement.name:
            self._prepare(statement)
        result = statement.run([_IN_BINARY[type(value)](value) for value in bindings])
        if result.status != wanted:
            raise failure(self._connection, result)
        return statement, result

    def _prepare(self, statement: _Statement) -> None:
        # By the time it is run for the second time: then it will be run often.
        self._prepared += 1
        name = b"camber_%d" % self._prepared
        result = self._connection.pgconn.prepare(name, statement.sql)
        if result.status != ExecStatus.COMMAND_OK:
            raise failure(self._connection, result)
        statement.name = name

    def forget(self) -> None:
        """Prepare all of them anew: psycopg has let go of what was prepared, which it does after a DROP, ALTER or ROLLBACK of its own."""
        self._known.clear()


class _Statement:
    def __init__(self, connection: psycopg.Connection[Any], sql: str, parameters: int) -> None:
        for number in range(1, parameters + 1):
            sql = sql.replace("%b", f"${number}", 1)
        self.sql = sql.encode()
        self.name = b""
        """Once it is prepared."""
        self._pgconn = connection.pgconn
        self._formats = [Format.BINARY] * parameters
        self._rows = Transformer(connection)

    def run(self, values: list[bytes]) -> PGresult:
        if self.name:
            return self._pgconn.exec_prepared(self.name, values, self._formats, Format.BINARY)
        return self._pgconn.exec_params(self.sql, values, None, self._formats, Format.BINARY)

    def rows_of(self, result: PGresult) -> list[tuple[Any, ...]]:
        count = result.ntuples
        if not count:
            return []
        self._rows.set_pgresult(result, format=Format.BINARY)
        rows = self._rows.load_rows(0, count, tuple)
        self._rows.set_pgresult(None)
        return rows


def last_value(connection: psycopg.Connection[Any], statements: str) -> str | None:
    """The first value of what the last of these statements gives, as text; None if it gives nothing. Raises psycopg.Error."""
    result = connection.pgconn.exec_(statements.encode())
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise failure(connection, result)
    value = result.get_value(0, 0) if result.ntuples else None
    return None if value is None else value.decode()


def told(connection: psycopg.Connection[Any], statement: str) -> str:
    """Run this; returns what PostgreSQL says that it has done. Raises psycopg.Error."""
    result = connection.pgconn.exec_(statement.encode())
    if result.status != ExecStatus.COMMAND_OK:
        raise failure(connection, result)
    return (result.command_status or b"").decode()


def failure(connection: psycopg.Connection[Any], result: PGresult) -> psycopg.Error:
    """The error that a result stands for."""
    if connection.closed:
        return psycopg.OperationalError(connection.pgconn.get_error_message().strip() or "the connection is lost")
    return error_from_result(result)
