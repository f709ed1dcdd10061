"""No timestamp stands for two states: what a snapshot shows is what the commits up to its timestamp give, on whatever server it is opened.

Several storages commit to one database without a pause, as fast as the commit lock lets them, while others open snapshots; and the same
with whole servers, which choose their timestamps themselves. Under `CAMBER_TORTURE=1` there are many more of these.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from camber import MutationCtx, Schema, define_schema, define_table, mutation, v
from camber.backend import Backend
from camber.database.catalog import SYSTEM_CATALOG
from camber.errors import CommitUnknownError, DatabaseUnreachableError, StorageError
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage import (
    BY_CREATION_TIME,
    CommitRow,
    RowWrite,
    Snapshot,
    Storage,
    TableLayout,
    Timestamp,
    open_storage,
)
from camber.values import decode_document, encode_value
from tests.storage.people import (
    BY_NAME,
    PEOPLE,
    Person,
    create_tables,
    deleting,
    everyone_in,
    inserting,
    last_timestamp,
    updating,
)

IS_TORTURE = bool(os.environ.get("CAMBER_TORTURE"))
SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
SNAPSHOTS = 100_000 if IS_TORTURE else 2_000
SECONDS = 1_800.0 if IS_TORTURE else 120.0
PATIENCE = 30.0
STORAGES = 3
PEOPLE_OF_A_WRITER = 6
KEPT_NS = 50_000_000
SNAPSHOTS_OF_SERVERS = 100_000 if IS_TORTURE else 600
CALLERS = 2
"""Of each server, so that now and then two mutations are one commit."""
MOST_TABLES = 40

pytestmark = pytest.mark.torture

T = TypeVar("T")
Change = dict[int, Person | None]
"""What a commit makes of people; None: they are gone."""


class State(NamedTuple):
    """How many people there are, and a digest of all that is stored of them."""

    people: int
    digest: str


def state_of(people: Iterable[tuple[str, str]]) -> State:
    """Of the ids and documents, in any order."""
    found = sorted(people)
    return State(len(found), hashlib.blake2b(repr(found).encode(), digest_size=12).hexdigest())


class Writer:
    """Commits changes of people that nobody else changes. No two commits of all writers leave the same behind."""

    def __init__(self, storage: Storage, number: int, random: Random) -> None:
        self.storage, self.number, self.random = storage, number, random
        self.made: dict[Timestamp, Change] = {}
        self._people: dict[int, Person] = {}
        self._changes = 0

    def work(self) -> None:
        """One group: most are committed."""
        group = self.storage.write_group(locked=self.random.random() < 0.2)
        try:
            news = group.lock()
            if self.random.random() < 0.1:
                return
            last = news[-1].timestamp if news else group.timestamp
            at = Timestamp(self.random.choice([last + 1, max(last + 1, time.time_ns())]))
            writes, change = self._some_writes()
            group.commit(writes, CommitRow(at, b"", b"writer %d" % self.number))
        finally:
            group.close()
        self.made[at] = change
        self._people = {number: person for number, person in (self._people | change).items() if person is not None}
        if self.random.random() < 0.02:
            self.storage.forget_commits(Timestamp(time.time_ns() - KEPT_NS))

    def _some_writes(self) -> tuple[list[RowWrite], dict[int, Person | None]]:
        writes: list[RowWrite] = []
        change: dict[int, Person | None] = {}
        places = self.random.sample(range(PEOPLE_OF_A_WRITER), self.random.choice([1, 2, 4]))
        for number in (100 * self.number + place for place in places):
            self._changes += 1
            before = self._people.get(number)
            if before is not None and change and self.random.random() < 0.3:  # the first is never one that goes
                change[number] = None
                writes.append(deleting(before))
                continue
            change[number] = after = Person(number, f"{self.number} {self._changes}")
            writes.append(inserting(after) if before is None else updating(before, after))
        return writes, change


class Watcher(Generic[T]):
    """Opens snapshots and remembers which state was there under which timestamp; `read` says what is a state."""

    def __init__(self, storage: Storage, random: Random, read: Callable[[Snapshot, Random], T]) -> None:
        self.storage, self.random, self._read = storage, random, read
        self.count = 0
        self.seen: dict[Timestamp, T] = {}
        self.faults: list[str] = []

    def work(self) -> None:
        """Look once: through one snapshot, or through three that were opened together."""
        several = self.random.random() < 0.4
        snapshots = self.storage.snapshots(3) if several else [self.storage.snapshot()]
        try:
            if len({snapshot.timestamp for snapshot in snapshots}) > 1:
                self.faults.append(f"opened together: {[snapshot.timestamp for snapshot in snapshots]}")
            for snapshot in snapshots:
                self._look(snapshot)
                if self.random.random() < 0.02:
                    time.sleep(0.02)
                    self._look(snapshot)
        finally:
            for snapshot in snapshots:
                snapshot.close()
        self.count += len(snapshots)

    def _look(self, snapshot: Snapshot) -> None:
        state = self._read(snapshot, self.random)
        known = self.seen.setdefault(snapshot.timestamp, state)
        if known != state:
            self.faults.append(f"{snapshot.timestamp} stands for {known} and for {state}")


def people_in(snapshot: Snapshot, random: Random) -> State:
    rows = everyone_in(snapshot, random.choice([BY_CREATION_TIME, BY_NAME]))
    return state_of((row.id, row.document) for row in rows)


@pytest.fixture
def storages(postgres_url: str, tmp_path: Path) -> Iterator[list[Storage]]:
    opened = [
        open_storage(tmp_path / f"{number}", create=True, database_url=postgres_url) for number in range(STORAGES)
    ]
    create_tables(opened[0], PEOPLE)
    for storage in opened[1:]:
        storage.use_layouts([PEOPLE])
    yield opened
    for storage in opened:
        storage.close()


def test_no_timestamp_stands_for_two_states(storages: list[Storage]) -> None:
    random = Random(SEED)
    began, start = time.monotonic(), last_timestamp(storages[0])
    writers = [Writer(storage, number, Random(random.random())) for number, storage in enumerate(storages)]
    watchers = [Watcher(storage, Random(random.random()), people_in) for storage in storages]
    work_until(
        lambda: is_seen(watchers, SNAPSHOTS, more_than=SNAPSHOTS / 20) or any(watcher.faults for watcher in watchers),
        [*(writer.work for writer in writers), *(watcher.work for watcher in watchers)],
    )

    commits = {at: change for writer in writers for at, change in writer.made.items()}
    assert len(commits) == sum(len(writer.made) for writer in writers), "two commits have one timestamp"
    assert [fault for watcher in watchers for fault in watcher.faults] == []
    states = dict(states_after(start, commits))
    seen = [(at, state) for watcher in watchers for at, state in watcher.seen.items()]
    assert [f"{at}: {state}, not {states.get(at)}" for at, state in seen if states.get(at) != state] == []
    distinct, count = len({at for at, _ in seen}), sum(watcher.count for watcher in watchers)
    print(f"{count} snapshots of {distinct} states, {len(commits)} commits, {time.monotonic() - began:.0f} s")  # noqa: T201


def is_seen(watchers: Iterable[Watcher[Any]], snapshots: int, *, more_than: float) -> bool:
    """Whether there were so many snapshots, of more timestamps than this, some of which two have seen."""
    if sum(watcher.count for watcher in watchers) < snapshots:
        return False
    seen = [set(watcher.seen) for watcher in watchers]
    distinct = len(set().union(*seen))
    return more_than < distinct < sum(map(len, seen))


def states_after(start: Timestamp, commits: Mapping[Timestamp, Change]) -> Iterator[tuple[Timestamp, State]]:
    """What is there after each of these commits, played one after another, and before them."""
    people: dict[int, Person] = {}
    yield start, state_of([])
    for at in sorted(commits):
        people = {number: person for number, person in (people | commits[at]).items() if person is not None}
        yield at, state_of((person.id, person.document) for person in people.values())


def work_until(is_enough: Callable[[], bool], works: Iterable[Callable[[], None]]) -> None:
    """Do each of these again and again, in a thread of its own. Raises what one of them raises.

    But for refusals, after which nothing is done: whoever stands still for seconds, with the commit lock above all, loses its connection.
    """
    stop, failures = threading.Event(), list[Exception]()

    def repeat(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                try:
                    work()
                except StorageError as error:
                    if not is_refusal(error):
                        raise
        except Exception as error:  # noqa: BLE001
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    deadline = time.monotonic() + SECONDS
    for thread in threads:
        thread.start()
    try:
        while not stop.wait(0.01) and not is_enough():
            assert time.monotonic() < deadline, "it takes too long"
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    for failure in failures:
        raise failure


def is_refusal(error: StorageError) -> bool:
    return isinstance(error, DatabaseUnreachableError) or "took no effect" in str(error)


# The same with servers

THINGS = define_table("things", {"name": v.string(), "turn": v.number()}).index("by_name", ["name"], unique=True)
SCHEMAS = [
    define_schema(THINGS, schema_validation=False),
    define_schema(THINGS, define_table("others", {"name": v.string()}), schema_validation=False),
    # PostgreSQL builds an index of a table that is in use at its leisure.
    *([define_schema(THINGS.index("by_turn", ["turn"]), schema_validation=False)] if IS_TORTURE else []),
]
THINGS_LAYOUT = TableLayout(10_001, "things")
_CATALOG = [SYSTEM_CATALOG.by_name[name].number for name in ("_tables", "_indexes", "_schemas")]

Turns = dict[str, float | None]
"""What a mutation makes of things; None: they are gone."""


class OffClock:
    """The machine's clock, if it went so many seconds ahead of itself."""

    def __init__(self, seconds: float) -> None:
        self._ns = int(seconds * 1e9)

    def now_ns(self) -> int:
        return time.time_ns() + self._ns


def change_things(ctx: MutationCtx, *, turns: dict[str, Any], table: str = "") -> None:
    """Give things these turns. `table`: and insert a row there, which makes the table."""
    for name, turn in turns.items():
        found = ctx.db.query(THINGS).with_index("by_name", name=name).unique()
        if found is None:
            if turn is not None:
                ctx.db.insert(THINGS, {"name": name, "turn": turn})
        elif turn is None:
            ctx.db.delete(THINGS, found["_id"])
        else:
            ctx.db.patch(THINGS, found["_id"], {"turn": turn})
    if table:
        ctx.db.insert(table, {})


def application(schema: Schema) -> Any:
    return application_of("timestamps", schema, {"things:change": mutation(change_things)})


class Calls:
    """Calls mutations of a server that change things which nobody else changes, one after another."""

    def __init__(self, backend: Backend, number: int, random: Random) -> None:
        self.number, self.random, self._backend = number, random, backend
        self.made: dict[Timestamp, Turns] = {}
        self.tables = self.refused = 0
        self._turn = 0.0

    def work(self) -> None:
        turns: Turns = {}
        names = [f"{self.number} {place}" for place in range(PEOPLE_OF_A_WRITER)]
        for name in self.random.sample(names, self.random.choice([1, 2, 4])):
            self._turn += 1
            turns[name] = None if turns and self.random.random() < 0.3 else self._turn
        arguments: dict[str, Any] = {"turns": turns}
        if self.tables < MOST_TABLES and self.random.random() < 0.02:
            self.tables += 1
            arguments["table"] = f"made_{self.number}_{self.tables}"
        try:
            outcome = self._backend.run_sync("things:change", encode_value(arguments), OPERATOR)
        except CommitUnknownError:
            raise
        except StorageError:  # refused, where a schema change has taken too long
            self.refused += 1
            return
        if outcome.exception is not None:
            raise outcome.exception
        self.made[Timestamp(outcome.timestamp)] = turns


class Operator:
    """Now and then brings a server to another schema, raises the timestamp, and clears the commit log."""

    def __init__(self, backend: Backend, storage: Storage, random: Random) -> None:
        self.changes = self.raises = 0
        self._backend, self._storage, self._random = backend, storage, random

    def raise_timestamp(self) -> None:
        time.sleep(self._random.uniform(0.0, 0.05))
        self._storage.raise_timestamp(Timestamp(time.time_ns() + self._random.randrange(1_500_000_000)))
        self.raises += 1
        self._storage.forget_commits(Timestamp(time.time_ns() - 10_000_000_000))

    def change_schema(self) -> None:
        time.sleep(self._random.uniform(0.0, 0.5))
        self._backend.reload_sync(application(SCHEMAS[(self.changes + 1) % len(SCHEMAS)]))
        self.changes += 1


@pytest.fixture
def servers(postgres_url: str, tmp_path: Path) -> Iterator[list[Backend]]:
    """One with a good clock, one whose clock is behind, and one whose clock is ahead."""
    settings = Settings(dev=True, database_url=postgres_url, mutation_seconds=PATIENCE)
    opened: list[Backend] = []
    try:
        for number, seconds in enumerate([0.0, -0.5, 0.5]):
            data = tmp_path / f"server {number}"
            storage = open_storage(data, create=True, database_url=postgres_url, handler_seconds=PATIENCE)
            opened.append(
                Backend(application(SCHEMAS[0]), storage, data=data, settings=settings, clock=OffClock(seconds))
            )
        yield opened
    finally:
        for server in opened:
            server.close()


def things_in(snapshot: Snapshot, _: Random) -> tuple[State, str]:
    """All things, and a digest of what the catalog has of tables, indexes and schemas."""
    documents = [
        decode_document(row.document) for row in snapshot.scan(THINGS_LAYOUT.number, BY_CREATION_TIME, b"", None)
    ]
    catalog = [row for number in _CATALOG for row in snapshot.scan(number, BY_CREATION_TIME, b"", None)]
    digest = hashlib.blake2b(repr(sorted(catalog)).encode(), digest_size=12).hexdigest()
    return state_of((str(found["name"]), str(found["turn"])) for found in documents), digest


def test_no_timestamp_of_servers_stands_for_two_states(
    servers: list[Backend], postgres_url: str, tmp_path: Path
) -> None:
    """Also where their clocks differ, tables and indexes are made meanwhile, and the timestamp is raised behind their backs."""
    random = Random(SEED)
    storages = [open_storage(tmp_path / f"{n}", create=False, database_url=postgres_url) for n in range(STORAGES)]
    for storage in storages:
        storage.use_layouts([*SYSTEM_CATALOG.layouts(), THINGS_LAYOUT])
    began, start = time.monotonic(), last_timestamp(storages[0])
    watchers = [Watcher(storage, Random(random.random()), things_in) for storage in storages]
    operator = Operator(servers[0], storages[0], Random(random.random()))
    calls = [
        Calls(server, number, Random(random.random()))
        for number, server in enumerate(s for s in servers for _ in range(CALLERS))
    ]

    def catalogs_seen() -> set[str]:
        return {catalog for watcher in watchers for _, catalog in list(watcher.seen.values())}

    def is_enough() -> bool:
        has_happened = operator.changes >= len(SCHEMAS) and operator.raises > 2 and any(each.tables for each in calls)
        is_over = has_happened and is_seen(watchers, SNAPSHOTS_OF_SERVERS, more_than=SNAPSHOTS_OF_SERVERS / 50)
        return (is_over and len(catalogs_seen()) > 2) or any(watcher.faults for watcher in watchers)

    try:
        work_until(
            is_enough, [operator.raise_timestamp, operator.change_schema, *(each.work for each in [*calls, *watchers])]
        )
    finally:
        for storage in storages:
            storage.close()

    assert [fault for watcher in watchers for fault in watcher.faults] == []
    seen = [(at, state) for watcher in watchers for at, state in watcher.seen.items()]
    of_timestamp = dict(seen)
    assert [f"{at}: {state} and {of_timestamp[at]}" for at, state in seen if of_timestamp[at] != state] == []
    states = list(things_after(start, [made for each in calls for made in each.made.items()]))
    expected = [states[bisect_right(states, at, key=lambda state: state[0]) - 1][1] for at, _ in seen]
    wrong = [(at, things, due) for (at, (things, _)), due in zip(seen, expected, strict=True) if things != due]
    assert [f"{at}: {things}, not {due}" for at, things, due in wrong] == []
    count, catalogs = sum(watcher.count for watcher in watchers), len(catalogs_seen())
    refused = sum(each.refused for each in calls)
    print(  # noqa: T201
        f"{count} snapshots of {len(of_timestamp)} timestamps with {catalogs} catalogs, {len(states)} commits, {refused} refused,"
        f" {operator.changes} schema changes, {operator.raises} raises, {time.monotonic() - began:.0f} s"
    )


def things_after(start: Timestamp, made: Iterable[tuple[Timestamp, Turns]]) -> Iterator[tuple[Timestamp, State]]:
    """What is there after each commit, played one after another; those that are one commit changed other things each."""
    things: dict[str, float | None] = {}
    yield start, state_of([])
    for at, turns in sorted(made, key=lambda each: each[0]):
        things |= turns
        yield at, state_of((name, str(turn)) for name, turn in things.items() if turn is not None)
