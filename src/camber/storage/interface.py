"""What every storage driver keeps and promises: rows, index keys and SQL transactions, and nothing above them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NewType, Protocol

Timestamp = NewType("Timestamp", int)
"""Nanoseconds since the epoch; names one state of the database."""

BY_ID = -1
"""The number under which every table's order by id is read; it has no key column."""

BY_CREATION_TIME = 0
"""The number of the index that every table has: creation time, then id."""


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """One key column `k<number>` and the SQL index on it; where `unique`, also `u<number>` with a UNIQUE index."""

    number: int
    name: str
    unique: bool = False


ColumnKind = Literal["text", "integer", "real", "boolean", "bytes", "any"]
"""How a column of a view is typed."""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """One table `t<number>`. `indexes` leaves out the two that every table has (by id, by creation time).

    `columns` are the typed columns of the table's view besides `_id` and `_creationTime`: top-level field and kind.
    """

    number: int
    name: str
    indexes: tuple[IndexLayout, ...] = ()
    columns: tuple[tuple[str, ColumnKind], ...] = ()


class Row(NamedTuple):
    """A stored document as an index range yields it; `key` is its full key in that index (of by_id: `b""`)."""

    id: str
    creation_time: float
    document: str
    key: bytes


class RowWrite(NamedTuple):
    """What a commit does to one row.

    `keys` are the full keys in the order by creation time, then `TableLayout.indexes`; `unique_keys` belong to the unique ones
    among `TableLayout.indexes`, in their order, None where a field is missing. `document` is None for a delete, whose keys are
    empty. `is_new` tells an insert from an update, so that a driver needs no look-up.

    `old_keys` are, for an update, the full keys the row had at the snapshot, in the same order: a driver then leaves alone the
    columns and indexes that stay as they are, which is most of an update's cost. Empty where the caller does not know them.
    """

    table: int
    id: str
    creation_time: float
    document: str | None
    keys: tuple[bytes, ...] = ()
    unique_keys: tuple[bytes | None, ...] = ()
    is_new: bool = False
    old_keys: tuple[bytes, ...] = ()


class CommitRow(NamedTuple):
    """One row of the commit log: a timestamp, what was touched (opaque here), and a token that names the commit."""

    timestamp: Timestamp
    touched: bytes
    token: bytes


class Snapshot(Protocol):
    """One state of the database: it sees exactly the commits up to its timestamp, however long it is open.

    One thread at a time reads from it; any thread may close it. Reading after that raises StorageError, as a failing disk does.
    """

    @property
    def timestamp(self) -> Timestamp:
        """The largest timestamp this snapshot can see; 0 in a database without commits."""
        ...

    def get(self, table: int, id: str) -> Row | None:
        """The row with this id. A table that does not exist has no rows."""
        ...

    def scan(
        self,
        table: int,
        index: int,
        lower: bytes,
        upper: bytes | None,
        *,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Rows with lower <= key < upper in key order (upper None: to the end). Reads lazily; the caller may stop anywhere.

        For BY_ID keys are `07 id 00`: bounds are compared with those bytes. Within one index no two rows have the same key.
        """
        ...

    def first(
        self, table: int, index: int, lower: bytes, upper: bytes | None, *, descending: bool = False, limit: int
    ) -> Sequence[Row]:
        """The first `limit` rows that a scan of this range would yield, read in one step: for a handful of rows."""
        ...

    def holders(self, table: int, unique_keys: Sequence[bytes | None]) -> Sequence[tuple[int, str]]:
        """Which rows have one of these unique keys, in the form and order of `RowWrite.unique_keys`: place of the key, and id."""
        ...

    def highest_keys(self, table: int) -> Sequence[bytes]:
        """For each unique index of the table, in their order, the last unique key that any row has; `b""` where none has one."""
        ...

    def count(self, table: int, index: int, lower: bytes, upper: bytes | None) -> int:
        """How many rows a scan of this range would yield."""
        ...

    def close(self) -> None:
        """End the snapshot; twice does no harm."""
        ...


class WriteGroup(Snapshot, Protocol):
    """The snapshot on which one group of mutations runs, and the one commit that may follow."""

    def lock(self) -> list[CommitRow]:
        """Take the commit lock; returns the commits that came after this snapshot (none where only one process writes)."""
        ...

    def commit(self, writes: Sequence[RowWrite], record: CommitRow) -> None:
        """Write all of it and the log row in one transaction, and return once it is on disk. The group is closed then.

        After a read on this snapshot has failed it is refused with that error: what a function made of a read that told it nothing
        must not be stored.

        Where `writes` name a row more than once, the later ones follow the earlier ones; among different rows the order is free,
        also where a unique key moves from one to another. Raises DiskFullError (rolled back, nothing is stored),
        UniqueKeyTaken (rolled back), CommitUnknownError (it may be stored; the storage refuses everything from then on, and the
        process is to end), StorageError (rolled back).
        """
        ...


class CreateTable(NamedTuple):
    """Create the table with its key columns, indexes and view."""

    layout: TableLayout


class DropTable(NamedTuple):
    """Remove the table with everything in it, and its view."""

    number: int


class AddIndex(NamedTuple):
    """Add a key column, fill it for all rows, index it.

    The index takes the last place in the table's layout. `key_of(id, creation_time, document)` gives the full key and, for a
    unique index, the unique key or None. It may raise: the whole change is then undone.
    """

    table: int
    layout: IndexLayout
    key_of: Callable[[str, float, str], tuple[bytes, bytes | None]]


class DropIndex(NamedTuple):
    """Remove an index and its columns."""

    table: int
    number: int


class ShowTable(NamedTuple):
    """Make the view of this table anew, with this name and these columns.

    From here on the driver uses this layout for the table; the indexes in it are those the table has by then, in any order.
    """

    layout: TableLayout


SchemaStep = CreateTable | DropTable | AddIndex | DropIndex | ShowTable


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """Steps, rows and a log row that take effect in one transaction, or not at all.

    `writes` come after the steps. `progress(done, total)` is called now and then with counts of rows while key columns are filled.
    """

    steps: Sequence[SchemaStep]
    writes: Sequence[RowWrite]
    record: CommitRow
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)


class SqlResult(NamedTuple):
    """What a read-only SQL statement gave: the column names and at most as many rows as asked for; `more` tells of further ones."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    more: bool


class Storage(Protocol):
    """Where committed documents live.

    Every driver keeps these promises, and tests/storage/contract holds each of them to it:

    - A commit is all or nothing, also when the process dies halfway through it; once commit() returns, it is on disk.
    - A timestamp names one state: commits carry growing timestamps, written in the commit itself.
    - A snapshot sees exactly the commits up to its own timestamp, however long it stays open.
    - Several snapshots opened together have one timestamp. Readers are bounded; more than that wait, then raise StorageError.
    - A unique key that is already there makes the commit fail as a whole with UniqueKeyTaken.
    - The layouts of tables are told by `use_layouts` before rows of them are read or written; change_schema updates them itself.
    """

    def use_layouts(self, layouts: Sequence[TableLayout]) -> None:
        """Tell the driver what tables there are (it keeps no description of its own), in place of what it was told before."""
        ...

    def snapshot(self) -> Snapshot:
        """Open one snapshot of the latest state."""
        ...

    def snapshots(self, count: int) -> list[Snapshot]:
        """Open several, all of one timestamp, for as many threads."""
        ...

    def write_group(self) -> WriteGroup:
        """Open the snapshot for a group of mutations. The caller sees to it that one group at a time is open."""
        ...

    def commits_after(self, after: Timestamp) -> list[CommitRow]:
        """The log after this timestamp, oldest first."""
        ...

    def forget_commits(self, before: Timestamp) -> None:
        """Drop log rows older than this, but never the last one. Called in a quiet moment between groups."""
        ...

    def change_schema(self, change: SchemaChange) -> None:
        """Carry out the change in one transaction; errors as in WriteGroup.commit, or whatever key_of raised."""
        ...

    def sql(self, statement: str, *, limit: int, seconds: float) -> SqlResult:
        """Run one read-only statement on the latest state.

        Raises StorageError for anything that would write, takes longer than `seconds`, or is no SQL (with the engine's message).
        """
        ...

    def trouble(self) -> str | None:
        """Why nothing more can be written, for the operator, if the driver knows of a reason; asked now and then."""
        ...

    def close(self) -> None:
        """End everything that is open; twice does no harm."""
        ...


class Onlooker(Protocol):
    """Reads what another process may be serving: nobody is kept out and nothing is changed."""

    def use_layouts(self, layouts: Sequence[TableLayout]) -> None:
        """As of a `Storage`."""
        ...

    def snapshot(self) -> Snapshot:
        """Open one snapshot of the latest state."""
        ...


class UniqueKeyTaken(Exception):
    """A commit met a unique key that is already there; nothing was written.

    The database checks before it writes, so only several writers, or filling a new index, can see this.
    """

    def __init__(self, table: int, index: int) -> None:
        super().__init__(f"table {table}, index {index}")
        self.table, self.index = table, index
