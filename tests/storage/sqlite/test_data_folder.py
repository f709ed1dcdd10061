"""The data folder: one process at a time, and a clear refusal, without a change, of every file that can't be used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from camber.errors import DataFolderError, DataFolderInUseError, StorageError
from camber.storage import CommitRow, Storage, Timestamp, open_storage
from tests.storage.people import BY_NAME, PEOPLE, Person, commit, create_tables, everyone, everyone_in, inserting, rows

ADA = Person(1, "ada", "ada@example.com")
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with the table of people and Ada in it, not open."""
    folder = tmp_path / "data"
    with closing(open_storage(folder, create=True)) as storage:
        create_tables(storage, PEOPLE)
        commit(storage, inserting(ADA))
    return folder


@contextmanager
def opened(folder: Path) -> Iterator[Storage]:
    with closing(open_storage(folder, create=False)) as storage:
        storage.use_layouts([PEOPLE])
        yield storage


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in a folder; the lock, which only says who was there last, left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refusal(folder: Path, *, create: bool = False) -> str:
    """The message with which the folder is refused; nothing in it may have changed."""
    before = contents(folder)
    with pytest.raises(DataFolderError) as refused:
        open_storage(folder, create=create)
    assert contents(folder) == before
    assert not isinstance(refused.value, DataFolderInUseError)
    return str(refused.value)


# Being there


def test_a_folder_is_made_only_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert "no data" in refusal(folder)
    assert not folder.parent.exists()

    open_storage(folder, create=True).close()
    open_storage(folder, create=True).close()
    open_storage(folder, create=False).close()


def test_only_its_owner_can_look_into_a_new_folder(tmp_path: Path) -> None:
    open_storage(tmp_path / "data", create=True).close()

    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_closed_folder_holds_one_file_of_data(folder: Path) -> None:
    assert set(contents(folder)) == {"camber.sqlite3"}


def test_what_a_crash_left_of_a_file_being_made_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "camber.sqlite3.new").write_bytes(b"half of a file")
    (tmp_path / "camber.sqlite3.new-journal").write_bytes(b"and its journal")

    with closing(open_storage(tmp_path, create=True)) as storage:
        create_tables(storage, PEOPLE)
        commit(storage, inserting(ADA))
    assert set(contents(tmp_path)) == {"camber.sqlite3"}


def test_another_program_can_read_while_it_is_open(folder: Path) -> None:
    with opened(folder) as storage:
        commit(storage, inserting(Person(2, "bob")))
        shell = apsw.Connection(str(folder / "camber.sqlite3"), flags=apsw.SQLITE_OPEN_READONLY)
        assert shell.execute("SELECT name FROM people ORDER BY name").fetchall() == [("ada",), ("bob",)]
        shell.close()


# The lock


def test_a_second_opening_is_told_who_holds_the_folder(folder: Path) -> None:
    with opened(folder) as storage:
        with pytest.raises(DataFolderInUseError) as refused:
            open_storage(folder, create=False)
        commit(storage, inserting(Person(2, "bob")))

    assert refused.value.holder is not None
    assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in refused.value.holder
    assert str(folder) in str(refused.value)
    assert refused.value.holder in str(refused.value)


def test_another_process_is_told_the_address(folder: Path) -> None:
    with opened(folder):
        (folder / "server.json").write_text(json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:3210"}))
        told = open_elsewhere(folder)

    assert told.startswith("DataFolderInUseError")
    assert "at http://127.0.0.1:3210" in told


def test_the_address_of_a_server_that_is_gone_is_not_told(folder: Path) -> None:
    with opened(folder):
        (folder / "server.json").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:3210"}))
        assert "3210" not in open_elsewhere(folder)


def test_the_lock_ends_with_its_holder(folder: Path) -> None:
    script = f"""
from pathlib import Path
from camber.storage import open_storage
storage = open_storage(Path({str(folder)!r}), create=False)
print("open", flush=True)
input()
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(DataFolderInUseError, match=f"process {holder.pid} "):
            open_storage(folder, create=False)
    finally:
        holder.kill()
        holder.communicate()
    with opened(folder) as storage:
        assert everyone(storage) == rows([ADA])


def open_elsewhere(folder: Path) -> str:
    """Open the folder in another process; returns the error it gets."""
    script = f"""
from pathlib import Path
from camber.storage import open_storage
try:
    open_storage(Path({str(folder)!r}), create=False)
except Exception as error:
    print(type(error).__name__, error)
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


# Files that can't be used


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.write_text("a file")

    for create in (False, True):
        with pytest.raises(DataFolderError, match="is a file where the data folder should be"):
            open_storage(place, create=create)
    assert place.read_text() == "a file"


@pytest.mark.parametrize("create", [False, True])
def test_a_folder_where_the_file_should_be(tmp_path: Path, create: bool) -> None:
    (tmp_path / "camber.sqlite3").mkdir()

    assert f"{tmp_path / 'camber.sqlite3'} is no file" in refusal(tmp_path, create=create)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"not a database, " * 1000])
@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_sqlite_file(tmp_path: Path, content: bytes, create: bool) -> None:
    (tmp_path / "camber.sqlite3").write_bytes(content)

    message = refusal(tmp_path, create=create)

    assert f"{tmp_path / 'camber.sqlite3'} is not a SQLite file" in message
    assert "restore it from a backup" in message
    assert not (tmp_path / "lock").exists()


def test_another_programs_sqlite_file(tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "camber.sqlite3"))
    other.execute("CREATE TABLE t (a)")
    other.close()

    assert "of another program" in refusal(tmp_path, create=True)


def test_a_file_of_a_newer_version(folder: Path) -> None:
    newer = apsw.Connection(str(folder / "camber.sqlite3"))
    newer.execute("PRAGMA user_version = 2")
    newer.close()

    message = refusal(folder)

    assert "written by a newer Camber (format 2" in message
    assert "upgrade" in message


@pytest.mark.parametrize("place", [16, 18, 100, 103])
def test_a_file_with_damage_at_its_beginning(folder: Path, place: int) -> None:
    """Page size, file format, and the header of the first page, which says what tables there are."""
    overwrite(folder / "camber.sqlite3", place, b"\xff\xff")

    assert str(folder / "camber.sqlite3") in refusal(folder)


def test_a_file_that_lost_its_end(folder: Path) -> None:
    file = folder / "camber.sqlite3"
    os.truncate(file, file.stat().st_size - 4096)

    assert "is damaged" in refusal(folder)


def test_damage_in_the_middle_shows_when_it_is_read(folder: Path) -> None:
    file = folder / "camber.sqlite3"
    for page in range(1, file.stat().st_size // 4096):
        overwrite(file, page * 4096, b"\xff" * 64)

    with pytest.raises(StorageError, match=f"{file} is damaged"), opened(folder) as storage:
        everyone(storage, BY_NAME)


def test_a_group_in_which_a_read_failed_commits_nothing(folder: Path) -> None:
    file = folder / "camber.sqlite3"
    with opened(folder) as storage:
        group = storage.write_group()
        for page in range(1, file.stat().st_size // 4096):
            overwrite(file, page * 4096, b"\xff" * 64)
        with pytest.raises(StorageError) as failed:
            group.first(PEOPLE.number, BY_NAME, b"", None, limit=1)
        with pytest.raises(StorageError) as refused:
            group.commit([inserting(Person(2, "bob"))], CommitRow(Timestamp(group.timestamp + 1), b"", b"token"))

    assert refused.value is failed.value


def overwrite(file: Path, place: int, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(content)


def test_a_file_that_can_not_be_written(shared: Path) -> None:
    (shared / "camber.sqlite3").chmod(0o444)

    message = as_ordinary_user(lambda: refusal(shared))

    assert str(shared / "camber.sqlite3") in message
    assert "give this user the right" in message


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("was_used", [False, True])
def test_a_folder_that_can_not_be_written(shared: Path, create: bool, was_used: bool) -> None:
    if not was_used:
        (shared / "lock").unlink()
    shared.chmod(0o555)

    message = as_ordinary_user(lambda: refusal(shared, create=create))

    assert str(shared) in message
    assert "give this user the right" in message


def test_a_folder_that_can_not_be_made(shared: Path) -> None:
    shared.chmod(0o555)

    message = as_ordinary_user(lambda: refusal(shared / "deeper", create=True))

    assert str(shared / "deeper") in message


@pytest.fixture
def shared(folder: Path) -> Iterator[Path]:
    """A copy of the data folder that an ordinary user owns, where root's own temporary folders don't hide it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        copy = Path(place) / "data"
        copy.mkdir()
        for name in ("camber.sqlite3", "lock"):
            (copy / name).write_bytes((folder / name).read_bytes())
        if os.geteuid() == 0:
            for path in (Path(place), copy, *copy.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        yield copy
        copy.chmod(0o755)


def as_ordinary_user(act: Callable[[], str]) -> str:
    """Act without root's right to write everything."""
    if os.geteuid() != 0:
        return act()
    os.seteuid(NOBODY)
    try:
        return act()
    finally:
        os.seteuid(0)


# Files that go away


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_acknowledged_after_a_file_was_removed(folder: Path, suffix: str, replaced: bool) -> None:
    with opened(folder) as storage:
        before = storage.snapshot()
        file = folder / f"camber.sqlite3{suffix}"
        content = file.read_bytes()
        file.unlink()
        if replaced:
            file.write_bytes(content)

        assert "removed or replaced" in (storage.trouble() or "")
        with pytest.raises(StorageError, match="removed or replaced"):
            commit(storage, inserting(Person(2, "bob")))
        assert everyone_in(before) == rows([ADA])
