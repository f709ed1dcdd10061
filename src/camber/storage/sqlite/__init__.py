"""The SQLite driver: one file in a data folder, in WAL mode, held by one process."""

from __future__ import annotations

from camber.storage.sqlite.onlooker import SqliteOnlooker, open_onlooker
from camber.storage.sqlite.storage import SqliteStorage, open_storage

__all__ = ["SqliteOnlooker", "SqliteStorage", "open_onlooker", "open_storage"]
