"""Rolling schema changes that take long, as old readers hold up an index that is being built: nobody waits for ever, or pays for it.

Nor where the server that builds it is killed, frozen or cut off.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from camber import MutationCtx, QueryCtx, Schema, define_schema, define_table, mutation, query, v
from camber.backend import Backend
from camber.database import database as database_module
from camber.database import rolling
from camber.database.schema_changes import StoredTables, read_stored_tables
from camber.errors import StorageError, UniqueIndexError
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage.postgres.building import SCHEMA_LOCK
from camber.storage.postgres.writing import COMMIT_LOCK
from camber.values import encode_value, parse_json
from tests.crashes.servers import Server as Process
from tests.postgres.cluster import Cluster, old_reader, wait_until_waiting
from tests.postgres.proxy import Connection, Proxy
from tests.wire.running_server import CAMBER

T = TypeVar("T")

PATIENCE = 60.0
USERS = {"name": v.string(), "mail": v.string()}
OLD = define_table("users", USERS).index("by_mail", ["mail"], unique=True)
NEW = OLD.index("by_name", ["name"])
UNIQUE = OLD.index("by_name", ["name"], unique=True)
SCHEMA_FILE = """
from camber import define_schema, define_table, v

users = define_table("users", {{"name": v.string(), "mail": v.string()}}).index("by_mail", ["mail"], unique=True)
schema = define_schema(users.index("by_name", ["name"], unique={unique}))
"""
"""NEW or UNIQUE, for a server that is a process."""
SOON_LOST = """
from camber.cli import main
from camber.storage.postgres import building

building.SILENT_SECONDS, building._WORD_SECONDS = 2.0, 0.2
main()
"""
"""`camber`, that loses the schema lock when it has said nothing for two seconds."""


class Server:
    """One server in this process with its version of the schema. A function that is told to wait does so before it looks at the table."""

    def __init__(self, table: Any, url: str, folder: Path) -> None:
        self.table = table
        self.has_begun, self.go = threading.Event(), threading.Event()
        settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE, query_seconds=PATIENCE)
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

        def count(ctx: QueryCtx, *, mail: str) -> int:
            return len(ctx.db.query(self.table).with_index("by_mail", mail=mail).collect())

        functions = {"users:add": mutation(add), "users:many": mutation(many), "users:count": query(count)}
        return application_of("slow", schema, functions)

    def call(self, path: str, **args: Any) -> Any:
        outcome = self.backend.run_sync(path, encode_value(args), OPERATOR)
        if outcome.exception is not None:
            raise outcome.exception
        return parse_json(outcome.value or b"null")

    def names(self) -> list[str]:
        """Of all users, sorted here."""
        return self.backend.transact(
            lambda ctx: sorted(user["name"] for user in ctx.db.query(self.table).collect()), []
        )

    def names_in_order(self) -> list[str]:
        """What the index by name leads to, as a whole and by each name."""

        def look(ctx: MutationCtx) -> list[str]:
            query = ctx.db.query(self.table)
            by_name = [user["name"] for user in query.with_index("by_name").collect()]
            for name in by_name:
                assert [user["name"] for user in query.with_index("by_name", name=name).collect()] == [name]
            return by_name

        return self.backend.transact(look, [])

    def rename(self, name: str, to: str) -> None:
        def rename(ctx: MutationCtx) -> None:
            (found,) = (user for user in ctx.db.query(self.table).collect() if user["name"] == name)
            ctx.db.patch(self.table, found["_id"], {"name": to})

        self.backend.transact(rename, [])

    def close(self) -> None:
        self.go.set()
        self.backend.close()


@contextmanager
def taken_for_gone_soon(*, gone: float = 1.5, beat: float = 0.3) -> Iterator[None]:
    """While the block lasts a server that has said nothing for so long is gone; also one that only stood still."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (database_module, rolling):
            patch.setattr(module, "BEAT_SECONDS", beat)
        patch.setattr(rolling, "GONE_SECONDS", gone)
        yield


Start = Callable[..., Server]
Begin = Callable[..., Process]


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


@pytest.fixture
def begin(postgres_url: str, tmp_path: Path) -> Iterator[Begin]:
    """Begins to start a server with a new schema that is a process, so that it can be killed."""
    processes: list[Process] = []

    def begun(table: Any, url: str = postgres_url, program: Sequence[str | Path] = (CAMBER,)) -> Process:
        application = tmp_path / "application"
        application.mkdir()
        (application / "schema.py").write_text(SCHEMA_FILE.format(unique=table is UNIQUE))
        env = {"CAMBER_DEV": "1", "CAMBER_DATABASE_URL": url}
        process = Process(application, tmp_path / "data", env=env, program=program)
        processes.append(process)
        process.start()
        return process

    yield begun
    for process in processes:
        if process.process is not None:
            process.end(signal.SIGKILL)


@contextmanager
def unique_index_held_up(url: str, build: Callable[[], T]) -> Iterator[T]:
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


@contextmanager
def build_held_up(
    proxy: Proxy, url: str, column: str, begin: Begin, table: Any
) -> Iterator[tuple[Process, Connection]]:
    """A process builds the index by this column, of the two that UNIQUE has, which waits for an old reader for as long as the block lasts.

    Gives the process, and its connection on which PostgreSQL builds.
    """
    beginning = proxy.before(f'CONCURRENTLY "t10001.{column}"', lambda _: None)

    def build() -> Process:
        return begin(table, proxy.url(url))

    if column == "u2":
        with unique_index_held_up(url, build) as building:
            yield building, beginning.wait(PATIENCE)
    else:
        with old_reader(url):
            building = build()
            wait_until_built(url, column)
            yield building, beginning.wait(PATIENCE)


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
) -> None:
    with taken_for_gone_soon(gone=2.0, beat=0.6):
        old = start(OLD)
        with old_reader(postgres_url):
            building = threads.submit(start, NEW)
            wait_until_built(postgres_url)
            time.sleep(3.0)  # without a word
        wait_until_served(old, versions=2)
        time.sleep(1.0)  # until the other one has looked who is gone, and not until a stall counts as that
    new = building.result(PATIENCE)

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
        old.close()  # while it can still say so to PostgreSQL


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


@pytest.mark.parametrize(
    ("table", "column", "goes_on"),
    [(NEW, "k2", False), (UNIQUE, "u2", False), (UNIQUE, "u2", True)],
    ids=["half-built", "unique and half-built", "unique and still built by PostgreSQL"],
)
def test_an_index_whose_server_was_killed_is_made_by_the_next_one(
    start: Start,
    begin: Begin,
    threads: ThreadPoolExecutor,
    postgres: Cluster,
    postgres_url: str,
    table: Any,
    column: str,
    goes_on: bool,
) -> None:
    old = start(OLD)
    old.call("users:add", names=["ada", "bob", "cyd"])
    with Proxy(postgres.port) as proxy, build_held_up(proxy, postgres_url, column, begin, table) as (killed, build):
        old.call("users:add", names=["dan"])
        kill(killed, build, postgres_url, is_noticed=not goes_on)
        old.call("users:add", names=["eve"])
        assert validity(postgres_url)[f"t10001.{column}"] is False
        coming = threads.submit(start, table)
        wait_until_waiting(postgres_url, "DROP INDEX" if goes_on else "CREATE")
        old.call("users:add", names=["fay"])
        old.rename("bob", to="zoe")
    new = coming.result(PATIENCE)
    old.call("users:add", names=["gus"])

    wanted = {"t10001.k2", "t10001.u2"} if table is UNIQUE else {"t10001.k2"}
    found = validity(postgres_url)
    assert {name for name in found if name.endswith("2")} == wanted
    assert all(found.values())
    assert new.names_in_order() == ["ada", "cyd", "dan", "eve", "fay", "gus", "zoe"] == new.names() == old.names()
    if table is UNIQUE:
        for server in (old, new):
            with pytest.raises(UniqueIndexError):
                server.call("users:add", names=["eve"])


def test_an_index_is_made_where_postgresql_has_refused_to_drop_it_for_a_statement_that_goes_on(
    start: Start, postgres_url: str
) -> None:
    """Both have changed its row of the catalog in one moment, which a trigger stands in for here."""
    old = start(OLD)
    old.call("users:add", names=["ada"])
    with psycopg.connect(postgres_url, autocommit=True) as sql:
        sql.execute("CREATE SEQUENCE refused")
        sql.execute(
            """
            CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('public.refused') <= 2 THEN
                    RAISE EXCEPTION 'tuple concurrently updated' USING ERRCODE = 'XX000';
                END IF;
            END
            $$
            """
        )
        sql.execute(
            "CREATE EVENT TRIGGER refuses ON ddl_command_start WHEN TAG IN ('DROP INDEX') EXECUTE FUNCTION refuse()"
        )

    new = start(NEW)

    with psycopg.connect(postgres_url) as sql:
        assert sql.execute("SELECT last_value FROM refused").fetchone() == (3,)
    assert new.names_in_order() == ["ada"]


def test_documents_whose_keys_a_killed_server_has_not_filled_in_get_them_from_the_next_one(
    start: Start, begin: Begin, postgres: Cluster, postgres_url: str
) -> None:
    """It has filled in some and said so; when it fills in the next ones it is killed."""
    old = start(OLD)
    names = [f"{number:04}" for number in range(3 * database_module.FILLED_AT_ONCE)]
    old.call("users:add", names=names)
    with Proxy(postgres.port) as proxy:
        strike = proxy.before("SET k2 = new.k2", lambda _: killed.end(signal.SIGKILL), skip=1)
        killed = begin(UNIQUE, proxy.url(postgres_url))
        strike.wait(PATIENCE)
    assert validity(postgres_url).keys().isdisjoint({"t10001.k2", "t10001.u2"})
    assert filled(postgres_url) == database_module.FILLED_AT_ONCE
    old.call("users:add", names=["new"])
    old.rename(names[0], to="early")
    old.rename(names[-1], to="late")
    new = start(UNIQUE)

    assert new.names_in_order() == [*names[1:-1], "early", "late", "new"] == new.names()
    assert {"t10001.k2", "t10001.u2"} <= validity(postgres_url).keys()
    assert all(validity(postgres_url).values())


@pytest.mark.parametrize("goes_on", [False, True], ids=["half-built", "still built by PostgreSQL"])
def test_an_index_whose_server_was_killed_goes_if_only_servers_without_it_come(
    start: Start,
    begin: Begin,
    postgres: Cluster,
    postgres_url: str,
    goes_on: bool,
) -> None:
    old = start(OLD)
    old.call("users:add", names=["ada"])
    before = validity(postgres_url)
    with taken_for_gone_soon():
        with Proxy(postgres.port) as proxy, build_held_up(proxy, postgres_url, "u2", begin, UNIQUE) as (killed, build):
            old.call("users:add", names=["bob"])
            kill(killed, build, postgres_url, is_noticed=not goes_on)
            old.close()
            others = [start(OLD), start(OLD)]
            others[0].call("users:add", names=["cyd"])
            if goes_on:
                wait_until_waiting(postgres_url, "ALTER TABLE")  # tried again and again, between which others write
                others[1].call("users:add", names=["dan"])
            else:
                others[1].call("users:add", names=["dan"])
                wait_until_dropped(postgres_url)
        wait_until_dropped(postgres_url)

    wait_until_there(others[0], servers=2)
    stored = stored_by(others[0])
    assert [index.name for index in stored.indexes[10_001]] == ["by_mail"]
    assert len(stored.schemas) == 1
    assert validity(postgres_url) == before
    others[1].call("users:add", names=["ada"])
    assert [server.names() for server in others] == [["ada", "ada", "bob", "cyd", "dan"]] * 2


@pytest.mark.parametrize("goes_on", [False, True], ids=["given up", "still built by PostgreSQL"])
def test_the_next_server_starts_while_postgresql_builds_the_index_of_a_killed_one(
    start: Start,
    begin: Begin,
    threads: ThreadPoolExecutor,
    postgres: Cluster,
    postgres_url: str,
    goes_on: bool,
) -> None:
    """To drop what is half-built waits for who builds it, who may come to wait for that."""
    old = start(OLD)
    old.call("users:add", names=["ada"])
    with Proxy(postgres.port) as proxy, psycopg.connect(postgres_url) as writer:
        # Building waits for whoever writes, and then for whoever reads.
        beginning = proxy.before(
            "CREATE INDEX CONCURRENTLY", lambda _: writer.execute("LOCK TABLE camber.t10001 IN ROW EXCLUSIVE MODE")
        )
        killed = begin(NEW, proxy.url(postgres_url))
        build = beginning.wait(PATIENCE)
        wait_until_waiting(postgres_url, "CREATE INDEX")
        if goes_on:
            build.stall()  # its end does not come through
        killed.end(signal.SIGKILL)
        coming = threads.submit(start, NEW)
        wait_until_waiting(postgres_url, "DROP INDEX")
        writer.rollback()
        new = coming.result(PATIENCE)

    assert validity(postgres_url)["t10001.k2"] is True
    assert new.names_in_order() == ["ada"] == old.names()


def test_a_server_that_is_frozen_while_it_makes_an_index_keeps_nobody_from_starting(
    start: Start, threads: ThreadPoolExecutor, begin: Begin, postgres: Cluster, postgres_url: str
) -> None:
    old = start(OLD)
    old.call("users:add", names=["ada"])
    with Proxy(postgres.port) as proxy:
        freezing = proxy.before("CREATE INDEX CONCURRENTLY", lambda _: freeze(frozen))
        frozen = begin(NEW, proxy.url(postgres_url), (sys.executable, "-c", SOON_LOST))
        freezing.wait(PATIENCE)
        coming = [threads.submit(start, table) for table in (OLD, NEW)]
        same, new = (future.result(PATIENCE) for future in coming)

        assert new.names_in_order() == ["ada"] == same.names()
        frozen.end(signal.SIGKILL)


def test_an_index_is_added_while_somebody_always_reads(
    start: Start, threads: ThreadPoolExecutor, postgres_url: str
) -> None:
    """Each asks for something else, so each query is run."""
    old = start(OLD)
    old.call("users:add", names=["ada"])
    over, reads = threading.Event(), itertools.count()
    seen = 0

    def read() -> None:
        nonlocal seen
        while not over.wait(0.02):
            assert old.call("users:count", mail=f"nobody's {next(reads)}") == 0
            seen += 1

    def wait_for_reads(count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while seen < count and not reading.done():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def write() -> list[str]:
        written: list[str] = []
        while not over.wait(0.1):
            written.append(f"{len(written):06}")
            old.call("users:add", names=written[-1:])
        return written

    reading, writing = threads.submit(read), threads.submit(write)
    try:
        wait_for_reads(10)
        new = threads.submit(start, NEW).result(PATIENCE)
        wait_for_reads(seen + 1)
    finally:
        over.set()

    reading.result(PATIENCE)
    written = writing.result(PATIENCE)
    assert new.names_in_order() == [*written, "ada"] == old.names()


@pytest.mark.parametrize("commits", [0, 1], ids=["before it serves", "as it begins to serve"])
def test_a_server_that_is_taken_for_gone_while_it_gets_ready_does_not_start(
    start: Start,
    threads: ThreadPoolExecutor,
    postgres: Cluster,
    postgres_url: str,
    commits: int,
) -> None:
    """It loses the schema lock after its index is built, and is cut off for a while before one of the commits that are left."""
    with taken_for_gone_soon(), Proxy(postgres.port) as proxy:
        old = start(OLD)
        old.call("users:add", names=["ada"])
        before = validity(postgres_url)
        built = proxy.after("CREATE INDEX CONCURRENTLY", Connection.stall)
        coming = threads.submit(start, NEW, proxy.url(postgres_url))
        connection = built.wait(PATIENCE)
        next_commit = proxy.before(f"pg_advisory_lock({COMMIT_LOCK})", Connection.stall, skip=commits)
        connection.resume()
        connection = next_commit.wait(PATIENCE)
        end_sessions_with(postgres_url, SCHEMA_LOCK)
        wait_until_dropped(postgres_url)
        connection.resume()
        with pytest.raises(StorageError, match="must start anew"):
            coming.result(PATIENCE)

    wait_until_there(old, servers=1)
    assert len(stored_by(old).schemas) == 1
    assert validity(postgres_url) == before
    again = start(NEW)
    assert again.names_in_order() == ["ada"] == old.names()


def validity(url: str) -> dict[str, bool]:
    """The indexes that PostgreSQL has on the table, and whether each is complete."""
    with psycopg.connect(url) as sql:
        found = sql.execute(
            "SELECT relname, indisvalid AND indisready FROM pg_index JOIN pg_class ON indexrelid = oid"
            " WHERE indrelid = 'camber.t10001'::regclass"
        )
        return dict(found.fetchall())


def filled(url: str) -> int:
    """How many documents have their key in the new index."""
    with psycopg.connect(url) as sql:
        ((count,),) = sql.execute("SELECT count(k2) FROM camber.t10001").fetchall()
        return count


def kill(process: Process, build: Connection, url: str, *, is_noticed: bool) -> None:
    """Kill a server while PostgreSQL builds an index for it on this connection.

    PostgreSQL notices and gives up the index; or it does not, as where the server's machine has gone, and goes on with it.
    """
    if is_noticed:
        process.end(signal.SIGKILL)
        wait_until_given_up(url)
        return
    build.stall()  # its end does not come through
    process.end(signal.SIGKILL)


def freeze(process: Process) -> None:
    assert process.process is not None
    process.process.send_signal(signal.SIGSTOP)


def end_sessions_with(url: str, lock: int) -> None:
    """End the sessions that have this advisory lock, as an operator or a pooler may."""
    with psycopg.connect(url, autocommit=True) as sql:
        found = sql.execute(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (classid::bigint << 32) + objid::bigint = %s",
            (lock,),
        ).fetchall()
        assert found == [(True,)]


def wait_until_given_up(url: str) -> None:
    """Wait until PostgreSQL builds no index."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(url, autocommit=True) as sql:
        while sql.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE%%CONCURRENTLY%%' AND state = 'active'"
            " AND datname = current_database()"
        ).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def wait_until_dropped(url: str) -> None:
    """Wait until the columns of the new index are gone."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(url, autocommit=True) as sql:
        while sql.execute(
            "SELECT 1 FROM pg_attribute WHERE attrelid = 'camber.t10001'::regclass AND attname IN ('k2', 'u2')"
        ).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def wait_until_served(server: Server, *, versions: int) -> None:
    """Wait until so many versions of the schema are served."""
    deadline = time.monotonic() + PATIENCE
    while sum(not found.is_joining for found in stored_by(server).schemas) != versions:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_there(server: Server, *, servers: int) -> None:
    """Wait until so many are said to be there. One that stood still may have been taken for gone, until it says its next word."""
    deadline = time.monotonic() + PATIENCE
    while (found := len(stored_by(server).documents["_servers"])) != servers:
        assert time.monotonic() < deadline, f"{found} servers"
        time.sleep(0.02)


def stored_by(server: Server) -> StoredTables:
    with server.backend.database.snapshot() as snapshot:
        return read_stored_tables(snapshot)
