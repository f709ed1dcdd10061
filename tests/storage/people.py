"""A small world for storage tests: tables of people as rows and keys, and the words to write them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from camber.storage import (
    BY_CREATION_TIME,
    CommitRow,
    CreateTable,
    IndexLayout,
    Row,
    RowWrite,
    SchemaStep,
    Snapshot,
    Storage,
    TableLayout,
    Timestamp,
)

BY_NAME = 1
BY_EMAIL = 2

PEOPLE = TableLayout(
    10_001,
    "people",
    indexes=(IndexLayout(BY_NAME, "by_name"), IndexLayout(BY_EMAIL, "by_email", unique=True)),
    columns=(("email", "text"), ("name", "text")),
)


@dataclass(frozen=True)
class Person:
    """One person; `keys` and the writes are what the layer above makes of a document."""

    number: int
    name: str
    email: str | None = None
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.number:032d}"

    @property
    def creation_time(self) -> float:
        return 1_000.0 + self.number

    @property
    def document(self) -> str:
        email = "" if self.email is None else f'"email":"{self.email}",'
        return f'{{{email}"name":"{self.name}","note":"{self.note}"}}'

    @property
    def keys(self) -> tuple[bytes, bytes, bytes]:
        tail = b"\x04" + struct.pack(">d", self.creation_time) + struct.pack(">QQ", 0, self.number)
        return tail, name_key(self.name) + tail, (self.email_key or b"\x01") + tail

    @property
    def email_key(self) -> bytes | None:
        return None if self.email is None else name_key(self.email)

    def row(self, index: int | None = BY_CREATION_TIME) -> Row:
        """As an index yields it; without an index as by id."""
        key = b"" if index is None else self.keys[index]
        return Row(self.id, self.creation_time, self.document, key)

    def but(self, **changes: object) -> Person:
        return replace(self, **changes)  # pyright: ignore[reportArgumentType]


def name_key(name: str) -> bytes:
    return b"\x07" + name.encode() + b"\x00"


def id_key(person: Person) -> bytes:
    return b"\x07" + person.id.encode() + b"\x00"


def inserting(person: Person, table: int = PEOPLE.number) -> RowWrite:
    return RowWrite(table, person.id, person.creation_time, person.document, person.keys, (person.email_key,), True)


def updating(before: Person, after: Person, *, keys_known: bool = True) -> RowWrite:
    return inserting(after)._replace(is_new=False, old_keys=before.keys if keys_known else ())


def deleting(person: Person) -> RowWrite:
    return RowWrite(PEOPLE.number, person.id, person.creation_time, None)


def commit(storage: Storage, *writes: RowWrite, touched: bytes = b"", token: bytes = b"token") -> Timestamp:
    """Commit the writes one nanosecond after the commit before them."""
    group = storage.write_group()
    try:
        at = Timestamp(group.timestamp + 1)
        group.lock()
        group.commit(writes, CommitRow(at, touched, token))
    finally:
        group.close()
    return at


def create_tables(storage: Storage, *layouts: TableLayout) -> None:
    change_schema(storage, *(CreateTable(layout) for layout in layouts))


def change_schema(
    storage: Storage,
    *steps: SchemaStep,
    writes: Iterable[RowWrite] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Timestamp:
    """Take the steps in a commit one nanosecond after the commit before it."""
    group = storage.write_group(locked=True)
    try:
        at = Timestamp(group.timestamp + 1)
        group.apply(steps, progress)
        group.commit(list(writes), CommitRow(at, b"", b"schema"))
    finally:
        group.close()
    return at


def last_timestamp(storage: Storage) -> Timestamp:
    snapshot = storage.snapshot()
    snapshot.close()
    return snapshot.timestamp


def everyone(storage: Storage, index: int = BY_CREATION_TIME) -> list[Row]:
    """All people in the order of the index."""
    snapshot = storage.snapshot()
    try:
        return everyone_in(snapshot, index)
    finally:
        snapshot.close()


def everyone_in(snapshot: Snapshot, index: int = BY_CREATION_TIME) -> list[Row]:
    return list(snapshot.scan(PEOPLE.number, index, b"", None))


def rows(people: Iterable[Person], index: int | None = BY_CREATION_TIME) -> list[Row]:
    return [person.row(index) for person in people]
