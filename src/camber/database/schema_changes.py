"""From the stored tables to those of a schema: what is created and dropped, and which documents don't fit (protocol 2.4).

A change is planned first: every misfit is found and named, and nothing is touched. Then it is carried out in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from camber.clock import Entropy
from camber.database.catalog import SYSTEM_CATALOG, SYSTEM_TABLES, Catalog, TableInfo
from camber.database.overlay import StoredDocument
from camber.database.transaction import CreationTimes
from camber.errors import InvalidValueError, SchemaMismatchError, ValidationError
from camber.schema import Index, Schema, Table, define_table
from camber.storage import (
    BY_CREATION_TIME,
    AddIndex,
    CreateTable,
    DropIndex,
    IndexLayout,
    Row,
    RowWrite,
    SchemaStep,
    ShowTable,
    Snapshot,
    TableLayout,
)
from camber.values import (
    NEW_ID_BYTES,
    decode_document,
    decode_id,
    encode_document,
    exact_json,
    new_id,
    v,
    validator_from_json,
)

MAX_MISFITS_LISTED = 1000

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many rows of how many."""


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """An index as the database has it."""

    number: int
    name: str
    fields: tuple[str, ...]
    unique: bool
    in_making: bool = False
    """Whether there are documents without their keys yet, so that nobody can read by it."""


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """A version of the schema that is served, or is about to be: the exact shape and the indexes of each table, as JSON."""

    version: int
    tables: Mapping[str, Any]
    is_joining: bool


@dataclass(frozen=True, slots=True)
class StoredTables:
    """What the system tables say: tables by name with their numbers, the indexes of each, and the shapes that were last enforced."""

    numbers: Mapping[str, int]
    indexes: Mapping[int, tuple[StoredIndex, ...]]
    shapes: Mapping[str, Any]
    documents: Mapping[str, tuple[dict[str, Any], ...]]
    """The documents of `_tables`, `_indexes`, `_schemas`, `_deployment` and `_servers`, by table."""
    schemas: tuple[StoredSchema, ...] = ()
    """Oldest first. On SQLite there is one at most, of which only `shapes` tells."""

    def layouts(self) -> list[TableLayout]:
        """The users' tables as they are stored; what their views show is not known of them."""
        return [
            TableLayout(
                number, name, tuple(IndexLayout(i.number, i.name, i.unique) for i in self.indexes.get(number, ()))
            )
            for name, number in self.numbers.items()
            if not name.startswith("_")
        ]


@dataclass(frozen=True, slots=True)
class SchemaPlan:
    """What has to happen; without steps and writes, nothing."""

    catalog: Catalog
    steps: tuple[SchemaStep, ...] = ()
    created: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    put: tuple[tuple[TableInfo, dict[str, Any] | None, dict[str, Any] | None], ...] = ()
    """Documents of system tables to write: the table, the current document (None: a new one), the fields to store (None: delete)."""

    @property
    def is_empty(self) -> bool:
        return not self.steps and not self.put


def system_tables_of(snapshot: Snapshot) -> list[TableInfo]:
    """The system tables that the database has; an older one may lack the newest."""
    names = {found["name"] for found in documents_in(snapshot, SYSTEM_CATALOG.by_name["_tables"])}
    return [table for table in SYSTEM_TABLES if table.name in names]


def read_stored_tables(snapshot: Snapshot) -> StoredTables:
    """What the database has. An empty database has nothing, not even its system tables."""
    documents = {
        name: tuple(documents_in(snapshot, SYSTEM_CATALOG.by_name[name]))
        for name in ("_tables", "_indexes", "_schemas", "_deployment", "_servers")
    }
    indexes: dict[int, list[StoredIndex]] = {}
    for found in documents["_indexes"]:
        index = StoredIndex(
            int(found["number"]),
            found["name"],
            tuple(found["fields"]),
            found["unique"],
            in_making=found.get("inMaking", False),
        )
        indexes.setdefault(int(found["table"]), []).append(index)
    versions = sorted(documents["_schemas"], key=lambda found: found["version"])
    served = [found for found in versions if not found.get("joining")]
    shapes: dict[str, Any] = json.loads(served[-1]["schema"]) if served else {}
    numbers = {found["name"]: int(found["number"]) for found in documents["_tables"]}
    return StoredTables(
        numbers,
        {table: tuple(sorted(found, key=lambda i: i.number)) for table, found in indexes.items()},
        shapes,
        documents,
        tuple(
            StoredSchema(int(found["version"]), json.loads(found.get("tables", "{}")), found.get("joining", False))
            for found in versions
        ),
    )


def plan_change(
    snapshot: Snapshot, stored: StoredTables, schema: Schema, *, max_key: int, progress: Progress | None = None
) -> SchemaPlan:
    """How to get from what is stored to this schema. Raises SchemaMismatchError with every document that does not fit."""
    plan = _Plan(stored)
    for system in SYSTEM_TABLES:
        if system.name not in stored.numbers:
            plan.create(system)
    wanted = dict(schema.tables)
    for name in stored.numbers:
        if not name.startswith("_") and name not in wanted:
            # A table that left the schema keeps its documents; nothing is said of their shape any more.
            wanted[name] = define_table(name, v.any())
    for definition in wanted.values():
        plan.table(enforced(definition, schema))
    catalog = Catalog([*SYSTEM_TABLES, *plan.tables])
    _verify(snapshot, stored, plan, catalog, max_key=max_key, progress=progress)
    plan.shapes({table.name: shape_of(table) for table in plan.tables})
    return plan.finish(catalog)


def row_writes(plan: SchemaPlan, entropy: Entropy, now_ms: float, creation_times: CreationTimes) -> list[RowWrite]:
    """The rows of the system tables that go with the plan."""
    writes: list[RowWrite] = []
    for table, current, fields in plan.put:
        if fields is None:
            assert current is not None
            writes.append(RowWrite(table.number, current["_id"], current["_creationTime"], None))
            continue
        id = new_id(table.number, now_ms, entropy.random_bytes(NEW_ID_BYTES)) if current is None else current["_id"]
        creation_time: float = creation_times.next(now_ms) if current is None else current["_creationTime"]
        keys, unique_keys = table.keys_of(fields, creation_time, decode_id(id)[1], 2000)
        document = StoredDocument(table.number, id, creation_time, encode_document(fields), keys, unique_keys)
        writes.append(
            RowWrite(table.number, id, creation_time, document.text, keys, unique_keys, is_new=current is None)
        )
    return writes


def stored_tables(
    stored: StoredTables, schema: Schema, *, version: int | None = None, whole: bool = False
) -> list[TableInfo]:
    """The users' tables as they are stored, with the shapes that this schema has for them.

    An index that the schema does not know, or that is in the making, is written like the others but can't be asked for by its name;
    with `whole` those in the making can. Where this is one of several versions that are served, documents must fit the others too.
    """
    others = [other for other in stored.schemas if version is not None and other.version != version]
    tables: list[TableInfo] = []
    for name, number in stored.numbers.items():
        if name.startswith("_"):
            continue
        wanted = schema.tables.get(name)
        definition = enforced(define_table(name, v.any()) if wanted is None else wanted, schema)
        known = {(index.name, index.fields, index.unique) for index in definition.indexes}
        numbers: dict[str, int] = {}
        indexes: list[Index] = []
        for index in stored.indexes.get(number, ()):
            is_known = (index.name, index.fields, index.unique) in known and (whole or not index.in_making)
            shown = index.name if is_known else f"{index.name}~{index.number}"
            numbers[shown] = index.number
            indexes.append(Index(shown, index.fields, index.unique))
        shape = exact_json(definition.validator)
        shapes = [other.tables[name]["shape"] for other in others if name in other.tables]
        also = [validator_from_json(found) for found in shapes if found not in (shape, _ANYTHING)]
        in_making = [] if whole else [index.number for index in stored.indexes.get(number, ()) if index.in_making]
        tables.append(
            TableInfo(number, replace(definition, indexes=tuple(indexes)), numbers, also=also, in_making=in_making)
        )
    return tables


def create_table_plan(stored: StoredTables, catalog: Catalog, name: str) -> SchemaPlan:
    """A table that a mutation inserts into for the first time, without a schema of its own."""
    plan = _Plan(stored)
    plan.first_free = catalog.next_table_number()
    plan.table(define_table(name, v.any()))
    return plan.finish(catalog.with_tables(plan.tables))


_ANYTHING = exact_json(v.any())


class _Plan:
    """A plan in the making."""

    def __init__(self, stored: StoredTables) -> None:
        self.stored = stored
        self.tables: list[TableInfo] = []
        self.added: dict[int, list[str]] = {}
        self.first_free = max([10_000, *stored.numbers.values()]) + 1
        self._steps: list[SchemaStep] = []
        self._created: list[str] = []
        self._dropped: list[str] = []
        self._put: list[tuple[TableInfo, dict[str, Any] | None, dict[str, Any] | None]] = []

    def create(self, table: TableInfo) -> None:
        self._steps.append(CreateTable(table.layout))
        self._note_table(table)

    def table(self, definition: Table[Any]) -> None:
        """Bring one table to its definition."""
        number = self.stored.numbers.get(definition.name)
        if number is None:
            number, self.first_free = self.first_free, self.first_free + 1
            table = TableInfo(
                number, definition, {index.name: place for place, index in enumerate(definition.indexes, 1)}
            )
            self.create(table)
            self._created.append(f'table "{definition.name}"')
            for index in table.own_indexes:
                self._note_index(table, index.number, index.name, index.fields[:-1], unique=index.unique)
            self.tables.append(table)
            return
        self._change(number, definition)

    def _change(self, number: int, definition: Table[Any]) -> None:
        present = {index.name: index for index in self.stored.indexes.get(number, ())}
        kept = {
            index.name: present[index.name].number
            for index in definition.indexes
            if index.name in present
            and present[index.name].fields == index.fields
            and present[index.name].unique == index.unique
        }
        free = max([BY_CREATION_TIME, *(index.number for index in present.values())]) + 1
        numbers = dict(kept)
        for index in definition.indexes:
            if index.name not in numbers:
                numbers[index.name], free = free, free + 1
        table = TableInfo(number, definition, numbers)
        for index in present.values():
            if index.name not in kept:
                self._steps.append(DropIndex(number, index.number))
                self._put.append((SYSTEM_CATALOG.by_name["_indexes"], self._index_document(number, index.number), None))
                self._dropped.append(f'index "{definition.name}.{index.name}"')
        for position, index in enumerate(table.own_indexes):
            if index.name in kept:
                continue
            self._steps.append(
                AddIndex(number, IndexLayout(index.number, index.name, index.unique), key_reader_of(table, position))
            )
            self._note_index(table, index.number, index.name, index.fields[:-1], unique=index.unique)
            self._created.append(f'index "{definition.name}.{index.name}"')
            self.added.setdefault(number, []).append(index.name)
        if self.stored.shapes.get(definition.name) != shape_of(table):
            self._steps.append(ShowTable(table.layout))
        self.tables.append(table)

    def shapes(self, shapes: dict[str, Any]) -> None:
        """Note the shapes that hold from now on."""
        if shapes == self.stored.shapes:
            return
        current = self.stored.documents["_schemas"][0] if self.stored.documents["_schemas"] else None
        version = 1.0 if current is None else current["version"] + 1
        fields = {"schema": json.dumps(shapes, sort_keys=True), "version": version}
        self._put.append((SYSTEM_CATALOG.by_name["_schemas"], current, fields))

    def finish(self, catalog: Catalog) -> SchemaPlan:
        return SchemaPlan(catalog, tuple(self._steps), tuple(self._created), tuple(self._dropped), tuple(self._put))

    def _note_table(self, table: TableInfo) -> None:
        self._put.append((SYSTEM_CATALOG.by_name["_tables"], None, {"number": float(table.number), "name": table.name}))

    def _note_index(self, table: TableInfo, number: int, name: str, fields: tuple[str, ...], *, unique: bool) -> None:
        described = {
            "table": float(table.number),
            "number": float(number),
            "name": name,
            "fields": list(fields),
            "unique": unique,
        }
        self._put.append((SYSTEM_CATALOG.by_name["_indexes"], None, described))

    def _index_document(self, table: int, number: int) -> dict[str, Any]:
        return next(
            found for found in self.stored.documents["_indexes"] if (found["table"], found["number"]) == (table, number)
        )


def enforced(definition: Table[Any], schema: Schema) -> Table[Any]:
    """The table as it is enforced: any document where the schema's validation is switched off."""
    if schema.schema_validation:
        return definition
    open_table: Table[Any] = define_table(definition.name, v.any())
    for index in definition.indexes:
        open_table = open_table.index(index.name, list(index.fields), unique=index.unique)
    return open_table


def shape_of(table: TableInfo) -> Any:
    """The table's validator as JSON; with where whole numbers are wanted, which the export form does not say."""
    return json.loads(
        json.dumps([table.definition.validator.json, table.definition.validator.render(), table.hand_over is not None])
    )


def key_reader_of(table: TableInfo, position: int) -> Callable[[str, float, str], tuple[bytes, bytes | None]]:
    """A function from a stored row to its full key in this one of the table's own indexes, and its unique key if it is one."""
    index = table.own_indexes[position]
    unique_place = table.unique_indexes.index(index) if index.unique else None

    def key_of(id: str, creation_time: float, document: str) -> tuple[bytes, bytes | None]:
        keys, unique_keys = table.keys_of(decode_document(document), creation_time, decode_id(id)[1], 2000)
        return keys[index.position], None if unique_place is None else unique_keys[unique_place]

    return key_of


@dataclass(slots=True)
class Misfits:
    """Documents that don't fit, the first ones in words and all of them counted."""

    listed: list[str] = field(default_factory=list[str])
    total: int = 0

    def add(self, message: str) -> None:
        self.total += 1
        if len(self.listed) < MAX_MISFITS_LISTED:
            self.listed.append(message)


def _verify(
    snapshot: Snapshot, stored: StoredTables, plan: _Plan, catalog: Catalog, *, max_key: int, progress: Progress | None
) -> None:
    """Look at the documents of the tables whose shape changed or that get a new index; others were enforced all along."""
    misfits = Misfits()
    for table in plan.tables:
        if table.name not in stored.numbers:
            continue
        changed = stored.shapes.get(table.name) != shape_of(table)
        added = plan.added.get(table.number, [])
        if changed or added:
            verify_table(
                snapshot, table, catalog, misfits, shape=changed, added=added, max_key=max_key, progress=progress
            )
    if misfits.total:
        raise SchemaMismatchError(misfits.listed, total=misfits.total)


def verify_table(
    snapshot: Snapshot,
    table: TableInfo,
    catalog: Catalog,
    misfits: Misfits,
    *,
    shape: bool,
    added: list[str],
    max_key: int,
    progress: Progress | None,
) -> None:
    """Note every document of the table that does not fit its shape, whose keys are too long, or that doubles a unique key."""
    total = snapshot.count(table.number, BY_CREATION_TIME, b"", None) if progress else 0
    new_unique = [place for place, index in enumerate(table.unique_indexes) if index.name in added]
    seen: dict[int, set[int]] = {place: set() for place in new_unique}
    doubled: dict[int, set[int]] = {place: set() for place in new_unique}
    for done, (row, fields) in enumerate(_rows(snapshot, table)):
        if progress and done % 1000 == 0:
            progress(f"checking {table.name}", done, total)
        try:
            if shape:
                table.definition.validator.check(fields, catalog)
            _, unique_keys = table.keys_of(fields, row.creation_time, decode_id(row.id)[1], max_key)
        except (ValidationError, InvalidValueError) as error:
            misfits.add(f'Document with ID "{row.id}" in table "{table.name}" does not match the schema: {error}')
            continue
        for place in new_unique:
            # 64 bits of hash find every double; at a million rows a false one has odds of one to 30 million, and the second look drops it.
            if (key := unique_keys[place]) is not None:
                (doubled if hash(key) in seen[place] else seen)[place].add(hash(key))
    if any(doubled.values()):
        _name_doubles(snapshot, table, doubled, misfits, max_key=max_key)


def _name_doubles(
    snapshot: Snapshot, table: TableInfo, doubled: dict[int, set[int]], misfits: Misfits, *, max_key: int
) -> None:
    first: dict[tuple[int, bytes], str] = {}
    for row, fields in _rows(snapshot, table):
        try:
            _, unique_keys = table.keys_of(fields, row.creation_time, decode_id(row.id)[1], max_key)
        except InvalidValueError:
            continue
        for place, hashes in doubled.items():
            key = unique_keys[place]
            if key is None or hash(key) not in hashes:
                continue
            index = table.unique_indexes[place]
            if (other := first.setdefault((place, key), row.id)) != row.id:
                misfits.add(
                    f'Document with ID "{row.id}" in table "{table.name}" has the same values in the fields '
                    f'{", ".join(index.fields[:-1])} of unique index "{index.name}" as document "{other}"'
                )


def _rows(snapshot: Snapshot, table: TableInfo) -> Iterator[tuple[Row, dict[str, Any]]]:
    for row in snapshot.scan(table.number, BY_CREATION_TIME, b"", None):
        yield row, decode_document(row.document)


def documents_in(snapshot: Snapshot, table: TableInfo) -> Iterator[dict[str, Any]]:
    """All documents of the table, system fields included."""
    for row, fields in _rows(snapshot, table):
        yield {**fields, "_id": row.id, "_creationTime": row.creation_time}
