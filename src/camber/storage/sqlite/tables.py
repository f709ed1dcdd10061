"""The SQL of one table: how it is made, and the statements that read and write its rows, put together once per layout.

Tables, columns and indexes are named by number (`t10001`, `k3`, `u3`, `t10001.k3`), so nothing a user wrote is part of this SQL.
An index's name has a dot, which no table's name can have, because SQLite keeps both in one namespace.
"""
# ruff: noqa: S608 - everything put into these texts is a number

from __future__ import annotations

from collections.abc import Iterator, Sequence

from camber.storage.interface import IndexLayout, TableLayout
from camber.storage.table_sql import IndexedTable, columns_of, create_index, create_indexes


class TableSql(IndexedTable):
    """The statements of one table.

    `insert` binds id, creation time, document, keys, unique keys; `get` and `delete` bind the id.
    """

    def __init__(self, layout: TableLayout) -> None:
        # Bounds of ids arrive as bytes, which may be no text at all: SQLite is told to take them as text without looking.
        super().__init__(layout, mark="?", no_key="x''", id_bound="CAST(? AS TEXT)")
        table, columns = self._table, ["id", "ct", "doc", *self.key_columns]
        self.get = f"SELECT id, ct, doc, x'' FROM {table} WHERE id = ?"
        self.insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        self.delete = f"DELETE FROM {table} WHERE id = ?"
        self.highest = " UNION ALL ".join(f"SELECT max(u{number}) FROM {table}" for number in self._unique)

    def update(self, positions: tuple[int, ...]) -> str:
        """Set the document and the keys at these positions, with their unique keys; the creation time where key 0 is among them.

        Binds document, creation time if set, keys, unique keys, id.
        """
        sql = self._updates.get(positions)
        if sql is None:
            columns = ["doc", *(["ct"] if 0 in positions else []), *self._changed_keys(positions)]
            sql = f"UPDATE {self._table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE id = ?"
            self._updates[positions] = sql
        return sql

    def clear_unique(self, position: int) -> str:
        """Take back a row's unique key of the index at this position; binds the id."""
        return f"UPDATE {self._table} SET u{self._numbers[position]} = NULL WHERE id = ?"


def create_table(layout: TableLayout) -> Iterator[str]:
    """The table and its indexes. The document stands last: what is before it is read without reading a long document."""
    unique = [index for index in layout.indexes if index.unique]
    keys = ["k0", *(f"k{index.number}" for index in layout.indexes), *(f"u{index.number}" for index in unique)]
    yield f"CREATE TABLE t{layout.number} (id TEXT PRIMARY KEY NOT NULL, ct REAL, {', '.join(f'{key} BLOB' for key in keys)}, doc TEXT)"
    yield create_index(layout.number, "k0")
    for index in layout.indexes:
        yield from create_indexes(layout.number, index)


def drop_table(number: int) -> str:
    """The table with everything in it."""
    return f"DROP TABLE t{number}"


def add_columns(table: int, index: IndexLayout) -> Iterator[str]:
    """Empty columns for an index."""
    for column in columns_of(index):
        yield f"ALTER TABLE t{table} ADD COLUMN {column} BLOB"


def drop_index(table: int, index: IndexLayout) -> Iterator[str]:
    """An index with its columns."""
    for column in columns_of(index):
        yield f'DROP INDEX "t{table}.{column}"'
        yield f"ALTER TABLE t{table} DROP COLUMN {column}"


def rows_after(table: int) -> str:
    """The next rows in the order in which they lie in the file; binds the last one's rowid and how many."""
    return f"SELECT rowid, id, ct, doc FROM t{table} WHERE rowid > ? ORDER BY rowid LIMIT ?"


def fill(table: int, indexes: Sequence[IndexLayout]) -> str:
    """Set the columns of new indexes in one row; binds key (and unique key) of each, then the rowid."""
    columns = [column for index in indexes for column in columns_of(index)]
    return f"UPDATE t{table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE rowid = ?"


def fill_by_id(table: int, index: IndexLayout) -> str:
    """The same of one index, for one row; binds key (and unique key), then the id."""
    return f"UPDATE t{table} SET {', '.join(f'{column} = ?' for column in columns_of(index))} WHERE id = ? AND k{index.number} IS NULL"
