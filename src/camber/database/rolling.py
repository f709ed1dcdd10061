"""Rolling schema changes: how servers with different versions of the schema share a database, step by step (design, "Schema changes").

A version joins: from that commit on every server writes the columns of its indexes and lets in only documents that fit all versions.
Then what is stored is checked and filled in, the indexes are built beside the writers, and the version is served. When the last
server of an older one has left, its rules and indexes go. Here is what each step commits; `Database` carries the steps out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from camber.database.catalog import SYSTEM_CATALOG, SYSTEM_TABLES, Catalog, TableInfo
from camber.database.schema_changes import (
    Misfits,
    Progress,
    SchemaPlan,
    StoredIndex,
    StoredTables,
    enforced,
    shape_of,
    stored_tables,
    verify_table,
)
from camber.database.transaction import Transaction
from camber.errors import SchemaMismatchError, StorageError
from camber.schema import Schema, Table
from camber.storage import (
    BY_CREATION_TIME,
    AddColumns,
    CreateTable,
    DropIndex,
    IndexLayout,
    SchemaStep,
    ShowTable,
    Snapshot,
    Timestamp,
)
from camber.values import exact_json

BEAT_SECONDS = 10.0
"""How often a server says that it is there."""
GONE_SECONDS = 30.0
"""After how long without a word it is taken for gone."""

Put = tuple[TableInfo, dict[str, Any] | None, dict[str, Any] | None]

_log = logging.getLogger("camber.database")


def form_of(schema: Schema) -> dict[str, Any]:
    """A schema as it is kept: of each table the exact shape and the indexes."""
    return {name: _form(enforced(table, schema)) for name, table in sorted(schema.tables.items())}


def version_of(stored: StoredTables, schema: Schema) -> int | None:
    """The version under which this very schema is served, or about to be."""
    form = form_of(schema)
    return next((found.version for found in reversed(stored.schemas) if found.tables == form), None)


def joined_version(stored: StoredTables, schema: Schema) -> int:
    """The same for a server that has joined with it. Raises StorageError where it is not there any more."""
    version = version_of(stored, schema)
    if version is None:
        raise StorageError(
            "Other servers took this one for gone before it served, and have retired its version of the schema: it must start anew."
        )
    return version


def is_served(stored: StoredTables, schema: Schema) -> bool:
    """Whether nothing has to be made or checked before this very schema is served."""
    version = version_of(stored, schema)
    is_ready = any(found.version == version and not found.is_joining for found in stored.schemas)
    return is_ready and all(system.name in stored.numbers for system in SYSTEM_TABLES)


def join_plan(stored: StoredTables, schema: Schema, server: str, now_ms: float) -> SchemaPlan:
    """Say that this server is there with this schema; make its tables, and empty columns for its indexes."""
    change = _Change(stored)
    for system in SYSTEM_TABLES:
        if system.name not in stored.numbers:
            change.steps.append(CreateTable(system.layout))
            change.put("_tables", None, {"number": float(system.number), "name": system.name})
    version = version_of(stored, schema)
    if version is None:
        version = 1 + max([found.version for found in stored.schemas], default=0)
        change.put("_schemas", None, {"version": float(version), "joining": True, **_texts(stored, schema)})
    change.seen(server, version, now_ms)
    for table in schema.tables.values():
        change.table(enforced(table, schema))
    return change.plan()


def indexes_to_make(stored: StoredTables, schema: Schema) -> list[tuple[TableInfo, StoredIndex]]:
    """The indexes of this schema that are in the making, with their tables."""
    made: list[tuple[TableInfo, StoredIndex]] = []
    for table in stored_tables(stored, schema, whole=True):
        wanted = {(index.name, index.fields[:-1], index.unique) for index in table.own_indexes}
        made += [
            (table, index)
            for index in stored.indexes.get(table.number, ())
            if index.in_making and (index.name, index.fields, index.unique) in wanted
        ]
    return made


def check_documents(
    snapshot: Snapshot, stored: StoredTables, schema: Schema, *, max_key: int, progress: Progress | None
) -> None:
    """Raises SchemaMismatchError with all stored documents that don't fit this schema. What others serve has been enforced."""
    catalog = Catalog([*SYSTEM_TABLES, *stored_tables(stored, schema, whole=True)])
    making: dict[int, list[str]] = {}
    for table, index in indexes_to_make(stored, schema):
        making.setdefault(table.number, []).append(index.name)
    misfits = Misfits()
    for name, definition in schema.tables.items():
        table = catalog.by_name[name]
        shape = exact_json(enforced(definition, schema).validator)
        is_enforced = any(
            other.tables.get(name, {}).get("shape") == shape for other in stored.schemas if not other.is_joining
        )
        added = making.get(table.number, [])
        if added or not is_enforced:
            verify_table(
                snapshot,
                table,
                catalog,
                misfits,
                shape=not is_enforced,
                added=added,
                max_key=max_key,
                progress=progress,
            )
    if misfits.total:
        raise SchemaMismatchError(misfits.listed, total=misfits.total)


def serve_plan(stored: StoredTables, schema: Schema, server: str, now_ms: float) -> SchemaPlan:
    """The version is served from here on: its indexes can be read by, the views show its columns.

    The server says once more that it is there: making what was missing may have taken longer than the others wait for a word.
    Raises StorageError where they have not waited.
    """
    change = _Change(stored)
    version = joined_version(stored, schema)
    change.seen(server, version, now_ms)
    for document in stored.documents["_schemas"]:
        if document["version"] == version and document.get("joining"):
            change.put("_schemas", document, _without(document, "joining"))
            change.steps += [
                ShowTable(table.layout)
                for table in stored_tables(stored, schema, whole=True)
                if stored.shapes.get(table.name) != shape_of(table)
            ]
    made = {(table.number, index.number) for table, index in indexes_to_make(stored, schema)}
    for document in stored.documents["_indexes"]:
        if (document["table"], document["number"]) in made:
            change.put("_indexes", document, _without(document, "inMaking"))
    return change.plan()


def leave_plan(stored: StoredTables, server: str) -> SchemaPlan:
    """This server ends; what only it needed goes."""
    return sweep_plan(stored, {server})


def move_plan(stored: StoredTables, server: str, version: int, now_ms: float) -> SchemaPlan:
    """This server has this version from now on; what only it needed of another one goes."""
    change = _Change(stored)
    change.seen(server, version, now_ms)
    for document in stored.documents["_servers"]:
        if document["server"] == joining(server):
            change.put("_servers", document, None)
    _sweep(change, {server, joining(server)}, {version})
    return change.plan()


def joining(server: str) -> str:
    """The name under which a server that has one version already joins with another."""
    return f"{server}+"


def sweep_plan(stored: StoredTables, gone: Collection[str]) -> SchemaPlan:
    """Drop servers that are gone, versions that nobody serves, except for the last one, and indexes that no version has."""
    change = _Change(stored)
    for document in stored.documents["_servers"]:
        if document["server"] in gone:
            change.put("_servers", document, None)
    _sweep(change, gone, set())
    return change.plan()


def _sweep(change: _Change, gone: Collection[str], needed: set[float]) -> None:
    """Drop versions that only these servers had, and indexes that no other version has."""
    stored = change.stored
    for document in stored.documents["_servers"]:
        if document["server"] not in gone:
            needed.add(document["schema"])
    if not needed:  # the last server leaves: what it served is in force until another one comes
        served = [found.version for found in stored.schemas if not found.is_joining]
        needed = set(served[-1:])
    for document in stored.documents["_schemas"]:
        if document["version"] not in needed:
            change.put("_schemas", document, None)
    left = [found for found in stored.schemas if found.version in needed]
    if left:
        wanted = {
            (name, *_index_form(index))
            for found in left
            for name, form in found.tables.items()
            for index in form["indexes"]
        }
        names = {number: name for name, number in stored.numbers.items()}
        for table, indexes in stored.indexes.items():
            if names[table].startswith("_"):
                continue
            for index in indexes:
                if (names[table], index.name, index.fields, index.unique) not in wanted:
                    change.drop_index(table, index)


class Beat:
    """The mutation by which a server says that it is there."""

    seconds = 1.0

    def __init__(self, server: str, version: int) -> None:
        self._server, self._version = server, version

    def run(self, transaction: Transaction) -> None:
        table = transaction.catalog.by_name["_servers"]
        current = transaction.find_one(table, table.index("by_server"), (self._server,))
        fields = {"server": self._server, "schema": float(self._version), "seen": transaction.now_ms}
        transaction.keep(table, current, fields)

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:  # noqa: ARG002
        if error is not None:
            _log.info("other servers could not be told that this one is there: %s", error)


@dataclass(slots=True)
class Absences:
    """For how long servers have said nothing, by this server's own clock: theirs may be wrong."""

    seen: dict[str, tuple[float, float]]
    looked: float = 0.0

    def gone(self, stored: StoredTables, now: float) -> set[str]:
        """The servers that are taken for gone; `now` is in seconds of a clock that is never set."""
        if now - self.looked > 2 * BEAT_SECONDS:
            self.seen = {}  # this one could not look for a while, as perhaps nobody could say a word
        self.looked = now
        present = {document["server"]: document["seen"] for document in stored.documents["_servers"]}
        self.seen = {
            server: self.seen[server] if server in self.seen and self.seen[server][0] == seen else (seen, now)
            for server, seen in present.items()
        }
        return {server for server, (_, since) in self.seen.items() if now - since > GONE_SECONDS}


class _Change:
    """A plan in the making."""

    def __init__(self, stored: StoredTables) -> None:
        self.stored = stored
        self.steps: list[SchemaStep] = []
        self._puts: list[Put] = []
        self._free = 1 + max([10_000, *stored.numbers.values()])

    def put(self, table: str, current: dict[str, Any] | None, fields: dict[str, Any] | None) -> None:
        self._puts.append((SYSTEM_CATALOG.by_name[table], current, fields))

    def seen(self, server: str, version: int, now_ms: float) -> None:
        current = next((found for found in self.stored.documents["_servers"] if found["server"] == server), None)
        self.put("_servers", current, {"server": server, "schema": float(version), "seen": now_ms})

    def table(self, definition: Table[Any]) -> None:
        """Make the table, or the columns of indexes that it lacks."""
        number = self.stored.numbers.get(definition.name)
        if number is None:
            number, self._free = self._free, self._free + 1
            table = TableInfo(
                number, definition, {index.name: place for place, index in enumerate(definition.indexes, 1)}
            )
            self.steps.append(CreateTable(table.layout))
            self.put("_tables", None, {"number": float(number), "name": definition.name})
            for index in table.own_indexes:
                self._note_index(number, StoredIndex(index.number, index.name, index.fields[:-1], index.unique))
            return
        present = self.stored.indexes.get(number, ())
        free = 1 + max([BY_CREATION_TIME, *(index.number for index in present)])
        there = {(index.name, index.fields, index.unique) for index in present}
        for index in definition.indexes:
            if (index.name, index.fields, index.unique) not in there:
                made = StoredIndex(free, index.name, index.fields, index.unique, in_making=True)
                self.steps.append(AddColumns(number, IndexLayout(free, index.name, index.unique)))
                self._note_index(number, made)
                free += 1

    def drop_index(self, table: int, index: StoredIndex) -> None:
        self.steps.append(DropIndex(table, index.number))
        document = next(
            found
            for found in self.stored.documents["_indexes"]
            if (found["table"], found["number"]) == (table, index.number)
        )
        self.put("_indexes", document, None)

    def plan(self) -> SchemaPlan:
        return SchemaPlan(SYSTEM_CATALOG, tuple(self.steps), put=tuple(self._puts))

    def _note_index(self, table: int, index: StoredIndex) -> None:
        fields: dict[str, Any] = {
            "table": float(table),
            "number": float(index.number),
            "name": index.name,
            "fields": list(index.fields),
            "unique": index.unique,
        }
        if index.in_making:
            fields["inMaking"] = True
        self.put("_indexes", None, fields)


def _form(table: Table[Any]) -> dict[str, Any]:
    indexes = sorted([index.name, list(index.fields), index.unique] for index in table.indexes)
    return {"shape": exact_json(table.validator), "indexes": indexes}


def _index_form(index: list[Any]) -> tuple[str, tuple[str, ...], bool]:
    name, fields, unique = index
    return name, tuple(fields), unique


def _texts(stored: StoredTables, schema: Schema) -> dict[str, str]:
    shapes = {table.name: shape_of(table) for table in stored_tables(stored, schema, whole=True)}
    for name, table in schema.tables.items():
        if name not in shapes:
            definition = enforced(table, schema)
            shapes[name] = shape_of(TableInfo(0, definition, {index.name: 1 for index in definition.indexes}))
    return {"schema": json.dumps(shapes, sort_keys=True), "tables": json.dumps(form_of(schema), sort_keys=True)}


def _without(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in document.items() if field not in {name, "_id", "_creationTime"}}
