"""Schema changes: the steps one after another in the writer's transaction, with key columns filled batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from camber.storage.interface import (
    AddIndex,
    CreateTable,
    DropIndex,
    DropTable,
    IndexLayout,
    SchemaChange,
    SchemaStep,
    ShowTable,
    TableLayout,
)
from camber.storage.sqlite.connections import Cursor
from camber.storage.sqlite.tables import (
    TableSql,
    add_columns,
    count_rows,
    create_indexes,
    create_table,
    drop_index,
    drop_table,
    fill,
    rows_after,
)
from camber.storage.sqlite.views import create_view, drop_view
from camber.storage.sqlite.writing import write_rows

_BATCH = 500


def carry_out(cursor: Cursor, change: SchemaChange, tables: dict[int, TableSql]) -> None:
    """Take the steps, then write the rows. `tables` becomes what it is after the change."""
    progress = _Progress(change, cursor, tables)
    for table, steps in groupby(change.steps, key=_filled_table):
        if table is None:
            for step in steps:
                _take(cursor, step, tables)
        else:
            _add_indexes(cursor, table, [step for step in steps if isinstance(step, AddIndex)], tables, progress)
    write_rows(cursor, tables, change.writes)


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

    def __init__(self, change: SchemaChange, cursor: Cursor, tables: dict[int, TableSql]) -> None:
        self._tell = change.progress
        self._done = self._total = 0
        if self._tell:
            filled = [table for table, _ in groupby(change.steps, key=_filled_table) if table in tables]
            self._total = sum(cursor.execute(count_rows(table)).fetchall()[0][0] for table in filled)

    def advance(self, rows: int) -> None:
        self._done += rows
        if self._tell:
            self._tell(self._done, self._total)
