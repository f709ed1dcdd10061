"""Small files of a data folder that have all of their contents or are not there, and what a crash leaves of such a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Final

_UNFINISHED: Final = re.compile(r"\.[a-z.]+\.[0-9a-f]{8}\.new")


@contextlib.contextmanager
def written_beside(path: Path, text: str) -> Generator[Path]:
    """The text, on disk and readable by nobody else, in a file beside `path` that the block renames or links to it.

    What still has the other name at the end of the block is removed. Raises OSError where it can't be written.
    """
    beside, opened = _create(path)
    try:
        with os.fdopen(opened, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            yield beside
    finally:
        beside.unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Remove what processes that were killed in `written_beside` have left in this folder. Raises OSError where it can't be read."""
    for path in list(folder.iterdir()):
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError):
                _remove_if_left(path)


def sync_folder(folder: Path) -> None:
    """See that the names in this folder are on disk, where the system lets us."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _create(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, locked for as long as its descriptor is open: the lock tells it from one that a killed process left."""
    while True:
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
        opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(opened, fcntl.LOCK_EX)
            if os.fstat(opened).st_nlink:  # else it was cleared away before it was locked
                return beside, opened
        except OSError:
            beside.unlink(missing_ok=True)
            os.close(opened)
            raise
        os.close(opened)


def _remove_if_left(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        pass  # it is being written
    finally:
        os.close(opened)
