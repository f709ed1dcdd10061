"""No timestamp stands for two states: what a snapshot shows is what the commits up to its timestamp give, on whatever server it is opened.

Several storages commit to one database without a pause, as fast as the commit lock lets them, while others open snapshots. Under
`CAMBER_TORTURE=1` there are many more of these.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from camber.storage import BY_CREATION_TIME, CommitRow, RowWrite, Snapshot, Storage, Timestamp, open_storage
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
STORAGES = 3
PEOPLE_OF_A_WRITER = 6
KEPT_NS = 50_000_000

pytestmark = pytest.mark.torture

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


class Watcher:
    """Opens snapshots and remembers which state was there under which timestamp."""

    def __init__(self, storage: Storage, random: Random) -> None:
        self.storage, self.random = storage, random
        self.count = 0
        self.seen: dict[Timestamp, State] = {}
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
        rows = everyone_in(snapshot, self.random.choice([BY_CREATION_TIME, BY_NAME]))
        state = state_of((row.id, row.document) for row in rows)
        known = self.seen.setdefault(snapshot.timestamp, state)
        if known != state:
            self.faults.append(f"{snapshot.timestamp} stands for {known} and for {state}")


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
    watchers = [Watcher(storage, Random(random.random())) for storage in storages]
    work_until(
        lambda: sum(watcher.count for watcher in watchers) >= SNAPSHOTS or any(watcher.faults for watcher in watchers),
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
    assert distinct > SNAPSHOTS / 20, "hardly anything was committed meanwhile"
    assert distinct < len(seen), "no two servers have seen the same state"


def states_after(start: Timestamp, commits: Mapping[Timestamp, Change]) -> Iterator[tuple[Timestamp, State]]:
    """What is there after each of these commits, played one after another, and before them."""
    people: dict[int, Person] = {}
    yield start, state_of([])
    for at in sorted(commits):
        people = {number: person for number, person in (people | commits[at]).items() if person is not None}
        yield at, state_of((person.id, person.document) for person in people.values())


def work_until(is_enough: Callable[[], bool], works: Iterable[Callable[[], None]]) -> None:
    """Do each of these again and again, in a thread of its own. Raises what one of them raises."""
    stop, failures = threading.Event(), list[Exception]()

    def repeat(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                work()
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
