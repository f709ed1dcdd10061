"""Views with the users' names and typed columns over the numbered tables, for `camber sql` and every other SQLite tool.

No document can break a view for the others: each column is an expression that yields NULL, text or a number for any JSON.
Special floats become SQL's infinities, NaN becomes NULL (SQLite has none), bytes are base64 text (plain SQL can't decode it).
"""
# ruff: noqa: S608 - names are quoted, everything else put into these texts is a number

from __future__ import annotations

import re

from camber.storage.interface import ColumnKind, TableLayout
from camber.storage.sqlite.connections import Cursor

# The eight bytes of a float, little-endian in base64 as in Convex's export form, and the same number in SQL.
_SPECIAL_FLOATS = {"AAAAAAAA8H8=": "9e999", "AAAAAAAA8P8=": "-9e999", "AAAAAAAAAIA=": "-0.0"}
_OUR_NAMES = re.compile(r"t\d+|sqlite_.*", re.IGNORECASE)


def create_view(cursor: Cursor, layout: TableLayout) -> None:
    """Make the table's view; where its name is taken it gets a suffix: `users_2`."""
    taken = {name.lower() for (name,) in cursor.execute("SELECT name FROM sqlite_schema").fetchall()}
    names = ["_id", "_creationTime"]
    lowered = {name.lower() for name in names}
    expressions = ["id", "ct"]
    for field, kind in layout.columns:
        names.append(_free_name(field, lowered))
        lowered.add(names[-1].lower())
        expressions.append(_expression(field, kind))
    columns = ", ".join(map(_quoted, names))
    view = _quoted(_free_name(_allowed_name(layout.name), taken))
    cursor.execute(
        f"CREATE VIEW {view} ({columns}) AS {_mark(layout.number)} SELECT {', '.join(expressions)} FROM t{layout.number}"
    )


def drop_view(cursor: Cursor, table: int) -> None:
    """Remove the table's view, whatever its name is."""
    found = "SELECT name FROM sqlite_schema WHERE type = 'view' AND instr(sql, ?)"
    for (name,) in cursor.execute(found, (_mark(table),)).fetchall():
        cursor.execute(f"DROP VIEW {_quoted(name)}")


def _mark(table: int) -> str:
    """A comment in a view's text by which it is found again under any name."""
    return f"/* camber table {table} */"


def _allowed_name(name: str) -> str:
    """A name of a table of ours, now or later, and one that SQLite keeps for itself get an underscore in front."""
    return f"_{name}" if _OUR_NAMES.fullmatch(name) else name


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or with the first suffix under which nothing is there yet. SQL names differ by more than case."""
    free, suffix = name, 2
    while free.lower() in taken:
        free, suffix = f"{name}_{suffix}", suffix + 1
    return free


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _expression(field: str, kind: ColumnKind) -> str:
    path = _path(field)
    if kind == "bytes":
        return f"json_extract(doc, {_path(field, '$bytes')})"
    if kind == "real":
        cases = " ".join(f"WHEN '{text}' THEN {number}" for text, number in _SPECIAL_FLOATS.items())
        special = f"CASE json_extract(doc, {_path(field, '$float')}) {cases} END"
        return f"CASE json_type(doc, {path}) WHEN 'object' THEN {special} ELSE json_extract(doc, {path}) END"
    return f"json_extract(doc, {path})"


def _path(*steps: str) -> str:
    """SQLite's JSON path as an SQL literal; inside its quotes a step is escaped as in JSON."""
    quoted = "".join('."' + step.replace("\\", "\\\\").replace('"', '\\"') + '"' for step in steps)
    return "'$" + quoted.replace("'", "''") + "'"
