"""What every storage driver keeps and promises: rows, index keys and SQL transactions, and nothing above them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, NewType, Protocol

from camber.errors import StorageError

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

    @property
    def failure(self) -> StorageError | None:
        """Why a read failed, once one did. What somebody made of a read that told them nothing is not to be told or stored."""
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

    def first_of_each(
        self, table: int, index: int, ranges: Sequence[tuple[bytes, bytes]], *, limit: int
    ) -> Sequence[Sequence[Row]]:
        """`first` for each of these ranges, in one step. Not for the index by id."""
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
        """End the snapshot; twice does no harm. Where nothing was written on it, this does not wait for the database."""
        ...


class WriteGroup(Snapshot, Protocol):
    """The snapshot on which one group of mutations runs, and the one commit that may follow.

    Where several servers write, others may commit after the snapshot, until the commit lock is taken. A group that was opened
    `locked` has it from the start: nothing is committed after its snapshot.
    """

    def lock(self, after: Timestamp | None = None) -> list[CommitRow]:
        """Take the commit lock; returns the commits after this timestamp (None: after the snapshot), oldest first.

        Where only one process writes there is nothing to wait for and nothing new. Raises CommitConflict (rolled back: the holder waited
        for us) where the group was not opened `locked`, StorageError; the group is to be closed then.
        """
        ...

    def apply(self, steps: Sequence[SchemaStep], progress: Callable[[int, int], None] | None = None) -> None:
        """Carry out schema steps, which take effect with the commit; for a group that is locked, before anything is written.

        `progress(done, total)` is called now and then with counts of rows while key columns are filled. Raises UniqueKeyTaken,
        CommitConflict where open snapshots would lose what they read, StorageError, or what `key_of` raised; the group is to be
        closed then.
        """
        ...

    def fill(self, table: int, index: IndexLayout, keys: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        """Set the keys of rows in an index whose columns are there: id, full key, unique key. Takes effect with the commit."""
        ...

    def commit(self, writes: Sequence[RowWrite], record: CommitRow) -> None:
        """Write all of it and the log row in one transaction, and return once it is on disk. The group is closed then.

        After a read on this snapshot has failed it is refused with that error: what a function made of a read that told it nothing
        must not be stored.

        Where `writes` name a row more than once, the later ones follow the earlier ones; among different rows the order is free,
        also where a unique key moves from one to another. Raises DiskFullError (rolled back, nothing is stored),
        CommitConflict (rolled back; a locked group can't meet one unless it breaks a unique index itself), CommitUnknownError
        (it may be stored), StorageError (rolled back).
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


class AddColumns(NamedTuple):
    """Add the columns of an index, empty so far: from here on rows are written with its keys. It takes the last place in the layout."""

    table: int
    layout: IndexLayout


class DropIndex(NamedTuple):
    """Remove an index and its columns."""

    table: int
    number: int


class ShowTable(NamedTuple):
    """Make the view of this table anew, with this name and these columns.

    From here on the driver uses this layout for the table; the indexes in it are those the table has by then, in any order.
    """

    layout: TableLayout


SchemaStep = CreateTable | DropTable | AddIndex | AddColumns | DropIndex | ShowTable


MAX_SQL_BYTES: Final = 64 * 1024 * 1024
"""The most that all values of one result of an operator's SQL take together."""
SQL_CELL_BYTES: Final = 32
"""What each value counts for besides its length: many small ones take room too."""


class SqlResult(NamedTuple):
    """What a read-only SQL statement gave: the column names and at most as many rows as asked for; `more` tells of further ones."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    more: bool


class CommitLog(Protocol):
    """The commit log as one server follows it; `rows_from`, `wait` and `close` belong to one thread, the others to any."""

    def rows_from(self, at: Timestamp) -> list[CommitRow]:
        """The log from this timestamp on, its own row included where it is still there. Raises StorageError."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when another server has rung, when `wake` was called, or when the time is over. Raises StorageError."""
        ...

    def wake(self) -> None:
        """End `wait`, or the next one."""
        ...

    def ring(self) -> None:
        """Have other servers told that there is something new; they would notice by themselves a little later."""
        ...

    def close(self) -> None:
        """End it; twice does no harm."""
        ...


class IndexBuilder(Protocol):
    """Makes indexes while others write: columns first (`AddColumns`), then the keys of rows that are there, then the index."""

    def alone(self, *, wait: bool) -> AbstractContextManager[bool]:
        """For the block this server is the only one that changes the schema; without `wait` the block is told whether that is so."""
        ...

    def empty_rows(self, table: int, index: IndexLayout, after: str, limit: int) -> list[tuple[str, float, str]]:
        """The next rows by id that have no key in this index yet: id, creation time and document."""
        ...

    def build(self, table: int, index: IndexLayout) -> None:
        """Build it without holding up writes; what an earlier try has left is dropped first. Raises UniqueKeyTaken, StorageError."""
        ...


class Storage(Protocol):
    """Where committed documents live.

    Every driver keeps these promises, and tests/storage/contract holds each of them to it:

    - A commit is all or nothing, also when the process dies halfway through it; once commit() returns, it is on disk.
    - A timestamp names one state: commits carry growing timestamps, written in the commit itself.
    - A snapshot sees exactly the commits up to its own timestamp, however long it stays open.
    - Several snapshots opened together have one timestamp. Readers are bounded; more than that wait, then raise StorageError.
    - A unique key that is already there makes the commit fail as a whole with UniqueKeyTaken.
    - The layouts of tables are told by `use_layouts` before rows of them are read or written; the commit of a group that took schema
      steps updates them itself.
    """

    is_far: bool
    """Whether a look-up is a round trip to another process, so that many at once are much cheaper than one after another."""
    ends_in_doubt: bool
    """Whether a commit of which it is not known if it is stored leaves the storage unusable, so that the process is to end."""

    def use_layouts(self, layouts: Sequence[TableLayout]) -> None:
        """Tell the driver what tables there are (it keeps no description of its own), in place of what it was told before."""
        ...

    def index_builder(self) -> IndexBuilder | None:
        """For changing tables while other servers write; None where nobody else does, and a change may be made in one commit."""
        ...

    def open_log(self) -> CommitLog | None:
        """The commit log to be followed, where other servers write too; None where nobody else does."""
        ...

    def snapshot(self) -> Snapshot:
        """Open one snapshot of the latest state."""
        ...

    def snapshots(self, count: int) -> list[Snapshot]:
        """Open several, all of one timestamp, for as many threads."""
        ...

    def write_group(self, *, locked: bool = False) -> WriteGroup:
        """Open the snapshot for a group of mutations; `locked`: with the commit lock, taken before the snapshot.

        The caller sees to it that one group at a time is open.
        """
        ...

    def commits_after(self, after: Timestamp) -> list[CommitRow]:
        """The log after this timestamp, oldest first."""
        ...

    def forget_commits(self, before: Timestamp) -> None:
        """Drop log rows older than this, but never the last one of them: whoever knows that one has missed nothing.

        Called in a quiet moment between groups.
        """
        ...

    def raise_timestamp(self, to: Timestamp) -> Timestamp:
        """See that the latest timestamp is not below this one, with a commit of nothing where it is; returns the latest."""
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


class CommitConflict(Exception):
    """A commit met something that its snapshot could not see; nothing was written. Run again on a new snapshot it may go through."""


class UniqueKeyTaken(CommitConflict):
    """A commit met a unique key that is already there; nothing was written.

    The database checks before it writes, so only several writers, or filling a new index, can see this.
    """

    def __init__(self, table: int, index: int) -> None:
        super().__init__(f"table {table}, index {index}")
        self.table, self.index = table, index
