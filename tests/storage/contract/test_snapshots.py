"""Every driver's snapshots are one state each, however long they are open and whoever commits meanwhile."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from camber.errors import StorageError
from camber.storage import Storage
from tests.storage.contract.conftest import Place
from tests.storage.people import (
    BY_NAME,
    PEOPLE,
    Person,
    commit,
    create_tables,
    deleting,
    everyone,
    everyone_in,
    inserting,
    rows,
    updating,
)

PATIENCE = 30.0
ADA = Person(1, "ada", "ada@example.com")
BOB = Person(2, "bob")


def test_a_new_database_is_at_timestamp_zero(place: Place) -> None:
    assert place.open().snapshot().timestamp == 0


def test_an_open_snapshot_does_not_see_later_commits(storage: Storage) -> None:
    before = storage.snapshot()
    at = commit(storage, inserting(ADA))

    assert before.get(PEOPLE.number, ADA.id) is None
    after = storage.snapshot()
    assert after.get(PEOPLE.number, ADA.id) == ADA.row(None)
    assert before.timestamp < after.timestamp == at


def test_a_snapshot_still_sees_what_was_changed_and_deleted(storage: Storage) -> None:
    commit(storage, inserting(ADA), inserting(BOB))
    before = storage.snapshot()
    commit(storage, updating(ADA, ADA.but(name="grace")), deleting(BOB))

    assert everyone_in(before, BY_NAME) == rows([ADA, BOB], BY_NAME)
    assert everyone(storage, BY_NAME) == rows([ADA.but(name="grace")], BY_NAME)


def test_a_scan_that_began_before_a_commit_goes_on_without_it(storage: Storage) -> None:
    people = [Person(number, "x") for number in range(2000)]
    commit(storage, *map(inserting, people))
    snapshot = storage.snapshot()
    scan = snapshot.scan(PEOPLE.number, BY_NAME, b"", None)
    first = next(scan)
    commit(storage, *(deleting(person) for person in people))

    assert [first, *scan] == rows(people, BY_NAME)


def test_what_was_committed_is_there_when_it_is_opened_again(place: Place, storage: Storage) -> None:
    at = commit(storage, inserting(ADA))
    storage.close()

    again = place.open()
    again.use_layouts([PEOPLE])

    assert again.snapshot().timestamp == at
    assert everyone(again) == rows([ADA])


def test_snapshots_opened_together_have_one_timestamp_while_others_commit(storage: Storage) -> None:
    stop, has_committed = threading.Event(), threading.Event()

    def write() -> None:
        for number in itertools.count():
            commit(storage, inserting(Person(number, "x")))
            has_committed.set()
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert has_committed.wait(PATIENCE)
        for _ in range(100):
            together = storage.snapshots(4)
            assert len({snapshot.timestamp for snapshot in together}) == 1
            assert len({snapshot.count(PEOPLE.number, BY_NAME, b"", None) for snapshot in together}) == 1
            for snapshot in together:
                snapshot.close()
    finally:
        stop.set()
        writer.join()


def test_a_timestamp_names_one_state(storage: Storage) -> None:
    """Whoever opens a snapshot while others commit: its rows are those of the commits up to its timestamp, no other."""
    first = storage.snapshot().timestamp
    stop, has_seen_some = threading.Event(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            snapshot = storage.snapshot()
            seen = snapshot.count(PEOPLE.number, BY_NAME, b"", None)
            snapshot.close()
            assert seen == 3 * (snapshot.timestamp - first)
            if seen > 0:
                has_seen_some.set()

    with ThreadPoolExecutor(3) as threads:
        looking = [threads.submit(look) for _ in range(3)]
        try:
            for number in range(150):
                commit(storage, *(inserting(Person(3 * number + part, "x")) for part in range(3)))
            assert has_seen_some.wait(PATIENCE)
        finally:
            stop.set()
        for one in looking:
            one.result()


def test_a_snapshot_may_be_read_and_closed_in_other_threads(storage: Storage) -> None:
    commit(storage, inserting(ADA))
    snapshot = storage.snapshot()
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(snapshot.get, PEOPLE.number, ADA.id).result() == ADA.row(None)
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(snapshot.close).result()

    with pytest.raises(StorageError, match="closed"):
        snapshot.get(PEOPLE.number, ADA.id)


def test_closing_a_snapshot_ends_what_another_thread_reads_from_it(storage: Storage) -> None:
    people = [Person(number, "x", note="x" * 500) for number in range(2000)]
    commit(storage, *map(inserting, people))
    for _ in range(20):
        snapshot = storage.snapshot()

        def read_for_ever(snapshot=snapshot) -> None:
            while True:
                assert len(everyone_in(snapshot)) == len(people)

        with ThreadPoolExecutor(1) as elsewhere:
            reading = elsewhere.submit(read_for_ever)
            time.sleep(0.002)
            snapshot.close()
            with pytest.raises(StorageError, match="closed"):
                reading.result(timeout=PATIENCE)
    assert everyone(storage) == rows(people)


def test_more_readers_than_there_are_is_an_error(storage: Storage) -> None:
    with pytest.raises(StorageError, match="readers"):
        storage.snapshots(1000)
    storage.snapshot().close()


def test_a_closed_storage_refuses_and_its_snapshots_are_closed(storage: Storage) -> None:
    snapshot, group = storage.snapshot(), storage.write_group()
    storage.close()
    storage.close()

    for use in (storage.snapshot, storage.write_group, lambda: storage.commits_after(snapshot.timestamp)):
        with pytest.raises(StorageError, match="closed"):
            use()
    for reading in (snapshot, group):
        with pytest.raises(StorageError, match="closed"):
            reading.get(PEOPLE.number, ADA.id)
        reading.close()


def test_an_old_snapshot_keeps_its_tables(storage: Storage) -> None:
    before = storage.snapshot()
    later = PEOPLE.__class__(10_002, "later")
    create_tables(storage, later)

    assert list(before.scan(later.number, 0, b"", None)) == []
    assert storage.snapshot().count(later.number, 0, b"", None) == 0
