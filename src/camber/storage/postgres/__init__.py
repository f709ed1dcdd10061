"""The PostgreSQL driver: one database that any number of servers write to, in turn under one lock."""

from __future__ import annotations

from camber.storage.postgres.storage import PostgresOnlooker, PostgresStorage, open_onlooker, open_storage

__all__ = ["PostgresOnlooker", "PostgresStorage", "open_onlooker", "open_storage"]
