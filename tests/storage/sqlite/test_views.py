"""What SQLite's views show as only SQLite can, and the names that SQLite keeps for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from camber.storage import Storage, TableLayout, open_storage
from tests.storage.people import Person, commit, create_tables, inserting

ODD = TableLayout(10_001, "odd", columns=(("bytes", "bytes"), ("real", "real"), ("text", "text")))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = open_storage(tmp_path, create=True)
    yield storage
    storage.close()


def insert_document(storage: Storage, document: str, table: int = ODD.number) -> None:
    person = Person(1, "")
    commit(storage, inserting(person, table)._replace(document=document, keys=person.keys[:1], unique_keys=()))


def test_bytes_are_base64_nan_is_null_and_text_is_exact(storage: Storage) -> None:
    create_tables(storage, ODD)
    insert_document(storage, '{"bytes":{"$bytes":"AP8="},"real":{"$float":"AAAAAAAA+H8="},"text":"é\\u0000b"}')

    assert storage.sql("SELECT bytes, real, text FROM odd", limit=1, seconds=30).rows == [("AP8=", None, "é\0b")]


def test_names_that_sqlite_keeps_for_itself_get_an_underscore(storage: Storage) -> None:
    create_tables(storage, TableLayout(10_001, "sqlite_stat1"), TableLayout(10_002, "SQLITE_master"))

    for view in ("_sqlite_stat1", "_SQLITE_master"):
        assert storage.sql(f"SELECT count(*) FROM {view}", limit=1, seconds=30).rows == [(0,)]


def test_the_longest_names_stay_as_they_are(storage: Storage) -> None:
    layouts = [
        TableLayout(10_001 + place, "x" * 63 + last, columns=(("y" * 63 + last, "text"),))
        for place, last in enumerate("ab")
    ]
    create_tables(storage, *layouts)

    for layout in layouts:
        found = storage.sql(f"SELECT * FROM {layout.name}", limit=1, seconds=30)
        assert found.columns == ("_id", "_creationTime", layout.columns[0][0])
