"""Where committed documents live: the interface that every driver keeps, and the one place that opens a driver, by its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from camber.storage.interface import (
    BY_CREATION_TIME,
    BY_ID,
    AddColumns,
    AddIndex,
    ColumnKind,
    CommitConflict,
    CommitLog,
    CommitRow,
    CreateTable,
    DropIndex,
    DropTable,
    IndexBuilder,
    IndexLayout,
    Onlooker,
    Row,
    RowWrite,
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
    "AddColumns",
    "AddIndex",
    "ColumnKind",
    "CommitConflict",
    "CommitLog",
    "CommitRow",
    "CreateTable",
    "DropIndex",
    "DropTable",
    "IndexBuilder",
    "IndexLayout",
    "Onlooker",
    "Row",
    "RowWrite",
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


def open_storage(
    location: Path,
    *,
    create: bool,
    durable: bool = True,
    readers: int = 32,
    database_url: str = "",
    handler_seconds: float = 1.0,
) -> Storage:
    """Open the data folder at this path, and make it first where `create` says so and nothing is there.

    With a `database_url` the data lies in that PostgreSQL database instead. Without `durable` commits don't wait for the disk: for
    tests, whose data goes with them. `handler_seconds` is how long a function may run while others wait for it, `readers` how many
    snapshots can be open at once, those that are held for later included.
    Raises DataFolderError where the folder or the file in it can't be used, ConfigurationError where the database can't be (nothing is
    changed then), DataFolderInUseError where another process holds the folder.
    """
    if database_url:
        driver = import_module("camber.storage.postgres")
        in_database: Storage = driver.open_storage(
            database_url, create=create, durable=durable, readers=readers, handler_seconds=handler_seconds
        )
        return in_database
    driver = import_module("camber.storage.sqlite")
    storage: Storage = driver.open_storage(location, create=create, durable=durable, readers=readers)
    return storage


def open_onlooker(location: Path, *, database_url: str = "") -> Onlooker:
    """Read the data at this path, or in this database, which another process may hold.

    Raises DataFolderError where there is no data of ours, ConfigurationError.
    """
    driver = import_module("camber.storage.postgres" if database_url else "camber.storage.sqlite")
    onlooker: Onlooker = driver.open_onlooker(database_url or location)
    return onlooker
