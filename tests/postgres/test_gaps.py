"""Where the commit log no longer goes back to what a server knew, it takes nothing for known: no update is lost, nothing stale stays.

That happens to a server that was away for longer than the log is kept: frozen with its machine, or cut off. Here the rows are
dropped by hand meanwhile.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber import (
    MutationCtx,
    QueryCtx,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from camber.backend import Backend
from camber.errors import CommitUnknownError, StorageError
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage import Timestamp, open_storage
from camber.values import encode_value, parse_json
from tests.faults.fleet import Fleet
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Connection, Proxy
from tests.wire.raw_client import RawClient, adding, raw_client
from tests.wire.running_server import REPOSITORY

PATIENCE = 30.0
NUMBERS = define_table("numbers", {"name": v.string(), "value": v.number()}).index("by_name", ["name"], unique=True)
SCHEMA = define_schema(NUMBERS)
THE_LOOK = "FROM commits WHERE timestamp >= "


class Server:
    """One server in this process. Functions that are told to wait do so after they have read, once, until `go` is set."""

    def __init__(self, url: str, folder: Path) -> None:
        self.has_read, self.go = threading.Event(), threading.Event()
        self.runs = 0
        settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE, query_seconds=PATIENCE)
        self.backend = Backend.open(self._application(), folder, settings=settings, create=True)
        self._threads = ThreadPoolExecutor(2)

    def call(self, path: str, **args: Any) -> Any:
        outcome = self.backend.run_sync(path, encode_value(args), OPERATOR)
        if outcome.exception is not None:
            raise outcome.exception
        return parse_json(outcome.value or b"null")

    def start(self, path: str, **args: Any) -> Future[Any]:
        """Call it in a thread of its own."""
        return self._threads.submit(self.call, path, **args)

    def wait_until_it_follows(self) -> None:
        """Return when it can look at the log again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.backend.database.feed.hurry()
            except StorageError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def close(self) -> None:
        self.go.set()
        self._threads.shutdown()
        self.backend.close()

    def _application(self) -> Any:
        def value_of(ctx: QueryCtx, name: str) -> float:
            found = ctx.db.query(NUMBERS).with_index("by_name", name=name).unique()
            return found["value"] if found else 0.0

        def put_above(ctx: MutationCtx, *, name: str, of: str, waits: bool = False) -> float:
            value = value_of(ctx, of) + 1
            if waits:
                self._wait()
            found = ctx.db.query(NUMBERS).with_index("by_name", name=name).unique()
            if found is None:
                ctx.db.insert(NUMBERS, {"name": name, "value": value})
            else:
                ctx.db.patch(NUMBERS, found["_id"], {"value": value})
            return value

        def add(ctx: MutationCtx, *, name: str, waits: bool = False) -> float:
            return put_above(ctx, name=name, of=name, waits=waits)

        def value(ctx: QueryCtx, *, name: str, waits: bool = False) -> float:
            value = value_of(ctx, name)
            if waits:
                self._wait()
            return value

        functions = {
            "numbers:add": mutation(add),
            "numbers:put_above": mutation(put_above),
            "numbers:value": query(value),
        }
        return application_of("gaps", SCHEMA, functions)

    def _wait(self) -> None:
        self.runs += 1
        self.has_read.set()
        assert self.go.wait(PATIENCE)


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def first(proxy: Proxy, postgres_url: str, tmp_path: Path) -> Iterator[Server]:
    """The server that is away for a while; its way to PostgreSQL is by the proxy."""
    server = Server(proxy.url(postgres_url), tmp_path / "first")
    yield server
    server.close()


@pytest.fixture
def other(first: Server, postgres_url: str, tmp_path: Path) -> Iterator[Server]:
    """One that goes on meanwhile."""
    assert first.call("numbers:add", name="there is something")
    server = Server(postgres_url, tmp_path / "other")
    yield server
    server.close()


@pytest.fixture
def forget(postgres_url: str, tmp_path: Path) -> Callable[[], None]:
    """Drop the log but for its last row, as a server does whose clock is far ahead."""

    def forget() -> None:
        storage = open_storage(tmp_path / "forgets", create=False, database_url=postgres_url)
        try:
            storage.forget_commits(Timestamp((1 << 63) - 1))
            assert len(storage.commits_after(Timestamp(0))) == 1
        finally:
            storage.close()

    return forget


@contextmanager
def held_up(proxy: Proxy) -> Iterator[None]:
    """A server that reaches PostgreSQL by the proxy learns nothing of the log while the block lasts; all else it can do."""
    gate, arrived = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        arrived.set()
        gate.wait(PATIENCE)

    strike = proxy.before(THE_LOOK, hold, times=1_000_000)
    try:
        assert arrived.wait(PATIENCE)
        yield
    finally:
        strike.cancel()
        gate.set()


def test_a_mutation_whose_rival_was_forgotten_runs_again(
    first: Server, other: Server, forget: Callable[[], None]
) -> None:
    # What it writes nobody else does: of the rows themselves PostgreSQL would notice that somebody was in the way.
    waiting = first.start("numbers:put_above", name="b", of="a", waits=True)
    assert first.has_read.wait(PATIENCE)
    other.call("numbers:put_above", name="a", of="b")
    other.call("numbers:add", name="c")
    forget()  # of what has happened since the snapshot only the change of c is known
    first.go.set()

    assert waiting.result(PATIENCE) == 2
    assert first.runs == 2
    assert [first.call("numbers:value", name=name) for name in "ab"] == [1, 2]


def test_two_changes_of_one_number_count_both_where_one_was_forgotten(
    first: Server, other: Server, forget: Callable[[], None]
) -> None:
    waiting = first.start("numbers:add", name="a", waits=True)
    assert first.has_read.wait(PATIENCE)
    other.call("numbers:add", name="a")
    other.call("numbers:add", name="b")
    forget()
    first.go.set()

    assert waiting.result(PATIENCE) == 2
    assert first.call("numbers:value", name="a") == other.call("numbers:value", name="a") == 2


def test_a_mutation_with_no_rival_runs_once_as_long_as_nothing_was_forgotten(first: Server, other: Server) -> None:
    waiting = first.start("numbers:add", name="a", waits=True)
    assert first.has_read.wait(PATIENCE)
    other.call("numbers:add", name="b")
    first.go.set()

    assert waiting.result(PATIENCE) == 1
    assert first.runs == 1


def test_results_from_before_the_gap_are_dropped(
    first: Server, other: Server, proxy: Proxy, forget: Callable[[], None]
) -> None:
    assert first.call("numbers:value", name="a") == 0
    with held_up(proxy):
        other.call("numbers:add", name="a")
        other.call("numbers:add", name="b")
        forget()

    assert first.call("numbers:value", name="a") == 1


def test_a_kept_result_is_not_given_out_before_the_log_was_looked_at(
    first: Server, other: Server, proxy: Proxy
) -> None:
    assert first.call("numbers:value", name="a") == 0
    with held_up(proxy):
        other.call("numbers:add", name="a")
        asked = first.start("numbers:value", name="a")
        with pytest.raises(TimeoutError):
            asked.result(0.5)
    assert asked.result(PATIENCE) == 1


@pytest.mark.parametrize("knows_of_it", [False, True], ids=["before the gap is noticed", "after the gap was noticed"])
def test_a_query_that_runs_through_the_gap_leaves_nothing_stale(
    first: Server, other: Server, proxy: Proxy, forget: Callable[[], None], knows_of_it: bool
) -> None:
    running = first.start("numbers:value", name="a", waits=True)
    assert first.has_read.wait(PATIENCE)
    with held_up(proxy):
        other.call("numbers:add", name="a")
        other.call("numbers:add", name="b")
        forget()
        if not knows_of_it:
            first.go.set()
            assert running.result(PATIENCE) == 0  # as it was when it was asked
    if knows_of_it:
        assert first.call("numbers:value", name="b") == 1
        first.go.set()
        assert running.result(PATIENCE) in {0, 1}

    assert first.call("numbers:value", name="a", waits=True) == 1


def test_a_mutation_behind_the_gap_finds_what_was_forgotten_and_drops_what_is_stale(
    first: Server, other: Server, proxy: Proxy, forget: Callable[[], None]
) -> None:
    make_contended(first, other)
    assert first.call("numbers:value", name="a") == 2
    with held_up(proxy):
        other.call("numbers:add", name="a")
        other.call("numbers:add", name="b")
        forget()
        # In a group that has the lock from the start, and learns of the gap by itself.
        assert first.start("numbers:add", name="b").result(PATIENCE) == 2

    assert first.call("numbers:value", name="a") == 3


def make_contended(first: Server, other: Server) -> None:
    """Let a mutation lose to the other server: the groups after it begin with the lock."""
    waiting = first.start("numbers:add", name="a", waits=True)
    assert first.has_read.wait(PATIENCE)
    other.call("numbers:add", name="a")
    first.go.set()
    assert waiting.result(PATIENCE) == 2


def test_a_mutation_that_comes_when_the_database_has_just_been_put_back_is_done(
    first: Server, other: Server, postgres_url: str
) -> None:
    make_contended(first, other)
    with psycopg.connect(postgres_url) as sql:  # to before everything that was committed here
        sql.execute("DELETE FROM camber.commits")
        sql.execute("INSERT INTO camber.commits VALUES (1000, '', 'an older backup')")

    assert first.start("numbers:add", name="b").result(PATIENCE) == 1
    assert first.call("numbers:value", name="b") == other.call("numbers:value", name="b") == 1


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["the log reaches back", "the row was dropped"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_in_doubt_is_settled_only_where_the_log_reaches_back(
    first: Server, other: Server, proxy: Proxy, forget: Callable[[], None], moment: str, is_forgotten: bool
) -> None:
    """Its connection is lost before or after PostgreSQL carries out COMMIT, and others commit before it can be asked."""
    is_stored, lost = moment == "after", threading.Event()
    place = proxy.after if is_stored else proxy.before

    def lose(connection: Connection) -> None:
        proxy.refuse()
        connection.cut()
        lost.set()

    try:
        # The COMMIT behind this insert: servers commit signs of life too.
        proxy.before("INSERT INTO t10001", lambda _: place("COMMIT", lose))
        asked = first.start("numbers:add", name="a")
        assert lost.wait(PATIENCE)
        other.call("numbers:add", name="b")
        other.call("numbers:add", name="b")
        if is_forgotten:
            forget()
        assert not asked.done()
    finally:
        proxy.refuse(False)

    if is_forgotten:
        with pytest.raises(CommitUnknownError, match="its log began later"):
            asked.result(2 * PATIENCE)
    elif is_stored:
        assert asked.result(2 * PATIENCE) == 1
    else:
        with pytest.raises(StorageError, match="took no effect") as refused:
            asked.result(2 * PATIENCE)
        assert not isinstance(refused.value, CommitUnknownError)
    first.wait_until_it_follows()
    assert first.call("numbers:value", name="a") == other.call("numbers:value", name="a") == int(is_stored)
    assert first.call("numbers:add", name="a") == int(is_stored) + 1


class Frozen:
    """Two servers of tests/sync/app, of which one is to be frozen, with a client that watches there."""

    def __init__(self, fleet: Fleet, watcher: RawClient, forget: Callable[[], None]) -> None:
        self.fleet, self.watcher, self._forget = fleet, watcher, forget

    def add(self, server: int, name: str) -> int:
        changes = {"changes": [{"do": "add", "name": name, "by": 1}]}
        with self.fleet.client(self.fleet.servers[server]) as client:
            answer = client.call("board:change", changes)
        assert answer.end == "done", answer
        return answer.value["serial"]

    def total(self, server: int) -> float:
        with self.fleet.client(self.fleet.servers[server]) as client:
            answer = client.call("board:total", {"names": ["a"]}, query=True)
        assert answer.end == "done", answer
        return answer.value

    @contextmanager
    def while_frozen(self) -> Iterator[None]:
        process = self.fleet.servers[0].process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
            self._forget()
        finally:
            os.kill(process.pid, signal.SIGCONT)


@pytest.fixture
def frozen(postgres_url: str, tmp_path: Path, forget: Callable[[], None]) -> Iterator[Frozen]:
    application = REPOSITORY / "tests/sync/app"
    with (
        Fleet(tmp_path, [postgres_url] * 2, application=application) as fleet,
        raw_client(f"http://127.0.0.1:{fleet.servers[0].port}") as watcher,
    ):
        watcher.connect()
        watcher.modify(adding(1, "board:total", names=["a"]), adding(2, "board:serial"))
        watcher.hear_value(1, 0)
        yield Frozen(fleet, watcher, forget)


@pytest.mark.parametrize("asked_first", ["a mutation", "a query", "nothing"])
def test_a_server_that_was_frozen_for_too_long_shows_the_truth_again(frozen: Frozen, asked_first: str) -> None:
    assert frozen.total(0) == 0
    with frozen.while_frozen():
        assert frozen.add(1, "a") == 1
        assert frozen.add(1, "b") == 2
    count = 2
    if asked_first == "a mutation":
        count = frozen.add(0, "b")
        assert count == 3
    if asked_first != "nothing":
        assert frozen.total(0) == 1

    frozen.watcher.hear_value(1, 1)
    frozen.watcher.hear_value(2, count)
    assert "the commit log does not go on from what this server knew" in frozen.fleet.servers[0].printed
    assert frozen.add(0, "a") == count + 1
    frozen.watcher.hear_value(1, 2)
