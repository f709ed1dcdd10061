"""The SQL of a table that all drivers share: the statements that read it, and the database's indexes on its columns.

Tables, columns and indexes are named by number (`t10001`, `k3`, `u3`, `t10001.k3`), so nothing a user wrote is part of this SQL.
"""
# ruff: noqa: S608 - everything put into these texts is a number

from __future__ import annotations

from collections.abc import Iterator

from camber.errors import StorageError
from camber.storage.interface import BY_CREATION_TIME, BY_ID, IndexLayout, TableLayout
from camber.storage.sql_snapshot import OrderSql


class IndexedTable:
    """The statements that read one table; a driver adds those that write it, and `get` and `highest`.

    `unique_positions` has, for each key in the order of `RowWrite.keys`, where its unique key stands in `RowWrite.unique_keys`, or None.
    """

    def __init__(self, layout: TableLayout, *, mark: str, no_key: str, id_bound: str) -> None:
        """`mark` stands for a binding, `no_key` for an empty key, `id_bound` for a bound of ids that is bound."""
        table = f"t{layout.number}"
        numbers = [BY_CREATION_TIME, *(index.number for index in layout.indexes)]
        unique = [index.number for index in layout.indexes if index.unique]
        self.layout = layout
        self.orders = {number: _order(table, f"k{number}", f"k{number}", mark, mark) for number in numbers}
        self.orders[BY_ID] = _order(table, "id", no_key, id_bound, mark)
        self.unique_positions = tuple(unique.index(number) if number in unique else None for number in numbers)
        self.key_columns = [*(f"k{number}" for number in numbers), *(f"u{number}" for number in unique)]
        self._table, self._numbers, self._unique, self._mark = table, numbers, unique, mark
        self._updates: dict[tuple[int, ...], str] = {}
        self._holders: dict[tuple[int, ...], str] = {}

    def order(self, index: int) -> OrderSql:
        """How to read in the order of this index; StorageError if the table has no such index."""
        found = self.orders.get(index)
        if found is None:
            raise StorageError(f"table {self.layout.number} ({self.layout.name}) has no index {index}")
        return found

    def holders(self, places: tuple[int, ...]) -> str:
        """Who has one of these unique keys; binds the keys at these places. Gives place and id."""
        sql = self._holders.get(places)
        if sql is None:
            sql = " UNION ALL ".join(
                f"SELECT {place}, id FROM {self._table} WHERE u{self._unique[place]} = {self._mark}" for place in places
            )
            self._holders[places] = sql
        return sql

    def _changed_keys(self, positions: tuple[int, ...]) -> list[str]:
        """The columns of the keys at these positions, then of their unique keys."""
        numbers = [self._numbers[position] for position in positions]
        unique = [self._numbers[position] for position in positions if self.unique_positions[position] is not None]
        return [*(f"k{number}" for number in numbers), *(f"u{number}" for number in unique)]


def _order(table: str, column: str, key: str, bound: str, mark: str) -> OrderSql:
    rows, rest = (
        f"SELECT id, ct, doc, {key} FROM {table} WHERE {column} >= {bound}",
        f"SELECT count(*) FROM {table} WHERE {column} >= {bound}",
    )
    below = f" AND {column} < {bound}"
    up, down = f" ORDER BY {column} LIMIT {mark}", f" ORDER BY {column} DESC LIMIT {mark}"
    return OrderSql(rows + below + up, rows + up, rows + below + down, rows + down, rest + below, rest)


def columns_of(index: IndexLayout) -> list[str]:
    """The columns of an index."""
    return [f"k{index.number}", f"u{index.number}"] if index.unique else [f"k{index.number}"]


def create_indexes(table: int, index: IndexLayout) -> Iterator[str]:
    """The database's indexes on the columns of an index."""
    for column in columns_of(index):
        yield create_index(table, column)


def create_index(table: int, column: str) -> str:
    """The database's index on one column."""
    unique = "UNIQUE " if column.startswith("u") else ""
    return f'CREATE {unique}INDEX "t{table}.{column}" ON t{table} ({column})'


def count_rows(table: int) -> str:
    """How many rows the table has."""
    return f"SELECT count(*) FROM t{table}"
