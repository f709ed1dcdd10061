"""The worst documents come back bit for bit on both engines, and break no SQL tool that reads while the server writes."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import shutil
import sqlite3
import struct
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pandas as pd
import psycopg
import pytest

from camber.values import Int64, decode_document, decode_value, encode_document, encode_value, to_json
from tests.crashes.servers import HttpClient, Server, serving
from tests.postgres.cluster import Cluster

APPLICATION = Path(__file__).with_name("worst_application")
LONG = "x" * 63
LONG_FIELDS = [LONG + last for last in "abA"]
PATIENCE = 120.0
# The reasons of refusals reach the client, and a function may take as long as a busy machine needs.
DEV = {"CAMBER_DEV": "1", "CAMBER_MUTATION_SECONDS": "60", "CAMBER_QUERY_SECONDS": "60"}

with closing(sqlite3.connect(":memory:")) as _connection:
    SQLITE_ENDS_TEXT_AT_NUL = _connection.execute("""SELECT json_extract('["a\\u0000b"]', '$[0]')""").fetchone() == (
        "a",
    )
    """Python's SQLite may be an older one than Camber's, and does so in json_extract."""

Document = dict[str, Any]
Row = dict[str, Any]


# --- The documents


def nested(levels: int) -> Any:
    value: Any = "\0"
    for level in range(levels):
        value = [value] if level % 2 else {"a.b\"\\'$": value}
    return value


def float_of(bits: int) -> float:
    return struct.unpack(">d", bits.to_bytes(8, "big"))[0]


TEXTS = [
    "",
    "\0",
    "a\0b\0\0",
    "\\u0000",
    "\\\0",
    "\\\\u0000\0",
    "\x01\x1f\x7f\x80\u2028\u2029\ufeff\uffff",
    "😀\U0010ffff\ud7ff\ue000",
    "e\u0301 é",
    "␀",
    "'; DROP TABLE kinds; --",
    "\"quotes\", 'more', `these`, $$ and $camber$",
    "%s {0} \\N \\.",
    "NULL",
    "$bytes",
    " \t\r\n ",
    "long " * 40_000,
]
FLOATS = [
    0.0, -0.0, 1e22, -1e22, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1 + 0.2, 1e16, 1e-5, 1e-7,
    2.0**53 + 2, math.inf, -math.inf, math.nan, float_of(0xFFF8000000000000), float_of(0x7FF0000000000001),
]  # fmt: skip
INT64S = [-(2**63), 2**63 - 1, 0, -1, 2**53 + 1]
BYTES = [b"", b"\0", b"\xff\xfe", bytes(range(256)), b"\0" * 100_000]
CONTAINERS: list[Any] = [
    nested(15),
    [],
    {},
    {"": {"": ""}},
    {" ": 1.0, "a.b": 2.0, '"': 3.0, "'": 4.0, "\\": 5.0, "\\u0000": 6.0, "[0]": 7.0, "a$": 8.0, "--": 9.0},
    {"bytes": "$bytes", "float": {"a$float": "AAAAAAAA+H8="}},
    {"zz": 1.0, "a": 2.0, "é"[:0]: None},
    [b"\0", math.nan, -0.0, Int64(2**63 - 1), 1e22, 5e-324, "\0", None, True, [[]]],
    [float(number) for number in range(8192)],
]

KINDS: list[Document] = [
    *({"text": text, "any": text} for text in TEXTS),
    *({"number": number, "any": number} for number in FLOATS),
    *({"int64": Int64(number), "any": Int64(number)} for number in INT64S),
    *({"bytes": data, "any": data} for data in BYTES),
    *({"boolean": truth, "any": truth} for truth in (True, False)),
    *({"any": container} for container in CONTAINERS),
    {"any": None},
    {},
    {"text": "\0", "number": -0.0, "int64": Int64(-(2**63)), "bytes": b"\0", "boolean": False, "any": [{"": "\0"}]},
]
LONGEST: list[Document] = [dict(zip(LONG_FIELDS, texts, strict=True)) for texts in (("a", "b", "A"), ("\0", "", "😀"))]
WORST: dict[str, list[Document]] = {"kinds": KINDS, **dict.fromkeys(LONG_FIELDS, LONGEST), "anything": KINDS}


# --- The engines, and how each shows what is stored


class Engine(ABC):
    """A server on one kind of database, and what its views are expected to show."""

    name: ClassVar[str]
    views: ClassVar[Mapping[str, str]]
    """The names of the views, by table."""
    long_columns: ClassVar[Sequence[str]]
    """What the columns of LONG_FIELDS are called; they are made in the order of their names, `A` before `a`."""
    bits_of_number: ClassVar[str]
    """What gives the bits of the column `number` in hex."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @abstractmethod
    def connect(self) -> Any:
        """A connection of Python's to the database itself."""

    @abstractmethod
    def shell(self, statement: str) -> list[Row]:
        """What the database's own command line gives for it."""

    @staticmethod
    @abstractmethod
    def shown(field: str, value: Any) -> Any:
        """What a column of this field shows for this value."""


class OnSqlite(Engine):
    name = "sqlite"
    views = {"kinds": "kinds", "anything": "anything"} | {
        LONG + "a": LONG + "a",
        LONG + "b": LONG + "b",
        LONG + "A": LONG + "A_2",
    }
    long_columns = (LONG + "a_2", LONG + "b", LONG + "A")
    bits_of_number = (
        "CASE WHEN number IS NOT NULL THEN lower(hex(ieee754_to_blob(number))) END"  # the command line has it
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._file = server.data / "camber.sqlite3"

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=PATIENCE)

    def shell(self, statement: str) -> list[Row]:
        if (program := shutil.which("sqlite3")) is None:
            pytest.skip("there is no sqlite3")
        command = [program, "-readonly", "-json", "-cmd", f".timeout {PATIENCE * 1000:.0f}", self._file, statement]
        said = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True).stdout
        return json.loads(said, strict=False) if said else []

    @staticmethod
    def shown(field: str, value: Any) -> Any:
        if isinstance(value, list | dict) or (field == "any" and is_marked(value)):
            return json_of(value)
        if isinstance(value, bytes):
            return b2a_base64(value, newline=False).decode()
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, str) and SQLITE_ENDS_TEXT_AT_NUL:
            return value.split("\0")[0]
        return int(value) if isinstance(value, bool | Int64) else value


class OnPostgres(Engine):
    name = "postgres"
    views = {"kinds": "camber.kinds", "anything": "camber.anything"} | {
        LONG + "a": f"camber.{LONG}",
        LONG + "b": f"camber.{LONG[:-2]}_2",
        LONG + "A": f"camber.{LONG[:-2]}_3",
    }
    long_columns = (LONG[:-2] + "_2", LONG[:-2] + "_3", LONG)
    bits_of_number = "encode(float8send(number), 'hex')"

    def __init__(self, server: Server, url: str, programs: Path) -> None:
        super().__init__(server)
        self.url, self._psql = url, programs / "psql"

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def shell(self, statement: str) -> list[Row]:
        as_json = f"SELECT row_to_json(r) FROM ({statement}) AS r"
        said = self._run_psql(as_json, "--csv", "-t").decode()
        csv.field_size_limit(1 << 30)
        return [json.loads(cell) for (cell,) in csv.reader(io.StringIO(said, newline=""))]

    def copy_to(self, file: Path, view: str) -> None:
        """Write the whole view as CSV, as psql does."""
        file.write_bytes(self._run_psql(f"COPY (SELECT * FROM {view}) TO STDOUT (FORMAT csv, HEADER)"))

    def _run_psql(self, statement: str, *options: str) -> bytes:
        command = [self._psql, "-X", "-q", *options, "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", statement]
        return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True).stdout

    @staticmethod
    def shown(field: str, value: Any) -> Any:
        if value is None or (field != "any" and isinstance(value, bool | float | bytes)):
            return value
        if isinstance(value, str):
            return value.replace("\0", "␀")
        return int(value) if field == "int64" else json_of(value)


def is_marked(value: Any) -> bool:
    """Whether it is stored as an object of one field with a `$`."""
    return '{"$' in json_of(value)


def json_of(value: Any) -> str:
    """The JSON in which a value is stored within its document."""
    return encode_document({"a": value})[len('{"a":') : -1]


def same(shown: Any, expected: Any) -> bool:
    """Whether a tool shows this, to the bit; JSON text may be written in another way where it holds a NUL."""
    if isinstance(expected, float) and isinstance(shown, float):
        both_nan = math.isnan(shown) and math.isnan(expected)
        return both_nan or struct.pack(">d", shown) == struct.pack(">d", expected)
    if isinstance(expected, str) and isinstance(shown, str) and "\\u0000" in expected and shown != expected:
        return json.loads(shown) == json.loads(expected.replace("\\\\", "\\u005c").replace("\\u0000", "\\u2400"))
    return type(shown) is type(expected) and shown == expected


# --- A server with the documents in it


class Written:
    """A database with the worst documents in it; `ids` are theirs, by table."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with closing(engine.server.client()) as client:
            self.ids = {
                table: [insert(client, table, document) for document in documents] for table, documents in WORST.items()
            }

    def expected(self) -> dict[str, Row]:
        """What the view of kinds shows of them, by id."""
        fields = ("any", "boolean", "bytes", "int64", "number", "text")
        return {
            id: {field: self.engine.shown(field, document.get(field)) for field in fields}
            for id, document in zip(self.ids["kinds"], KINDS, strict=True)
        }


def call(client: HttpClient, path: str, args: Mapping[str, object], *, query: bool = False) -> Any:
    answer = client.call(path, args, query=query)
    assert answer.end == "done", answer
    return answer.value


def insert(client: HttpClient, table: str, document: Document) -> str:
    return call(client, "documents:insert", {"table": table, "document": to_json(document)})


@contextmanager
def on_engine(name: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    if name == "sqlite":
        with serving(APPLICATION, folder / "data", env=DEV) as server:
            yield OnSqlite(server)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    url = cluster.new_database()
    try:
        with serving(APPLICATION, folder / "data", env=DEV | {"CAMBER_DATABASE_URL": url}) as server:
            yield OnPostgres(server, url, cluster.programs)
    finally:
        cluster.drop_database(url)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    with on_engine(request.param, tmp_path_factory.mktemp(request.param), request) as engine:
        yield Written(engine)


class Writer:
    """Somebody who goes on inserting and replacing the worst documents of all tables."""

    def __init__(self, server: Server) -> None:
        self.writes, self.error = 0, ""
        self._server, self._ended = server, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with closing(self._server.client()) as client:
                self._write(client)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to say so
            self.error = repr(error)

    def _write(self, client: HttpClient) -> None:
        small = [
            (table, document)
            for table, documents in WORST.items()
            for document in documents
            if len(encode_document(document)) < 10_000
        ]
        for (table, document), (_, other) in zip(
            itertools.cycle(small), itertools.cycle(reversed([one for one in small if one[0] != "kinds"]))
        ):
            if self._ended.is_set():
                return
            id = insert(client, table, document)
            if table == "anything":
                call(client, "documents:put", {"table": table, "id": id, "document": to_json(other)})
            self.writes += 1

    def end(self) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def while_writing(written: Written) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Does something again and again until 20 documents were written meanwhile, and no write failed."""
    writer = Writer(written.engine.server)

    def repeat(read: Callable[[], None]) -> None:
        before, deadline = writer.writes, time.monotonic() + PATIENCE
        while writer.writes < before + 20:
            assert not writer.error
            assert time.monotonic() < deadline, f"{writer.writes - before} writes"
            read()

    yield repeat
    writer.end()
    assert not writer.error


# --- Claims


def test_every_document_comes_back_bit_for_bit(written: Written) -> None:
    with closing(written.engine.server.client()) as client:
        for table, ids in written.ids.items():
            for id, document in zip(ids, WORST[table], strict=True):
                read: Any = decode_value(call(client, "documents:one", {"table": table, "id": id}, query=True))
                assert (read.pop("_id"), type(read.pop("_creationTime"))) == (id, float)
                assert encode_value(read) == encode_value(document)


def test_what_is_stored_is_the_same_on_every_engine(written: Written) -> None:
    with closing(written.engine.connect()) as connection:
        for table, ids in written.ids.items():
            number = number_of(written.engine, connection, table)
            stored = dict(connection.execute(f"SELECT id, doc FROM {number}").fetchall())
            for id, document in zip(ids, WORST[table], strict=True):
                assert stored[id] == encode_document(document)
                assert encode_value(decode_document(stored[id])) == encode_value(document)


def number_of(engine: Engine, connection: Any, table: str) -> str:
    schema = "camber." if engine.name == "postgres" else ""
    ((number,),) = connection.execute(f"SELECT number FROM {schema}_tables WHERE name = '{table}'").fetchall()
    return f"{schema}t{number:.0f}"


def test_a_document_that_is_too_deep_is_refused_and_changes_nothing(written: Written) -> None:
    """Documents have 16 levels, arguments and other values 64. Depths in between are the storage contract's to keep."""
    server = written.engine.server
    with closing(server.client()) as client:
        before = len(call(client, "documents:every", {"table": LONG + "a"}, query=True))
        for levels, problem in (
            (16, "Document is too nested"),
            (60, "Document is too nested"),
            (64, "InvalidArguments"),
        ):
            document = {"any": to_json(nested(levels))}
            refused = client.call("documents:insert", {"table": "anything", "document": document})
            assert (refused.end, problem in str(refused.reason)) == ("refused", True), refused
        assert len(call(client, "documents:every", {"table": LONG + "a"}, query=True)) == before


def test_a_value_of_64_levels_travels_both_ways(written: Written) -> None:
    with closing(written.engine.server.client()) as client:
        assert call(client, "documents:same", {"value": to_json(nested(63))}, query=True) == to_json(nested(63))


def test_pythons_own_drivers_read_the_views_while_the_server_writes(
    written: Written, while_writing: Callable[[Callable[[], None]], None]
) -> None:
    expected = written.expected()
    statement = f"SELECT * FROM {written.engine.views['kinds']}"

    with closing(written.engine.connect()) as connection:

        def read() -> None:
            cursor = connection.execute(statement)
            columns = [column[0] for column in cursor.description]
            rows = {row[0]: dict(zip(columns, row, strict=True)) for row in cursor.fetchall()}
            assert columns == ["_id", "_creationTime", "any", "boolean", "bytes", "int64", "number", "text"]
            for id, shown in expected.items():
                for field, value in shown.items():
                    assert same(rows[id][field], value), (field, rows[id][field], value)

        while_writing(read)


def test_names_of_64_letters_stay_apart(written: Written, while_writing: Callable[[Callable[[], None]], None]) -> None:
    engine = written.engine
    with closing(engine.connect()) as connection:

        def read() -> None:
            for table in LONG_FIELDS:
                # Without quotes, as people write names.
                columns = ", ".join(["_id", *engine.long_columns])
                rows = connection.execute(f"SELECT {columns} FROM {engine.views[table]}").fetchall()
                found = {id: texts for id, *texts in rows}
                for id, document in zip(written.ids[table], LONGEST, strict=True):
                    assert found[id] == [engine.shown("text", document[field]) for field in LONG_FIELDS]

        while_writing(read)


def test_the_databases_own_command_line_reads_the_views_while_the_server_writes(
    written: Written, while_writing: Callable[[Callable[[], None]], None]
) -> None:
    engine, expected = written.engine, written.expected()
    # The command line of SQLite ends text at a NUL.
    exact = [
        (id, shown)
        for id, shown in expected.items()
        if not (engine.name == "sqlite" and "\0" in f"{shown['text']}{shown['any']}")
    ]
    columns = f'_id, text, int64, boolean, bytes, "any", {engine.bits_of_number} AS bits'
    statement = f"SELECT {columns} FROM {engine.views['kinds']}"

    def read() -> None:
        for table, view in engine.views.items():
            assert len(engine.shell(f"SELECT * FROM {view}")) >= len(WORST[table])
        rows = {row["_id"]: row for row in engine.shell(statement)}
        assert rows.keys() >= expected.keys()
        for id, shown in exact:
            row, number = rows[id], shown["number"]
            for field in ("text", "any", "int64", "boolean", "bytes"):
                value = shown[field]
                if engine.name == "postgres" and isinstance(value, str):
                    value = value.replace("\U0010ffff", "")  # psql prints no such characters, which stand for none
                if engine.name == "postgres" and isinstance(value, bytes):
                    value = f"\\x{value.hex()}"
                # SQLite's command line prints numbers of a column without a type with fewer digits.
                if not (engine.name == "sqlite" and isinstance(value, float)):
                    assert same(row[field], value), (field, row[field], value)
            is_nan = isinstance(number, float) and math.isnan(number)
            assert (row["bits"] is None) == (number is None)
            assert number is None or is_nan or row["bits"] == struct.pack(">d", number).hex(), (row["bits"], number)

    while_writing(read)


def frame_of(engine: Engine, connection: Any, statement: str) -> pd.DataFrame:
    """The view in pandas, as its documentation reads from such a connection."""
    if engine.name == "sqlite":
        return pd.read_sql_query(statement, connection)
    # pandas says that it has not been tested with psycopg's connections; its users see this warning too.
    with pytest.warns(UserWarning, match="pandas only supports SQLAlchemy"):
        return pd.read_sql_query(statement, connection)


def test_pandas_reads_the_views_while_the_server_writes(
    written: Written, while_writing: Callable[[Callable[[], None]], None]
) -> None:
    engine, expected = written.engine, written.expected()

    with closing(engine.connect()) as connection:

        def read() -> None:
            frame = frame_of(engine, connection, f"SELECT * FROM {engine.views['kinds']}").set_index("_id")
            assert frame["number"].dtype == "float64"
            for id, shown in expected.items():
                for field in ("any", "bytes", "text"):
                    found = frame.at[id, field]
                    assert same(None if pd.isna(found) else found, shown[field]), (field, found, shown[field])
                number = math.nan if shown["number"] is None else shown["number"]
                assert same(float(frame.at[id, "number"]), number)  # pyright: ignore[reportArgumentType]
            for table in LONG_FIELDS:
                assert len(frame_of(engine, connection, f"SELECT * FROM {engine.views[table]}")) >= len(LONGEST)

        while_writing(read)


def test_duckdb_reads_a_frame_of_the_view_while_the_server_writes(
    written: Written, while_writing: Callable[[Callable[[], None]], None]
) -> None:
    """The whole view; DuckDB's own readers of SQLite and PostgreSQL are extensions that it downloads, which no test does."""
    engine = written.engine

    def in_duckdb(field: str, value: Any) -> bool:
        """A column of SQLite's may have values of several kinds, of which DuckDB makes text in its own way."""
        return engine.name == "postgres" or field != "any" or isinstance(value, str)

    expected = {
        id: {
            # DuckDB takes the NaN of a frame for NULL.
            field: None if isinstance(value, float) and math.isnan(value) else value
            for field, value in row.items()
            if in_duckdb(field, value)
        }
        for id, row in written.expected().items()
    }

    with closing(engine.connect()) as connection, closing(duckdb.connect()) as duck:

        def read() -> None:
            found = connection.execute(f"SELECT * FROM {engine.views['kinds']}")
            # As objects: pandas would make numbers with a fraction of whole ones where some are missing.
            columns = [column[0] for column in found.description]
            duck.register("kinds", pd.DataFrame(found.fetchall(), columns=columns, dtype=object))
            compare(rows_of(duck.execute("SELECT * FROM kinds")), expected)
            (largest,) = duck.execute("SELECT max(number) FROM kinds WHERE isfinite(number)").fetchall()
            assert largest == (1.7976931348623157e308,)

        while_writing(read)


@pytest.mark.parametrize("written", ["postgres"], indirect=True)
def test_duckdb_reads_what_psql_copied_while_the_server_writes(
    written: Written, while_writing: Callable[[Callable[[], None]], None], tmp_path: Path
) -> None:
    engine, expected, file = written.engine, written.expected(), tmp_path / "kinds.csv"
    assert isinstance(engine, OnPostgres)
    types = {"_id": "VARCHAR", "_creationTime": "DOUBLE", "any": "VARCHAR", "boolean": "BOOLEAN"}
    types |= {"bytes": "VARCHAR", "int64": "BIGINT", "number": "DOUBLE", "text": "VARCHAR"}
    in_hex = {
        id: row | {"bytes": None if row["bytes"] is None else f"\\x{row['bytes'].hex()}"}
        for id, row in expected.items()
    }

    with closing(duckdb.connect()) as duck:

        def read() -> None:
            engine.copy_to(file, engine.views["kinds"])
            found = duck.execute(
                "SELECT * FROM read_csv(?, header = true, columns = ?, allow_quoted_nulls = false)", [str(file), types]
            )
            compare(rows_of(found), in_hex)

        while_writing(read)


def rows_of(found: duckdb.DuckDBPyConnection) -> dict[str, Row]:
    """What DuckDB gives, by id."""
    columns = [column[0] for column in found.description or ()]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in found.fetchall()}


def compare(rows: Mapping[str, Row], expected: Mapping[str, Row]) -> None:
    assert rows.keys() >= expected.keys()
    for id, shown in expected.items():
        for field, value in shown.items():
            assert same(rows[id][field], value), (field, rows[id][field], value)
