"""The WAL stays bounded, whatever the readers do; long snapshots delay that and no more."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from camber.storage import Storage
from camber.storage.sqlite import open_storage
from tests.storage.people import PEOPLE, Person, commit, create_tables, everyone, everyone_in, inserting, rows

PATIENCE = 30.0
CHECKPOINT_PAGES = 50
PAGE = 4096
PAGES_OF_A_COMMIT = 10
"""That `write_pages` does, at least."""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with closing(open_storage(tmp_path, create=True, checkpoint_pages=CHECKPOINT_PAGES)) as storage:
        create_tables(storage, PEOPLE)
        yield storage


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    return tmp_path / "camber.sqlite3-wal"


def write_pages(storage: Storage, first: int, commits: int) -> list[Person]:
    """So many commits of a few pages each."""
    people = [Person(first + number, "x", note="x" * 10_000) for number in range(commits)]
    for person in people:
        commit(storage, inserting(person))
    return people


def test_the_wal_is_started_over_again_and_again(storage: Storage, wal: Path) -> None:
    people = write_pages(storage, 0, 300)

    assert wal.stat().st_size < 3 * CHECKPOINT_PAGES * PAGE
    assert everyone(storage) == rows(people)


def test_snapshots_that_overlap_without_end_do_not_keep_it_from_that(storage: Storage, wal: Path) -> None:
    write_pages(storage, 0, 1)
    before, written = times_started_over(wal), []
    deadline = time.monotonic() + PATIENCE
    with overlapping_snapshots(storage):
        for number in itertools.count(1):
            write_pages(storage, number, 1)
            times = times_started_over(wal) - before
            written += [number] * (times - len(written))
            if times >= 20:
                break
            assert time.monotonic() < deadline, f"{times} times with {number} commits"

    # As a rule: while a thread stands still that has a snapshot, the WAL grows.
    between = sorted(later - earlier for earlier, later in itertools.pairwise(written))
    assert between[len(between) // 2] * PAGES_OF_A_COMMIT < 10 * CHECKPOINT_PAGES


def times_started_over(wal: Path) -> int:
    """As its header counts them."""
    with wal.open("rb") as file:
        return int.from_bytes(file.read(16)[12:])


@contextmanager
def overlapping_snapshots(storage: Storage) -> Iterator[None]:
    """At any moment one of two threads has a snapshot open."""
    stop = threading.Event()

    def overlap() -> None:
        current = storage.snapshot()
        while not stop.wait(0.002):
            following = storage.snapshot()
            current.close()
            current = following
        current.close()

    threads = [threading.Thread(target=overlap) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_snapshot_held_open_sees_its_state_while_the_wal_grows(storage: Storage, wal: Path) -> None:
    early = write_pages(storage, 0, 10)
    held = storage.snapshot()
    late = write_pages(storage, 10, 200)
    assert everyone_in(held) == rows(early)
    held.close()
    grown = wal.stat().st_size
    later = write_pages(storage, 210, 300)

    assert grown > 10 * CHECKPOINT_PAGES * PAGE
    assert wal.stat().st_size < grown + 2 * CHECKPOINT_PAGES * PAGE
    assert everyone(storage) == rows([*early, *late, *later])
