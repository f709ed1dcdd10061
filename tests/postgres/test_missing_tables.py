"""A mutation that needs a table which can't be made: nobody else is refused for that, and the server goes on.

Those that lost to another server wait in the same row as the one that needs the table, and before it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from camber import MutationCtx, define_schema, define_table, mutation, v
from camber.backend import Backend
from camber.database import committer, database
from camber.errors import DatabaseUnreachableError, DatabaseUsageError, StorageError
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage.postgres.storage import PostgresStorage, open_storage
from camber.values import encode_value, parse_json
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Connection, Proxy

PATIENCE = 30.0
OUTAGE_SECONDS = 5.0
POSTGRES_SECONDS = 1.0
"""For how long a server that is cut off waits for PostgreSQL before it gives up what it is about to do."""
NUMBERS = define_table("numbers", {"name": v.string(), "value": v.number()}).index("by_name", ["name"], unique=True)
SCHEMA = define_schema(NUMBERS)
THE_LOOK = "FROM commits WHERE timestamp >= "
THE_NEWS = "FROM commits WHERE timestamp > "


class Server:
    """One server in this process."""

    def __init__(self, url: str, folder: Path, patience: float) -> None:
        self.has_read, self.go = threading.Event(), threading.Event()
        self.runs = 0
        functions = {"numbers:add": mutation(self._add), "posts:add": mutation(_add_post)}
        storage = open_storage(url, create=True, durable=False, patience=patience, handler_seconds=PATIENCE)
        if patience < PATIENCE:
            have_readers(storage, 3)
        self._backend = Backend(
            application_of("missing_tables", SCHEMA, functions),
            storage,
            data=folder,
            settings=Settings(dev=True, database_url=url, mutation_seconds=PATIENCE),
        )
        self._threads = ThreadPoolExecutor(4)

    def call(self, path: str, **args: Any) -> Any:
        return self.start(path, **args).result(PATIENCE)

    def call_until_done(self, path: str, **args: Any) -> Any:
        """The same again and again, for as long as it is refused."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.call(path, **args)
            except DatabaseUnreachableError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def start(self, path: str, **args: Any) -> Future[Any]:
        """Call it in a thread of its own."""
        return self._threads.submit(self._call, path, args)

    def wait_until_waiting(self, count: int) -> None:
        """Return when so many mutations wait for the one that runs."""
        deadline = time.monotonic() + PATIENCE
        while self._backend.database.waiting_mutations < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def close(self) -> None:
        self.go.set()
        self._backend.close()
        self._threads.shutdown()

    def _call(self, path: str, args: dict[str, Any]) -> Any:
        outcome = self._backend.run_sync(path, encode_value(args), OPERATOR)
        if outcome.exception is not None:
            raise outcome.exception
        return parse_json(outcome.value or b"null")

    def _add(self, ctx: MutationCtx, *, name: str, waits: bool = False) -> float:
        found = ctx.db.query(NUMBERS).with_index("by_name", name=name).unique()
        if waits:
            self.runs += 1
            self.has_read.set()
            assert self.go.wait(PATIENCE)
        if found is None:
            ctx.db.insert(NUMBERS, {"name": name, "value": 1.0})
            return 1.0
        ctx.db.patch(NUMBERS, found["_id"], {"value": found["value"] + 1})
        return found["value"] + 1


def have_readers(storage: PostgresStorage, count: int) -> None:
    """Have it connect, however long that takes: later its readers are there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            for snapshot in storage.snapshots(count):
                snapshot.close()
        except StorageError:
            assert time.monotonic() < deadline
        else:
            return


def _add_post(ctx: MutationCtx, *, text: str) -> None:
    ctx.db.insert("posts", {"text": text})


@pytest.fixture(autouse=True)
def _one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits joins the group that runs, however long its members take."""
    monkeypatch.setattr(committer, "MAX_GROUP_SECONDS", PATIENCE)


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def start(postgres_url: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def started(url: str = postgres_url, patience: float = PATIENCE) -> Server:
        servers.append(Server(url, tmp_path, patience))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


def test_who_has_lost_runs_again_although_the_next_one_is_refused_its_table(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, other = start(), start()
    monkeypatch.setattr(database, "MAX_TABLES", 1)  # there are more already

    loser = server.start("numbers:add", name="a", waits=True)
    assert server.has_read.wait(PATIENCE)
    refused = server.start("posts:add", text="there is no such table")
    server.wait_until_waiting(1)
    assert other.call("numbers:add", name="a") == 1
    server.go.set()

    assert loser.result(PATIENCE) == 2
    with pytest.raises(DatabaseUsageError, match="can't be created"):
        refused.result(PATIENCE)
    assert server.runs == 2
    assert other.call("numbers:add", name="a") == 3


def test_a_server_goes_on_when_postgresql_was_gone_as_all_had_lost_and_a_table_was_missing(
    proxy: Proxy, start: Callable[..., Server], postgres_url: str
) -> None:
    """The other server makes the table; this one loses by that, and can't learn of it."""
    server, other = start(proxy.url(postgres_url), POSTGRES_SECONDS), start()

    def be_gone(last: Connection) -> None:
        """From behind the answer to this one on."""
        proxy.refuse()
        for connection in proxy.connections:
            if connection is not last:
                connection.cut()

    arrived, gate = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        arrived.set()
        gate.wait(PATIENCE)

    loser = server.start("numbers:add", name="a", waits=True)
    assert server.has_read.wait(PATIENCE)
    late = server.start("posts:add", text="late")
    server.wait_until_waiting(1)
    gone = proxy.after(THE_NEWS, be_gone)
    # Only the mutations are to learn what the other one has done.
    looks = proxy.before(THE_LOOK, hold, times=1_000_000)
    try:
        assert arrived.wait(PATIENCE)
        other.call("posts:add", text="first")
        server.go.set()
        gone.wait(PATIENCE)
        time.sleep(OUTAGE_SECONDS)  # whatever the server has tried meanwhile has failed
    finally:
        looks.cancel()
        gate.set()
        proxy.refuse(False)
    for each in (loser, late):
        with suppress(StorageError):
            each.result(PATIENCE)

    before = other.call("numbers:add", name="b")
    assert server.call_until_done("numbers:add", name="b") == before + 1
    server.call_until_done("posts:add", text="after")
