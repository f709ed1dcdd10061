"""Rolling schema changes that take long, as old readers hold up an index that is being built: nobody waits for ever, or pays for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber import MutationCtx, Schema, define_schema, define_table, mutation, v
from camber.backend import Backend
from camber.database import database as database_module
from camber.database import rolling
from camber.database.schema_changes import StoredTables, read_stored_tables
from camber.errors import UniqueIndexError
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.values import encode_value, parse_json
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Proxy

PATIENCE = 30.0
USERS = {"name": v.string(), "mail": v.string()}
OLD = define_table("users", USERS).index("by_mail", ["mail"], unique=True)
NEW = OLD.index("by_name", ["name"])
UNIQUE = OLD.index("by_name", ["name"], unique=True)


class Server:
    """One server in this process with its version of the schema. A function that is told to wait does so before it looks at the table."""

    def __init__(self, table: Any, url: str, folder: Path) -> None:
        self.table = table
        self.has_begun, self.go = threading.Event(), threading.Event()
        settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE)
        self.backend = Backend.open(self._application(define_schema(table)), folder, settings=settings, create=True)

    def _application(self, schema: Schema) -> Any:
        def add(ctx: MutationCtx, *, names: list[str], waits: bool = False) -> int:
            if waits:
                self.has_begun.set()
                assert self.go.wait(PATIENCE)
            found = ctx.db.query(self.table).collect()
            for name in names:
                ctx.db.insert(
                    self.table, {"name": name, "mail": f"{name} {self.backend.database.now_ms()} {len(names)}"}
                )
            return len(found)

        def many(ctx: MutationCtx) -> None:
            for number in range(40):
                ctx.db.insert(self.table, {"name": f"one of many {number}", "mail": f"{number}"})

        return application_of("slow", schema, {"users:add": mutation(add), "users:many": mutation(many)})

    def call(self, path: str, **args: Any) -> Any:
        outcome = self.backend.run_sync(path, encode_value(args), OPERATOR)
        if outcome.exception is not None:
            raise outcome.exception
        return parse_json(outcome.value or b"null")

    def names(self) -> list[str]:
        found: list[str] = []
        self.backend.transact(lambda ctx: found.extend(user["name"] for user in ctx.db.query(self.table).collect()), [])
        return sorted(found)

    def close(self) -> None:
        self.go.set()
        self.backend.close()


Start = Callable[..., Server]


@pytest.fixture
def start(postgres_url: str, tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []
    lock = threading.Lock()

    def started(table: Any, url: str = postgres_url) -> Server:
        with lock:
            folder = tmp_path / f"server {len(list(tmp_path.iterdir()))}"
            folder.mkdir()
        server = Server(table, url, folder)
        servers.append(server)
        return server

    yield started
    for server in servers:
        server.close()


@contextmanager
def old_reader(url: str) -> Iterator[None]:
    """Somebody who reads what is older than all that comes: the end of building an index waits for him."""
    with psycopg.connect(url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        yield


@contextmanager
def unique_index_held_up(url: str, build: Callable[[], Future[Server]]) -> Iterator[Future[Server]]:
    """A unique index is built, which holds for whoever writes, and waits for an old reader. The one by its plain keys comes before."""
    with old_reader(url):
        building = build()
        wait_until_built(url, "k2")
        late = old_reader(url)
        late.__enter__()
    try:
        wait_until_built(url, "u2")
        yield building
    finally:
        late.__exit__(None, None, None)


def wait_until_built(url: str, column: str = "k2") -> None:
    """Wait until the index by this column is kept by whoever writes, and only waits for old readers."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(url, autocommit=True) as sql:
        while not sql.execute(
            "SELECT 1 FROM pg_index JOIN pg_stat_activity ON query LIKE '%%CONCURRENTLY%%' AND wait_event_type = 'Lock'"
            " WHERE indisready AND NOT indisvalid AND indexrelid = to_regclass(%s)",
            (f'camber."t10001.{column}"',),
        ).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(12) as threads:
        yield threads


def test_a_server_that_starts_while_another_builds_an_index_waits_and_is_waited_for_by_nobody(
    start: Start, threads: ThreadPoolExecutor, postgres_url: str
) -> None:
    start(OLD).call("users:add", names=["ada"])
    with old_reader(postgres_url):
        building = threads.submit(start, UNIQUE)
        wait_until_built(postgres_url)
        # They are there before the next index is begun, the one that lets each key be there once.
        coming = [threads.submit(start, table) for table in (OLD, UNIQUE)]
        time.sleep(0.5)  # by now they wait
        assert not any(future.done() for future in (building, *coming))

    for future in (building, *coming):
        assert future.result(PATIENCE).names() == ["ada"]


def test_a_server_that_needed_long_to_get_ready_is_not_taken_for_gone(
    start: Start,
    threads: ThreadPoolExecutor,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (database_module, rolling):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.6)
    monkeypatch.setattr(rolling, "GONE_SECONDS", 1.5)
    old = start(OLD)
    with old_reader(postgres_url):
        building = threads.submit(start, NEW)
        wait_until_built(postgres_url)
        time.sleep(2.5)  # without a word
    new = building.result(PATIENCE)
    time.sleep(2.0)

    assert new.backend.database.broken is None
    new.call("users:add", names=["ada"])
    assert old.names() == new.names() == ["ada"]


def test_a_key_that_a_unique_index_in_the_making_forbids_is_refused_for_whoever_brings_it_and_nobody_else(
    start: Start, threads: ThreadPoolExecutor, postgres_url: str
) -> None:
    old = start(OLD)
    old.call("users:add", names=["ada"])
    with unique_index_held_up(postgres_url, lambda: threads.submit(start, UNIQUE)) as building:
        first = threads.submit(old.call, "users:add", names=["bob"], waits=True)
        assert old.has_begun.wait(PATIENCE)
        wanted = ["cyd", "ada", "dan", "eve", "ada", "fay"]
        others = [threads.submit(old.call, "users:add", names=[name]) for name in wanted]
        time.sleep(0.2)  # they wait for the one that runs, and are its group, or the next one
        old.go.set()
        assert first.result(PATIENCE) == 1
        for name, future in zip(wanted, others, strict=True):
            if name == "ada":
                with pytest.raises(UniqueIndexError):
                    future.result(PATIENCE)
            else:
                future.result(PATIENCE)
        with pytest.raises(UniqueIndexError):
            old.call("users:add", names=["gus", "gus"])

    assert building.result(PATIENCE).names() == ["ada", "bob", "cyd", "dan", "eve", "fay"]


def test_a_mutation_that_runs_while_columns_are_added_runs_again(
    start: Start, threads: ThreadPoolExecutor, postgres_url: str
) -> None:
    old = start(OLD)
    old.call("users:add", names=["ada"])
    known = old.backend.database.catalog
    waiting: Future[int] = threads.submit(old.call, "users:add", names=["bob"], waits=True)
    assert old.has_begun.wait(PATIENCE)
    building = threads.submit(start, NEW)
    deadline = time.monotonic() + PATIENCE
    while old.backend.database.catalog is known:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    old.go.set()

    assert waiting.result(PATIENCE) == 1
    assert building.result(PATIENCE).names() == ["ada", "bob"]


def test_an_index_in_the_making_is_not_searched_for_its_highest_key(
    start: Start, threads: ThreadPoolExecutor, postgres: Cluster, postgres_url: str
) -> None:
    with Proxy(postgres.port) as proxy:
        asked: list[str] = []
        proxy.before("DESC LIMIT 1)", lambda _: asked.append("before"), times=1_000)
        old = start(OLD, proxy.url(postgres_url))
        old.call("users:many")
        assert asked, "with all indexes there it is"
        asked.clear()
        with old_reader(postgres_url):
            building = threads.submit(start, UNIQUE)
            wait_until_built(postgres_url)
            old.call("users:add", names=[f"{number}" for number in range(40)])
            assert not asked
        building.result(PATIENCE)


def test_after_an_outage_nobody_is_taken_for_gone_who_could_not_say_a_word(start: Start) -> None:
    server = start(OLD)
    stored = stored_by(server)
    absences = rolling.Absences({})
    beats = [number * rolling.BEAT_SECONDS for number in range(1, 20)]

    assert [absences.gone(stored, now) for now in beats[:3]] == [set()] * 3
    # From here on PostgreSQL was away, for this server too.
    after = [60.0 + beat for beat in beats]
    assert [absences.gone(stored, now) for now in after[:4]] == [set()] * 4
    assert absences.gone(stored, after[4]) == {document["server"] for document in stored.documents["_servers"]}


def stored_by(server: Server) -> StoredTables:
    with server.backend.database.snapshot() as snapshot:
        return read_stored_tables(snapshot)
