"""A reload that fails at its very end leaves the old code at work, on a database that goes on changing, and the next reload succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, Schema, Table, define_schema, define_table, field, mutation, query, v
from camber.backend import Backend
from camber.database import database
from camber.errors import StorageError
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.values import encode_value, parse_json

PATIENCE = 30.0
OLD = define_table("users", {"name": v.string(), "age": v.number()}).index("by_name", ["name"])
NEW = define_table("users", {"name": v.string(), "age": v.number()}).index("by_age", ["age"])


def application(users: Table[Any]) -> Any:
    """Functions that go by the table's index."""
    schema: Schema = define_schema(users)

    def add(ctx: MutationCtx, *, name: str, age: float) -> None:
        ctx.db.insert(users, {"name": name, "age": age})

    def note(ctx: MutationCtx, *, table: str) -> None:
        ctx.db.insert(table, {"text": "a note"})

    def named(ctx: QueryCtx, *, name: str) -> list[float]:
        return [user["age"] for user in ctx.db.query(users).with_index("by_name", name=name).collect()]

    def older(ctx: QueryCtx, *, age: float) -> list[str]:
        return [user["name"] for user in ctx.db.query(users).with_index("by_age", field("age") > age).collect()]

    functions = {"users:add": mutation(add), "users:note": mutation(note)}
    by_index = {"users:named": query(named)} if users is OLD else {"users:older": query(older)}
    return application_of("reloads", schema, {**functions, **by_index})


class Server:
    """One server in this process."""

    def __init__(self, url: str, folder: Path) -> None:
        settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE, query_seconds=PATIENCE)
        self.backend = Backend.open(application(OLD), folder, settings=settings, create=True)

    def call(self, path: str, **args: Any) -> Any:
        outcome = self.backend.run_sync(path, encode_value(args), OPERATOR)
        if outcome.exception is not None:
            raise outcome.exception
        return parse_json(outcome.value or b"null")


@pytest.fixture
def start(postgres_url: str, tmp_path: Path) -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def started() -> Server:
        servers.append(Server(postgres_url, tmp_path / f"server {len(servers)}"))
        return servers[-1]

    yield started
    for server in servers:
        server.backend.close()


@pytest.fixture
def fail_at_the_end(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the last look of the next reload fail, when all is made ready: a connection that is lost can't be timed to that moment."""
    real = database.joined_version

    def fail(*_: Any) -> int:
        monkeypatch.setattr(database, "joined_version", real)
        raise StorageError("the connection to PostgreSQL was lost")

    return lambda: monkeypatch.setattr(database, "joined_version", fail)


def test_the_old_code_goes_on_when_the_end_of_a_reload_fails(
    start: Callable[[], Server], fail_at_the_end: Callable[[], None]
) -> None:
    server, other = start(), start()
    server.call("users:add", name="ada", age=36.0)

    fail_at_the_end()
    with pytest.raises(StorageError, match="lost"):
        server.backend.reload_sync(application(NEW))

    assert server.call("users:named", name="ada") == [36]
    other.call("users:note", table="made_by_the_other")  # this one learns the tables anew
    server.call("users:add", name="bob", age=30.0)
    assert [server.call("users:named", name=name) for name in ("ada", "bob")] == [[36], [30]]
    server.call("users:note", table="made_here")
    assert server.call("users:named", name="cyd") == []
    assert other.call("users:named", name="bob") == [30]
    assert server.backend.ready() is None


def test_the_next_reload_succeeds(start: Callable[[], Server], fail_at_the_end: Callable[[], None]) -> None:
    server, other = start(), start()
    server.call("users:add", name="ada", age=36.0)
    fail_at_the_end()
    with pytest.raises(StorageError, match="lost"):
        server.backend.reload_sync(application(NEW))

    other.call("users:note", table="made_meanwhile")
    server.backend.reload_sync(application(NEW))

    other.call("users:add", name="bob", age=30.0)
    server.call("users:add", name="cyd", age=40.0)
    assert server.call("users:older", age=31.0) == ["ada", "cyd"]
    assert other.call("users:named", name="cyd") == [40]
    assert server.backend.ready() is None
