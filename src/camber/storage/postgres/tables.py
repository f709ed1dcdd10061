"""The SQL of one table: how it is made, and the statements that read and write its rows, put together once per layout.

Tables, columns and indexes are named by number (`t10001`, `k3`, `u3`, `t10001.k3`), so nothing a user wrote is part of this SQL.
Rows are written as columns, one array each: a statement takes any number of rows.
"""
# ruff: noqa: S608 - everything put into these texts is a number

from __future__ import annotations

from collections.abc import Iterator, Sequence

from camber.errors import StorageError
from camber.storage.interface import BY_CREATION_TIME, BY_ID, IndexLayout, TableLayout
from camber.storage.sql_snapshot import OrderSql


class TableSql:
    """The statements of one table.

    `insert` binds arrays: ids, creation times, documents, keys, unique keys; `get` binds the id, `delete` an array of ids.
    `unique_positions` has, for each key in the order of `RowWrite.keys`, where its unique key stands in `RowWrite.unique_keys`, or None.
    """

    def __init__(self, layout: TableLayout) -> None:
        table = f"t{layout.number}"
        numbers = [BY_CREATION_TIME, *(index.number for index in layout.indexes)]
        unique = [index.number for index in layout.indexes if index.unique]
        keys = [*(f"k{number}" for number in numbers), *(f"u{number}" for number in unique)]
        columns = ", ".join(["id", "ct", "doc", *keys])
        arrays = ", ".join(["%b::text[]", "%b::float8[]", "%b::text[]", *["%b::bytea[]"] * len(keys)])
        self.layout = layout
        self.get = f"SELECT id, ct, doc, ''::bytea FROM {table} WHERE id = %b"
        self.insert = f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays})"
        self.delete = f"DELETE FROM {table} WHERE id = ANY(%b::text[])"
        self.orders = {number: _order(table, f"k{number}", f"k{number}", "%b") for number in numbers}
        self.orders[BY_ID] = _order(table, "id", "''::bytea", "%b")
        self.unique_positions = tuple(unique.index(number) if number in unique else None for number in numbers)
        self._table, self._numbers, self._unique = table, numbers, unique
        self._updates: dict[tuple[int, ...], str] = {}
        self._holders: dict[tuple[int, ...], str] = {}
        self.highest = " UNION ALL ".join(
            f"SELECT (SELECT u{number} FROM {table} WHERE u{number} IS NOT NULL ORDER BY u{number} DESC LIMIT 1), {place} AS place"
            for place, number in enumerate(unique)
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

    def order(self, index: int) -> OrderSql:
        """How to read in the order of this index; StorageError if the table has no such index."""
        found = self.orders.get(index)
        if found is None:
            raise StorageError(f"table {self.layout.number} ({self.layout.name}) has no index {index}")
        return found

    def update(self, positions: tuple[int, ...]) -> str:
        """Set the document and the keys at these positions, with their unique keys; the creation time where key 0 is among them.

        Binds arrays: ids, documents, creation times if set, keys, unique keys.
        """
        sql = self._updates.get(positions)
        if sql is None:
            numbers = [self._numbers[position] for position in positions]
            unique = [self._numbers[position] for position in positions if self.unique_positions[position] is not None]
            typed = [
                ("doc", "%b::text[]"),
                *([("ct", "%b::float8[]")] if 0 in positions else []),
                *((f"k{n}", "%b::bytea[]") for n in numbers),
                *((f"u{n}", "%b::bytea[]") for n in unique),
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

    def holders(self, places: tuple[int, ...]) -> str:
        """Who has one of these unique keys; binds the keys at these places. Gives place and id."""
        sql = self._holders.get(places)
        if sql is None:
            sql = " UNION ALL ".join(
                f"SELECT {place}, id FROM {self._table} WHERE u{self._unique[place]} = %b" for place in places
            )
            self._holders[places] = sql
        return sql

    def clear_unique(self, position: int) -> str:
        """Take back the unique keys of the index at this position; binds an array of ids."""
        return f"UPDATE {self._table} SET u{self._numbers[position]} = NULL WHERE id = ANY(%b::text[])"


def _order(table: str, column: str, key: str, bound: str) -> OrderSql:
    rows, rest = (
        f"SELECT id, ct, doc, {key} FROM {table} WHERE {column} >= {bound}",
        f"SELECT count(*) FROM {table} WHERE {column} >= {bound}",
    )
    below = f" AND {column} < {bound}"
    up, down = f" ORDER BY {column} LIMIT %b", f" ORDER BY {column} DESC LIMIT %b"
    return OrderSql(rows + below + up, rows + up, rows + below + down, rows + down, rest + below, rest)


def create_table(layout: TableLayout) -> Iterator[str]:
    """The table and its indexes. Ids sort by their bytes, as their keys do."""
    unique = [index for index in layout.indexes if index.unique]
    keys = ["k0", *(f"k{index.number}" for index in layout.indexes), *(f"u{index.number}" for index in unique)]
    columns = ", ".join(f"{key} bytea" for key in keys)
    yield f'CREATE TABLE t{layout.number} (id text COLLATE "C" PRIMARY KEY, ct float8, {columns}, doc text)'
    yield _create_index(layout.number, "k0")
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


def create_indexes(table: int, index: IndexLayout) -> Iterator[str]:
    """PostgreSQL's indexes on the columns of an index."""
    for column in columns_of(index):
        yield _create_index(table, column)


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
        yield f"t{table}.{column}", _create_index(table, column).replace("INDEX", "INDEX CONCURRENTLY", 1)


def count_rows(table: int) -> str:
    """How many rows the table has."""
    return f"SELECT count(*) FROM t{table}"


def columns_of(index: IndexLayout) -> list[str]:
    """The columns of an index."""
    return [f"k{index.number}", f"u{index.number}"] if index.unique else [f"k{index.number}"]


def _create_index(table: int, column: str) -> str:
    unique = "UNIQUE " if column.startswith("u") else ""
    return f'CREATE {unique}INDEX "t{table}.{column}" ON t{table} ({column})'
