"""Readers are bounded and there is one writer: who wants one more waits for a moment, then is told so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from camber.errors import StorageError
from camber.storage import Storage
from camber.storage.sqlite import open_storage
from tests.storage.people import commit


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with closing(open_storage(tmp_path, create=True, readers=3, patience=0.3)) as storage:
        yield storage


def test_one_more_reader_than_there_are_is_refused_after_a_while(storage: Storage) -> None:
    held = storage.snapshots(2)

    with pytest.raises(StorageError, match=r"2 of 3 readers are in use, 2 did not become free in 0.3 s"):
        storage.snapshots(2)
    held.append(storage.snapshot())
    with pytest.raises(StorageError, match="3 of 3"):
        storage.commits_after(held[0].timestamp)


def test_a_reader_that_becomes_free_is_taken_by_who_waits(storage: Storage) -> None:
    held = storage.snapshots(3)
    soon = threading.Timer(0.05, held[0].close)
    soon.start()

    storage.snapshot().close()
    soon.join()


def test_a_closed_storage_does_not_let_anyone_wait(storage: Storage) -> None:
    storage.snapshots(3)
    soon = threading.Timer(0.05, storage.close)
    soon.start()

    with pytest.raises(StorageError, match="closed"):
        storage.snapshot()
    soon.join()


def test_snapshots_are_not_counted_twice_when_closed_twice(storage: Storage) -> None:
    for _ in range(3):
        first = storage.snapshot()
        first.close()
        first.close()
    held = storage.snapshots(3)

    with pytest.raises(StorageError, match="3 of 3"):
        storage.snapshot()
    assert len(held) == 3


def test_a_write_group_waits_for_the_one_before_it(storage: Storage) -> None:
    group = storage.write_group()
    with pytest.raises(StorageError, match=r"held the writer for 0.3 s"):
        storage.write_group()
    soon = threading.Timer(0.05, group.close)
    soon.start()

    storage.write_group().close()
    soon.join()


def test_a_commit_waits_for_another_program_that_writes(storage: Storage, tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "camber.sqlite3"))
    other.execute("BEGIN IMMEDIATE")
    soon = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    soon.start()

    assert commit(storage) == 1
    soon.join()
    other.close()
