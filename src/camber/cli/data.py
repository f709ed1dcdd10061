"""`camber data`: show documents."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from camber.cli.printing import counted, note
from camber.cli.rows import FormatOption, Row, RowFormat, write_rows
from camber.cli.targets import Target, ask
from camber.cli.where import NOWHERE, Where, open_target
from camber.errors import ConfigurationError, FunctionError

_PAGE: Final = 500
_PAGE_BYTES: Final = 4 * 1024 * 1024
_SYSTEM_FIELDS: Final = ("_id", "_creationTime")


def data(
    table: Annotated[str | None, Parameter(help="The table to show; without it, the tables there are.")] = None,
    /,
    *,
    format: FormatOption = None,
    limit: Annotated[int, Parameter(help="How many documents at most; 0 for all.")] = 100,
    order: Annotated[
        Literal["asc", "desc"], Parameter(help="By creation time: oldest (asc) or newest (desc) first.")
    ] = "desc",
    where: Where = NOWHERE,
) -> None:
    """Show the tables, or a table's documents.

    As JSON, values are in Convex's encoded form, as `camber run` prints them;
    in tables and CSV they are plain.

    For example:

        camber data
        camber data crowdfunding_backers --limit 20
        camber data users --format csv --limit 0 > users.csv
    """
    if limit < 0:
        raise ConfigurationError(f"--limit is how many documents to show at most, 0 for all, not {limit}")
    with open_target(where) as target:
        tables: list[dict[str, Any]] = ask(target, "_system/camber/tables:describe")
        if table is None:
            _show_tables(target, tables, format)
        else:
            _show_documents(target, table, tables, format=format, limit=limit, order=order)


def _show_tables(target: Target, tables: list[dict[str, Any]], format: RowFormat | None) -> None:
    if (format or "table") == "table" and (format or sys.stdout.isatty()):
        rows: list[Row] = [_described(table) for table in tables]
        write_rows(rows, ["table", "documents", "description", "how to write"], "table")
        if not tables:
            note(f"{target.name} has no tables yet")
    else:
        columns = ["name", "count", "description", "writeWith", "columns", "indexes"]
        write_rows([{name: table.get(name) for name in columns} for table in tables], columns, format)


def _described(table: dict[str, Any]) -> Row:
    written = f"written through {table['writeWith']}" if table.get("writeWith") else ""
    return {
        "table": table["name"],
        "documents": f"{int(table['count']):,}",
        "description": str(table.get("description") or "").partition("\n")[0],
        "how to write": written,
    }


def _show_documents(
    target: Target, table: str, tables: list[dict[str, Any]], *, format: RowFormat | None, limit: int, order: str
) -> None:
    described = next((found for found in tables if found["name"] == table), None)
    if described is None and not table.startswith("_"):
        raise FunctionError(_no_such_table(table, [str(found["name"]) for found in tables]))
    columns = [*_SYSTEM_FIELDS, *described["columns"]] if described and described["columns"] else None
    documents = _Documents(target, table, limit=limit, order=order)
    for_people = format == "table" or (format is None and sys.stdout.isatty())
    shown = write_rows(map(_with_readable_time, documents) if for_people else documents, columns, format)
    if for_people and described and described.get("writeWith"):
        note(f"written through {described['writeWith']}")
    if documents.more:
        note(f"the first {counted(shown, 'document')}; there are more: --limit {limit * 10}, or --limit 0 for all")
    elif shown == 0 and for_people:
        note(f"{table} is empty")


class _Documents:
    """A table's documents, fetched page by page as they are wanted; `more` tells afterwards whether some were left."""

    def __init__(self, target: Target, table: str, *, limit: int, order: str) -> None:
        self._target, self._table, self._order = target, table, order
        self._left = limit or None
        self.more = False

    def __iter__(self) -> Iterator[Row]:
        cursor: str | None = None
        while True:
            page = self._page(cursor)
            documents: list[Row] = page["page"]
            wanted = documents if self._left is None else documents[: self._left]
            yield from wanted
            if self._left is not None:
                self._left -= len(wanted)
            cursor = page["continueCursor"]
            if page["isDone"] or self._left == 0:
                self.more = len(wanted) < len(documents) or not page["isDone"]
                return

    def _page(self, cursor: str | None) -> dict[str, Any]:
        # One more than wanted tells whether there are more.
        count = _PAGE if self._left is None else min(_PAGE, self._left + 1)
        options = {"cursor": cursor, "numItems": count, "maximumBytesRead": _PAGE_BYTES}
        arguments = {"table": self._table, "order": self._order, "paginationOpts": options}
        return ask(self._target, "_system/cli/tableData", arguments)


def _with_readable_time(document: Row) -> Row:
    time = document.get("_creationTime")
    if not isinstance(time, int | float):
        return document
    return {**document, "_creationTime": f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M:%S}"}


def _no_such_table(table: str, names: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(table, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" Tables: {', '.join(names) or 'none yet'}."
    return f'There is no table "{table}".{hint}'
