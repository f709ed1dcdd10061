"""What a deployment keeps with its data, one value to a key, for all its servers: the system table `_deployment`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from camber.clock import Clock, Entropy
from camber.database.catalog import SYSTEM_CATALOG, Catalog
from camber.database.reads import Touched
from camber.database.schema_changes import SchemaPlan, documents_in, row_writes
from camber.database.transaction import CreationTimes
from camber.errors import ConfigurationError
from camber.storage import CommitRow, Onlooker, Snapshot, Storage, Timestamp

_TABLE: Final = SYSTEM_CATALOG.by_name["_deployment"]


def touches_deployment(touched: Touched) -> bool:
    """Whether a commit may have changed one of these values."""
    return touched.concerns({_TABLE.number})


def value_in(snapshot: Snapshot, key: str) -> Any:
    """The value under this key; None where there is none."""
    found = _document(snapshot, key)
    return None if found is None else found["value"]


def plan_of_value(snapshot: Snapshot, catalog: Catalog, key: str, value: object) -> SchemaPlan:
    """What it takes to have this value under this key."""
    return SchemaPlan(catalog, put=((_TABLE, _document(snapshot, key), {"key": key, "value": value}),))


def read_value(onlooker: Onlooker, key: str) -> Any:
    """The value under this key in data that servers may be at work on; None where there is none. Raises StorageError."""
    onlooker.use_layouts([_TABLE.layout])
    with closing(onlooker.snapshot()) as snapshot:
        return value_in(snapshot, key) if snapshot.timestamp else None


def change_value(
    storage: Storage, key: str, change: Callable[[Any], object], *, clock: Clock, entropy: Entropy
) -> object:
    """Have `change` make the value under this key from the one that is there (None: none), and return it.

    For a process that has opened the storage only for that. Servers learn of it as of any commit. Raises ConfigurationError where no
    server has been there yet, StorageError.
    """
    storage.use_layouts([_TABLE.layout])
    with closing(storage.write_group(locked=True)) as group:
        if not group.timestamp:
            raise ConfigurationError("no server has made its tables in the database yet: start the server on it once")
        old = value_in(group, key)
        value = change(old)
        if value != old:
            now_ns, times = clock.now_ns(), CreationTimes(group.timestamp / 1e6)
            rows = row_writes(plan_of_value(group, SYSTEM_CATALOG, key, value), entropy, now_ns / 1e6, times)
            timestamp = Timestamp(max(now_ns, group.timestamp + 1, times.end_ns()))
            group.commit(rows, CommitRow(timestamp, Touched({}, {_TABLE.number}).encode(), entropy.random_bytes(16)))
    return value


def _document(snapshot: Snapshot, key: str) -> dict[str, Any] | None:
    return next((found for found in documents_in(snapshot, _TABLE) if found["key"] == key), None)
