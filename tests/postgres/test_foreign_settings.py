"""What a role, a database or a variable sets for its connections changes nothing of what is stored, read and told."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber import MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from camber.backend import Backend
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.values import encode_value, parse_json

NOTES = define_table("notes", {"text": v.string()}).index("by_text", ["text"])
DONE = define_table("done", {"text": v.string()})
TEXT = "é, € and \U0001f600"

HOSTILE = {
    "client_encoding": "LATIN1",
    "search_path": "pg_catalog",
    "timezone": "'Pacific/Kiritimati'",
    "datestyle": "'SQL, DMY'",
    "bytea_output": "escape",
    "extra_float_digits": "-10",
    "idle_session_timeout": "'300ms'",
    "idle_in_transaction_session_timeout": "'300ms'",
    "statement_timeout": "'1s'",
    "lock_timeout": "'1ms'",
    "default_transaction_isolation": "'serializable'",
    "synchronous_commit": "off",
}


@mutation
def add(ctx: MutationCtx, *, text: str) -> None:
    ctx.db.insert(NOTES, {"text": text})
    ctx.db.insert(DONE, {"text": text})  # in another table: a group of several statements


@query
def texts(ctx: QueryCtx, *, above: str) -> list[str]:
    found = ctx.db.query(NOTES).with_index("by_text").collect()
    return [note["text"] for note in found if note["text"] > above]


@pytest.fixture
def url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a database whose connections have such settings."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with psycopg.connect(postgres_url, autocommit=True, client_encoding="UTF8") as sql:
        name = sql.info.dbname
        for setting, value in HOSTILE.items():
            sql.execute(f"ALTER DATABASE {name} SET {setting} = {value}".encode())
    return postgres_url


def test_texts_and_connections_are_as_they_should_be(url: str, tmp_path: Path) -> None:
    application = application_of("foreign", define_schema(NOTES, DONE), {"notes:add": add, "notes:texts": texts})
    settings = Settings(dev=True, database_url=url)
    with closing(Backend.open(application, tmp_path, settings=settings, create=True)) as backend:

        def call(path: str, **args: Any) -> Any:
            outcome = backend.run_sync(path, encode_value(args), OPERATOR)
            assert outcome.exception is None
            return parse_json(outcome.value or b"null")

        call("notes:add", text=TEXT)
        time.sleep(1.0)  # idle for longer than they allow
        call("notes:add", text="ö")

        assert call("notes:texts", above="") == sorted([TEXT, "ö"], key=str.encode)
        assert backend.sql_sync("SELECT text, 0.1::float8 + 0.2 FROM done ORDER BY text", limit=5).rows == [
            (TEXT, 0.1 + 0.2),
            ("ö", 0.1 + 0.2),
        ]
    with psycopg.connect(url, client_encoding="UTF8") as sql:
        stored = sql.execute("SELECT doc FROM camber.t10001").fetchall()
    assert sorted(len(doc) for (doc,) in stored) == sorted(len(f'{{"text":"{text}"}}') for text in (TEXT, "ö"))
