"""Whether the data of a folder or database agrees with itself: every document, id, key and time in it, worked out anew and compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw

from camber.database import SYSTEM_TABLES, Catalog, TableInfo
from camber.database.reads import Touched
from camber.database.schema_changes import StoredTables, read_stored_tables, system_tables_of
from camber.schema import Index, Table
from camber.storage import BY_CREATION_TIME, BY_ID, Row, Snapshot, Storage, Timestamp, open_storage
from camber.values import decode_document, decode_id, encode_document, encode_id, float_key, validator_from_json

MAX_KEY = 2_000

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder holds: its documents by table and id, and the latest commit and creation times given so far."""

    timestamp: Timestamp
    creation_time: float
    tables: dict[str, dict[str, Document]]

    def __getitem__(self, table: str) -> list[Document]:
        return list(self.tables[table].values())


def contents_of(folder: Path, *, database_url: str = "") -> Contents:
    """All that is in a data folder, which nobody else may hold, or in this PostgreSQL database, in which nobody may write.

    Raises AssertionError where it does not agree with itself.
    """
    with closing(open_storage(folder, create=False, database_url=database_url)) as storage:
        catalog = _catalog(storage)
        with closing(storage.snapshot()) as snapshot:
            tables = {table.name: _documents(snapshot, table, catalog) for table in catalog.by_number.values()}
            timestamp = snapshot.timestamp
        _check_log(storage, timestamp)
        _check_views(storage, tables)
    if not database_url:
        _check_file(folder / "camber.sqlite3", catalog)
    # Of several servers each has creation times of its own.
    newest = _check_creation_times(tables, timestamp, are_unique=not database_url)
    return Contents(timestamp, newest, tables)


def _catalog(storage: Storage) -> Catalog:
    """The tables as the data itself describes them; the driver is told of them."""
    storage.use_layouts([table.layout for table in SYSTEM_TABLES])
    with closing(storage.snapshot()) as snapshot:
        stored, system = read_stored_tables(snapshot), system_tables_of(snapshot)
    assert system == list(SYSTEM_TABLES)
    catalog = Catalog([*system, *_user_tables(stored)])
    storage.use_layouts(catalog.layouts())
    return catalog


def _user_tables(stored: StoredTables) -> Iterator[TableInfo]:
    for name, number in stored.numbers.items():
        if name.startswith("_"):
            continue
        indexes = stored.indexes.get(number, ())
        # A table that came into being at its first document has no shape yet.
        shape: Any = stored.shapes[name][0] if name in stored.shapes else {"type": "any"}
        own = tuple(Index(index.name, index.fields, index.unique) for index in indexes)
        definition: Table[Any] = Table(name, validator_from_json(shape), own)
        yield TableInfo(number, definition, {index.name: index.number for index in indexes})


def _documents(snapshot: Snapshot, table: TableInfo, catalog: Catalog) -> dict[str, Document]:
    """The documents of a table in the order of their creation. Every index yields all of them, under the keys they should have."""
    documents: dict[str, Document] = {}
    keys: dict[str, tuple[bytes, ...]] = {}
    unique: set[tuple[int, bytes]] = set()
    for row in _in_order(snapshot, table, BY_CREATION_TIME):
        fields = decode_document(row.document)
        assert encode_document(fields) == row.document
        assert table.definition.validator.check(fields, catalog) == fields
        number, internal = decode_id(row.id)
        assert (number, encode_id(number, internal)) == (table.number, row.id)
        keys[row.id], unique_keys = table.keys_of(fields, row.creation_time, internal, MAX_KEY)
        documents[row.id] = {"_id": row.id, "_creationTime": row.creation_time, **fields}
        for place, key in enumerate(unique_keys):
            if key is not None:
                assert (place, key) not in unique, f"two documents of {table.name} have one unique key: {row.id}"
                unique.add((place, key))
    for index in (table.by_creation_time, *table.own_indexes):
        found = {row.id: row.key for row in _in_order(snapshot, table, index.number)}
        assert found == {id: of_row[index.position] for id, of_row in keys.items()}, f"{table.name}.{index.name}"
    assert [row.id for row in snapshot.scan(table.number, BY_ID, b"", None)] == sorted(documents)
    return documents


def _in_order(snapshot: Snapshot, table: TableInfo, index: int) -> list[Row]:
    """All rows of an index, whose keys ascend."""
    rows = list(snapshot.scan(table.number, index, b"", None))
    assert all(one.key < next_one.key for one, next_one in pairwise(rows))
    assert snapshot.count(table.number, index, b"", None) == len(rows)
    return rows


def _check_log(storage: Storage, last: Timestamp) -> None:
    """The log ends with the commit that a snapshot sees, and each of its rows can be read."""
    log = storage.commits_after(Timestamp(0))
    assert all(one.timestamp < next_one.timestamp for one, next_one in pairwise(log))
    assert log[-1].timestamp == last
    for row in log:
        Touched.decode(row.touched)


def _check_views(storage: Storage, tables: dict[str, dict[str, Document]]) -> None:
    for name, documents in tables.items():
        found = storage.sql(f'SELECT _id FROM "{name}"', limit=len(documents) + 1, seconds=60)
        assert {row[0] for row in found.rows} == documents.keys()


def _check_file(file: Path, catalog: Catalog) -> None:
    """SQLite finds nothing wrong; there are the tables there should be; the columns of unique keys are what documents make them."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        names = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert names == {"commits", *(f"t{number}" for number in catalog.by_number)}
        for table in catalog.by_number.values():
            for place, index in enumerate(table.unique_indexes):
                for id, creation_time, document, key in connection.execute(
                    f"SELECT id, ct, doc, u{index.number} FROM t{table.number}"
                ):
                    _, internal = decode_id(str(id))
                    fields = decode_document(str(document))
                    assert table.keys_of(fields, float(str(creation_time)), internal, MAX_KEY)[1][place] == key
    finally:
        connection.close()


def _check_creation_times(tables: dict[str, dict[str, Document]], last: Timestamp, *, are_unique: bool) -> float:
    """No two documents were created at the same time, and none behind the latest commit: times go on from that one."""
    times = [document["_creationTime"] for documents in tables.values() for document in documents.values()]
    assert len(set(times)) == len(times) or not are_unique
    newest = max(times)
    assert float_key(newest) <= float_key(last / 1e6), (newest, last)
    return newest
