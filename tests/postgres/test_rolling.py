"""Servers with different versions of the schema share a PostgreSQL database, one after another taking the new one while traffic runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber import (
    MutationCtx,
    QueryCtx,
    Schema,
    SchemaMismatchError,
    define_schema,
    define_table,
    field,
    mutation,
    query,
    v,
)
from camber.backend import Backend
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.values import encode_value, parse_json
from tests.postgres.cluster import old_reader

PATIENCE = 60.0
OLD = define_table("users", {"name": v.string(), "n": v.optional(v.number())}).index("by_name", ["name"])
NEW = define_table("users", {"name": v.string(), "n": v.number()}).index("by_n", ["n"])
UNIQUE = define_table("users", {"name": v.string(), "n": v.optional(v.number())}).index(
    "by_name", ["name"], unique=True
)


class Server:
    """One server in this process, with its version of the schema, and functions that go by any index."""

    def __init__(self, schema: Schema, url: str, folder: Path) -> None:
        self.schema = schema
        settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE, query_seconds=PATIENCE)
        self.backend = Backend.open(self.application(schema), folder, settings=settings, create=True)

    def application(self, schema: Schema) -> Any:
        users = schema.tables["users"]

        def add(ctx: MutationCtx, *, name: str, n: float | None = None) -> str:
            return ctx.db.insert(users, {"name": name} if n is None else {"name": name, "n": n})

        def rename(ctx: MutationCtx, *, id: str, name: str) -> None:
            ctx.db.patch(users, id, {"name": name})

        def names(ctx: QueryCtx, *, index: str) -> list[str]:
            return [user["name"] for user in ctx.db.query(users).with_index(index).collect()]

        def having(ctx: QueryCtx, *, n: float) -> list[str]:
            return [user["name"] for user in ctx.db.query(users).with_index("by_n", field("n") == n).collect()]

        made = {"users:add": mutation(add), "users:rename": mutation(rename), "users:names": query(names)}
        return application_of("rolling", schema, {**made, "users:having": query(having)})

    def call(self, path: str, **args: Any) -> Any:
        outcome = self.backend.run_sync(path, encode_value(args), OPERATOR)
        if outcome.exception is not None:
            raise outcome.exception
        return parse_json(outcome.value or b"null")

    def close(self) -> None:
        self.backend.close()


@pytest.fixture
def start(postgres_url: str, tmp_path: Path) -> Iterator[Callable[[Any], Server]]:
    servers: list[Server] = []

    def started(table: Any) -> Server:
        servers.append(Server(define_schema(table), postgres_url, tmp_path / f"server {len(servers)}"))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


def columns(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'camber' AND table_name = 't10001'"
        )
        return {name for (name,) in found if name[0] in "ku"}


def test_an_old_server_writes_the_index_of_a_new_one(start: Callable[[Any], Server]) -> None:
    old = start(OLD)
    old.call("users:add", name="ada", n=2.0)
    new = start(NEW)
    old.call("users:add", name="bob", n=1.0)
    new.call("users:add", name="cyd", n=3.0)

    assert new.call("users:names", index="by_n") == ["bob", "ada", "cyd"]
    assert old.call("users:names", index="by_name") == ["ada", "bob", "cyd"]


def test_a_dropped_index_goes_when_the_last_server_of_the_old_version_has_left(
    start: Callable[[Any], Server], postgres_url: str
) -> None:
    old = start(OLD)
    new = start(NEW)
    assert columns(postgres_url) == {"k0", "k1", "k2"}
    new.call("users:add", name="ada", n=1.0)
    assert old.call("users:names", index="by_name") == ["ada"]

    old.close()
    assert columns(postgres_url) == {"k0", "k2"}
    new.call("users:add", name="bob", n=0.0)
    assert new.call("users:names", index="by_n") == ["bob", "ada"]


def test_the_last_server_of_a_version_ends_like_any_other(start: Callable[[Any], Server]) -> None:
    """It retires its version itself, which is no reason to start anew."""
    old, new = start(OLD), start(NEW)
    told: list[str] = []
    old.backend.on_unhealthy = lambda: told.append("start anew")
    new.call("users:add", name="ada", n=1.0)

    old.close()

    assert old.backend.database.broken is None
    assert not told


def test_while_two_versions_are_served_a_write_fits_both(start: Callable[[Any], Server]) -> None:
    old = start(OLD)
    new = start(NEW)

    with pytest.raises(Exception, match="the schema of another version"):
        old.call("users:add", name="without a number")
    assert new.call("users:names", index="by_n") == []

    new.close()
    # The latest version stays in force for those that come; the old one is still there too.
    old.call("users:add", name="ada", n=1.0)


def test_a_version_that_does_not_fit_leaves_nothing_behind(start: Callable[[Any], Server], postgres_url: str) -> None:
    old = start(OLD)
    id = old.call("users:add", name="without a number")

    with pytest.raises(SchemaMismatchError) as mismatch:
        start(NEW)
    assert id in str(mismatch.value)
    assert columns(postgres_url) == {"k0", "k1"}
    old.call("users:add", name="another without")
    assert old.call("users:names", index="by_name") == ["another without", "without a number"]


def test_doubles_keep_a_unique_index_from_being_made(start: Callable[[Any], Server], postgres_url: str) -> None:
    old = start(OLD)
    for _ in range(2):
        old.call("users:add", name="ada")

    with pytest.raises(SchemaMismatchError, match="ada|same values"):
        start(UNIQUE)
    assert columns(postgres_url) == {"k0", "k1"}
    old.call("users:add", name="ada")


@pytest.mark.parametrize("table", [NEW, UNIQUE], ids=["a document does not fit", "a key is there twice"])
def test_what_does_not_fit_uses_up_no_columns_however_often_it_is_tried(
    start: Callable[[Any], Server], postgres_url: str, table: Any
) -> None:
    """PostgreSQL counts columns that were dropped, too, and a table may have 1,600."""
    old = start(OLD)
    for _ in range(2):
        old.call("users:add", name="ada")
    before = columns_ever(postgres_url)

    for _ in range(3):
        with pytest.raises(SchemaMismatchError):
            start(table)
    with pytest.raises(SchemaMismatchError):
        old.backend.reload_sync(old.application(define_schema(table)))

    assert columns_ever(postgres_url) == before


def columns_ever(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT max(attnum) FROM pg_attribute WHERE attrelid = 'camber.t10001'::regclass")
        ((number,),) = found.fetchall()
        return number


def test_a_unique_index_that_was_made_holds_on_the_old_server_too(start: Callable[[Any], Server]) -> None:
    old = start(OLD)
    old.call("users:add", name="ada")
    new = start(UNIQUE)

    for server in (old, new):
        with pytest.raises(Exception, match="UniqueIndexViolation"):
            server.call("users:add", name="ada")
    assert new.call("users:names", index="by_name") == ["ada"]


def test_a_server_takes_a_new_version_while_it_serves(start: Callable[[Any], Server], postgres_url: str) -> None:
    server = start(OLD)
    server.call("users:add", name="ada", n=1.0)
    wider = define_schema(
        define_table("users", {"name": v.string(), "n": v.number(), "tags": v.optional(v.any())}).index("by_n", ["n"])
    )
    server.backend.reload_sync(server.application(wider))

    assert server.call("users:names", index="by_n") == ["ada"]
    assert server.backend.transact(
        lambda ctx: ctx.db.insert(wider.tables["users"], {"name": "bob", "n": 2.0, "tags": []}), []
    )
    assert columns(postgres_url) == {"k0", "k2"}


def test_nothing_is_missed_by_an_index_that_is_made_while_everybody_writes(
    start: Callable[[Any], Server], postgres_url: str
) -> None:
    old = [start(OLD), start(OLD)]
    for number in range(300):
        old[0].backend.transact(
            lambda ctx, number=number: ctx.db.insert(OLD, {"name": f"{number}", "n": float(number % 7)}), []
        )
    stop, written, failures = threading.Event(), [0, 0], list[Exception]()

    def write(who: int) -> None:
        while not stop.is_set():
            try:
                id = old[who].call("users:add", name=f"{who} {written[who]}", n=3.0)
                old[who].call("users:rename", id=id, name=f"{who} {written[who]} renamed")
            except Exception as error:  # noqa: BLE001
                failures.append(error)
                return
            written[who] += 1

    def have_written(more: int, than: list[int]) -> bool:
        return bool(failures) or all(now >= then + more for now, then in zip(written, than, strict=True))

    writers = [threading.Thread(target=write, args=(who,)) for who in range(2)]
    for writer in writers:
        writer.start()
    try:
        deadline = time.monotonic() + PATIENCE
        wait_until(lambda: have_written(1, [0, 0]), deadline)
        with ThreadPoolExecutor(1) as threads:
            with old_reader(postgres_url):
                starting = threads.submit(start, NEW)
                wait_until(lambda: waits_for_readers(postgres_url), deadline)
                before = list(written)
                wait_until(lambda: have_written(3, before), deadline)
                assert not starting.done()
            new = starting.result(PATIENCE)
        mine = [new.call("users:add", name=f"new {number}", n=3.0) for number in range(10)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()

    assert failures == []
    having = new.call("users:having", n=3.0)
    assert len(having) == len([n for n in range(300) if n % 7 == 3]) + sum(written) + len(mine)
    assert {name for name in having if name.startswith(("0 ", "1 ")) and not name.endswith("renamed")} <= {
        f"{who} {written[who]}" for who in range(2)
    }


def wait_until(condition: Callable[[], bool], deadline: float) -> None:
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def waits_for_readers(url: str) -> bool:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT phase FROM pg_stat_progress_create_index WHERE datname = current_database()")
        return found.fetchall() == [("waiting for old snapshots",)]
