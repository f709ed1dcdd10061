"""What SQLite's errors mean here: each as the error of ours that says which file it is about and what can be done."""

from __future__ import annotations

import re
from pathlib import Path

import apsw

from camber.errors import CommitUnknownError, DiskFullError, StorageError
from camber.storage.interface import UniqueKeyTaken

_TAKEN = re.compile(r"UNIQUE constraint failed: t(\d+)\.u(\d+)$")
_DAMAGED = (apsw.CorruptError, apsw.NotADBError)


def storage_error(error: apsw.Error, path: Path) -> StorageError:
    """A failure after which nothing is half done: of a read, or of a transaction that was rolled back."""
    if isinstance(error, apsw.FullError):
        return DiskFullError(f"the disk that holds {path} is full, nothing was written: free some space and try again")
    if isinstance(error, _DAMAGED):
        return StorageError(f"{path} is damaged ({error}): stop the server and restore the file from a backup")
    if isinstance(error, apsw.BusyError):
        return StorageError(f"another program keeps {path} locked for writing: end its transaction and try again")
    if isinstance(error, apsw.ReadOnlyError):
        return StorageError(
            f"{path} can't be written ({error}): give this user the right to write the file and its folder"
        )
    if isinstance(error, apsw.InterruptError):
        return StorageError("the snapshot was closed while it was read")
    return StorageError(f"{path}: {error}")


def refused_write(error: apsw.Error, path: Path) -> StorageError | UniqueKeyTaken:
    """A write that failed before COMMIT; its transaction is rolled back."""
    if not isinstance(error, apsw.ConstraintError):
        return storage_error(error, path)
    taken = _TAKEN.search(str(error))
    if taken:
        return UniqueKeyTaken(int(taken[1]), int(taken[2]))
    return StorageError(f"a row or commit that was to be new is already there, nothing was written ({error})")


def commit_in_doubt(error: apsw.Error, path: Path) -> CommitUnknownError:
    """A failure inside COMMIT: what reached the disk shows only when the file is opened anew."""
    return CommitUnknownError(
        f"the disk failed while a commit was written to {path} ({error}): whether it is stored is not known"
    )
