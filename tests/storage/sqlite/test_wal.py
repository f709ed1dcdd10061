"""The WAL stays bounded, whatever the readers do; long snapshots delay that and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from camber.storage import Storage
from camber.storage.sqlite import open_storage
from tests.storage.people import PEOPLE, Person, commit, create_tables, everyone, everyone_in, inserting, rows

CHECKPOINT_PAGES = 50
PAGE = 4096


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
    with overlapping_snapshots(storage):
        write_pages(storage, 0, 600)

    assert wal.stat().st_size < 10 * CHECKPOINT_PAGES * PAGE


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
