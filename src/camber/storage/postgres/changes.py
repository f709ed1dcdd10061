"""Schema changes: the steps one after another in a group's transaction, with key columns filled batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
)
from camber.storage.postgres.connections import Connection, execute
from camber.storage.postgres.tables import (
    TableSql,
    add_columns,
    create_table,
    drop_index,
    drop_table,
    fill,
    rows_after,
)
from camber.storage.postgres.views import create_view, drop_view
from camber.storage.table_sql import columns_of, count_rows, create_indexes

BATCH = 500
_READERS_MILLISECONDS = 200
"""How long to wait for those who read a table that is to be changed; meanwhile nobody else can begin to read it."""
_PERSISTENT_MILLISECONDS = 3000
"""How long each twelfth time: PostgreSQL then ends groups that have read the table and wait for the commit lock, which we have."""

Tell = Callable[[int, int], None]
Document = tuple[str, float, str]


def carry_out(
    connection: Connection, steps: Sequence[SchemaStep], tables: dict[int, TableSql], tell: Tell | None, tries: int
) -> None:
    """Take the steps, after so many tries in vain. `tables` becomes what it is after them.

    A table that somebody reads can't be changed: rather than hold up everybody behind us, CommitConflict after a moment.
    """
    patience = _PERSISTENT_MILLISECONDS if tries % 12 == 11 else _READERS_MILLISECONDS
    execute(connection, f"SET LOCAL lock_timeout = {patience}")
    filled = [table for table, _ in groupby(steps, key=_filled_table) if table in tables]
    total = sum(execute(connection, count_rows(table)).fetchall()[0][0] for table in filled) if tell else 0
    done = 0
    for table, of_table in groupby(steps, key=_filled_table):
        if table is None:
            for step in of_table:
                _take(connection, step, tables)
            continue
        added = [step for step in of_table if isinstance(step, AddIndex)]
        for count in _add_indexes(connection, table, added, tables):
            done += count
            if tell:
                tell(done, total)


def _filled_table(step: SchemaStep) -> int | None:
    """The table that a step fills: indexes of one table in a row are filled in one go."""
    return step.table if isinstance(step, AddIndex) else None


def _take(connection: Connection, step: SchemaStep, tables: dict[int, TableSql]) -> None:
    match step:
        case CreateTable(layout):
            _run(connection, create_table(layout))
            create_view(connection, layout, is_new=True)
            tables[layout.number] = TableSql(layout)
        case DropTable(number):
            drop_view(connection, number)
            _run(connection, [drop_table(number)])
            tables.pop(number, None)
        case DropIndex(table, number):
            layout = tables[table].layout
            gone = [index for index in layout.indexes if index.number == number]
            _run(connection, [drop_index(table, index) for index in gone])
            _set_indexes(tables, table, [index for index in layout.indexes if index.number != number])
        case ShowTable(layout):
            create_view(connection, layout)
            tables[layout.number] = TableSql(layout)
        case AddColumns(table, index):
            _run(connection, [add_columns(table, index)])
            _set_indexes(tables, table, [*tables[table].layout.indexes, index])
        case AddIndex():
            list(_add_indexes(connection, step.table, [step], tables))


def _add_indexes(
    connection: Connection, table: int, steps: Sequence[AddIndex], tables: dict[int, TableSql]
) -> Iterable[int]:
    """Yields how many rows have been filled, batch by batch."""
    added = [step.layout for step in steps]
    for index in added:
        _run(connection, [add_columns(table, index)])
    last = ""
    while rows := execute(connection, rows_after(table), (last, BATCH), binary=True).fetchall():
        _fill(connection, table, steps, rows)
        last = rows[-1][0]
        yield len(rows)
    for index in added:
        _run(connection, create_indexes(table, index))
    _set_indexes(tables, table, [*tables[table].layout.indexes, *added])


def _fill(connection: Connection, table: int, steps: Sequence[AddIndex], rows: Sequence[Document]) -> None:
    columns: list[Sequence[object]] = [[row[0] for row in rows]]
    for step in steps:
        keys = [step.key_of(*row) for row in rows]
        columns += [[key[place] for key in keys] for place in range(len(columns_of(step.layout)))]
    execute(connection, fill(table, [step.layout for step in steps]), columns, binary=True)


def fill_rows(
    connection: Connection, table: int, index: IndexLayout, keys: Sequence[tuple[str, bytes, bytes | None]]
) -> None:
    """Set the key columns of one index in these rows."""
    columns = list(zip(*keys, strict=True))[: 1 + len(columns_of(index))]
    execute(connection, fill(table, [index]), [list(column) for column in columns], binary=True)


def _set_indexes(tables: dict[int, TableSql], table: int, indexes: Sequence[IndexLayout]) -> None:
    tables[table] = TableSql(replace(tables[table].layout, indexes=tuple(indexes)))


def _run(connection: Connection, statements: Iterable[str]) -> None:
    """All of them in one round trip."""
    if together := ";\n".join(statements):
        execute(connection, together)
