r"""Views with the users' names and typed columns over the numbered tables, for `camber sql`, psql and every other PostgreSQL tool.

No document can break a view for the others: each column is an expression that yields a value or NULL for any text in `doc`. It is
parsed once per row, by a function that gives NULL for what is no JSON. PostgreSQL's text can't hold NUL, so views show it as the
visible U+2400 (␀), in the JSON of arrays and objects as `\u2400`; `doc` itself has it as `\u0000`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from camber.errors import StorageError
from camber.storage.interface import ColumnKind, TableLayout
from camber.storage.postgres.connections import Connection

_MAX_NAME: Final = 63
"""Bytes of a name; PostgreSQL cuts off the rest."""

_OUR_NAMES = re.compile(r"t\d+(_pkey)?|pg_.*", re.IGNORECASE)

_MARK: Final = "shown_by_camber"
"""What our views call the table they show. By that and by the table a view is found again, whatever its name is."""

# Errors are caught because PostgreSQL has no other way, before version 16, to ask whether a text is JSON. It costs under a microsecond
# per row; but before version 17 it is not possible in parallel workers, so PARALLEL UNSAFE keeps these functions out of them.
#
# Literals with backslashes are E'', so that standard_conforming_strings does not matter. An escaped backslash is first written in its
# other form (\u005c), so that each \u0000 that is then found is a NUL.
#
# Servers of several versions may start on one database at once: they take turns, and the functions of the newest one stay. Who changes
# a function counts the version up.
VIEW_FUNCTIONS: Final = r"""
DO $camber$
DECLARE
    version CONSTANT int := 1;
    present int;
BEGIN
PERFORM pg_catalog.pg_advisory_xact_lock(1667329378, 1);
present := pg_catalog.substring(
    pg_catalog.obj_description(pg_catalog.to_regprocedure('camber.view_document(text)'), 'pg_proc'),
    '^View functions of Camber, version ([0-9]+)$'
);
IF present >= version THEN
    RETURN;
END IF;

CREATE OR REPLACE FUNCTION camber.view_text(doc text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN pg_catalog.strpos(doc, E'\\u0000') = 0 THEN doc
    ELSE pg_catalog.replace(pg_catalog.replace(doc, E'\\\\', E'\\u005c'), E'\\u0000', E'\\u2400')
END;

CREATE OR REPLACE FUNCTION camber.view_document(doc text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL UNSAFE
AS $$
BEGIN
    RETURN camber.view_text(doc)::pg_catalog.jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION camber.view_integer(item jsonb) RETURNS bigint LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL UNSAFE
AS $$
BEGIN
    RETURN CASE WHEN item::pg_catalog.numeric % 1 = 0 THEN item::pg_catalog.int8 END;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION camber.view_real(item jsonb) RETURNS double precision LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL UNSAFE
AS $$
BEGIN
    IF pg_catalog.jsonb_typeof(item) = 'number' THEN
        RETURN item::pg_catalog.float8;
    END IF;
    RETURN CASE
        WHEN item ->> '$float' = 'AAAAAAAA8H8=' THEN 'Infinity'::pg_catalog.float8
        WHEN item ->> '$float' = 'AAAAAAAA8P8=' THEN '-Infinity'::pg_catalog.float8
        WHEN item ->> '$float' = 'AAAAAAAAAIA=' THEN '-0'::pg_catalog.float8
        WHEN item ->> '$float' ~ '^[A-Za-z0-9+/]{8}[89+/][HPXfnv3/]8=$' THEN 'NaN'::pg_catalog.float8
    END;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION camber.view_bytes(item jsonb) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL UNSAFE
AS $$
BEGIN
    RETURN pg_catalog.decode(item ->> '$bytes', 'base64');
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION camber.view_any(item jsonb, doc text, field text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN pg_catalog.jsonb_typeof(item) IN ('array', 'object')
    THEN (camber.view_text(doc)::pg_catalog.json -> field)::pg_catalog.text
    ELSE item #>> '{}'
END;

EXECUTE pg_catalog.format('COMMENT ON FUNCTION camber.view_document(text) IS %L', 'View functions of Camber, version ' || version);
END
$camber$
"""

_COLUMNS: Final[dict[ColumnKind, sql.SQL]] = {
    "text": sql.SQL("d.fields ->> {field}"),
    "integer": sql.SQL("camber.view_integer(d.fields -> {field})"),
    "real": sql.SQL("camber.view_real(d.fields -> {field})"),
    "boolean": sql.SQL("CASE d.fields -> {field} WHEN 'true' THEN true WHEN 'false' THEN false END"),
    "bytes": sql.SQL("camber.view_bytes(d.fields -> {field})"),
    "any": sql.SQL("camber.view_any(d.fields -> {field}, {mark}.doc, {field})"),
}

# Without OFFSET 0 the planner would put the function into each column, and every one would parse the document again.
_VIEW: Final = sql.SQL(
    "CREATE VIEW camber.{view} ({names}) AS SELECT {columns} FROM camber.{table} AS {mark}"
    " CROSS JOIN LATERAL (SELECT camber.view_document({mark}.doc) AS fields OFFSET 0) AS d"
)

_VIEWS_OF: Final = """
SELECT DISTINCT c.oid, c.relname
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_catalog.pg_class AS c ON r.ev_class = c.oid
WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = pg_catalog.to_regclass(%s)
AND c.relkind = 'v' AND c.relnamespace = 'camber'::regnamespace
AND pg_catalog.strpos(pg_catalog.pg_get_viewdef(c.oid), %s) > 0
"""

# Types have the same names as relations; those of arrays make room by themselves.
_TAKEN: Final = """
SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = 'camber'::regnamespace
UNION SELECT typname FROM pg_catalog.pg_type WHERE typnamespace = 'camber'::regnamespace AND typcategory <> 'A'
"""

_READERS: Final = """
SELECT NULL, a.grantee, pg_catalog.pg_get_userbyid(a.grantee), a.is_grantable
FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
WHERE c.oid = %(view)s AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
UNION ALL
SELECT f.attname, a.grantee, pg_catalog.pg_get_userbyid(a.grantee), a.is_grantable
FROM pg_catalog.pg_attribute AS f CROSS JOIN LATERAL pg_catalog.aclexplode(f.attacl) AS a
WHERE f.attrelid = %(view)s AND a.privilege_type = 'SELECT'
"""


class _Reader(NamedTuple):
    """Who may read a view, or one column of it; the role with number 0 is everyone."""

    column: str | None
    number: int
    name: str
    may_grant: bool


def create_view(connection: Connection, layout: TableLayout, *, is_new: bool = False) -> None:
    """Make the table's view, in the place of the one it has, unless it `is_new`: who may read that one may read this one.

    Where its name is taken it gets a suffix: `users_2`. Raises StorageError as `drop_view` does.
    """
    before = [] if is_new else _views_of(connection, layout.number)
    readers = [reader for view, _ in before for reader in _readers_of(connection, view)]
    _drop(connection, before)
    taken = {name.lower() for (name,) in connection.execute(_TAKEN).fetchall()}
    view = _free_name(_allowed_name(layout.name), taken)
    names = ["_id", "_creationTime"]
    lowered = {name.lower() for name in names}
    mark = sql.Identifier(_MARK)
    columns: list[sql.Composable] = [sql.SQL("{}.id").format(mark), sql.SQL("{}.ct").format(mark)]
    for field, kind in layout.columns:
        names.append(_free_name(field, lowered))
        lowered.add(names[-1].lower())
        columns.append(_COLUMNS[kind].format(field=sql.Literal(field), mark=mark))
    comma, table = sql.SQL(", "), sql.Identifier(f"t{layout.number}")
    shown_names = comma.join([sql.Identifier(name) for name in names])
    connection.execute(
        _VIEW.format(view=sql.Identifier(view), names=shown_names, columns=comma.join(columns), table=table, mark=mark)
    )
    if before:
        _let_read(connection, view, [reader for reader in readers if reader.column is None or reader.column in names])


def drop_view(connection: Connection, table: int) -> None:
    """Remove the table's view, whatever its name is. Raises StorageError where something that users made reads from it."""
    _drop(connection, _views_of(connection, table))


def _drop(connection: Connection, views: list[tuple[int, str]]) -> None:
    for _, name in views:
        try:
            connection.execute(sql.SQL("DROP VIEW camber.{}").format(sql.Identifier(name)))
        except psycopg.errors.DependentObjectsStillExist as error:
            depending = (error.diag.message_detail or "").replace("\n", ", ")
            raise StorageError(
                f'the view camber."{name}" has to be made anew or dropped, and others read from it ({depending}):'
                " drop them, and create them again afterwards"
            ) from error


def _views_of(connection: Connection, table: int) -> list[tuple[int, str]]:
    return connection.execute(_VIEWS_OF, [f"camber.t{table}", _MARK]).fetchall()


def _readers_of(connection: Connection, view: int) -> list[_Reader]:
    return [_Reader(*row) for row in connection.execute(_READERS, {"view": view}).fetchall()]


def _let_read(connection: Connection, view: str, readers: list[_Reader]) -> None:
    """Let these read a new view and nobody else, whom the database's default privileges may have let in."""
    name = sql.Identifier("camber", view)
    ((number,),) = connection.execute("SELECT pg_catalog.to_regclass(%s)::oid", [name.as_string(connection)]).fetchall()
    for reader in _readers_of(connection, number):
        connection.execute(sql.SQL("REVOKE SELECT ON {} FROM {}").format(name, _role(reader)))
    for reader in readers:
        column = sql.SQL("") if reader.column is None else sql.SQL("({})").format(sql.Identifier(reader.column))
        option = sql.SQL("WITH GRANT OPTION" if reader.may_grant else "")
        connection.execute(sql.SQL("GRANT SELECT {} ON {} TO {} {}").format(column, name, _role(reader), option))


def _role(reader: _Reader) -> sql.Composable:
    return sql.Identifier(reader.name) if reader.number else sql.SQL("PUBLIC")


def _allowed_name(name: str) -> str:
    """A name of a table of ours, now or later, and one like PostgreSQL's own get an underscore in front."""
    return f"_{name}" if _OUR_NAMES.fullmatch(name) else name


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or with the first suffix under which nothing is there yet: SQL without quotes does not tell names by their case.

    It is cut to what PostgreSQL keeps, before the suffix.
    """
    free, suffix = _cut(name, _MAX_NAME), 2
    while free.lower() in taken:
        end = f"_{suffix}"
        free, suffix = _cut(name, _MAX_NAME - len(end)) + end, suffix + 1
    return free


def _cut(name: str, size: int) -> str:
    """The beginning that takes so many bytes at most, without half a character."""
    return name.encode()[:size].decode(errors="ignore")
