"""On a disk that breaks: what was acknowledged is there, what was refused is not, and nothing is there by half.

`CAMBER_TORTURE_ROUNDS` says how long to try (ten cases a round), `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from camber.errors import CommitUnknownError, DiskFullError, StorageError
from camber.storage import Storage, Timestamp
from camber.storage.sqlite import open_storage
from tests.storage.people import (
    PEOPLE,
    Person,
    commit,
    create_tables,
    everyone,
    inserting,
    rows,
)
from tests.storage.sqlite.faulty_disk import FaultyDisk, Loss
from tests.storage.sqlite.witness import Witness, assert_sound

CHECKPOINT_PAGES = 12  # so small that commits and checkpoints take turns


@pytest.fixture(scope="module")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A data file with the table of people, empty."""
    folder = tmp_path_factory.mktemp("new")
    with closing(open_storage(folder, create=True)) as storage:
        create_tables(storage, PEOPLE)
    return (folder / "camber.sqlite3").read_bytes()


@pytest.fixture
def places(tmp_path: Path, new_file: bytes) -> Iterator[Path]:
    """Folders with such a file, one after another; `next(places)`."""

    def folders() -> Iterator[Path]:
        for number in range(10_000):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "camber.sqlite3").write_bytes(new_file)
            yield folder

    return folders()


def opened(folder: Path, disk: FaultyDisk | None = None) -> Storage:
    storage = open_storage(
        folder, create=False, vfs=disk.name if disk else None, checkpoint_pages=CHECKPOINT_PAGES, patience=1
    )
    storage.use_layouts([PEOPLE])
    return storage


CASES = 10 * int(os.environ.get("CAMBER_TORTURE_ROUNDS", "2"))
SEEDS = st.integers(0, 2**32)


def torture(test: Any) -> Any:
    test = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])(
        test
    )
    if start := os.environ.get("CAMBER_TORTURE_SEED"):
        test = seed(int(start))(test)
    return pytest.mark.torture(test)


@torture
@given(
    choices=SEEDS,
    operations=st.integers(0, 700),
    loss=st.sampled_from(["forget", "tear", "reorder"]),
    closes=st.booleans(),
    reads=st.booleans(),
)
def test_a_crash_at_any_point_loses_no_acknowledged_commit(
    places: Iterator[Path], choices: int, operations: int, loss: Loss, closes: bool, reads: bool
) -> None:
    random, disk, folder = Random(choices), FaultyDisk(), next(places)
    storage = opened(folder, disk)
    witness = Witness(storage, random)
    disk.die_after(operations)
    with suppress(StorageError):
        for _ in range(30):
            snapshot = storage.snapshot() if reads else None
            witness.commit()
            if snapshot and random.random() < 0.7:
                snapshot.close()
    if closes:
        storage.close()
    survived = folder / "survived"
    disk.crash(survived, loss, random)
    storage.close()
    disk.unregister()

    with closing(opened(survived)) as again:
        witness.check(again)
        assert commit(again, inserting(Person(99, "after"))) > witness.acknowledged
    assert_sound(survived)


@torture
@given(choices=SEEDS, operations=st.integers(0, 400), loss=st.sampled_from(["forget", "tear", "reorder"]))
def test_an_error_of_the_disk_refuses_a_commit_or_leaves_it_in_doubt(
    places: Iterator[Path], choices: int, operations: int, loss: Loss
) -> None:
    random, disk, folder = Random(choices), FaultyDisk(), next(places)
    storage = opened(folder, disk)
    witness = Witness(storage, random)
    disk.fail_after(operations)
    for _ in range(20):
        try:
            witness.commit()
        except CommitUnknownError:
            break
        except StorageError:
            witness.check(storage)
    survived = folder / "survived"
    disk.crash(survived, loss, random)
    storage.close()
    disk.unregister()

    with closing(opened(survived)) as again:
        witness.check(again)
    assert_sound(survived)


@torture
@given(choices=SEEDS, room=st.integers(0, 200_000), loss=st.sampled_from(["forget", "tear", "reorder"]))
def test_a_full_disk_refuses_commits_until_there_is_room(
    places: Iterator[Path], choices: int, room: int, loss: Loss
) -> None:
    random, disk, folder = Random(choices), FaultyDisk(), next(places)
    storage = opened(folder, disk)
    witness = Witness(storage, random)
    disk.capacity = disk.used() + room
    for _ in range(15):
        with suppress(DiskFullError):
            witness.commit()
    witness.check(storage)
    disk.capacity = None
    witness.commit()
    survived = folder / "survived"
    disk.crash(survived, loss, random)
    storage.close()
    disk.unregister()

    with closing(opened(survived)) as again:
        witness.check(again)
    assert_sound(survived)


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture
def storage(places: Iterator[Path], disk: FaultyDisk) -> Iterator[Storage]:
    with closing(opened(next(places), disk)) as storage:
        yield storage


ADA = Person(1, "ada", "ada@example.com")


def test_the_disk_does_forget_what_nobody_waited_for(places: Iterator[Path], disk: FaultyDisk, tmp_path: Path) -> None:
    """The tests above would pass on a disk that never loses anything: this one holds the disk to its faults."""
    with closing(open_storage(next(places), create=False, durable=False, vfs=disk.name)) as storage:
        storage.use_layouts([PEOPLE])
        commit(storage, inserting(ADA))
        disk.crash(tmp_path / "survived", "forget", Random(1))

    with closing(opened(tmp_path / "survived")) as again:
        assert everyone(again) == []


def test_a_full_disk_is_a_refusal_and_the_storage_goes_on(storage: Storage, disk: FaultyDisk) -> None:
    disk.capacity = disk.used()

    with pytest.raises(DiskFullError, match="full, nothing was written"):
        commit(storage, inserting(ADA))
    assert everyone(storage) == []
    disk.capacity = None
    commit(storage, inserting(ADA))
    assert everyone(storage) == rows([ADA])


def test_a_disk_that_fills_while_a_large_commit_is_written(storage: Storage, disk: FaultyDisk) -> None:
    """So large that its pages leave the writer's cache before the commit."""
    disk.capacity = disk.used() + 8_000_000
    large = [Person(number, "large", note="x" * 1_000_000) for number in range(50)]

    with pytest.raises(DiskFullError):
        commit(storage, *map(inserting, large))
    assert everyone(storage) == []
    commit(storage, inserting(ADA))
    assert everyone(storage) == rows([ADA])


def test_an_error_in_commit_leaves_it_in_doubt_and_the_storage_refuses_everything(
    storage: Storage, disk: FaultyDisk
) -> None:
    snapshot = storage.snapshot()
    disk.fail_next_sync()

    with pytest.raises(CommitUnknownError, match="whether it is stored is not known"):
        commit(storage, inserting(ADA))

    for use in (
        storage.snapshot,
        storage.write_group,
        lambda: storage.commits_after(snapshot.timestamp),
        lambda: storage.forget_commits(snapshot.timestamp),
        lambda: storage.sql("SELECT 1", limit=1, seconds=1),
    ):
        with pytest.raises(StorageError, match="not known"):
            use()


def test_an_error_before_commit_is_a_refusal(storage: Storage, disk: FaultyDisk) -> None:
    large = [Person(number, "large", note="x" * 1_000_000) for number in range(50)]
    disk.fail_after(10)

    with pytest.raises(StorageError) as refused:
        commit(storage, *map(inserting, large))

    assert not isinstance(refused.value, CommitUnknownError)
    assert everyone(storage) == []
    commit(storage, inserting(ADA))


def test_a_checkpoint_that_fails_fails_no_commit(storage: Storage, disk: FaultyDisk) -> None:
    """What it could not bring over stays in the WAL until the next one."""
    people = [Person(number, "x", note="x" * 20_000) for number in range(20)]
    for person in people:
        commit(storage, inserting(person))
        disk.fail_after(0)
        with suppress(StorageError):
            storage.forget_commits(Timestamp(0))  # begins with a checkpoint, which takes the error
    assert everyone(storage) == rows(people)
