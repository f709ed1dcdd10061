"""One open database: its catalog, its snapshots, its writer and what it remembers of commits; the room's front."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Final

from camber.clock import Clock, Entropy
from camber.database.catalog import ABSENT_TABLE, SYSTEM_CATALOG, SYSTEM_TABLES, Catalog, TableInfo, touches_catalog
from camber.database.committer import Committer, Mutation
from camber.database.deployment import plan_of_value, touches_deployment, value_in
from camber.database.feed import CommitFeed
from camber.database.follower import Follower
from camber.database.foresight import Asked
from camber.database.limits import Limits
from camber.database.pagination import Cursors
from camber.database.reads import Touched
from camber.database.rolling import (
    BEAT_SECONDS,
    Absences,
    Beat,
    check_documents,
    indexes_to_make,
    is_served,
    join_plan,
    joined_version,
    joining,
    leave_plan,
    move_plan,
    serve_plan,
    sweep_plan,
)
from camber.database.schema_changes import (
    Progress,
    SchemaPlan,
    StoredIndex,
    StoredTables,
    create_table_plan,
    key_reader_of,
    plan_change,
    read_stored_tables,
    row_writes,
    stored_tables,
    system_tables_of,
)
from camber.database.transaction import Transaction
from camber.database.watchdog import Watchdog
from camber.errors import ConfigurationError, DatabaseUsageError, SchemaMismatchError, StorageError
from camber.schema import Schema
from camber.storage import (
    BY_CREATION_TIME,
    AddColumns,
    CommitConflict,
    CommitLog,
    CommitRow,
    IndexBuilder,
    IndexLayout,
    Onlooker,
    Snapshot,
    Storage,
    Timestamp,
    UniqueKeyTaken,
    WriteGroup,
)

MAX_TABLES = 10_000
CURSOR_KEY = "cursorKey"
CATALOGS_KEPT_NS = 60 * 1_000_000_000
READERS_SECONDS = 60.0
"""How long to try again to change a table that is being read; no reader reads longer than half of that."""
READERS_PAUSE = 0.3
CHANGE_SECONDS = 10.0
FILLED_AT_ONCE = 500

_SERVERS: Final = SYSTEM_CATALOG.by_name["_servers"]

_log = logging.getLogger("camber.database")


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
        as_guest: bool = False,
    ) -> None:
        """Bring the stored tables to this schema and start the writer. Raises SchemaMismatchError, having changed nothing.

        With `as_guest`, a database that several servers share is left as it is: ConfigurationError where it does not serve this schema.
        """
        self.when_deployment_changes: list[Callable[[], None]] = []
        """Called when another server, or a command, may have changed what the deployment keeps. They may raise StorageError: then again."""
        self._is_guest = as_guest
        self.storage, self.clock, self.entropy, self.limits = storage, clock, entropy, limits
        with closing(storage.snapshot()) as snapshot:
            last = self._announced = _announce_stored_tables(storage, snapshot)
        if last:
            # Whoever has seen a later state than this one, before it was put back to a backup, must not be taken back in time.
            last = storage.raise_timestamp(Timestamp(clock.now_ns()))
        self.schema = schema
        self._is_reloading = False
        self._steady = threading.Event()
        self._steady.set()
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
        self._follower: Follower | None = None
        self._builder = storage.index_builder()
        self._version: int | None = None
        self._server = entropy.random_bytes(8).hex()
        self._absences = Absences({})
        self._learning = threading.Lock()
        """Held while the tables are taken as a snapshot has them, so that no older one comes after a newer one."""
        self._left = threading.Event()
        log = storage.open_log()
        try:
            if self._builder is None:
                self._adapt(schema, progress)
            else:
                self._join(self._builder, schema, progress)
            self.cursors = Cursors(self._kept(CURSOR_KEY, entropy.random_bytes(64)))
            if log is not None:
                self._follow(log, on_settled)
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

    @property
    def is_shared(self) -> bool:
        """Whether other servers write to the same database."""
        return self._follower is not None

    def look(self, looked: Callable[[Exception | None], None]) -> None:
        """Call this once everything is marked that was committed before now, on whatever server: at once where there is only this one.

        It gets an error where that can't be known; it must be quick and must not raise. On some thread.
        """
        if self._follower is None:
            looked(None)
        else:
            self._follower.look(looked)

    def trouble(self) -> str | None:
        """Why the database can't be read or written, for the operator, if a reason is known."""
        return (self._follower and self._follower.trouble()) or self.storage.trouble()

    def now_ms(self) -> float:
        """The server's time in ms since the epoch."""
        return self.clock.now_ns() / 1e6

    def submit(self, mutation: Mutation, asked: Asked | None = None) -> None:
        """Have a mutation run; it is settled in every case. What it will look up may be foretold from what is `asked`."""
        self._committer.submit(mutation, asked)

    def transaction(self, snapshot: Snapshot, *, now_ms: float | None = None) -> Transaction:
        """A read-only transaction on a snapshot. Raises StorageError where another server's commit can't be learnt of."""
        if self._follower is not None:
            self.feed.wait_until_marked(snapshot.timestamp)  # it may have made tables that the catalog must know
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

    def value(self, key: str) -> Any:
        """What the deployment keeps under this key; None where there is nothing. Raises StorageError."""
        with self.snapshot() as snapshot:
            return value_in(snapshot, key)

    def keep_value(self, key: str, value: object) -> Any:
        """What the deployment keeps under this key: this value from now on, where there is none yet. Raises StorageError."""
        self._committer.run_alone(lambda: self._kept(key, value))
        return self.value(key)

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
            self._is_reloading = True
            try:
                if self._builder is None:
                    self._adapt(schema, None)
                else:
                    with self._learning, self.snapshot() as snapshot:
                        self._steady.clear()
                        self._serve_as(schema, snapshot)
                self.schema = schema
                activate()
            finally:
                self._is_reloading = False
                self._steady.set()

        if self._builder is not None:
            self._make_ready(self._builder, schema, None)
        self._committer.run_alone(change)
        if self._version is not None:
            try:
                self._change(self._plan_to_move, None)
            except StorageError as error:
                # The new version is at work all the same, and the next word that this server is there says so too.
                _log.info("other servers could not be told that this one has changed its schema: %s", error)

    def wait_until_changed(self) -> None:
        """Where the tables have been changed and what goes along with them not yet, wait until it has; for 10 seconds at most."""
        self._steady.wait(CHANGE_SECONDS)

    def close(self) -> None:
        """Finish what waits, stop the writer and close the storage."""
        self._left.set()
        self._committer.close()
        self._leave()
        if self._follower is not None:
            self._follower.close()
        self.watchdog.close()
        self.storage.close()

    def _catalog_at(self, timestamp: Timestamp) -> Catalog:
        """The tables as a snapshot of this timestamp has them."""
        catalogs = self._catalogs
        if catalogs[-1][0] <= timestamp:
            return catalogs[-1][1]
        return next((catalog for since, catalog in reversed(catalogs) if since <= timestamp), catalogs[0][1])

    def _adapt(self, schema: Schema, progress: Progress | None) -> None:
        def plan(snapshot: Snapshot) -> SchemaPlan:
            stored = read_stored_tables(snapshot)
            return plan_change(snapshot, stored, schema, max_key=self.limits.max_key, progress=progress)

        self._change(plan, progress)

    def _change(
        self,
        plan_for: Callable[[Snapshot], SchemaPlan],
        progress: Progress | None,
        *,
        fill: tuple[int, IndexLayout, list[tuple[str, bytes, bytes | None]]] | None = None,
    ) -> None:
        """Plan under the commit lock and carry it out. Where readers are in the way it is tried again for a while."""
        deadline = time.monotonic() + READERS_SECONDS
        while True:
            try:
                with closing(self.storage.write_group(locked=True)) as group:
                    if self._follower is not None:
                        with self._learning:
                            self._learn_tables(group)
                    elif group.timestamp != self._announced:  # another server has begun at the same time
                        self._announced = _announce_stored_tables(self.storage, group)
                    if fill is not None:
                        group.fill(*fill)
                    self._carry_out(plan_for(group), group, progress, is_filling=fill is not None)
                return
            except UniqueKeyTaken:
                raise
            except CommitConflict as conflict:
                if time.monotonic() > deadline:
                    raise StorageError(f"The tables could not be changed: {conflict}.") from conflict
                time.sleep(READERS_PAUSE)

    def _carry_out(
        self, plan: SchemaPlan, group: WriteGroup, progress: Progress | None, *, is_filling: bool = False
    ) -> None:
        if plan.is_empty and self._builder is not None:
            if not is_filling:
                return
        elif plan.is_empty:
            self.storage.use_layouts(plan.catalog.layouts())
            self._catalogs[-1] = (self._catalogs[-1][0], plan.catalog)
            return
        committer = self._committer
        committer.last = max(committer.last, group.timestamp)
        since = self.feed.marked
        news = group.lock(Timestamp(since - 1))
        touched = Touched({}, {ABSENT_TABLE, *(table.number for table, _, _ in plan.put)})
        writes = row_writes(plan, self.entropy, self.now_ms(), committer.creation_times)
        timestamp = committer.next_timestamp()  # behind the creation times of the rows
        record = CommitRow(timestamp, touched.encode(), self.entropy.random_bytes(16))
        told = None if progress is None else partial(progress, "building indexes")
        if self._builder is not None:
            group.apply(plan.steps, told)
            group.commit(writes, record)
            with self._learning, self.snapshot() as snapshot:
                self._learn_tables(snapshot)
            committer.last = max(committer.last, timestamp)
            committer.take_in(news, since, record, touched)
            return
        group.apply(plan.steps, told)
        if self._is_reloading:
            self._steady.clear()
        # Known before it is committed: a snapshot may see the commit before this thread has returned from it.
        old = sum(since <= timestamp - CATALOGS_KEPT_NS for since, _ in self._catalogs)
        self._catalogs = [*self._catalogs[max(0, old - 1) :], (timestamp, plan.catalog)]
        try:
            group.commit(writes, record)
        except BaseException:
            self._catalogs = self._catalogs[:-1]
            raise
        self.storage.use_layouts(plan.catalog.layouts())
        committer.last = max(committer.last, timestamp)
        committer.take_in(news, since, record, touched)

    def _create_table(self, name: str) -> None:
        """On the writer's thread: a mutation inserts into a table that is not there yet."""

        def plan(snapshot: Snapshot) -> SchemaPlan:
            stored = read_stored_tables(snapshot)
            if name in stored.numbers:  # by another server, a moment ago
                return SchemaPlan(self._catalog_of(stored))
            if len(stored.numbers) >= MAX_TABLES:
                raise DatabaseUsageError(f'Table "{name}" can\'t be created: there are {MAX_TABLES} tables already.')
            return create_table_plan(stored, self._catalog_of(stored), name)

        self._change(plan, None)

    def _kept(self, key: str, value: object) -> Any:
        def plan(snapshot: Snapshot) -> SchemaPlan:
            if value_in(snapshot, key) is not None:  # by another server, a moment ago
                return SchemaPlan(self.catalog)
            return plan_of_value(snapshot, self.catalog, key, value)

        if self.value(key) is None:
            self._change(plan, None)
        return self.value(key)

    # Sharing the database with other servers, which may have other versions of the schema

    def _join(self, builder: IndexBuilder, schema: Schema, progress: Progress | None) -> None:
        try:
            self._make_ready(builder, schema, progress)
            with self._learning, self.snapshot() as snapshot:
                self._serve_as(schema, snapshot)
        except BaseException:
            self._leave()
            raise

    def _make_ready(self, builder: IndexBuilder, schema: Schema, progress: Progress | None) -> None:
        """Bring the stored tables to where this schema can be served. Raises SchemaMismatchError, and then nothing of it is left."""
        with builder.alone(wait=True):
            with self.snapshot() as snapshot:
                if any(isinstance(step, AddColumns) for step in self._plan_to_join(snapshot, schema).steps):
                    # Before a column is added: PostgreSQL counts each one for good, also once it is dropped, and a server that is
                    # started again and again with what does not fit would use up all that a table may have.
                    stored = read_stored_tables(snapshot)
                    plan_change(snapshot, stored, schema, max_key=self.limits.max_key, progress=progress)
            self._change(lambda snapshot: self._plan_to_join(snapshot, schema), progress)
            try:
                with self.snapshot() as snapshot:
                    stored = read_stored_tables(snapshot)
                    check_documents(snapshot, stored, schema, max_key=self.limits.max_key, progress=progress)
                for table, index in indexes_to_make(stored, schema):
                    self._make_index(builder, table, index, progress)
            except BaseException:
                self._give_up()
                raise
            self._change(lambda snapshot: self._plan_to_serve(snapshot, schema), progress)
            self._change(self._plan_to_sweep, progress)

    def _plan_to_join(self, snapshot: Snapshot, schema: Schema) -> SchemaPlan:
        stored = read_stored_tables(snapshot)
        if self._is_guest and not is_served(stored, schema):
            raise ConfigurationError(
                "the database is not served with this schema, and only a server changes that: start one with this code, take the"
                " code that is served, or name a server that runs"
            )
        return join_plan(stored, schema, self._joining_as, self.now_ms())

    def _plan_to_serve(self, snapshot: Snapshot, schema: Schema) -> SchemaPlan:
        return serve_plan(read_stored_tables(snapshot), schema, self._joining_as, self.now_ms())

    @property
    def _joining_as(self) -> str:
        # On a reload this server goes on with the version it has until the new one is ready.
        return self._server if self._version is None else joining(self._server)

    def _plan_to_sweep(self, snapshot: Snapshot) -> SchemaPlan:
        stored = read_stored_tables(snapshot)
        return sweep_plan(stored, self._absences.gone(stored, time.monotonic()))

    def _plan_to_move(self, snapshot: Snapshot) -> SchemaPlan:
        assert self._version is not None
        return move_plan(read_stored_tables(snapshot), self._server, self._version, self.now_ms())

    def _make_index(
        self, builder: IndexBuilder, table: TableInfo, index: StoredIndex, progress: Progress | None
    ) -> None:
        """Give the documents that are there their keys, some at a time, and build the index."""
        layout = IndexLayout(index.number, index.name, index.unique)
        position = next(place for place, own in enumerate(table.own_indexes) if own.number == index.number)
        key_of = key_reader_of(table, position)
        after, done, total = "", 0, 0
        if progress is not None:
            with self.snapshot() as snapshot:
                total = snapshot.count(table.number, BY_CREATION_TIME, b"", None)
        while rows := builder.empty_rows(table.number, layout, after, FILLED_AT_ONCE):
            keys = [(id, *key_of(id, creation_time, document)) for id, creation_time, document in rows]
            self._change(lambda _: SchemaPlan(SYSTEM_CATALOG), progress, fill=(table.number, layout, keys))
            after, done = rows[-1][0], done + len(rows)
            if progress is not None:
                progress("building indexes", min(done, total), total)
        try:
            builder.build(table.number, layout)
        except UniqueKeyTaken as taken:
            raise SchemaMismatchError(
                [
                    f'Documents in table "{table.name}" have the same values in the fields of unique index "{index.name}"'
                ],
                total=1,
            ) from taken

    def _give_up(self) -> None:
        """The version that was to be served is not: nobody has it but us, unless another server is about to."""

        def plan(snapshot: Snapshot) -> SchemaPlan:
            stored = read_stored_tables(snapshot)
            return sweep_plan(stored, {self._joining_as})

        with suppress(StorageError):
            self._change(plan, None)

    def _serve_as(self, schema: Schema, snapshot: Snapshot) -> None:
        """From now on this server has this version. Called as `_learn_tables` is; where it raises nothing has changed."""
        before = self.schema, self._version
        version = joined_version(read_stored_tables(snapshot), schema)
        self.schema, self._version = schema, version
        try:
            self._learn_tables(snapshot)
        except BaseException:
            self.schema, self._version = before
            raise

    def _keep_company(self) -> None:
        """Now and then say that this server is there, and clear away what servers that are gone have left."""
        assert self._builder is not None
        while not self._left.wait(BEAT_SECONDS):
            try:
                if self._committer.broken is not None:
                    return
                if self._version is not None:
                    self.submit(Beat(self._server, self._version))
                self._note_company()
                with self.snapshot() as snapshot:
                    plan = self._plan_to_sweep(snapshot)
                if plan.is_empty:
                    continue
                with self._builder.alone(wait=False) as is_alone:
                    if is_alone:
                        self._change(self._plan_to_sweep, None)
            except StorageError as error:
                _log.info("what other servers have left could not be cleared away: %s", error)

    def _note_company(self) -> None:
        """Who is alone need not ring. Whoever comes is noticed at the next look, and looks by himself until then."""
        follower = self._follower
        if follower is not None and follower.has_company and not self._others_are_there():
            follower.has_company = False
            if self._others_are_there():  # they may have been noticed a moment before
                follower.has_company = True

    def _others_are_there(self) -> bool:
        with self.snapshot() as snapshot:
            servers = read_stored_tables(snapshot).documents["_servers"]
        return any(found["server"] != self._server for found in servers)

    def _leave(self) -> None:
        if self._builder is None:
            return
        with suppress(StorageError):
            self._change(lambda snapshot: leave_plan(read_stored_tables(snapshot), self._server), None)

    # Following other servers

    def _follow(self, log: CommitLog, on_settled: Callable[[], None]) -> None:
        with self.snapshot() as snapshot:
            at = snapshot.timestamp
            with self._learning:
                self._learn_tables(snapshot)
        self.feed.start_over(at)
        self._committer.last = max(self._committer.last, at)
        follower = self._follower = Follower(
            log,
            self.feed,
            token=log.rows_from(at)[0].token,
            learn=self._learn,
            lost_history=self._lost_history,
            on_foreign=on_settled,
        )
        self._committer.follower = follower
        self.feed.hurry = follower.look_now
        self._note_company()
        follower.start()
        threading.Thread(target=self._keep_company, name="camber-company", daemon=True).start()

    def _learn(self, touched: Touched | None) -> None:
        """A commit of another server is about to be marked. If it changed the tables we must know them first."""
        if touched is None or touches_catalog(touched):
            with self._learning, self.snapshot() as snapshot:
                self._learn_tables(snapshot)
        if touched is None or touches_deployment(touched):
            self._tell_of_deployment()
        if self._follower is not None and (touched is None or touched.concerns({_SERVERS.number})):
            self._follower.has_company = True

    def _tell_of_deployment(self) -> None:
        for tell in self.when_deployment_changes:
            tell()

    def _learn_tables(self, snapshot: Snapshot) -> None:
        """Take the tables as this snapshot has them. Whoever calls holds `_learning`, since before the snapshot was taken."""
        stored = read_stored_tables(snapshot)
        # Whoever leaves may retire the version himself.
        is_to_stay = self._version is not None and not self._left.is_set()
        if is_to_stay and all(found.version != self._version for found in stored.schemas):
            self._committer.broken = StorageError(
                "Other servers took this one for gone and have retired its version of the schema: it must start anew."
            )
        catalog = self._catalog_of(stored)
        self.storage.use_layouts(catalog.layouts())
        # Tables and indexes that are there stay as they were, so this holds for older snapshots too.
        self._catalogs = [(Timestamp(0), catalog)]

    def _catalog_of(self, stored: StoredTables) -> Catalog:
        """The tables that are stored, as this server's schema sees them."""
        return Catalog([*SYSTEM_TABLES, *stored_tables(stored, self.schema, version=self._version)])

    def _lost_history(self, marked: Timestamp) -> Timestamp:
        """The log does not go on from what we knew; from the returned timestamp on it does."""
        return self.storage.raise_timestamp(Timestamp(max(marked + 1, self.clock.now_ns())))


def compare_schema(onlooker: Onlooker, schema: Schema, limits: Limits, progress: Progress | None = None) -> SchemaPlan:
    """What serving this schema on the stored data would change. Raises SchemaMismatchError with every document that does not fit."""
    with closing(onlooker.snapshot()) as snapshot:
        _announce_stored_tables(onlooker, snapshot)
        return plan_change(snapshot, read_stored_tables(snapshot), schema, max_key=limits.max_key, progress=progress)


def _announce_stored_tables(storage: Onlooker, snapshot: Snapshot) -> Timestamp:
    """Tell the driver which tables the database has (a new one has none); returns the snapshot's timestamp."""
    if snapshot.timestamp:
        storage.use_layouts([SYSTEM_CATALOG.by_name["_tables"].layout])
        present = [table.layout for table in system_tables_of(snapshot)]
        storage.use_layouts(present)
        # The users' tables too, as they are stored: they are read under these layouts to see whether they fit the new ones.
        storage.use_layouts([*present, *read_stored_tables(snapshot).layouts()])
    return snapshot.timestamp
