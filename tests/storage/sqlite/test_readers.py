"""Readers are bounded and there is one writer: who wants one more waits for a moment, then is told so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from camber.errors import StorageError
from camber.storage import Storage
from camber.storage.sqlite import connections, open_storage
from tests.storage.people import commit

PATIENCE = 30.0


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with closing(open_storage(tmp_path, create=True, readers=3, patience=0.3)) as storage:
        yield storage


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """One in which whoever waits does so for as long as a busy machine needs."""
    monkeypatch.setattr(connections, "BUSY_MILLISECONDS", int(PATIENCE * 1000))
    with closing(open_storage(tmp_path, create=True, readers=3, patience=PATIENCE)) as storage:
        yield storage


def test_one_more_reader_than_there_are_is_refused_after_a_while(storage: Storage) -> None:
    held = storage.snapshots(2)

    with pytest.raises(StorageError, match=r"2 of 3 readers are in use, 2 did not become free in 0.3 s"):
        storage.snapshots(2)
    held.append(storage.snapshot())
    with pytest.raises(StorageError, match="3 of 3"):
        storage.commits_after(held[0].timestamp)


def test_a_reader_that_becomes_free_is_taken_by_who_waits(patient: Storage) -> None:
    held = patient.snapshots(3)
    soon = threading.Timer(0.05, held[0].close)
    soon.start()

    patient.snapshot().close()
    soon.join()


def test_a_closed_storage_does_not_let_anyone_wait(patient: Storage) -> None:
    patient.snapshots(3)
    soon = threading.Timer(0.05, patient.close)
    soon.start()
    began = time.monotonic()

    with pytest.raises(StorageError, match="closed"):
        patient.snapshot()
    assert time.monotonic() - began < PATIENCE
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


def test_a_write_group_waits_for_the_one_before_it(patient: Storage) -> None:
    group = patient.write_group()
    soon = threading.Timer(0.05, group.close)
    soon.start()

    patient.write_group().close()
    soon.join()


def test_a_write_group_that_waits_for_too_long_is_refused(storage: Storage) -> None:
    with closing(storage.write_group()), pytest.raises(StorageError, match=r"held the writer for 0.3 s"):
        storage.write_group()


def test_a_commit_waits_for_another_program_that_writes(patient: Storage, tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "camber.sqlite3"))
    other.execute("BEGIN IMMEDIATE")
    soon = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    soon.start()

    assert commit(patient) == 1
    soon.join()
    other.close()
