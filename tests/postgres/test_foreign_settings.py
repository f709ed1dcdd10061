"""What a role, a database or a variable sets for its connections changes nothing of what is stored, read and told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber import MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from camber.backend import Backend, Outcome
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage.postgres.writing import COMMIT_LOCK
from camber.values import encode_value, parse_json

NOTES = define_table("notes", {"text": v.string()}).index("by_text", ["text"])
DONE = define_table("done", {"text": v.string()})
PATIENCE = 30.0
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
}
WITHOUT_LIMITS = " ".join(f"-c {name}=0" for name in HOSTILE if name.endswith("_timeout"))
"""For connections of the tests' own, from their first moment on."""


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


@pytest.fixture
def backend(url: str, tmp_path: Path) -> Iterator[Backend]:
    application = application_of("foreign", define_schema(NOTES, DONE), {"notes:add": add, "notes:texts": texts})
    settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE, query_seconds=PATIENCE)
    with closing(Backend.open(application, tmp_path, settings=settings, create=True)) as backend:
        yield backend


def call(backend: Backend, path: str, **args: Any) -> Any:
    return value(backend.run_sync(path, encode_value(args), OPERATOR))


def value(outcome: Outcome) -> Any:
    assert outcome.exception is None
    return parse_json(outcome.value or b"null")


def test_texts_and_connections_are_as_they_should_be(backend: Backend, url: str) -> None:
    call(backend, "notes:add", text=TEXT)
    time.sleep(1.0)  # idle for longer than they allow
    call(backend, "notes:add", text="ö")

    assert call(backend, "notes:texts", above="") == sorted([TEXT, "ö"], key=str.encode)
    assert backend.sql_sync("SELECT text, 0.1::float8 + 0.2 FROM done ORDER BY text", limit=5).rows == [
        (TEXT, 0.1 + 0.2),
        ("ö", 0.1 + 0.2),
    ]
    with psycopg.connect(url, client_encoding="UTF8", options=WITHOUT_LIMITS) as sql:
        stored = sql.execute("SELECT doc FROM camber.t10001").fetchall()
        ended = sql.execute("SELECT sessions_fatal FROM pg_stat_database WHERE datname = current_database()").fetchall()
    assert ended == [(0,)]  # idle for too long, or in another way
    assert sorted(len(doc) for (doc,) in stored) == sorted(len(f'{{"text":"{text}"}}') for text in (TEXT, "ö"))


def test_whoever_waits_for_the_commit_lock_waits_longer_than_they_allow(backend: Backend, url: str) -> None:
    call(backend, "notes:add", text="before")
    with ThreadPoolExecutor(1) as threads, psycopg.connect(url, autocommit=True, options=WITHOUT_LIMITS) as sql:
        sql.execute(f"SELECT pg_advisory_lock({COMMIT_LOCK})".encode())
        adding = threads.submit(call, backend, "notes:add", text="behind it")
        with pytest.raises(TimeoutError):
            adding.result(1.5)
        sql.execute(f"SELECT pg_advisory_unlock({COMMIT_LOCK})".encode())
        adding.result(PATIENCE)

    assert call(backend, "notes:texts", above="") == ["before", "behind it"]


def test_a_snapshot_that_is_held_is_there_when_it_was_idle_for_longer_than_they_allow(backend: Backend) -> None:
    async def texts_before_and_now() -> list[Any]:
        backend.attach(asyncio.get_running_loop())
        at = await backend.hold_snapshot()
        await backend.run("notes:add", b'{"text": "after it"}', OPERATOR, kind="mutation", request_id="")
        await asyncio.sleep(1.0)
        asked = partial(backend.run, "notes:texts", b'{"above": ""}', OPERATOR, kind="query", request_id="")
        return [value(await asked(at=at)), value(await asked())]

    call(backend, "notes:add", text="a")
    assert asyncio.run(texts_before_and_now()) == [["a"], ["a", "after it"]]
