"""Every driver changes tables and indexes in one transaction, with the rows and log row that go with it, or not at all."""

from __future__ import annotations

import json
import time

import pytest

from camber.errors import StorageError
from camber.storage import (
    BY_CREATION_TIME,
    AddIndex,
    CommitConflict,
    CreateTable,
    DropIndex,
    DropTable,
    IndexLayout,
    SchemaStep,
    ShowTable,
    Storage,
    TableLayout,
    UniqueKeyTaken,
)
from tests.storage.people import (
    BY_EMAIL,
    BY_NAME,
    PEOPLE,
    Person,
    change_schema,
    commit,
    everyone,
    everyone_in,
    inserting,
    last_timestamp,
    name_key,
    rows,
    updating,
)

PATIENCE = 30.0
BY_NOTE = 3
PETS = TableLayout(10_002, "pets", PEOPLE.indexes, PEOPLE.columns)
FOLK = [Person(number, f"name {number % 7}", note=f"note {number}") for number in range(1200)]


def note_keys(id: str, creation_time: float, document: str) -> tuple[bytes, bytes | None]:
    note = json.loads(document)["note"]
    return name_key(note) + FOLK[int(id)].keys[0], name_key(note)


def test_a_table_is_created_together_with_its_first_rows(storage: Storage) -> None:
    before = last_timestamp(storage)
    cat = Person(1, "cat")
    change_schema(storage, CreateTable(PETS), writes=[inserting(cat, PETS.number)])

    snapshot = storage.snapshot()
    assert list(snapshot.scan(PETS.number, BY_NAME, b"", None)) == rows([cat], BY_NAME)
    assert [row.token for row in storage.commits_after(before)] == [b"schema"]


def test_a_dropped_table_is_gone(storage: Storage) -> None:
    commit(storage, inserting(FOLK[0]))
    before = storage.snapshot()
    assert before.count(PEOPLE.number, BY_NAME, b"", None) == 1
    was_changed = changes_beside_readers(storage, DropTable(PEOPLE.number))
    assert before.count(PEOPLE.number, BY_NAME, b"", None) == 1
    before.close()
    if not was_changed:
        change_once_readers_have_left(storage, DropTable(PEOPLE.number))

    assert everyone(storage) == []
    with pytest.raises(StorageError):
        commit(storage, inserting(FOLK[0]))
    with pytest.raises(StorageError):
        storage.sql("SELECT * FROM people", limit=1, seconds=PATIENCE)


@pytest.mark.parametrize("unique", [False, True])
def test_a_new_index_holds_the_rows_that_are_there_and_those_to_come(storage: Storage, unique: bool) -> None:
    commit(storage, *map(inserting, FOLK[:-1]))
    change_schema(storage, AddIndex(PEOPLE.number, IndexLayout(BY_NOTE, "by_note", unique), note_keys))

    last = FOLK[-1]
    key, unique_key = note_keys(last.id, last.creation_time, last.document)
    unique_keys = (None, unique_key) if unique else (None,)
    commit(storage, inserting(last)._replace(keys=(*last.keys, key), unique_keys=unique_keys))

    found = storage.snapshot().scan(PEOPLE.number, BY_NOTE, b"", None)
    assert [row.document for row in found] == sorted(
        (person.document for person in FOLK), key=lambda d: d.split("note")[1:]
    )


def test_progress_is_told_while_columns_are_filled(storage: Storage) -> None:
    commit(storage, *map(inserting, FOLK))
    told: list[tuple[int, int]] = []
    steps = [AddIndex(PEOPLE.number, IndexLayout(number, f"by_{number}"), note_keys) for number in (3, 4)]
    change_schema(storage, *steps, progress=lambda *done: told.append(done))

    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (told[-1][1], told[-1][1])


def test_rows_that_share_a_key_refuse_a_unique_index(storage: Storage) -> None:
    commit(storage, inserting(Person(0, "a", note="same")), inserting(Person(1, "b", note="same")))
    before = last_timestamp(storage)
    unique = AddIndex(PEOPLE.number, IndexLayout(BY_NOTE, "by_note", unique=True), note_keys)

    with pytest.raises(UniqueKeyTaken) as taken:
        change_schema(storage, unique)

    assert (taken.value.table, taken.value.index) == (PEOPLE.number, BY_NOTE)
    assert last_timestamp(storage) == before


def test_a_key_that_can_not_be_made_undoes_the_whole_change(storage: Storage) -> None:
    commit(storage, *map(inserting, FOLK))
    before = last_timestamp(storage)

    def fail_late(id: str, creation_time: float, document: str) -> tuple[bytes, bytes | None]:
        if int(id) == 1100:
            raise ValueError("no key for this one")
        return note_keys(id, creation_time, document)

    with pytest.raises(ValueError, match="no key for this one"):
        change_schema(
            storage,
            CreateTable(PETS),
            DropIndex(PEOPLE.number, BY_EMAIL),
            AddIndex(PEOPLE.number, IndexLayout(BY_NOTE, "by_note"), fail_late),
            writes=[inserting(Person(1, "cat"), PETS.number)],
        )

    assert last_timestamp(storage) == before
    assert storage.snapshot().count(PETS.number, BY_CREATION_TIME, b"", None) == 0
    assert len(everyone(storage, BY_EMAIL)) == len(FOLK)
    assert storage.sql("SELECT count(*) FROM people", limit=1, seconds=PATIENCE).rows == [(len(FOLK),)]
    commit(storage, inserting(Person(5000, "still writable", "e@example.com")))


def test_a_row_that_is_refused_undoes_the_whole_change(storage: Storage) -> None:
    twice = Person(1, "a", "same"), Person(2, "b", "same")
    with pytest.raises(UniqueKeyTaken):
        change_schema(storage, CreateTable(PETS), writes=[inserting(one, PETS.number) for one in twice])

    change_schema(storage, CreateTable(PETS), writes=[inserting(twice[0], PETS.number)])


def test_a_dropped_index_is_gone_and_the_others_stay(storage: Storage) -> None:
    folk = [person.but(email=f"{person.number}@example.com") for person in FOLK[:50]]
    commit(storage, *map(inserting, folk))
    change_schema(storage, DropIndex(PEOPLE.number, BY_NAME))

    after = folk[0].but(email=None)
    without_name = updating(folk[0], after)
    keys, old_keys = without_name.keys, without_name.old_keys
    commit(storage, without_name._replace(keys=(keys[0], keys[2]), old_keys=(old_keys[0], old_keys[2])))

    assert everyone(storage, BY_EMAIL) == sorted(rows([after, *folk[1:]], BY_EMAIL), key=lambda row: row.key)
    with pytest.raises(StorageError, match="no index"):
        everyone(storage, BY_NAME)


def test_a_dropped_index_can_be_built_again(storage: Storage) -> None:
    commit(storage, *map(inserting, FOLK))
    by_name = AddIndex(
        PEOPLE.number, IndexLayout(BY_NAME, "by_name"), lambda id, _time, _document: (FOLK[int(id)].keys[BY_NAME], None)
    )
    change_schema(storage, DropIndex(PEOPLE.number, BY_NAME), by_name)

    assert everyone(storage, BY_NAME) == sorted(rows(FOLK, BY_NAME), key=lambda row: row.key)


def test_a_snapshot_from_before_a_change_reads_on(storage: Storage) -> None:
    commit(storage, *map(inserting, FOLK))
    before = storage.snapshot()
    scan = before.scan(PEOPLE.number, BY_NAME, b"", None)
    first = next(scan)
    folk = ShowTable(PETS.__class__(PEOPLE.number, "folk", (PEOPLE.indexes[1],)))
    was_changed = changes_beside_readers(storage, DropIndex(PEOPLE.number, BY_NAME), folk)

    assert [first, *scan] == sorted(rows(FOLK, BY_NAME), key=lambda row: row.key)
    before.close()
    if not was_changed:
        change_once_readers_have_left(storage, DropIndex(PEOPLE.number, BY_NAME), folk)


def test_snapshots_from_before_each_of_many_changes_read_on(storage: Storage) -> None:
    commit(storage, *map(inserting, FOLK))
    snapshots = []
    for name in ("folk", "people", "folk", "people"):
        snapshots.append(storage.snapshot())
        assert len(everyone_in(snapshots[-1], BY_EMAIL)) == len(FOLK)
        shown = TableLayout(PEOPLE.number, name, PEOPLE.indexes, PEOPLE.columns)
        change_schema(storage, ShowTable(shown))
        storage.snapshot().close()
    changes_beside_readers(storage, DropIndex(PEOPLE.number, BY_NAME))

    snapshots.pop(1).close()
    changes_beside_readers(storage, DropIndex(PEOPLE.number, BY_EMAIL))
    for snapshot in snapshots:
        assert everyone_in(snapshot, BY_NAME) == sorted(rows(FOLK, BY_NAME), key=lambda row: row.key)
        assert len(everyone_in(snapshot, BY_EMAIL)) == len(FOLK)
    assert len(everyone(storage)) == len(FOLK)


def change_once_readers_have_left(storage: Storage, *steps: SchemaStep) -> None:
    """Whoever closes a snapshot does not wait until the database has ended it."""
    deadline = time.monotonic() + PATIENCE
    while not changes_beside_readers(storage, *steps):
        assert time.monotonic() < deadline


def changes_beside_readers(storage: Storage, *steps: SchemaStep) -> bool:
    """Try a change while snapshots are open. Where they would lose what they read, it is refused and can be tried again."""
    before = last_timestamp(storage)
    try:
        change_schema(storage, *steps)
    except CommitConflict:
        assert last_timestamp(storage) == before
        return False
    return True
