"""The SQL of one table: how it is made, and the statements that read and write its rows, put together once per layout.

Tables, columns and indexes are named by number (`t10001`, `k3`, `u3`, `t10001.k3`), so nothing a user wrote is part of this SQL.
An index's name has a dot, which no table's name can have, because SQLite keeps both in one namespace.
"""
# ruff: noqa: S608 - everything put into these texts is a number

from __future__ import annotations

from collections.abc import Iterator, Sequence

from camber.errors import StorageError
from camber.storage.interface import BY_CREATION_TIME, BY_ID, IndexLayout, TableLayout
from camber.storage.sql_snapshot import OrderSql


class TableSql:
    """The statements of one table.

    `insert` binds id, creation time, document, keys, unique keys; `get` and `delete` bind the id. `unique_positions` has, for each
    key in the order of `RowWrite.keys`, where its unique key stands in `RowWrite.unique_keys`, or None.
    """

    def __init__(self, layout: TableLayout) -> None:
        table = f"t{layout.number}"
        numbers = [BY_CREATION_TIME, *(index.number for index in layout.indexes)]
        unique = [index.number for index in layout.indexes if index.unique]
        columns = ["id", "ct", "doc", *(f"k{number}" for number in numbers), *(f"u{number}" for number in unique)]
        self.layout = layout
        self.get = f"SELECT id, ct, doc, x'' FROM {table} WHERE id = ?"
        self.insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        self.delete = f"DELETE FROM {table} WHERE id = ?"
        self.orders = {number: _order(table, f"k{number}", f"k{number}", "?") for number in numbers}
        # Bounds of ids arrive as bytes, which may be no text at all: SQLite is told to take them as text without looking.
        self.orders[BY_ID] = _order(table, "id", "x''", "CAST(? AS TEXT)")
        self.unique_positions = tuple(unique.index(number) if number in unique else None for number in numbers)
        self._table, self._numbers, self._unique = table, numbers, unique
        self._updates: dict[tuple[int, ...], str] = {}
        self._holders: dict[tuple[int, ...], str] = {}
        self.highest = " UNION ALL ".join(f"SELECT max(u{number}) FROM {table}" for number in unique)

    def order(self, index: int) -> OrderSql:
        """How to read in the order of this index; StorageError if the table has no such index."""
        found = self.orders.get(index)
        if found is None:
            raise StorageError(f"table {self.layout.number} ({self.layout.name}) has no index {index}")
        return found

    def update(self, positions: tuple[int, ...]) -> str:
        """Set the document and the keys at these positions, with their unique keys; the creation time where key 0 is among them.

        Binds document, creation time if set, keys, unique keys, id.
        """
        sql = self._updates.get(positions)
        if sql is None:
            numbers = [self._numbers[position] for position in positions]
            unique = [self._numbers[position] for position in positions if self.unique_positions[position] is not None]
            columns = [
                "doc",
                *(["ct"] if 0 in positions else []),
                *(f"k{n}" for n in numbers),
                *(f"u{n}" for n in unique),
            ]
            sql = f"UPDATE {self._table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE id = ?"
            self._updates[positions] = sql
        return sql

    def holders(self, places: tuple[int, ...]) -> str:
        """Who has one of these unique keys; binds the keys at these places. Gives place and id."""
        sql = self._holders.get(places)
        if sql is None:
            sql = " UNION ALL ".join(
                f"SELECT {place}, id FROM {self._table} WHERE u{self._unique[place]} = ?" for place in places
            )
            self._holders[places] = sql
        return sql

    def clear_unique(self, position: int) -> str:
        """Take back a row's unique key of the index at this position; binds the id."""
        return f"UPDATE {self._table} SET u{self._numbers[position]} = NULL WHERE id = ?"


def _order(table: str, column: str, key: str, bound: str) -> OrderSql:
    rows, rest = (
        f"SELECT id, ct, doc, {key} FROM {table} WHERE {column} >= {bound}",
        f"SELECT count(*) FROM {table} WHERE {column} >= {bound}",
    )
    below = f" AND {column} < {bound}"
    up, down = f" ORDER BY {column} LIMIT ?", f" ORDER BY {column} DESC LIMIT ?"
    return OrderSql(rows + below + up, rows + up, rows + below + down, rows + down, rest + below, rest)


def create_table(layout: TableLayout) -> Iterator[str]:
    """The table and its indexes. The document stands last: what is before it is read without reading a long document."""
    unique = [index for index in layout.indexes if index.unique]
    keys = ["k0", *(f"k{index.number}" for index in layout.indexes), *(f"u{index.number}" for index in unique)]
    yield f"CREATE TABLE t{layout.number} (id TEXT PRIMARY KEY NOT NULL, ct REAL, {', '.join(f'{key} BLOB' for key in keys)}, doc TEXT)"
    yield _create_index(layout.number, "k0")
    for index in layout.indexes:
        yield from create_indexes(layout.number, index)


def drop_table(number: int) -> str:
    """The table with everything in it."""
    return f"DROP TABLE t{number}"


def add_columns(table: int, index: IndexLayout) -> Iterator[str]:
    """Empty columns for an index."""
    for column in _columns_of(index):
        yield f"ALTER TABLE t{table} ADD COLUMN {column} BLOB"


def create_indexes(table: int, index: IndexLayout) -> Iterator[str]:
    """SQLite's indexes on the columns of an index."""
    for column in _columns_of(index):
        yield _create_index(table, column)


def drop_index(table: int, index: IndexLayout) -> Iterator[str]:
    """An index with its columns."""
    for column in _columns_of(index):
        yield f'DROP INDEX "t{table}.{column}"'
        yield f"ALTER TABLE t{table} DROP COLUMN {column}"


def rows_after(table: int) -> str:
    """The next rows in the order in which they lie in the file; binds the last one's rowid and how many."""
    return f"SELECT rowid, id, ct, doc FROM t{table} WHERE rowid > ? ORDER BY rowid LIMIT ?"


def fill(table: int, indexes: Sequence[IndexLayout]) -> str:
    """Set the columns of new indexes in one row; binds key (and unique key) of each, then the rowid."""
    columns = [column for index in indexes for column in _columns_of(index)]
    return f"UPDATE t{table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE rowid = ?"


def fill_by_id(table: int, index: IndexLayout) -> str:
    """The same of one index, for one row; binds key (and unique key), then the id."""
    return f"UPDATE t{table} SET {', '.join(f'{column} = ?' for column in _columns_of(index))} WHERE id = ? AND k{index.number} IS NULL"


def count_rows(table: int) -> str:
    """How many rows the table has."""
    return f"SELECT count(*) FROM t{table}"


def _columns_of(index: IndexLayout) -> list[str]:
    return [f"k{index.number}", f"u{index.number}"] if index.unique else [f"k{index.number}"]


def _create_index(table: int, column: str) -> str:
    unique = "UNIQUE " if column.startswith("u") else ""
    return f'CREATE {unique}INDEX "t{table}.{column}" ON t{table} ({column})'
