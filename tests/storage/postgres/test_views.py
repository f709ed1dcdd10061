"""PostgreSQL's views: no text in `doc` breaks one, whoever put it there; their names, and who may read them."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber.errors import StorageError
from camber.storage import CreateTable, DropTable, ShowTable, Storage, TableLayout, open_storage
from camber.values import encode_document
from tests.storage.people import Person, change_schema, commit, create_tables, inserting

KINDS = TableLayout(
    10_001,
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


@pytest.fixture
def storage(tmp_path: Path, postgres_url: str) -> Iterator[Storage]:
    """An open storage with a table that has a column of every kind."""
    storage = open_storage(tmp_path, create=True, database_url=postgres_url)
    create_tables(storage, KINDS)
    yield storage
    storage.close()


@pytest.fixture
def database(storage: Storage, postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of somebody who looks at the database, with PostgreSQL's own settings."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def insert_document(storage: Storage, number: int, document: str, table: int = KINDS.number) -> None:
    person = Person(number, "")
    commit(storage, inserting(person, table)._replace(document=document, keys=person.keys[:1], unique_keys=()))


def shown(database: psycopg.Connection[Any], field: str) -> list[Any]:
    return [
        value for (value,) in database.execute(f'SELECT "{field}" FROM camber.kinds ORDER BY "_creationTime"'.encode())
    ]


# --- Values


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("a\0b", "a␀b"),
        ("\0", "␀"),
        ("\0\0\0", "␀␀␀"),
        ("\\u0000", "\\u0000"),
        ("\\\0", "\\␀"),
        ("\\\\u0000\0\\", "\\\\u0000␀\\"),
        ('"\0"\\"', '"␀"\\"'),
        ("␀", "␀"),
        ("\x01\x7f\u2028\uffff😀\U0010ffff\n", "\x01\x7f\u2028\uffff😀\U0010ffff\n"),
    ],
    ids=ascii,
)
def test_nul_is_shown_and_everything_else_is_as_it_is(
    storage: Storage, database: psycopg.Connection[Any], text: str, visible: str
) -> None:
    insert_document(storage, 1, encode_document({"text": text, "any": text}))
    insert_document(storage, 2, encode_document({"any": [text, {"a": "\\u0000"}]}))

    assert shown(database, "text") == [visible, None]
    scalar, container = shown(database, "any")
    assert scalar == visible
    assert json.loads(container) == [visible, {"a": "\\u0000"}]
    ((stored,),) = database.execute("SELECT doc FROM camber.t10001 WHERE doc LIKE '%text%'").fetchall()
    assert json.loads(stored)["text"] == text


def test_json_of_arrays_and_objects_is_as_it_is_stored(storage: Storage, database: psycopg.Connection[Any]) -> None:
    value = {"bb": [1.0, 1e22, {"$": 1}], "a": 5, "": {"$bytes": "AP8="}}
    insert_document(storage, 1, json.dumps({"any": value}, separators=(",", ":")))

    assert shown(database, "any") == [json.dumps(value, separators=(",", ":"))]


@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 1e22, -1e22, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 2.0**53 + 2,
     math.inf, -math.inf],
)  # fmt: skip
def test_every_float_comes_back_with_the_same_bits(
    storage: Storage, database: psycopg.Connection[Any], value: float
) -> None:
    insert_document(storage, 1, encode_document({"real": value}))

    (found,) = shown(database, "real")

    assert struct.pack(">d", found) == struct.pack(">d", value)


@pytest.mark.parametrize(
    "bits", [0x7FF8 << 48, 0xFFF8 << 48, (0x7FF8 << 48) + 1, 0x7FF0000000000001, 2**64 - 1], ids=hex
)
def test_every_nan_is_nan(storage: Storage, database: psycopg.Connection[Any], bits: int) -> None:
    insert_document(storage, 1, encode_document({"real": struct.unpack(">d", bits.to_bytes(8, "big"))[0]}))

    (found,) = shown(database, "real")

    assert math.isnan(found)


def test_columns_have_sqls_types(storage: Storage, database: psycopg.Connection[Any]) -> None:
    types = database.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'camber' AND table_name = 'kinds' ORDER BY ordinal_position"
    ).fetchall()

    assert types == [
        ("_id", "text"),
        ("_creationTime", "double precision"),
        ("any", "text"),
        ("boolean", "boolean"),
        ("bytes", "bytea"),
        ("integer", "bigint"),
        ("real", "double precision"),
        ("text", "text"),
    ]


# --- Documents that were put there by hand

BROKEN = [
    "",
    "{",
    "no JSON",
    "\ufeff{}",
    "null",
    "5",
    '"text"',
    "[1,2]",
    '{"text":"a"}{}',
    '{"text":"\\u0000',
    '{"text":"\\ud800"}',
    '{"text":"\\udc00\\ud800","any":["\\ud83d"]}',
    '{"text":"\\x"}',
    '{"any":' + "[" * 10_000 + "]" * 10_000 + "}",
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"real":1e400,"integer":1e400,"any":1e400,"text":1e400}',
    '{"real":-1e400,"integer":-9223372036854775809}',
    '{"real":1e-400,"integer":1e-400}',
    '{"real":1e131071,"integer":1e131071,"any":1e131071}',
    '{"real":1e999999999}',
    '{"integer":9223372036854775808}',
    '{"integer":1.5,"real":"1.5","boolean":1,"bytes":"AP8=","text":1.5}',
    '{"integer":true,"real":true,"boolean":"true","bytes":true,"text":true,"any":true}',
    '{"integer":null,"real":null,"boolean":null,"bytes":null,"text":null,"any":null}',
    '{"integer":{},"real":{},"boolean":{},"bytes":{},"text":{},"any":{}}',
    '{"integer":[],"real":[],"boolean":[],"bytes":[],"text":[],"any":[]}',
    '{"integer":[5],"real":[5],"boolean":[true],"bytes":[{"$bytes":""}],"text":["a"],"any":["a"]}',
    '{"real":{"$float":"AAAAAAAA8D8="}}',
    '{"real":{"$float":5}}',
    '{"real":{"$float":"é"}}',
    '{"bytes":{"$bytes":"A"}}',
    '{"bytes":{"$bytes":"!!!!"}}',
    '{"bytes":{"$bytes":"===="}}',
    '{"bytes":{"$bytes":["AA=="]}}',
    '{"text":{"$bytes":"AA=="},"any":{"$bytes":"A"}}',
    '{"text":"a","text":["b"],"any":1,"any":{"c":1}}',
    '{"any":{"\\u0000":"\\u0000"},"te\\u0000xt":1}',
]


def test_no_text_put_there_by_hand_breaks_a_view_for_the_others(
    storage: Storage, database: psycopg.Connection[Any]
) -> None:
    documents = [*BROKEN, None, '{"text":"an ordinary one"}']
    for number, document in enumerate(documents):
        database.execute("INSERT INTO camber.t10001 (id, ct, doc) VALUES (%s, %s, %s)", [str(number), number, document])

    rows = database.execute('SELECT * FROM camber.kinds ORDER BY "_creationTime"').fetchall()

    assert [row[0] for row in rows] == [str(number) for number in range(len(documents))]
    assert rows[-1][2:] == (None, None, None, None, None, "an ordinary one")
    for field, _ in KINDS.columns:
        assert len(shown(database, field)) == len(documents)
        database.execute(f'SELECT count("{field}") FROM camber.kinds WHERE "{field}"::text LIKE \'a%\''.encode())


def test_a_value_of_the_wrong_kind_is_null_and_not_something_near_it(
    storage: Storage, database: psycopg.Connection[Any]
) -> None:
    insert_document(storage, 1, '{"integer":1.5,"boolean":1,"real":"1.5","bytes":"AP8="}')
    insert_document(storage, 2, '{"integer":5.0,"real":5,"text":5.0}')

    found = database.execute(
        'SELECT "integer", "boolean", "real", "bytes", "text" FROM camber.kinds ORDER BY "_creationTime"'
    ).fetchall()

    assert found == [(None, None, None, None, None), (5, None, 5.0, None, "5.0")]


def test_megabytes_of_nul_backslashes_and_bytes_are_read(storage: Storage, database: psycopg.Connection[Any]) -> None:
    size = 1_000_000
    texts = ["\0" * size, "\\" * size, "\\\0" * (size // 2)]
    for number, text in enumerate(texts):
        insert_document(storage, number, encode_document({"text": text}))
    insert_document(storage, 3, json.dumps({"bytes": {"$bytes": b64encode(bytes(size)).decode()}}))

    assert shown(database, "text") == [text.replace("\0", "␀") for text in texts] + [None]
    assert shown(database, "bytes")[3] == bytes(size)


def test_a_query_over_a_view_can_be_stopped(storage: Storage, database: psycopg.Connection[Any]) -> None:
    insert_document(storage, 1, "{}")
    endless = "SELECT count(camber.view_document('{}' || n)) FROM generate_series(1, 1000000000) AS n"

    with pytest.raises(StorageError, match="longer than 1 s"):
        storage.sql(endless, limit=1, seconds=1)


@pytest.mark.parametrize("setting", ["standard_conforming_strings = off", "search_path = ''", "force_parallel_mode = on",
                                     "jit_above_cost = 0", "bytea_output = escape"])  # fmt: skip
def test_views_read_the_same_under_any_session(
    storage: Storage, database: psycopg.Connection[Any], setting: str
) -> None:
    document = {
        "text": "a\0\\u0000",
        "bytes": b"\0\xff",
        "real": 0.1 + 0.2,
        "integer": 5.0,
        "boolean": True,
        "any": [1.0],
    }
    insert_document(storage, 1, encode_document(document))
    database.execute(f"SET {setting}".encode())

    (row,) = database.execute(
        'SELECT "text", "bytes", "real", "integer", "boolean", "any" FROM camber.kinds'
    ).fetchall()

    assert row == ("a␀\\u0000", b"\0\xff", 0.1 + 0.2, 5, True, "[1.0]")


def test_a_large_table_is_read_with_a_plan_of_several_workers_around_it(
    storage: Storage, database: psycopg.Connection[Any]
) -> None:
    database.execute(
        "INSERT INTO camber.t10001 (id, ct, doc)"
        """ SELECT n::text, n, format('{"real":%s.0,"text":"%s"}', n, repeat('x', 100)) FROM generate_series(1, 20000) AS n"""
    )
    database.execute("SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0")
    database.execute("ANALYZE camber.t10001")

    found = database.execute('SELECT count("text"), sum("real") FROM camber.kinds').fetchall()

    assert found == [(20_000, 20_000 * 20_001 / 2)]


# --- Names


def view_names(database: psycopg.Connection[Any]) -> dict[str, str]:
    """The views of users' tables, by the table they show."""
    found = database.execute(
        "SELECT DISTINCT view_name, table_name FROM information_schema.view_column_usage"
        " WHERE view_schema = 'camber' AND table_schema = 'camber'"
    )
    return {table: view for view, table in found.fetchall()}


def test_names_that_postgresql_would_cut_stay_apart(storage: Storage, database: psycopg.Connection[Any]) -> None:
    names = [*("x" * 63 + last for last in "abAB"), "x" * 63, "X" * 62, "x" * 61 + "_2"]
    layouts = [TableLayout(10_010 + place, name) for place, name in enumerate(names)]
    create_tables(storage, *layouts)

    views = view_names(database)

    expected = ["x" * 63, *("x" * 61 + f"_{number}" for number in (2, 3, 4, 5)), "X" * 62, "x" * 61 + "_6"]
    assert [views[f"t{layout.number}"] for layout in layouts] == expected


def test_fields_that_postgresql_would_cut_stay_apart(storage: Storage, database: psycopg.Connection[Any]) -> None:
    fields = ["y" * 63 + last for last in "abA"]
    create_tables(storage, TableLayout(10_010, "long", columns=tuple((field, "text") for field in fields)))
    insert_document(storage, 1, json.dumps({field: field for field in fields}), 10_010)

    found = database.execute("SELECT * FROM camber.long")

    assert [column.name for column in found.description or ()][2:] == ["y" * 63, "y" * 61 + "_2", "y" * 61 + "_3"]
    assert found.fetchall()[0][2:] == tuple(fields)


def test_names_of_two_bytes_a_letter_are_cut_between_letters(
    storage: Storage, database: psycopg.Connection[Any]
) -> None:
    create_tables(storage, TableLayout(10_010, "long", columns=(("é" * 40, "text"), ("é" * 41, "text"))))

    found = database.execute("SELECT * FROM camber.long")

    assert [column.name for column in found.description or ()][2:] == ["é" * 31, "é" * 30 + "_2"]


def test_names_that_postgresql_or_the_layout_use_get_an_underscore(
    storage: Storage, database: psycopg.Connection[Any]
) -> None:
    names = ["pg_class", "PG_stat", "t5", "T5_pkey", "t10001_pkey", "commits", "sqlite_stat1", "user", "t5x"]
    layouts = [TableLayout(10_010 + place, name) for place, name in enumerate(names)]
    create_tables(storage, *layouts)

    views = view_names(database)

    expected = ["_pg_class", "_PG_stat", "_t5", "_T5_pkey", "_t10001_pkey", "commits_2", "sqlite_stat1", "user", "t5x"]
    assert [views[f"t{layout.number}"] for layout in layouts] == expected


def test_a_thousand_columns_are_a_view(storage: Storage, database: psycopg.Connection[Any]) -> None:
    fields = [f"field{number}" for number in range(1024)]
    create_tables(storage, TableLayout(10_010, "wide", columns=tuple((field, "real") for field in fields)))
    insert_document(storage, 1, json.dumps(dict.fromkeys(fields, 1.5)), 10_010)

    assert database.execute("SELECT * FROM camber.wide").fetchall()[0][2:] == (1.5,) * 1024


# --- Being shown anew, and who may read


def show(storage: Storage, name: str, *fields: str) -> None:
    change_schema(
        storage, ShowTable(TableLayout(KINDS.number, name, columns=tuple((field, "text") for field in fields)))
    )


def test_a_view_is_found_again_under_any_name_and_comment(storage: Storage, database: psycopg.Connection[Any]) -> None:
    database.execute("ALTER VIEW camber.kinds RENAME TO sorts; COMMENT ON VIEW camber.sorts IS 'what there is'")

    show(storage, "kinds", "text")
    assert view_names(database) == {"t10001": "kinds"}

    change_schema(storage, DropTable(KINDS.number), CreateTable(TableLayout(10_002, "kinds")))
    assert view_names(database) == {"t10002": "kinds"}


def test_a_view_of_the_users_own_is_never_dropped_by_us(storage: Storage, database: psycopg.Connection[Any]) -> None:
    database.execute("CREATE VIEW camber.mine AS SELECT id, doc FROM camber.t10001")
    show(storage, "kinds", "text")
    database.execute("CREATE VIEW public.ours AS SELECT text FROM camber.kinds")

    with pytest.raises(StorageError, match=r'camber\."kinds" .* \(view public\.ours depends on view kinds\)'):
        show(storage, "kinds", "any")

    insert_document(storage, 1, '{"text":"a"}')
    assert database.execute("SELECT text FROM public.ours").fetchall() == [("a",)]
    database.execute("DROP VIEW public.ours")
    show(storage, "kinds", "any")
    assert database.execute("SELECT count(*) FROM camber.mine").fetchall() == [(1,)]


@pytest.fixture
def reader(database: psycopg.Connection[Any], postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody who may not do anything yet."""
    role = f"reader_{database.info.dbname}"
    database.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA camber TO {role}".encode())
    with psycopg.connect(postgres_url, user=role, autocommit=True) as connection:
        yield connection
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_who_may_read_a_view_needs_no_right_to_the_table(
    storage: Storage, database: psycopg.Connection[Any], reader: psycopg.Connection[Any]
) -> None:
    insert_document(storage, 1, encode_document({"text": "a\0", "any": [1.0], "bytes": b"\0", "real": 1.5}))
    database.execute(f"GRANT SELECT ON camber.kinds TO {reader.info.user}".encode())

    assert reader.execute('SELECT "text", "any", "bytes", "real" FROM camber.kinds').fetchall() == [
        ("a␀", "[1.0]", b"\0", 1.5)
    ]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT * FROM camber.t10001")


def test_who_may_read_a_view_may_read_the_one_in_its_place(
    storage: Storage, database: psycopg.Connection[Any], reader: psycopg.Connection[Any]
) -> None:
    database.execute(f"GRANT SELECT ON camber.kinds TO {reader.info.user} WITH GRANT OPTION".encode())

    show(storage, "sorts", "text", "any")

    assert reader.execute('SELECT "text", "any" FROM camber.sorts').fetchall() == []
    reader.execute("GRANT SELECT ON camber.sorts TO PUBLIC")
    show(storage, "kinds", "text")
    assert reader.execute("SELECT has_table_privilege('public', 'camber.kinds', 'SELECT')").fetchall() == [(True,)]


def test_who_may_read_some_columns_may_read_no_others_afterwards(
    storage: Storage, database: psycopg.Connection[Any], reader: psycopg.Connection[Any]
) -> None:
    database.execute(f'GRANT SELECT (_id, "text", "real") ON camber.kinds TO {reader.info.user}'.encode())

    show(storage, "kinds", "any", "text")

    assert reader.execute("SELECT _id, text FROM camber.kinds").fetchall() == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute('SELECT "any" FROM camber.kinds')


def test_default_privileges_do_not_open_a_view_that_was_closed(
    storage: Storage, database: psycopg.Connection[Any], reader: psycopg.Connection[Any]
) -> None:
    role = reader.info.user
    database.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA camber GRANT SELECT ON TABLES TO {role}".encode())
    show(storage, "kinds", "any", "text")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT * FROM camber.kinds")

    create_tables(storage, TableLayout(10_002, "new"))
    assert reader.execute("SELECT * FROM camber.new").fetchall() == []


# --- The functions under the views


def functions_version(database: psycopg.Connection[Any]) -> str:
    ((said,),) = database.execute(
        "SELECT obj_description('camber.view_document(text)'::regprocedure, 'pg_proc')"
    ).fetchall()
    return said


def test_servers_that_start_together_all_come_up(postgres_url: str, tmp_path: Path) -> None:
    def start(number: int) -> None:
        open_storage(tmp_path / str(number), create=True, database_url=postgres_url).close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(start, range(16)))

    with psycopg.connect(postgres_url) as connection:
        assert functions_version(connection) == "View functions of Camber, version 1"


def test_the_functions_of_the_newest_version_stay(
    storage: Storage, database: psycopg.Connection[Any], postgres_url: str, tmp_path: Path
) -> None:
    insert_document(storage, 1, '{"boolean":true,"text":"a"}')
    newer = """
    CREATE OR REPLACE FUNCTION camber.view_document(doc text) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN '{"text":"of a newer one"}'::jsonb;
    COMMENT ON FUNCTION camber.view_document(text) IS 'View functions of Camber, version 1000'
    """
    database.execute(newer)
    open_storage(tmp_path / "another", create=True, database_url=postgres_url).close()
    assert shown(database, "text") == ["of a newer one"]

    database.execute("COMMENT ON FUNCTION camber.view_document(text) IS 'View functions of Camber, version 0'")
    open_storage(tmp_path / "another", create=True, database_url=postgres_url).close()
    assert shown(database, "text") == ["a"]
    assert functions_version(database) == "View functions of Camber, version 1"
