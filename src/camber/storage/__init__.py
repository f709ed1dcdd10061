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
    "open_storage",
]


def open_storage(location: Path, *, create: bool, durable: bool = True) -> Storage:
    """Open the data folder at this path, and make it first where `create` says so and nothing is there.

    Without `durable` commits don't wait for the disk: for tests, whose folder goes with them. Raises DataFolderError where the
    folder or the file in it can't be used (nothing is changed then), DataFolderInUseError where another process holds it.
    """
    driver = import_module("camber.storage.sqlite")
    storage: Storage = driver.open_storage(location, create=create, durable=durable)
    return storage
