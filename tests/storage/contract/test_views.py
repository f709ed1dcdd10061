"""Every driver shows tables under the users' names with typed columns, and no document breaks them."""

from __future__ import annotations

import json
import math
import string

import pytest

from camber.storage import CreateTable, DropTable, ShowTable, Storage, TableLayout
from tests.storage.people import PEOPLE, Person, change_schema, commit, create_tables, inserting

KINDS = TableLayout(
    10_003,
    "kinds",
    columns=(
        ("any", "any"),
        ("boolean", "boolean"),
        ("bytes", "bytes"),
        ("integer", "integer"),
        ("real", "real"),
        ("text", "text"),
    ),
)


PATIENCE = 30.0


def select(storage: Storage, statement: str) -> list[tuple[object, ...]]:
    return storage.sql(statement, limit=1000, seconds=PATIENCE).rows


def insert_document(storage: Storage, number: int, document: str, table: int = KINDS.number) -> None:
    person = Person(number, "")
    commit(storage, inserting(person, table)._replace(document=document, keys=person.keys[:1], unique_keys=()))


def test_a_view_has_the_tables_name_and_its_fields(storage: Storage) -> None:
    ada = Person(1, "ada", "ada@example.com")
    commit(storage, inserting(ada))

    result = storage.sql("SELECT * FROM people WHERE name = 'ada'", limit=10, seconds=PATIENCE)

    assert result.columns == ("_id", "_creationTime", "email", "name")
    assert result.rows == [(ada.id, ada.creation_time, "ada@example.com", "ada")]


def test_names_of_tables_that_differ_in_case_only_get_a_suffix(storage: Storage) -> None:
    names = ["People", "PEOPLE", "commits", "t10001", "order", "_kinds"]
    layouts = [TableLayout(10_010 + number, name) for number, name in enumerate(names)]
    create_tables(storage, *layouts)
    for layout in layouts:
        insert_document(storage, layout.number, "{}", layout.number)

    views = ["People_2", "PEOPLE_3", "commits_2", "_t10001", "order", "_kinds"]
    for layout, view in zip(layouts, views, strict=True):
        assert select(storage, f'SELECT _id FROM "{view}"') == [(Person(layout.number, "").id,)]


def test_columns_that_differ_in_case_only_get_a_suffix(storage: Storage) -> None:
    fields = ["A", "a", "_ID", "b"]
    create_tables(storage, TableLayout(KINDS.number, "kinds", columns=tuple((field, "text") for field in fields)))
    insert_document(storage, 1, json.dumps({field: field for field in fields}))

    result = storage.sql("SELECT * FROM kinds", limit=1, seconds=PATIENCE)

    assert result.columns == ("_id", "_creationTime", "A", "a_2", "_ID_2", "b")
    assert result.rows[0][2:] == ("A", "a", "_ID", "b")


def test_field_names_of_any_characters_are_columns(storage: Storage) -> None:
    printable = [chr(code) for code in range(32, 127)]
    odd = ["a.b", 'say "hi"', "it's", "back\\slash", '\\"', "[0]", "a[1]", "$x", "--", "; DROP TABLE t10001;", "%s {0}"]
    fields = [name for name in dict.fromkeys(printable + odd) if name not in string.ascii_uppercase]
    create_tables(storage, TableLayout(KINDS.number, "kinds", columns=tuple((field, "any") for field in fields)))
    insert_document(storage, 1, json.dumps({field: f"value of {field}" for field in fields}))

    result = storage.sql("SELECT * FROM kinds", limit=1, seconds=PATIENCE)

    assert list(result.columns[2:]) == fields
    assert list(result.rows[0][2:]) == [f"value of {field}" for field in fields]


def test_values_of_every_kind_have_their_sql_form(storage: Storage) -> None:
    create_tables(storage, KINDS)
    insert_document(
        storage,
        1,
        '{"any":[1.0,{"a":null}],"boolean":true,"integer":9223372036854775807,"real":0.1,"text":"é\\\\u0000😀"}',
    )
    insert_document(storage, 2, '{"boolean":false,"integer":-9223372036854775808,"real":5.0,"text":""}')

    found = select(storage, 'SELECT "any", "boolean", "integer", "real", "text" FROM kinds ORDER BY "_creationTime"')

    assert found == [
        ('[1.0,{"a":null}]', True, 2**63 - 1, 0.1, "é\\u0000😀"),
        (None, False, -(2**63), 5.0, ""),
    ]
    assert isinstance(found[1][3], float)


def test_a_value_of_64_levels_is_shown_whole(storage: Storage) -> None:
    """With the document around it; values have 64 levels at most, of which the database stores 16."""
    create_tables(storage, KINDS)
    arrays = "[" * 63 + "]" * 63
    objects = '{"a":' * 62 + "null" + "}" * 62
    insert_document(storage, 1, f'{{"any":{arrays}}}')
    insert_document(storage, 2, f'{{"any":{objects},"text":"beside it"}}')

    found = select(storage, 'SELECT "any", "text" FROM kinds ORDER BY "_creationTime"')

    assert found == [(arrays, None), (objects, "beside it")]


def test_special_floats_are_sqls_own(storage: Storage) -> None:
    create_tables(storage, KINDS)
    for number, special in enumerate(["AAAAAAAA8H8=", "AAAAAAAA8P8=", "AAAAAAAAAIA="]):
        insert_document(storage, number, f'{{"real":{{"$float":"{special}"}}}}')

    values = [row[0] for row in select(storage, 'SELECT "real" FROM kinds ORDER BY "_creationTime"')]

    assert values == [math.inf, -math.inf, 0.0]
    assert math.copysign(1.0, values[2]) == -1.0  # pyright: ignore[reportArgumentType]


WORST = [
    '{"any":' + "[" * 63 + "]" * 63 + "}",
    '{"text":"\\u0000\\u0001\\u001f\\\\\\"\x7f"}',
    '{"real":' + "1" + "0" * 308 + ".0}",
    '{"real":0.' + "0" * 323 + "5}",
    '{"real":{"$float":"AAAAAAAA+H8="},"bytes":{"$bytes":""}}',
    '{"real":{"a":1.0},"bytes":5.0,"integer":[],"text":{"$bytes":"AA=="},"boolean":null}',
    '{"real":"text","bytes":"text","integer":1.5,"text":9007199254740993,"boolean":"x"}',
    '{"any":{"":{"a.b":{"\\"":1.0}}}}',
    '{"text":"' + "x" * 1_000_000 + '"}',
    "{}",
]


def test_the_worst_documents_do_not_break_a_view_for_the_others(storage: Storage) -> None:
    create_tables(storage, KINDS)
    for number, document in enumerate(WORST):
        insert_document(storage, number, document)
    insert_document(storage, 100, '{"text":"an ordinary one"}')

    found = storage.sql('SELECT * FROM kinds ORDER BY "_creationTime"', limit=100, seconds=PATIENCE)

    assert len(found.rows) == len(WORST) + 1
    assert found.rows[-1][found.columns.index("text")] == "an ordinary one"
    assert select(storage, "SELECT count(*) FROM kinds WHERE text = 'an ordinary one'") == [(1,)]


@pytest.mark.parametrize("value", [1.7976931348623157e308, 5e-324, 0.1 + 0.2, 123456789.12345678, 2.0**53 + 2, 1e22])
def test_floats_without_exponent_are_exact(storage: Storage, value: float) -> None:
    from decimal import Decimal

    create_tables(storage, KINDS)
    text = format(Decimal(repr(value)), "f")
    insert_document(storage, 1, f'{{"real":{text if "." in text else text + ".0"}}}')

    assert select(storage, 'SELECT "real" FROM kinds') == [(value,)]


def test_a_view_can_be_shown_anew_with_other_columns_and_name(storage: Storage) -> None:
    ada = Person(1, "ada", "ada@example.com")
    commit(storage, inserting(ada))
    shown = TableLayout(PEOPLE.number, "folk", PEOPLE.indexes, (("name", "text"),))
    change_schema(storage, ShowTable(shown))

    assert select(storage, "SELECT * FROM folk") == [(ada.id, ada.creation_time, "ada")]
    commit(storage, inserting(Person(2, "bob")))
    assert select(storage, "SELECT count(*) FROM folk") == [(2,)]


def test_a_name_is_free_again_when_its_table_is_dropped(storage: Storage) -> None:
    create_tables(storage, KINDS)
    again = TableLayout(10_004, "kinds")
    change_schema(storage, DropTable(KINDS.number), CreateTable(again))
    insert_document(storage, 1, "{}", again.number)

    assert select(storage, "SELECT count(*) FROM kinds") == [(1,)]
