"""The data folder: what lies in it, whether the file in it is ours and whole, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import apsw

from camber.errors import DataFolderError, DataFolderInUseError
from camber.storage.sqlite.connections import cursor_on

DATA_FILE = "camber.sqlite3"
LOCK_FILE = "lock"
SERVER_FILE = "server.json"
"""Written by a server that has opened the folder; the lock's holder is described with the address in it."""

APPLICATION_ID = 0x43414D42
"""`CAMB`, at byte 68 of the file: tells our files from other SQLite files."""
FORMAT_VERSION = 1
"""The version of the layout of tables, at byte 60 of the file (`PRAGMA user_version`)."""

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100

_NEW_FILE = f"""
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
CREATE TABLE commits (timestamp INTEGER PRIMARY KEY, touched BLOB NOT NULL, token BLOB NOT NULL);
COMMIT;
PRAGMA journal_mode = WAL;
"""


class DataFolder:
    """A data folder that this process alone holds, until `release` or its end."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.file = path / DATA_FILE
        self._lock = lock
        self._found = self._side_files()

    @classmethod
    def hold(cls, path: Path, *, create: bool) -> DataFolder:
        """Check the folder and its file, then lock it; with `create` make what is missing.

        Raises DataFolderError (nothing was changed) or DataFolderInUseError.
        """
        try:
            return cls._hold(path, create=create)
        except OSError as error:
            raise DataFolderError(
                f"the data folder {path} can't be used ({error.strerror}: {error.filename}):"
                " give this user the right to read and write it, or choose another folder"
            ) from error

    @classmethod
    def _hold(cls, path: Path, *, create: bool) -> DataFolder:
        if path.exists() and not path.is_dir():
            raise DataFolderError(
                f"{path} is a file where the data folder should be: move it away or choose another folder"
            )
        # Locked before the data file is looked at: closing any descriptor of a file drops the locks that SQLite, in this
        # process, holds on it. But where nobody ever held a lock none is made before the file proves to be ours.
        lock = _lock(path) if (path / LOCK_FILE).exists() else None
        try:
            is_there = _check(path / DATA_FILE, may_be_missing=create)
            if lock is None:
                _make_folder(path)
                lock = _lock(path)
            if not is_there:
                _create(path / DATA_FILE)
            _sign(lock)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return cls(path, lock)

    def leave_as_found(self) -> None:
        """Remove what SQLite laid beside a file that then proved to be unusable."""
        for path in self._side_files() - self._found:
            path.unlink(missing_ok=True)

    def _side_files(self) -> set[Path]:
        beside = (self.path / f"{DATA_FILE}-wal", self.path / f"{DATA_FILE}-shm")
        return {path for path in beside if path.exists()}

    def release(self) -> None:
        """Let go of the lock; twice does no harm."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def data_file(folder: Path) -> Path:
    """The data file in this folder, which is ours as far as its first bytes say. Raises DataFolderError.

    Not for a process that holds the folder: see `DataFolder.hold` on what looking at the file would do to its locks.
    """
    try:
        _check(folder / DATA_FILE, may_be_missing=False)
    except OSError as error:
        raise DataFolderError(f"the data folder {folder} can't be read: {error.strerror}") from error
    return folder / DATA_FILE


def _check(file: Path, *, may_be_missing: bool) -> bool:
    """Refuse what is no data file of ours, by its first bytes alone: SQLite would change some of these files by opening them.

    Returns whether there is a file.
    """
    try:
        file.lstat()
    except FileNotFoundError:
        if may_be_missing:
            return False
        raise DataFolderError(
            f"there is no data in {file.parent} (no {file.name}): start the server there once, or name the right folder"
        ) from None
    if not file.is_file():
        raise DataFolderError(
            f"{file} is no file (a folder, or a link to nothing): move it away and restore the data file"
        )
    with file.open("r+b") as opened:
        header = opened.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise DataFolderError(
            f"{file} is not a SQLite file, or its beginning is damaged: restore it from a backup, or move it away to start anew"
        )
    application, version = int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")
    if application != APPLICATION_ID:
        raise DataFolderError(f"{file} is a SQLite file of another program: move it away or choose another data folder")
    if version > FORMAT_VERSION:
        raise DataFolderError(
            f"{file} was written by a newer Camber (format {version}, this one knows up to {FORMAT_VERSION}): upgrade Camber"
        )
    return True


def _make_folder(path: Path) -> None:
    if path.is_dir():
        return
    path.mkdir(parents=True, mode=0o700)
    _sync_folder(path.parent)


def _create(file: Path) -> None:
    """Make a new data file. It gets its name when it is whole, so a crash in between leaves nothing that looks like one."""
    unfinished = file.with_name(f"{file.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
    try:
        connection = apsw.Connection(str(unfinished))
        try:
            cursor_on(connection).execute(_NEW_FILE).fetchall()
        finally:
            connection.close()
    except apsw.Error as error:
        raise DataFolderError(f"{file} can't be created ({error}): make room, or choose another data folder") from error
    unfinished.rename(file)
    _sync_folder(file.parent)


def _sync_folder(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _lock(folder: Path) -> int:
    """Lock the folder for as long as the returned descriptor is open."""
    opened = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(opened)
        if not isinstance(error, BlockingIOError):
            raise
        holder = _holder(folder)
        raise DataFolderInUseError(
            f"the data folder {folder} is in use by {holder}: stop that process, or work through its address",
            holder=holder,
        ) from None
    return opened


def _sign(lock: int) -> None:
    """Write into the lock file who holds it. Only a message is made of that, so on a full disk it stays undone."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    signature = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()
    with suppress(OSError):
        os.pwrite(lock, signature, 0)
        os.ftruncate(lock, len(signature))


def _holder(folder: Path) -> str:
    """Who holds the lock, as far as the files of the folder say."""
    lock, server = _read_json(folder / LOCK_FILE), _read_json(folder / SERVER_FILE)
    if "pid" not in lock:
        return "another process"
    said = f"process {lock['pid']} on {lock.get('host', 'this host')}, since {lock.get('since', 'an unknown time')}"
    # A server that crashed leaves its file behind, and then it is about another process than the lock is.
    if "url" in server and server.get("pid", lock["pid"]) == lock["pid"]:
        said += f", at {server['url']}"
    return said


def _read_json(path: Path) -> dict[str, object]:
    try:
        read: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, object]", read) if isinstance(read, dict) else {}
