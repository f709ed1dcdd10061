"""One open database: its catalog, its snapshots, its writer and what it remembers of commits; the room's front."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from camber.clock import Clock, Entropy
from camber.database.catalog import ABSENT_TABLE, SYSTEM_CATALOG, Catalog
from camber.database.committer import Committer, Mutation
from camber.database.feed import CommitFeed
from camber.database.limits import Limits
from camber.database.pagination import Cursors
from camber.database.reads import Touched
from camber.database.schema_changes import (
    Progress,
    SchemaPlan,
    create_table_plan,
    plan_change,
    read_stored_tables,
    row_writes,
    system_tables_of,
)
from camber.database.transaction import Transaction
from camber.database.watchdog import Watchdog
from camber.errors import DatabaseUsageError, StorageError
from camber.schema import Schema
from camber.storage import CommitRow, Onlooker, SchemaChange, Snapshot, Storage, Timestamp

MAX_TABLES = 10_000
CURSOR_KEY = "cursorKey"
CATALOGS_KEPT_NS = 60 * 1_000_000_000


class Database:
    """Everything above the storage driver that has to do with documents. Safe for several threads."""

    def __init__(
        self,
        storage: Storage,
        schema: Schema,
        *,
        clock: Clock,
        entropy: Entropy,
        limits: Limits,
        on_settled: Callable[[], None] = lambda: None,
        on_abandoned: Callable[[], None] = lambda: None,
        progress: Progress | None = None,
    ) -> None:
        """Bring the stored tables to this schema and start the writer. Raises SchemaMismatchError, having changed nothing."""
        self.storage, self.clock, self.entropy, self.limits = storage, clock, entropy, limits
        last = _announce_stored_tables(storage)
        self.schema = schema
        self._catalogs = [(Timestamp(0), SYSTEM_CATALOG)]
        self.feed = CommitFeed(last)
        self.watchdog = Watchdog()
        self._committer = Committer(
            storage,
            self.feed,
            lambda: self.catalog,
            self._create_table,
            clock=clock,
            entropy=entropy,
            limits=limits,
            watchdog=self.watchdog,
            last=last,
            on_settled=on_settled,
            on_abandoned=on_abandoned,
        )
        try:
            self._adapt(schema, progress)
            self.cursors = Cursors(self._cursor_key())
        except BaseException:
            self._committer.close()
            self.watchdog.close()
            raise

    @property
    def catalog(self) -> Catalog:
        """The tables as they are now."""
        return self._catalogs[-1][1]

    @property
    def last_timestamp(self) -> Timestamp:
        """Of the latest commit that may be told to anyone, or is about to be."""
        return self._committer.last

    @property
    def broken(self) -> StorageError | None:
        """Why nothing more can be committed, after a COMMIT whose outcome is not known."""
        return self._committer.broken

    @property
    def waiting_mutations(self) -> int:
        """How many mutations wait for the writer."""
        return len(self._committer.waiting)

    def now_ms(self) -> float:
        """The server's time in ms since the epoch."""
        return self.clock.now_ns() / 1e6

    def submit(self, mutation: Mutation) -> None:
        """Have a mutation run; it is settled in every case."""
        self._committer.submit(mutation)

    def transaction(self, snapshot: Snapshot, *, now_ms: float | None = None) -> Transaction:
        """A read-only transaction on a snapshot."""
        catalog = self._catalog_at(snapshot.timestamp)
        return Transaction(snapshot, catalog, limits=self.limits, now_ms=self.now_ms() if now_ms is None else now_ms)

    @contextmanager
    def snapshot(self) -> Generator[Snapshot]:
        """The latest state, for as long as the block lasts."""
        snapshot = self.storage.snapshot()
        try:
            yield snapshot
        finally:
            snapshot.close()

    def plan(self, schema: Schema, progress: Progress | None = None) -> SchemaPlan:
        """What this schema would change. Raises SchemaMismatchError with every document that does not fit it."""
        with self.snapshot() as snapshot:
            return plan_change(
                snapshot, read_stored_tables(snapshot), schema, max_key=self.limits.max_key, progress=progress
            )

    def change_schema(self, schema: Schema, activate: Callable[[], None] = lambda: None) -> None:
        """Change to this schema while serving, between two groups of mutations; `activate` runs in that same moment.

        Raises SchemaMismatchError, and then the old schema goes on.
        """

        def change() -> None:
            self._adapt(schema, None)
            self.schema = schema
            activate()

        self._committer.run_alone(change)

    def close(self) -> None:
        """Finish what waits, stop the writer and close the storage."""
        self._committer.close()
        self.watchdog.close()
        self.storage.close()

    def _catalog_at(self, timestamp: Timestamp) -> Catalog:
        """The tables as a snapshot of this timestamp has them."""
        catalogs = self._catalogs
        if catalogs[-1][0] <= timestamp:
            return catalogs[-1][1]
        return next((catalog for since, catalog in reversed(catalogs) if since <= timestamp), catalogs[0][1])

    def _adapt(self, schema: Schema, progress: Progress | None) -> None:
        with self.snapshot() as snapshot:
            plan = plan_change(
                snapshot, read_stored_tables(snapshot), schema, max_key=self.limits.max_key, progress=progress
            )
        self._carry_out(plan, progress)

    def _carry_out(self, plan: SchemaPlan, progress: Progress | None) -> None:
        if plan.is_empty:
            self.storage.use_layouts(plan.catalog.layouts())
            self._catalogs[-1] = (self._catalogs[-1][0], plan.catalog)
            return
        committer = self._committer
        touched = Touched({}, {*plan.catalog.by_number, ABSENT_TABLE})
        writes = row_writes(plan, self.entropy, self.now_ms(), committer.creation_times)
        timestamp = committer.next_timestamp()  # behind the creation times of the rows
        record = CommitRow(timestamp, touched.encode(), self.entropy.random_bytes(16))
        told = None if progress is None else partial(progress, "building indexes")
        # Known before it is committed: a snapshot may see the commit before this thread has returned from it.
        old = sum(since <= timestamp - CATALOGS_KEPT_NS for since, _ in self._catalogs)
        self._catalogs = [*self._catalogs[max(0, old - 1) :], (timestamp, plan.catalog)]
        try:
            self.storage.change_schema(SchemaChange(plan.steps, writes, record, told))
        except BaseException:
            self._catalogs = self._catalogs[:-1]
            raise
        self.storage.use_layouts(plan.catalog.layouts())
        committer.last = timestamp
        self.feed.publish(timestamp, touched)

    def _create_table(self, name: str) -> None:
        """On the writer's thread: a mutation inserts into a table that is not there yet."""
        if len(self.catalog.by_number) >= MAX_TABLES:
            raise DatabaseUsageError(f'Table "{name}" can\'t be created: there are {MAX_TABLES} tables already.')
        with self.snapshot() as snapshot:
            plan = create_table_plan(read_stored_tables(snapshot), self.catalog, name)
        self._carry_out(plan, None)

    def _cursor_key(self) -> bytes:
        """The key that hides what cursors hold; made once, kept with the data."""
        with self.snapshot() as snapshot:
            stored = read_stored_tables(snapshot)
            for found in stored.documents["_deployment"]:
                if found["key"] == CURSOR_KEY:
                    key: bytes = found["value"]
                    return key
            key = self.entropy.random_bytes(64)
            fields: dict[str, Any] = {"key": CURSOR_KEY, "value": key}
            plan = SchemaPlan(self.catalog, put=((self.catalog.by_name["_deployment"], None, fields),))
        self._carry_out(plan, None)
        return key


def compare_schema(onlooker: Onlooker, schema: Schema, limits: Limits, progress: Progress | None = None) -> SchemaPlan:
    """What serving this schema on the stored data would change. Raises SchemaMismatchError with every document that does not fit."""
    _announce_stored_tables(onlooker)
    with closing(onlooker.snapshot()) as snapshot:
        return plan_change(snapshot, read_stored_tables(snapshot), schema, max_key=limits.max_key, progress=progress)


def _announce_stored_tables(storage: Onlooker) -> Timestamp:
    """Tell the driver which tables the database has (a new one has none); returns its latest timestamp."""
    with closing(storage.snapshot()) as snapshot:
        last = snapshot.timestamp
    if last:
        storage.use_layouts([SYSTEM_CATALOG.by_name["_tables"].layout])
        with closing(storage.snapshot()) as snapshot:
            present = [table.layout for table in system_tables_of(snapshot)]
        storage.use_layouts(present)
        # The users' tables too, as they are stored: they are read under these layouts to see whether they fit the new ones.
        with closing(storage.snapshot()) as snapshot:
            stored = read_stored_tables(snapshot)
        storage.use_layouts([*present, *stored.layouts()])
    return last
