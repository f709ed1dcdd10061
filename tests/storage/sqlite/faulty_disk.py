"""A disk that breaks on purpose: it forgets, tears and reorders what was not synced, fills up, and reports errors.

It is a SQLite VFS. The data file and its WAL are kept in memory, once as a running system sees them and once as they are on
the platter; locks and shared memory are those of the real files underneath, which stay as they were when they were opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import apsw

SECTOR = 512

Loss = Literal["forget", "tear", "reorder"]
"""What a crash does to writes since the last sync: all gone; some kept in order and the next one in part; any subset of sectors."""

_names = count()


class _Write(NamedTuple):
    offset: int
    data: bytes

    def apply(self, content: bytearray) -> None:
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data

    def sectors(self) -> Iterator[_Write]:
        start, end = self.offset, self.offset + len(self.data)
        while start < end:
            stop = min(end, (start // SECTOR + 1) * SECTOR)
            yield _Write(start, self.data[start - self.offset : stop - self.offset])
            start = stop


class _Truncate(NamedTuple):
    size: int

    def apply(self, content: bytearray) -> None:
        del content[self.size :]

    def sectors(self) -> Iterator[_Truncate]:
        yield self


class _Image:
    """One file: what programs see, what is on the platter, and the operations between the two."""

    def __init__(self, content: bytes) -> None:
        self.seen = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[_Write | _Truncate] = []

    def do(self, operation: _Write | _Truncate) -> None:
        operation.apply(self.seen)
        self.pending.append(operation)

    def sync(self) -> None:
        for operation in self.pending:
            operation.apply(self.durable)
        self.pending.clear()

    def after_crash(self, loss: Loss, random: Random) -> bytes:
        content = bytearray(self.durable)
        for operation in self._survivors(loss, random):
            operation.apply(content)
        return bytes(content)

    def _survivors(self, loss: Loss, random: Random) -> list[_Write | _Truncate]:
        if loss == "forget" or not self.pending:
            return []
        if loss == "reorder":
            keep = random.random()
            return [part for operation in self.pending for part in operation.sectors() if random.random() < keep]
        whole = random.randrange(len(self.pending))
        parts = list(self.pending[whole].sectors())
        return [*self.pending[:whole], *parts[: random.randrange(len(parts) + 1)]]


class FaultyDisk(apsw.VFS):
    """A disk under a storage that is opened with `vfs=disk.name`.

    `operations` counts writes, truncations, syncs and deletes. `capacity` is how many bytes fit on it.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{next(_names)}"
        super().__init__(self.name, "")
        self.operations = 0
        self.capacity: int | None = None
        self._images: dict[str, _Image] = {}
        self._deleted: dict[str, _Image] = {}
        self._dies_at: int | None = None
        self._fails_at: set[int] = set()
        self._sync_fails = False

    # Faults

    def die_after(self, operations: int) -> None:
        """Lose power after so many more operations: from then on nothing reaches the disk."""
        self._dies_at = self.operations + operations

    def fail_after(self, operations: int) -> None:
        """Report an error, once, in place of the operation after so many more."""
        self._fails_at.add(self.operations + operations)

    def fail_next_sync(self) -> None:
        """Report an error at the next sync, though all of it may be on the platter."""
        self._sync_fails = True

    def used(self) -> int:
        """How many bytes are on the disk."""
        return sum(len(image.seen) for image in self._images.values())

    def crash(self, into: Path, loss: Loss, random: Random) -> None:
        """Write what survives a power failure right now into another folder."""
        into.mkdir()
        images = dict(self._images)
        # The folder's own change may not have reached the disk either.
        images.update((name, image) for name, image in self._deleted.items() if random.random() < 0.5)
        for name, image in images.items():
            (into / Path(name).name).write_bytes(image.after_crash(loss, random))

    # What SQLite asks for

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if not flags[0] & (apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL):
            return apsw.VFSFile("", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        file = _FaultyFile(self, path, name, flags)
        if path not in self._images:
            self._images[path] = _Image(Path(path).read_bytes())
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        if filename in self._images:
            self.operate()
            self._deleted[filename] = self._images.pop(filename)
        super().xDelete(filename, syncdir)

    def image(self, path: str) -> _Image:
        return self._images[path]

    def operate(self, growth: int = 0) -> None:
        """Count an operation that makes files longer by so many bytes, and raise what is due."""
        if self._dies_at is not None and self.operations >= self._dies_at:
            raise apsw.IOError("the power is off")
        self.operations += 1
        if self.operations - 1 in self._fails_at:
            raise apsw.IOError("a write failed")
        if self.capacity is not None and growth > 0 and self.used() + growth > self.capacity:
            raise apsw.FullError("no space is left")

    def sync(self, path: str) -> None:
        self.operate()
        if self._sync_fails:
            self._sync_fails = False
            raise apsw.IOError("a sync failed")
        self._images[path].sync()


class _FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk, self._path = disk, path

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._disk.image(self._path).seen[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        image = self._disk.image(self._path)
        self._disk.operate(offset + len(data) - len(image.seen))
        image.do(_Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.operate()
        self._disk.image(self._path).do(_Truncate(newsize))

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._disk.image(self._path).seen)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.sync(self._path)
