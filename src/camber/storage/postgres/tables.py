"""The SQL of one table: how it is made, and the statements that read and write its rows, put together once per layout.

Tables, columns and indexes are named by number (`t10001`, `k3`, `u3`, `t10001.k3`), so nothing a user wrote is part of this SQL.
Rows are written as columns, one array each: a statement takes any number of rows.
"""
# ruff: noqa: S608 - everything put into these texts is a number

from __future__ import annotations

from collections.abc import Iterator, Sequence

from camber.storage.interface import IndexLayout, TableLayout
from camber.storage.table_sql import IndexedTable, columns_of, create_index, create_indexes


class TableSql(IndexedTable):
    """The statements of one table.

    `insert` binds arrays: ids, creation times, documents, keys, unique keys; `get` binds the id, `delete` an array of ids.
    """

    def __init__(self, layout: TableLayout) -> None:
        super().__init__(layout, mark="%b", no_key="''::bytea", id_bound="%b")
        table, keys = self._table, self.key_columns
        columns = ", ".join(["id", "ct", "doc", *keys])
        arrays = ", ".join(["%b::text[]", "%b::float8[]", "%b::text[]", *["%b::bytea[]"] * len(keys)])
        self.get = f"SELECT id, ct, doc, ''::bytea FROM {table} WHERE id = %b"
        self.insert = f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays})"
        self.delete = f"DELETE FROM {table} WHERE id = ANY(%b::text[])"
        self.highest = " UNION ALL ".join(
            f"SELECT (SELECT u{number} FROM {table} WHERE u{number} IS NOT NULL ORDER BY u{number} DESC LIMIT 1), {place} AS place"
            for place, number in enumerate(self._unique)
        )
        if self.highest:
            self.highest += " ORDER BY place"

    def each(self, index: int) -> str:
        """Read the first rows of each of many ranges. Binds arrays of lower and of upper bounds, and how many rows of each.

        Gives the number of the range, from 1 on, in front of what `order` gives.
        """
        self.order(index)
        key = f"k{index}"
        return (
            f"SELECT asked.place, found.* FROM unnest(%b::bytea[], %b::bytea[]) WITH ORDINALITY AS asked (lower, upper, place)"
            f" CROSS JOIN LATERAL (SELECT id, ct, doc, {key} FROM {self._table}"
            f" WHERE {key} >= asked.lower AND {key} < asked.upper ORDER BY {key} LIMIT %b) AS found"
        )

    def update(self, positions: tuple[int, ...]) -> str:
        """Set the document and the keys at these positions, with their unique keys; the creation time where key 0 is among them.

        Binds arrays: ids, documents, creation times if set, keys, unique keys.
        """
        sql = self._updates.get(positions)
        if sql is None:
            typed = [
                ("doc", "%b::text[]"),
                *([("ct", "%b::float8[]")] if 0 in positions else []),
                *((column, "%b::bytea[]") for column in self._changed_keys(positions)),
            ]
            names = ", ".join(name for name, _ in typed)
            arrays = ", ".join(array for _, array in typed)
            sets = ", ".join(f"{name} = new.{name}" for name, _ in typed)
            sql = (
                f"UPDATE {self._table} AS old SET {sets} FROM unnest(%b::text[], {arrays}) AS new (id, {names})"
                " WHERE old.id = new.id"
            )
            self._updates[positions] = sql
        return sql

    def clear_unique(self, position: int) -> str:
        """Take back the unique keys of the index at this position; binds an array of ids."""
        return f"UPDATE {self._table} SET u{self._numbers[position]} = NULL WHERE id = ANY(%b::text[])"


def create_table(layout: TableLayout) -> Iterator[str]:
    """The table and its indexes. Ids sort by their bytes, as their keys do."""
    unique = [index for index in layout.indexes if index.unique]
    keys = ["k0", *(f"k{index.number}" for index in layout.indexes), *(f"u{index.number}" for index in unique)]
    columns = ", ".join(f"{key} bytea" for key in keys)
    yield f'CREATE TABLE t{layout.number} (id text COLLATE "C" PRIMARY KEY, ct float8, {columns}, doc text)'
    yield create_index(layout.number, "k0")
    for index in layout.indexes:
        yield from create_indexes(layout.number, index)


def drop_table(number: int) -> str:
    """The table with everything in it."""
    return f"DROP TABLE IF EXISTS t{number}"


def add_columns(table: int, index: IndexLayout) -> str:
    """Empty columns for an index."""
    return f"ALTER TABLE t{table} " + ", ".join(
        f"ADD COLUMN IF NOT EXISTS {column} bytea" for column in columns_of(index)
    )


def drop_index(table: int, index: IndexLayout) -> str:
    """An index with its columns; what PostgreSQL built on them goes too."""
    return f"ALTER TABLE t{table} " + ", ".join(f"DROP COLUMN IF EXISTS {column}" for column in columns_of(index))


def rows_after(table: int) -> str:
    """The next rows by id; binds the last one's id and how many."""
    return f"SELECT id, ct, doc FROM t{table} WHERE id > %b ORDER BY id LIMIT %b"


def fill(table: int, indexes: Sequence[IndexLayout]) -> str:
    """Set the columns of new indexes; binds arrays: ids, then keys (and unique keys) of each index."""
    columns = [column for index in indexes for column in columns_of(index)]
    arrays = ", ".join(["%b::text[]", *["%b::bytea[]"] * len(columns)])
    sets = ", ".join(f"{column} = new.{column}" for column in columns)
    names = ", ".join(["id", *columns])
    # Whoever writes a row meanwhile sets its key: that one is newer.
    return (
        f"UPDATE t{table} AS old SET {sets} FROM unnest({arrays}) AS new ({names})"
        f" WHERE old.id = new.id AND old.{columns[0]} IS NULL"
    )


def empty_rows(table: int, index: IndexLayout) -> str:
    """Rows without a key in this index, by id; binds the id after which to begin and how many."""
    return f"SELECT id, ct, doc FROM t{table} WHERE id > %b AND k{index.number} IS NULL ORDER BY id LIMIT %b"


def build_indexes(table: int, index: IndexLayout) -> Iterator[tuple[str, str]]:
    """The name of each of PostgreSQL's indexes on the columns of an index, and the statement that builds it beside writers."""
    for column in columns_of(index):
        yield f"t{table}.{column}", create_index(table, column).replace("INDEX", "INDEX CONCURRENTLY", 1)
