"""Schema changes: the steps one after another in the writer's transaction, with key columns filled batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from camber.storage.interface import (
    AddColumns,
    AddIndex,
    CreateTable,
    DropIndex,
    DropTable,
    IndexLayout,
    SchemaStep,
    ShowTable,
    TableLayout,
)
from camber.storage.sqlite.connections import Cursor
from camber.storage.sqlite.tables import (
    TableSql,
    add_columns,
    create_table,
    drop_index,
    drop_table,
    fill,
    fill_by_id,
    rows_after,
)
from camber.storage.sqlite.views import create_view, drop_view
from camber.storage.table_sql import count_rows, create_indexes

_BATCH = 500


def carry_out(
    cursor: Cursor,
    steps: Sequence[SchemaStep],
    tables: dict[int, TableSql],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Take the steps. `tables` becomes what it is after them."""
    filling = _Progress(steps, progress, cursor, tables)
    for table, of_table in groupby(steps, key=_filled_table):
        if table is None:
            for step in of_table:
                _take(cursor, step, tables)
        else:
            _add_indexes(cursor, table, [step for step in of_table if isinstance(step, AddIndex)], tables, filling)


def fill_rows(cursor: Cursor, table: int, index: IndexLayout, keys: Sequence[tuple[str, bytes, bytes | None]]) -> None:
    """Set the columns of one index in these rows."""
    columns = fill_by_id(table, index)
    cursor.executemany(columns, [(*row[1:3], row[0]) if index.unique else (row[1], row[0]) for row in keys])


def _filled_table(step: SchemaStep) -> int | None:
    """The table that a step fills: indexes of one table in a row are filled in one go."""
    return step.table if isinstance(step, AddIndex) else None


def _take(cursor: Cursor, step: SchemaStep, tables: dict[int, TableSql]) -> None:
    match step:
        case CreateTable(layout):
            _run(cursor, create_table(layout))
            create_view(cursor, layout)
            tables[layout.number] = TableSql(layout)
        case DropTable(number):
            drop_view(cursor, number)
            _run(cursor, [drop_table(number)])
            tables.pop(number, None)
        case DropIndex(table, number):
            layout = tables[table].layout
            _run(cursor, drop_index(table, next(index for index in layout.indexes if index.number == number)))
            _set_indexes(tables, layout, [index for index in layout.indexes if index.number != number])
        case ShowTable(layout):
            drop_view(cursor, layout.number)
            create_view(cursor, layout)
            tables[layout.number] = TableSql(layout)
        case AddColumns(table, index):
            _run(cursor, add_columns(table, index))
            _set_indexes(tables, tables[table].layout, [*tables[table].layout.indexes, index])
        case AddIndex():
            _add_indexes(cursor, step.table, [step], tables, None)


def _add_indexes(
    cursor: Cursor, table: int, steps: Sequence[AddIndex], tables: dict[int, TableSql], progress: _Progress | None
) -> None:
    layout = tables[table].layout
    added = [step.layout for step in steps]
    for index in added:
        _run(cursor, add_columns(table, index))
    for rows in _batches(cursor, table):
        cursor.executemany(fill(table, added), [_filled(row, steps) for row in rows])
        if progress:
            progress.advance(len(rows))
    for index in added:
        _run(cursor, create_indexes(table, index))
    _set_indexes(tables, layout, [*layout.indexes, *added])


def _batches(cursor: Cursor, table: int) -> Iterator[list[tuple[int, str, float, str]]]:
    sql, last = rows_after(table), 0
    while rows := cursor.execute(sql, (last, _BATCH)).fetchall():
        yield rows
        last = rows[-1][0]


def _filled(row: tuple[int, str, float, str], steps: Sequence[AddIndex]) -> tuple[object, ...]:
    rowid, id, creation_time, document = row
    values: list[object] = []
    for step in steps:
        key, unique_key = step.key_of(id, creation_time, document)
        values += (key, unique_key) if step.layout.unique else (key,)
    return (*values, rowid)


def _set_indexes(tables: dict[int, TableSql], layout: TableLayout, indexes: Sequence[IndexLayout]) -> None:
    tables[layout.number] = TableSql(replace(layout, indexes=tuple(indexes)))


def _run(cursor: Cursor, statements: Iterator[str] | Sequence[str]) -> None:
    for statement in statements:
        cursor.execute(statement)


class _Progress:
    """Counts the rows filled so far and tells whoever wants to know."""

    def __init__(
        self,
        steps: Sequence[SchemaStep],
        tell: Callable[[int, int], None] | None,
        cursor: Cursor,
        tables: dict[int, TableSql],
    ) -> None:
        self._tell = tell
        self._done = self._total = 0
        if self._tell:
            filled = [table for table, _ in groupby(steps, key=_filled_table) if table in tables]
            self._total = sum(cursor.execute(count_rows(table)).fetchall()[0][0] for table in filled)

    def advance(self, rows: int) -> None:
        self._done += rows
        if self._tell:
            self._tell(self._done, self._total)
