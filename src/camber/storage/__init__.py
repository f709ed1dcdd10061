"""Where committed documents live: the interface that every driver keeps, and the one place that opens a driver, by its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from camber.storage.interface import (
    BY_CREATION_TIME,
    BY_ID,
    AddIndex,
    ColumnKind,
    CommitRow,
    CreateTable,
    DropIndex,
    DropTable,
    IndexLayout,
    Onlooker,
    Row,
    RowWrite,
    SchemaChange,
    SchemaStep,
    ShowTable,
    Snapshot,
    SqlResult,
    Storage,
    TableLayout,
    Timestamp,
    UniqueKeyTaken,
    WriteGroup,
)

__all__ = [
    "BY_CREATION_TIME",
    "BY_ID",
    "AddIndex",
    "ColumnKind",
    "CommitRow",
    "CreateTable",
    "DropIndex",
    "DropTable",
    "IndexLayout",
    "Onlooker",
    "Row",
    "RowWrite",
    "SchemaChange",
    "SchemaStep",
    "ShowTable",
    "Snapshot",
    "SqlResult",
    "Storage",
    "TableLayout",
    "Timestamp",
    "UniqueKeyTaken",
    "WriteGroup",
    "open_onlooker",
    "open_storage",
]


def open_storage(location: Path, *, create: bool, durable: bool = True, readers: int = 32) -> Storage:
    """Open the data folder at this path, and make it first where `create` says so and nothing is there.

    Without `durable` commits don't wait for the disk: for tests, whose folder goes with them. `readers` is how many snapshots
    can be open at once, those that are held for later included. Raises DataFolderError where the
    folder or the file in it can't be used (nothing is changed then), DataFolderInUseError where another process holds it.
    """
    driver = import_module("camber.storage.sqlite")
    storage: Storage = driver.open_storage(location, create=create, durable=durable, readers=readers)
    return storage


def open_onlooker(location: Path) -> Onlooker:
    """Read the data folder at this path, which another process may hold. Raises DataFolderError where there is no data of ours."""
    driver = import_module("camber.storage.sqlite")
    onlooker: Onlooker = driver.open_onlooker(location)
    return onlooker
